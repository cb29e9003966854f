"""The first stages of the default: race the starts, match Gaussians, tell modes apart.

They run on the host. What is compiled are evaluations of the log density alone, at three shapes:
a first fit would wait for the compiler of the rest longer than the rest takes numpy.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._compile import worth_preparing
from bbvi._tree import pick, split
from bbvi._types import AnyArray, Array, PyTree
from bbvi.diagnostics.fresh_draws import prepare_diagnose
from bbvi.evaluate import densities, generator, paired_normals, scores
from bbvi.families import Frame
from bbvi.solvers import BatchAndMatch
from bbvi.solvers.base import RunLog
from bbvi.solvers.factorised import DRAWS as FACTORISED_DRAWS
from bbvi.solvers.factorised import EVALUATIONS, factorised
from bbvi.solvers.starts import CANDIDATES, DRAWS, ORIGINS, PATH_EVALUATIONS, UNEVEN, Starts, race
from bbvi.stages.gaussians.match import Match, match_target, on_device
from bbvi.stages.gaussians.modes import FAR, VALLEY_NATS, VISIBLE_NATS, apart, valley, valleys
from bbvi.target import Target

# Starts that are matched first: the winner of the race need not be in the best mode.
_MATCHED = 3
# ... or how many are looked at by factorised Gaussians first, where a match is expensive
_FACTORISED = 2
# ... and how many in all, one after the other where starts lie in valleys that no match is in.
_MOST_MATCHES = 12
# The dimension beyond which a match costs seconds: from two starts factorised Gaussians are fitted
# first, and the better one is matched. From the user's point 500 groups took three matches to pass
# the winner of the race, a plateau where their scale is zero, and end 35 nats above all that came
# from there; abilities of 1,500 people took 33 matches of nine seconds, and take five.
_SEVERAL_UP_TO = 256


def find_start(target: Target, loc: Array, key: Array, data: PyTree) -> tuple[Frame, int]:
    """The winner of the race as units to start in, and the gradients spent."""
    starts = race(target, loc, key, data)
    return Frame(jnp.asarray(starts.loc[0]), jnp.asarray(starts.scale[0])), starts.num_gradients


class Limits(NamedTuple):
    """Limits on the first stages.

    Attributes:
        path_evaluations: gradient evaluations of each path of the race.
        factorised_evaluations: of each factorised bound, where matches are expensive.
        match_steps: steps of each match.
    """

    path_evaluations: int
    factorised_evaluations: int
    match_steps: int


UNLIMITED = Limits(PATH_EVALUATIONS, EVALUATIONS, BatchAndMatch().max_steps)


def affordable(target: Target, gradients: float) -> Limits:
    """The limits under which race and match take at most so many gradients.

    A third is for the paths, at least one evaluation of each; of what is left half is for
    factorised Gaussians, where there are any; the match takes at least a step.
    """
    if not np.isfinite(gradients):
        return UNLIMITED
    paths = min(PATH_EVALUATIONS, max(1, int(gradients / 3 / ORIGINS)))
    left = gradients - paths * ORIGINS
    several = target.dim <= _SEVERAL_UP_TO
    each = _FACTORISED * FACTORISED_DRAWS
    evaluations = 0 if several else min(EVALUATIONS, int(left / 2 / each))
    matched = (left - evaluations * each) / (_MATCHED if several else 1)
    steps = max(1, int(matched / BatchAndMatch().draws(target.dim)))
    return Limits(paths, evaluations, min(steps, UNLIMITED.match_steps))


def _prepare(target: Target, key: Array, data: PyTree) -> None:
    """Begin to build the programs that every first fit comes through."""
    if not worth_preparing(target, data):
        return
    dim, dtype, solver = target.dim, target.dtype, BatchAndMatch()
    vector = jax.ShapeDtypeStruct((dim,), dtype)
    rows = partial(jax.ShapeDtypeStruct, dtype=dtype)
    scores.prepare(target, rows((ORIGINS, dim)), data)
    densities.prepare(target, rows((CANDIDATES, DRAWS, dim)), data)
    if dim > _SEVERAL_UP_TO:
        scores.prepare(target, rows((_FACTORISED * FACTORISED_DRAWS, dim)), data)
    scores.prepare(target, rows((solver.draws(dim), dim)), data)
    params = jax.eval_shape(solver.family.init, vector, vector)
    prepare_diagnose(target, solver.family, params, key, data)


class Factorised(NamedTuple):
    """The best of some factorised Gaussians.

    Attributes:
        frame: loc and scale (D,).
        bound: its bound, nats.
        fit: others, their bounds and the gradients spent, from other places on the same draws.
        num_gradients: gradient evaluations spent.
    """

    frame: Frame
    bound: float
    fit: Callable[[Frame], tuple[Frame, np.ndarray, int]]
    num_gradients: int


class Matches(NamedTuple):
    """Full-rank Gaussians matched from several starts, the best first.

    Attributes:
        frame: the units in which each is standard, with a leading axis.
        elbo: their bounds, nats; -inf where there is none.
        starts: of the race, the best first; None where there was no race.
    """

    frame: Frame
    elbo: AnyArray
    starts: Starts | None = None


def match_modes(
    target: Target,
    loc: Array,
    race_key: Array,
    key: Array,
    data: PyTree,
    gradients: float = np.inf,
    starts: Starts | None = None,
) -> tuple[PyTree, RunLog, Matches]:
    """Stages 1 and 2 of `Auto`: from some starts at once, then from those in other valleys.

    Args:
        target: the target.
        loc: the user's point (D,).
        race_key: a typed random key, for the race.
        key: another, for the matches.
        data: the user's data.
        gradients: how many may be spent.
        starts: of a race that has been run; None runs one.

    Returns:
        parameters of the full-rank Gaussian with the best bound, the run so far, and all
        Gaussians matched.
    """
    limits = affordable(target, gradients)
    _prepare(target, key, data)
    if starts is None:
        starts = race(target, loc, race_key, data, limits.path_evaluations)

    def matched(at, key):
        return match_target(target, at, key, data, limits.match_steps, starts.elbo[0] + UNEVEN)

    chosen, elsewhere = _diverse(target, starts, loc, data)
    places = [Frame(starts.loc[i], starts.scale[i]) for i in chosen]
    spent = starts.num_gradients
    begun = None
    if target.dim > _SEVERAL_UP_TO:
        begun = _factorised(target, places, key, data, limits.factorised_evaluations)
        places = [begun.frame]
        spent += begun.num_gradients
    found = [matched(at, key) for at in places]
    spent += sum(int(m.log.num_gradients) for m in found)
    if begun is not None and 2 * spent <= gradients:
        other, more = _another_mode(target, _together(found, starts), begun, data)
        spent += more
        if other is not None:
            found.append(matched(other, key))
            spent += int(found[-1].log.num_gradients)
    waiting = elsewhere & (starts.elbo > starts.elbo[0] - VISIBLE_NATS)
    cost = limits.match_steps * BatchAndMatch().draws(target.dim)
    while len(found) < _MOST_MATCHES and spent + cost <= gradients:
        matches = _together(found, starts)
        waiting = waiting & apart(starts, *matches[:2])
        index = _in_a_valley_of_its_own(target, matches, starts, waiting, data)
        if index is None:
            break
        # wherever its match ends, those beside it would end there too
        gap = np.linalg.norm((starts.loc - starts.loc[index]) / starts.scale[index], axis=1)
        waiting = waiting & (gap > FAR)
        units = Frame(starts.loc[index], starts.scale[index])
        key = jax.random.fold_in(key, index)
        found.append(matched(units, key))
        spent += int(found[-1].log.num_gradients)
    # of equal ones the first
    best = max(found, key=lambda m: m.elbo)
    skipped = sum(int(m.log.num_skipped) for m in found)
    log = best.log._replace(num_gradients=np.int32(spent), num_skipped=np.int32(skipped))
    params = best.params
    if not np.isfinite(best.elbo):
        # the matches began there: their bounds are no worse, and those of the race have draws
        # of their own, whose luck must not count
        params = BatchAndMatch().family.init(starts.loc[0], starts.scale[0])
    return on_device(target, params), log, _together(found, starts)


def match_factorised(
    target: Target, starts: Starts, loc: Array, key: Array, data: PyTree
) -> tuple[Matches, bool, int]:
    """The best factorised Gaussian from starts of a race, in place of a match.

    Args:
        target: the target.
        starts: of the race.
        loc: the user's point (D,).
        key: a typed random key.
        data: the user's data.

    Returns:
        it, with its sds (1, D) for a factor, whether it is of the one mode that matters, and the
        gradients spent.
    """
    chosen, _ = _diverse(target, starts, loc, data)
    places = [Frame(starts.loc[i], starts.scale[i]) for i in chosen]
    begun = _factorised(target, places, key, data, EVALUATIONS)
    matches = _alone(begun, starts)
    other, spent = _another_mode(target, matches, begun, data)
    return matches, other is None, begun.num_gradients + spent


def match_factorised_from(
    target: Target, frame: Frame, key: Array, data: PyTree
) -> tuple[Matches, int]:
    """The same from one given start, of which the sds are taken."""
    loc, scale = map(np.asarray, frame)
    if scale.ndim == 2:
        scale = np.linalg.norm(scale, axis=1)
    places = [Frame(loc, scale)] * _FACTORISED  # of a shape for which there is a program
    begun = _factorised(target, places, key, data, EVALUATIONS)
    return _alone(begun, None), begun.num_gradients


def _alone(begun: Factorised, starts: Starts | None) -> Matches:
    frame = Frame(begun.frame.loc[None], begun.frame.scale[None])
    return Matches(frame, np.array([begun.bound]), starts)


def _factorised(target, places: list[Frame], key, data, evaluations: int) -> Factorised:
    noise = generator(split(key, 1)[0])
    eps = paired_normals(noise, FACTORISED_DRAWS, target.dim)

    def fit(at):
        return factorised(target, at, eps, data, evaluations)

    fitted, bounds, spent = fit(Frame(*map(np.stack, zip(*places, strict=True))))
    best = int(np.argmax(bounds))
    return Factorised(pick(fitted, best), float(bounds[best]), fit, spent)


def _together(found: list[Match], starts: Starts | None) -> Matches:
    order = np.argsort([-m.elbo for m in found], kind="stable")
    units = [BatchAndMatch().family.frame(found[i].params) for i in order]
    frame = jax.tree.map(lambda *x: np.stack(x), *units)
    return Matches(frame, np.array([found[i].elbo for i in order]), starts)


def _another_mode(
    target: Target, matches: Matches, begun: Factorised, data: PyTree
) -> tuple[Frame | None, int]:
    """A factorised Gaussian of another mode that matters beside the first; and what it cost.

    Where matches are expensive there is but one, and in many dimensions the bounds of the race say
    little of its starts: of topics, which can be named either way, one way was trusted.
    """
    starts, centre = matches.starts, matches.frame.loc[0]
    assert starts is not None, "matches of a race have its starts"
    elsewhere = apart(starts, *matches[:2])
    elsewhere &= valleys(target, centre, starts.loc, data) > VALLEY_NATS
    chosen = np.flatnonzero(elsewhere)[:_FACTORISED]
    if not len(chosen):
        return None, 0
    chosen = np.resize(chosen, _FACTORISED)  # of a shape for which there is a program
    fitted, bounds, spent = begun.fit(Frame(starts.loc[chosen], starts.scale[chosen]))
    best = int(np.argmax(bounds))
    if not bounds[best] >= begun.bound - VISIBLE_NATS:
        return None, spent
    if not valley(target, centre, fitted.loc[best], data) > VALLEY_NATS:
        return None, spent
    return pick(fitted, best), spent


def _in_a_valley_of_its_own(target, matches, starts, waiting, data) -> int | None:
    for i in np.flatnonzero(waiting).tolist():
        centres = matches.frame.loc
        if all(valley(target, starts.loc[i], at, data) > VALLEY_NATS for at in centres):
            return i
    return None


def _diverse(
    target: Target, starts: Starts, user: AnyArray, data: PyTree
) -> tuple[list[int], np.ndarray]:
    """The best start and the best ones in other valleys, and a mask of those in yet others.

    Starts that are near one another, or with no valley between them, end in the same mode; where
    there are no others, the next best are taken. In many dimensions, where the curvature along a
    path says little, it is the user's point instead.
    """
    chosen = [0]
    near = np.arange(len(starts.elbo)) == 0
    several = target.dim <= _SEVERAL_UP_TO
    for _ in range((_MATCHED if several else _FACTORISED) - 1):
        last = chosen[-1]
        gap = np.abs(starts.loc - starts.loc[last])
        width = np.maximum(starts.scale, starts.scale[last])
        near |= np.linalg.norm(gap / width, axis=1) < FAR
        if not near.all():
            near |= ~(valleys(target, starts.loc[last], starts.loc, data) > VALLEY_NATS)
        if not several:
            first = (starts.loc == np.asarray(user)).all(1) & (starts.scale == 1).all(1)
        else:
            first = np.isfinite(starts.elbo) & ~near
        # the first is the best, of those that are left
        others = [*np.flatnonzero(first), *range(len(near))]
        chosen.append(next(int(i) for i in others if i not in chosen))
    return chosen, ~near


def match_from(
    target: Target, frame: Frame, key: Array, data: PyTree, limits: Limits = UNLIMITED
) -> tuple[PyTree, RunLog, Matches]:
    """Stage 2 from one given start."""
    match = match_target(target, frame, key, data, limits.match_steps)
    return on_device(target, match.params), match.log, _together([match], None)
