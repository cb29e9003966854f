"""The first stages of many dimensions: a factorised Gaussian, and chains in its units."""

import time
from functools import partial
from typing import Any

import numpy as np

from bbvi._tree import split
from bbvi._types import Array, PyTree
from bbvi.budget import Purse
from bbvi.diagnostics.chains import expected_gradients
from bbvi.diagnostics.trajectories import LONG
from bbvi.families import MeanFieldGaussian
from bbvi.solvers import FixedDraws
from bbvi.solvers.base import RunLog, append, empty_history
from bbvi.solvers.starts import Starts, race
from bbvi.stages.chain_stages import chain_stage
from bbvi.stages.gaussians.gaussian_stages import FirstKeys, and_spent, looked_at
from bbvi.stages.gaussians.match import on_device
from bbvi.stages.gaussians.matching import (
    Matches,
    match_factorised,
    match_factorised_from,
)
from bbvi.stages.judged import judged_stage
from bbvi.stages.stage import Fitted, Job, Show
from bbvi.status import Status
from bbvi.target import Target

# Dimensions from which a match of a dense covariance costs more than chains that need none, and how
# much more than a gradient a product with its factor does there, in elements. (Of six models in
# 750 to 2,300 dimensions these chains took 18 to 97 s of a core, and the match with what followed
# 49 to 380 s. In 403 dimensions a walk needs a dense covariance, and where a gradient costs as much
# as the product, as of answers of 580 people, chains from the match need half as many.)
_WIDE, _DENSER = 512, 2
# ... and to which the states of these chains take up less than a gigabyte.
_WIDEST = 8192
FAMILY = MeanFieldGaussian()
_NAME = "factorised"
_DOUBLINGS = 5  # of chains that go on
_SHARE = 4  # how many times as much as chains take there is to be left


def wide_stages(
    target: Target, loc: Array, keys: FirstKeys, data: PyTree, previous, purse: Purse, show: Show
) -> tuple[list[Fitted], Starts | None]:
    """A factorised Gaussian, and chains in its units, where nothing is dense.

    Args:
        target: the target.
        loc: the user's point (D,).
        keys: typed random keys.
        data: the user's data.
        previous: family and parameters of a previous fit to go on from, or None.
        purse: what may be spent, and is.
        show: makes a stage, and may show that it does.

    Returns:
        the stages, if there are many dimensions and budget for these and for what comes next; and
        starts for that, the best of which is the Gaussian.
    """
    if not _is_wide(target, purse):
        return [], None
    found: list[tuple[Matches, bool]] = []

    def run():
        if previous is None:
            starts = race(target, loc, keys.start, data)
            matches, single, spent = match_factorised(target, starts, loc, keys.match, data)
            spent += starts.num_gradients
        else:
            frame = previous[0].frame(previous[1])
            matches, spent = match_factorised_from(target, frame, keys.match, data)
            single = True
        found.append((matches, single))
        # arrays of the host, as all of its stages have
        counts: Any = map(np.int32, (1, Status.COMPLETED, spent, 0))
        step, status, number, skipped = counts
        bound: Any = matches.elbo[0]
        history = append(empty_history(target.dtype, np), step, bound, np.zeros_like(bound))
        params = FAMILY.init(matches.frame.loc[0], matches.frame.scale[0])
        return on_device(target, params), RunLog(step, status, number, skipped, history)

    args = (_NAME, FixedDraws(FAMILY), FAMILY, target, run, keys.judge, data)
    stage = show(_NAME, partial(judged_stage, *args))
    purse.spend(stage.num_gradients)
    ((matches, single),) = found
    stages = [looked_at(target, matches, keys.start, data, purse, stage)]
    if not single:
        stages[0] = stages[0]._replace(left_out=True)
    elif not stages[0].settled and purse.allows(expected_gradients(target.dim, LONG)):
        job = Job(target, data, purse, show, lambda stage: stage, 1, _DOUBLINGS)
        chains = show(f"chains {_NAME}", partial(_chains, stages[0], job, keys.chains))
        stages.append(looked_at(target, matches, keys.start, data, purse, chains))
    return stages, _with_first(matches)


def _with_first(matches: Matches) -> Starts | None:
    """The starts of a race, if there was one, with the Gaussian that they led to before them."""
    starts = matches.starts
    if starts is None:
        return None
    pairs = zip((*matches.frame, matches.elbo), starts[:3], strict=True)
    loc, scale, elbo = map(np.concatenate, pairs)
    return Starts(loc, scale, elbo, 0, 0)


def _is_wide(target: Target, purse: Purse) -> bool:
    dim = target.dim
    dense = _WIDE < dim <= _WIDEST and dim**2 > _DENSER * target.work
    return dense and purse.gradients > _SHARE * expected_gradients(dim, LONG)


def _chains(stage: Fitted, job: Job, key: Array) -> Fitted:
    """Chains in the units of a factorised Gaussian and, if need be, in those of their states.

    Its sds are those given all else, which a scale that many effects share is far wider than.
    Where a funnel is stiff along such a scale, they are the better units, and chains go on there.
    """
    began = time.perf_counter()
    first_key, moved_key, key = split(key, 3)
    once = chain_stage(stage, job._replace(doublings=0), first_key, extent=LONG)
    if once.settled or not job.purse.allows(expected_gradients(job.target.dim, LONG)):
        return once
    assert once.chains is not None, "chains were run"
    draws = once.chains.draws
    params = on_device(job.target, FAMILY.init(draws.mean(axis=0), draws.std(axis=0)))
    moved = chain_stage(stage, job, moved_key, begin_at=once, where=(FAMILY, params), extent=LONG)
    spent = once.num_gradients
    if not moved.sound:
        spent += moved.num_gradients
        moved = chain_stage(stage, job, key, begun=once.chains, extent=LONG)
    seconds = (time.perf_counter() - began, 0.0)
    return and_spent(moved, spent)._replace(seconds=seconds)
