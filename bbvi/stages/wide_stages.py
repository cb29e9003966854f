"""The first stages of many dimensions: a factorised Gaussian, and chains in its units."""

import time
from functools import partial
from typing import Any

import numpy as np

from bbvi._tree import split
from bbvi._types import Array, PyTree
from bbvi.budget import Purse
from bbvi.diagnostics.chains import expected_gradients
from bbvi.diagnostics.evidence import SETTLED_NOISE, moment_noise
from bbvi.diagnostics.trajectories import LONG
from bbvi.families import Family, MeanFieldGaussian, Noncentred
from bbvi.families.noncentred import stacked
from bbvi.solvers import BatchAndMatch, FixedDraws
from bbvi.solvers.base import RunLog, append, empty_history
from bbvi.solvers.starts import Starts, race
from bbvi.stages.chain_stages import chain_stage
from bbvi.stages.gaussians.gaussian_stages import FirstKeys, looked_at
from bbvi.stages.gaussians.match import on_device
from bbvi.stages.gaussians.matching import (
    Matches,
    match_factorised,
    match_factorised_from,
)
from bbvi.stages.hierarchy.layers import find_layers, most_gradients
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
STRAIGHT = Noncentred(FAMILY)
_NAME = "factorised"
_DOUBLINGS = 5  # of chains that go on
# With how much noise, in sds, chains are let go on for as long again, and twice, before coordinates
# are looked for in which effects do not depend on their scales; up to how many dimensions, and how
# many elements these may have beside those of the log joint. (Of 600 effects of a scale chains
# settled there in 190,000 gradients, and in 2,600,000 in plain ones. In 1,803 dimensions with 900
# hubs a gradient cost ten times as much there, and the look 50 s.)
_SOON, _MOST_STRAIGHT, _FEW_ELEMENTS = 2 * SETTLED_NOISE, 1024, 4
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
    """Chains in the units of a factorised Gaussian, in those of their states, or in straight ones.

    Its sds are those given all else, which a scale that many effects share is far wider than. Where
    a funnel is stiff along such a scale they are the better units, and chains go on there, if there
    are no coordinates in which the effects do not depend on it.
    """
    began = time.perf_counter()
    *keys, straight_key = split(key, 5)
    target, purse = job.target, job.purse
    run = partial(chain_stage, stage, extent=LONG)
    shortly, spent = job._replace(doublings=0), 0
    done = [run(shortly, keys[0])]
    if not done[0].settled and purse.allows(expected_gradients(target.dim, LONG)):
        (once,) = done
        draws = _states(once)
        own = FAMILY, on_device(target, FAMILY.init(draws.mean(axis=0), draws.std(axis=0)))
        moved = run(shortly, keys[1], begin_at=once, where=own)
        done.append(moved)
        straight = None
        if not moved.sound or moment_noise(moved.diagnostics).max() > _SOON:
            straight, spent = _straight(moved, job, straight_key)
        if straight is not None:
            done.append(run(job, keys[2], begin_at=moved, where=straight))
        elif not moved.settled:
            done.append(run(job, keys[2], begun=moved.chains, where=own))
            if not done[-1].sound:
                done.append(run(job, keys[3], begun=once.chains))
    return done[-1]._replace(
        num_gradients=spent + sum(each.num_gradients for each in done),
        seconds=(time.perf_counter() - began, 0.0),
    )


def _straight(stage: Fitted, job: Job, key: Array) -> tuple[tuple[Family, PyTree] | None, int]:
    """Coordinates in which effects do not depend on their scales, in units of states there.

    Returns:
        family and parameters, None where there are no effects; and the gradients spent.
    """
    target, purse, draws = job.target, job.purse, _states(stage)
    if target.dim > _MOST_STRAIGHT or not purse.allows(most_gradients(target.dim)):
        return None, 0
    rows = BatchAndMatch().draws(target.dim)
    found = find_layers(target, draws.mean(axis=0), draws.std(axis=0), key, job.data, rows)
    purse.spend(found.num_gradients)
    size = sum(layer.lead.size + layer.basis.size for layer in found.layers)
    if not found.layers or found.endless or size > _FEW_ELEMENTS * target.work:
        return None, found.num_gradients
    with np.errstate(all="ignore"):
        y: Any = found.straighten(np.asarray(draws, float))
    base = FAMILY.init(y.mean(axis=0), y.std(axis=0))
    params = STRAIGHT.join(base, found.tails, stacked(found.layers))
    return (STRAIGHT, on_device(target, params)), found.num_gradients


def _states(stage: Fitted) -> Any:
    """Of its chains (S, D)."""
    assert stage.chains is not None, "chains were run"
    return stage.chains.draws
