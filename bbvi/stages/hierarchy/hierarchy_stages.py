"""Stages of the default in coordinates in which effects do not depend on their scales."""

import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from bbvi._tree import split
from bbvi._types import AnyArray, Array, PyTree
from bbvi.diagnostics.chains import expected_gradients
from bbvi.diagnostics.evidence import efficiency
from bbvi.families import Frame, Noncentred
from bbvi.families.noncentred import stacked
from bbvi.solvers import BatchAndMatch
from bbvi.stages.chain_stages import chain_stage
from bbvi.stages.gaussians.gaussian_stages import MOST_MOVES, UNEVEN, and_spent, moves
from bbvi.stages.gaussians.match import match_to, move, on_device
from bbvi.stages.gaussians.matching import affordable
from bbvi.stages.hierarchy.laplace import FAMILY as GIVEN
from bbvi.stages.hierarchy.laplace import ScaleCoordinates, normal_given_scales
from bbvi.stages.hierarchy.layers import find_layers, most_gradients
from bbvi.stages.judged import judged_closer, judged_stage
from bbvi.stages.stage import Fitted, Job

FAMILY = Noncentred()
# With how many effective draws, as a share of an exact fit's, short chains may settle at once.
_AT_ONCE = 0.08


class Hierarchy(NamedTuple):
    """What came of it.

    Attributes:
        stages: none where there are no effects.
        num_gradients: what it took to find that out.
        endless: names of scales along which the density does not fall.
    """

    stages: list[Fitted]
    num_gradients: int
    endless: tuple[str, ...] = ()


def hierarchy_stages(gaussian: Fitted, job: Job, key: Array) -> Hierarchy:
    """A Gaussian and its moves in coordinates that gradients have told.

    In plain ones the neck of a hierarchy is out of reach of draws and of chains, and what they miss
    moves the scale's mean by a tenth of its sd. Of 36 fits of centred hierarchies whose moments are
    known by quadrature 31 were right without this, six of these rejected, and three were wrong and
    trusted, at 300,000 to 1,700,000 gradients. With it all are right, within half of what counts as
    that, and trusted, at 9,000 to 150,000.

    Args:
        gaussian: a Gaussian in plain coordinates.
        job: what stages share.
        key: a typed random key.
    """
    target, data, purse, show, look, *_ = job
    find_key, match_key, judge_key, *move_keys = split(key, 3 + MOST_MOVES)
    if not purse.allows(most_gradients(target.dim)):
        return Hierarchy([], 0)
    began = time.perf_counter()
    loc, scale = (np.asarray(x, float) for x in gaussian.frame)
    unit = np.sqrt(np.sum(scale**2, axis=1))
    if not np.isfinite([loc, unit]).all():
        return Hierarchy([], 0)
    solver = BatchAndMatch()
    x = find_layers(target, loc, unit, find_key, data, solver.draws(target.dim))
    purse.spend(x.num_gradients)
    if not x.layers or x.endless:
        return Hierarchy([], x.num_gradients, x.endless)
    layers = stacked(x.layers)
    found_in = time.perf_counter() - began

    def run():
        effects = np.any(layers.power != 0, axis=0)
        start = Frame(np.where(effects, 0, x.centre), x.unit)
        steps = affordable(target, purse.gradients).match_steps
        found = match_to(x.score, start, target.dtype, match_key, steps)
        return on_device(target, FAMILY.join(found.params, x.tails, layers)), found.log

    def to(draws: AnyArray, log_weights: AnyArray) -> PyTree:
        with np.errstate(all="ignore"):
            straight = x.straighten(np.asarray(draws, float))
        return FAMILY.join(move(FAMILY.base, straight, log_weights), x.tails, layers)

    args = ("noncentred", solver, FAMILY, target, run, judge_key, data)
    first = and_spent(show("noncentred", partial(judged_stage, *args)), x.num_gradients)
    purse.spend(first.num_gradients - x.num_gradients)
    first = first._replace(seconds=(first.seconds[0] + found_in, first.seconds[1]))
    first = look(first)
    if _is_enough(first):
        return Hierarchy([first], 0)
    stages = _closer(
        job, judge_key, [first, *map(look, moves(target, first, move_keys, data, show, to))]
    )
    if _is_enough(stages[-1]):
        return Hierarchy(stages, 0)
    given = []
    if x.normal:
        given = _given_scales(x, loc, unit, job, jax.random.fold_in(find_key, 1))
    stages += given
    best = max(stages, key=lambda s: s.diagnostics.ess)
    if given and best.settled:
        return Hierarchy([*(s for s in stages if s is not best), best], 0)
    return Hierarchy(stages, 0)


