"""The first stages of the default: race the starts, match Gaussians, tell modes apart."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._compile import quick_jit, worth_preparing
from bbvi._linalg import dot
from bbvi._tree import pick, tree_where
from bbvi._types import Array, PyTree
from bbvi.diagnostics import prepare_diagnose
from bbvi.families import Family, Frame
from bbvi.modes import FAR, VALLEY_NATS, VISIBLE_NATS, WAYPOINTS, apart, valley
from bbvi.solvers import BatchAndMatch
from bbvi.solvers.base import RunLog
from bbvi.solvers.starts import ORIGINS, PATH_EVALUATIONS, Starts, batched, race
from bbvi.target import Target

# Starts that are matched together: the winner of the race need not be in the best mode.
_MATCHED = 3
# ... and how many in all, one after the other where starts lie in valleys that no match is in.
_MOST_MATCHES = 12
# The dimension beyond which a match costs seconds, and only the winner is matched.
_SEVERAL_UP_TO = 256


@quick_jit()
def find_start(target: Target, loc: Array, key: Array, data: PyTree) -> tuple[Frame, Array]:
    """The winner of the race as units to start in, and the gradients spent."""
    starts = race(target, loc, key, data)
    return Frame(starts.loc[0], starts.scale[0]), starts.num_gradients


class Limits(NamedTuple):
    """Limits on the first stages, as arrays, so that a budget compiles nothing.

    Attributes:
        path_evaluations: gradient evaluations of each path of the race.
        match_steps: steps of each match.
    """

    path_evaluations: Any
    match_steps: Any


UNLIMITED = Limits(np.int32(PATH_EVALUATIONS), np.int32(BatchAndMatch().max_steps))


def affordable(target: Target, gradients: float) -> Limits:
    """The limits under which race and match take at most so many gradients.

    A third is for the paths, at least one evaluation of each; the match takes at least a step.
    """
    number = _matched(target.dim)
    if not np.isfinite(gradients):
        return UNLIMITED
    paths = min(PATH_EVALUATIONS, max(1, int(gradients / 3 / ORIGINS)))
    left = gradients - paths * ORIGINS
    steps = max(1, int(left / (number * BatchAndMatch().draws(target.dim))))
    return Limits(np.int32(paths), np.int32(min(steps, UNLIMITED.match_steps)))


def _matched(dim: int) -> int:
    return _MATCHED if dim <= _SEVERAL_UP_TO else 1


def _prepare(target: Target, loc: Array, race_key: Array, match_key: Array, data: PyTree) -> None:
    """Begin to build the programs that every first fit comes through."""
    if not worth_preparing(target, (loc, race_key, data)):
        return
    paths, steps = UNLIMITED
    starts, chosen, _ = race_starts.prepare(target, loc, race_key, data, paths)
    params, *_ = match_several.prepare(target, chosen, starts, match_key, data, steps)
    prepare_diagnose(target, BatchAndMatch().family, params, match_key, data)


class Matches(NamedTuple):
    """Full-rank Gaussians matched from several starts, the best first.

    Attributes:
        frame: the units in which each is standard, with a leading axis.
        elbo: their bounds, nats; -inf where there is none.
        starts: of the race, the best first; None where there was no race.
    """

    frame: Frame
    elbo: Any
    starts: Starts | None = None


def match_modes(
    target: Target,
    loc: Array,
    race_key: Array,
    key: Array,
    data: PyTree,
    gradients: float = np.inf,
) -> tuple[PyTree, RunLog, Matches]:
    """Stages 1 and 2 of `Auto`: from some starts at once, then from those in other valleys.

    Args:
        target: the target.
        loc: the user's point (D,).
        race_key: a typed random key, for the race.
        key: another, for the matches.
        data: the user's data.
        gradients: how many may be spent.

    Returns:
        parameters of the full-rank Gaussian with the best bound, the run so far, and all
        Gaussians matched.
    """
    limits = affordable(target, gradients)
    _prepare(target, loc, race_key, key, data)
    paths, steps = limits
    starts, chosen, elsewhere = race_starts(target, loc, race_key, data, paths)
    params, log, frame, elbo = match_several(target, chosen, starts, key, data, steps)
    starts, elsewhere, frame, elbo = jax.device_get((starts, elsewhere, frame, elbo))
    matches = Matches(frame, elbo, starts)
    waiting = elsewhere & (starts.elbo > starts.elbo[0] - VISIBLE_NATS)
    cost = int(steps) * BatchAndMatch().draws(target.dim)
    while len(matches.elbo) < _MOST_MATCHES and int(log.num_gradients) + cost <= gradients:
        waiting = waiting & apart(starts, *matches[:2])
        index = _in_a_valley_of_its_own(target, matches, starts, waiting, data)
        if index is None:
            break
        # wherever its match ends, those beside it would end there too
        gap = np.linalg.norm((starts.loc - starts.loc[index]) / starts.scale[index], axis=1)
        waiting = waiting & (gap > FAR)
        units = Frame(*map(jnp.asarray, (starts.loc[index], np.diag(starts.scale[index]))))
        key = jax.random.fold_in(key, index)
        another, more, match = match_from(target, units, key, data, limits)
        match = jax.device_get(match)
        spent = log.num_gradients + more.num_gradients, log.num_skipped + more.num_skipped
        if match.elbo[0] > matches.elbo[0]:
            params, log = another, more
        log = log._replace(num_gradients=spent[0], num_skipped=spent[1])
        pair = ((matches.frame, matches.elbo), (match.frame, match.elbo))
        both = jax.tree.map(lambda a, b: np.concatenate([a, b]), *pair)
        frame, elbo = pick(both, np.argsort(-both[1], kind="stable"))
        matches = Matches(frame, elbo, starts)
    return params, log, matches


def _in_a_valley_of_its_own(target, matches, starts, waiting, data) -> int | None:
    for i in np.flatnonzero(waiting).tolist():
        centres = matches.frame.loc
        if all(float(valley(target, starts.loc[i], at, data)) > VALLEY_NATS for at in centres):
            return i
    return None


@quick_jit()
def race_starts(
    target: Target, loc: Array, key: Array, data: PyTree, path_evaluations: Array
) -> tuple[Starts, Frame, Array]:
    """Stage 1 of `Auto`, compiled.

    Returns:
        the starts, units of those few that are to be matched, and a mask (P,) of starts that lie
        in other valleys than the ones that these were compared with.
    """
    starts = race(target, loc, key, data, path_evaluations)
    diverse, elsewhere = _diverse(target, starts, data)
    return starts, Frame(starts.loc[diverse], starts.scale[diverse]), elsewhere


@quick_jit()
def match_several(
    target: Target, chosen: Frame, starts: Starts, key: Array, data: PyTree, max_steps: Array
) -> tuple[PyTree, RunLog, Frame, Array]:
    """Stage 2 of `Auto`, compiled: match from a few starts at once.

    Returns:
        parameters of the full-rank Gaussian with the best bound, the run so far, and units
        and bounds of all Gaussians matched, the best first.
    """
    matched = partial(_match, target, key, data, max_steps)
    mapped = jax.lax.map(matched, chosen) if target.sequential else jax.vmap(matched)(chosen)
    params, elbos, logs = mapped
    elbos = jnp.where(jnp.isfinite(elbos), elbos, -jnp.inf)
    order = jnp.argsort(-elbos)
    units = jax.vmap(BatchAndMatch().family.frame)(params)
    frame, elbo = pick((units, elbos), order)
    params, log = pick((params, logs), order[0])
    raced = BatchAndMatch().family.init(starts.loc[0], starts.scale[0])
    # the matches began there: their bounds are no worse, and those of the race have draws of
    # their own, whose luck must not count
    params = tree_where(jnp.isfinite(elbo[0]), params, raced)
    log = log._replace(
        num_gradients=starts.num_gradients + jnp.sum(logs.num_gradients),
        num_skipped=jnp.sum(logs.num_skipped),
    )
    return params, log, frame, elbo


def _diverse(target: Target, starts: Starts, data: PyTree) -> tuple[Array, Array]:
    """Indices of the best start and of the best ones in other valleys, and which are in yet others.

    Starts that are near one another, or with no valley between them, end in the same mode;
    where there are no others, the next best are taken.
    """
    chosen = [jnp.zeros((), jnp.int32)]
    taken = jnp.arange(starts.elbo.shape[0]) == 0
    near = taken
    for _ in range(_matched(starts.loc.shape[1]) - 1):
        last = chosen[-1]
        gap = jnp.abs(starts.loc - starts.loc[last])
        width = jnp.maximum(starts.scale, starts.scale[last])
        depth = batched(
            lambda z, last=last: valley(target, starts.loc[last], z, data),
            starts.loc,
            target,
            WAYPOINTS + 2,
        )
        near = near | (jnp.linalg.norm(gap / width, axis=1) < FAR) | ~(depth > VALLEY_NATS)
        far = jnp.isfinite(starts.elbo) & ~near
        # argmax takes the first, which is the best, of those that are left
        index = jnp.where(jnp.any(far), jnp.argmax(far), jnp.argmin(taken)).astype(jnp.int32)
        chosen.append(index)
        taken = taken | (jnp.arange(taken.shape[0]) == index)
    return jnp.stack(chosen), ~near


@quick_jit()
def match_from(
    target: Target, frame: Frame, key: Array, data: PyTree, limits: Limits = UNLIMITED
) -> tuple[PyTree, RunLog, Matches]:
    """Stage 2 from one given start, compiled."""
    params, elbo, log = _match(target, key, data, limits.match_steps, frame)
    units = BatchAndMatch().family.frame(params)
    return params, log, Matches(jax.tree.map(lambda x: x[None], units), elbo[None])


@partial(jax.jit, static_argnums=0)
def move(family: Family, draws: Array, log_weights: Array) -> PyTree:
    """The full-rank Gaussian with the moments of weighted draws (S, D): stage 3 of `Auto`.

    Of all Gaussians it is the closest in forward KL(p || q), so it covers the posterior where
    a match, like reverse KL, stays inside.
    """
    weights = jax.nn.softmax(log_weights)
    loc = dot(weights, draws)
    centred = draws - loc
    return family.init(loc, jnp.linalg.cholesky(dot(centred.T * weights, centred)))


def _match(target, key, data, steps, frame):
    solver = BatchAndMatch()
    state = solver.init(target, frame.loc, frame.scale, key, data)
    state = solver.advance(target, state, data, jnp.minimum(steps, solver.max_steps))
    return solver.output(state), state.best.elbo, state.log