def hierarchy_chains(
    stages: list[Fitted],
    gaussian: Fitted,
    job: Job,
    key: Array,
    begun: Sequence[Fitted] = (),
) -> list[Fitted]:
    """Short chains from the best of such stages, where its draws are better than before.

    How much better tells little where few count: of curves of a mean and of its log noise it was
    1.4 times on two keys of four, and all settled so, which in plain coordinates none did.

    Args:
        stages: in coordinates in which effects do not depend on their scales.
        gaussian: a Gaussian in plain ones.
        job: what stages share.
        key: a typed random key.
        begun: what `first_hierarchy_chains` of the same gave.
    """
    best = _better(stages, gaussian)
    if best is None or not job.purse.allows(expected_gradients(job.target.dim)):
        return []
    run = partial(chain_stage, best, job, key, begun=begun[0].chains if begun else None)
    return [job.look(job.show(f"chains {best.name}", run))]


def first_hierarchy_chains(
    stages: list[Fitted], gaussian: Fitted, job: Job, key: Array
) -> list[Fitted]:
    """The same as far as they come at once, where enough draws count.

    Of 13 models they settled eight, at 40,000 to 60,000 gradients; a look for hyperparameters takes
    more, and in 150 dimensions a minute. Of 12 in which fewer draws count they settled one.
    """
    best = _better(stages, gaussian)
    if best is None or efficiency(best.diagnostics) < _AT_ONCE:
        return []
    return hierarchy_chains(stages, gaussian, job._replace(doublings=0), key)


def _better(stages: list[Fitted], gaussian: Fitted) -> Fitted | None:
    """The best of them, if its draws are better than the Gaussian's."""
    best = max(stages, key=lambda s: s.diagnostics.ess, default=gaussian)
    return best if best.diagnostics.ess > gaussian.diagnostics.ess else None


def _given_scales(x, loc, unit, job, key) -> list[Fitted]:
    """A Gaussian and its moves where all else is normal given the scales, if it can be."""
    target, data, purse, show, look, *_ = job
    match_key, judge_key, *move_keys = split(key, 2 + MOST_MOVES)
    rows, before = BatchAndMatch().draws(target.dim), x.num_gradients
    given = normal_given_scales(x, target, loc, unit, data, rows)
    if given is None:
        return []
    solver = BatchAndMatch()
    at = ScaleCoordinates(target, data, given, loc, unit, rows)
    spent = x.num_gradients - before + at.num_gradients

    def run():
        steps = affordable(target, purse.gradients).match_steps
        found = match_to(at.score, at.start, target.dtype, match_key, steps)
        return at.join(on_device(target, found.params)), found.log

    def to(draws: AnyArray, log_weights: AnyArray) -> PyTree:
        return at.join(move(GIVEN.base, at.straighten(draws), log_weights))

    args = ("given scales", solver, GIVEN, target, run, judge_key, data)
    found = and_spent(show("given scales", partial(judged_stage, *args)), spent)
    purse.spend(found.num_gradients)
    found = look(found)
    stages = [found]
    if not _is_enough(found):
        stages += map(look, moves(target, found, move_keys, data, show, to))
    return _closer(job, judge_key, stages)


def _closer(job: Job, key: Array, stages: list[Fitted]) -> list[Fitted]:
    """The same, the best of them last, judged on more draws where that may settle it."""
    best = max(stages, key=lambda s: s.diagnostics.ess)
    closer = judged_closer(job.target, key, job.data, best)
    closer = best if closer is best else job.look(closer)
    return [*(s for s in stages if s is not best), closer]


def _is_enough(stage: Fitted) -> bool:
    """Whether it settles, and by more than a few of its draws."""
    return stage.settled and efficiency(stage.diagnostics) >= UNEVEN
