"""Short Hamiltonian chains from an approximation: a check, and a correction, without weights."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._compile import quick_jit
from bbvi._linalg import einsum
from bbvi._tree import split
from bbvi._types import AnyArray, Array, PyTree
from bbvi.diagnostics.moments import Moments, with_tail_errors
from bbvi.diagnostics.pareto import largest_terms, tail_shape
from bbvi.diagnostics.trajectories import LENGTH, Extent, advance, many
from bbvi.evaluate import generator
from bbvi.families import Family
from bbvi.target import Target

# Steps of a trajectory, in those that an exact approximation needs: where even more are asked
# for, the approximation is too far off for chains to be of use.
_MOST_LEAPS = 4
# Where too many trajectories diverge all the same: rejections fall with the fourth power of a leap.
_SHORTER = 0.5
_ERRORS = 2.0  # standard errors


class Course(NamedTuple):
    """Where chains have been, in the base space.

    Attributes:
        first: (chains, D) where they began.
        path: (W, chains, D) states since, evenly spaced in time.
        apart: trajectories from one state to the next.
        stride: of a leap.
    """

    first: Array
    path: Array
    apart: int
    stride: Array


class Chains(NamedTuple):
    """What short chains found, as NumPy arrays but for the course.

    Attributes:
        number: how many chains there were, of one round or of several.
        draws: (S, D) their states after settling, unconstrained.
        moments: of the scalar parameters, with errors from the spread between chains.
        memory: (C,) correlation of each scalar between the first and the last state of a chain.
        persistence: (C,) correlation between the means of a chain's first and second half, after
            settling: of each scalar or, if larger, of its distance from the mean.
        drift: (2, C) how far mean and sd moved between the halves of the kept states, in sds.
        drift_se: (2, C) Monte Carlo error of that.
        acceptance: mean acceptance probability, of the trajectories since last looked at.
        divergent_share: share of these that left the region where they are stable.
        num_gradients: gradient evaluations of the log joint.
        course: of one set of chains, which can go on from there; None of several.
        weighted_noise: largest error of a moment, in sds, under the importance weights of what they
            began from, where it is known.
        start_error: how far off they may have begun at least, in sds, whatever they have moved.
        began: moments of what they began from, where that is not the approximation itself.
        paces: the powers to which persistence was raised the last two times that they went on for
            as long again: 2 if what is left has one time scale, 1 if that brought nothing.
    """

    number: int
    draws: AnyArray
    moments: Moments
    memory: AnyArray
    persistence: AnyArray
    drift: AnyArray
    drift_se: AnyArray
    acceptance: AnyArray
    divergent_share: AnyArray
    num_gradients: AnyArray
    course: Course | None = None
    weighted_noise: float = math.inf
    start_error: float = 0.0
    began: Moments | None = None
    paces: tuple[float, float] = (2.0, 2.0)


def expected_gradients(dim: int, extent: Extent | None = None) -> int:
    """What `run_chains` spends on an exact approximation, roughly."""
    return _gradients(extent or many(dim), _leaps(dim) + 1)


def affordable_leaps(dim: int, gradients: float, extent: Extent | None = None) -> np.int32:
    """The steps of a trajectory with which `run_chains` spends at most so many gradients."""
    most = _MOST_LEAPS * _leaps(dim)
    return np.int32(min(most, max(1, gradients / _gradients(extent or many(dim), 1) - 1)))


def share_left(persistence: np.ndarray, doublings: int = 0, pace: float = 2.0) -> np.ndarray:
    """What is left of an error of the start in the moments of what is kept, as a share (C,).

    Chains have several time scales, and the slowest is last: what was lost while they settled
    may all be of the fast ones. Only the fall from half to half counts, which the slowest has
    brought about. (Of a posterior with clusters of bends, halves twice as long were correlated by
    0.4 again, and twice again, and moments 0.2 sd off, of which 0.03 were foreseen otherwise.)

    Args:
        persistence: (C,) from half to half.
        doublings: after chains have gone on so often, for as long again as until then.
        pace: the power to which each time raises it.
    """
    return np.clip(persistence, 0, 0.99) ** pace**doublings


def _pace(before: np.ndarray, after: np.ndarray, number: int) -> float:
    """The power to which the largest persistence was raised, or a higher one by noise."""
    most, now = np.clip([np.max(before), np.max(after)], 1e-3, 0.99)
    least = max(now - _ERRORS * (1 - now**2) / number**0.5, 1e-3)
    return float(np.clip(math.log(least) / math.log(most), 1.0, 2.0))


def _leaps(dim: int) -> int:
    return math.ceil(LENGTH * dim**0.25)


def _gradients(extent: Extent, leaps: int) -> int:
    return extent.chains * leaps * extent.states


def run_chains(
    target: Target,
    family: Family,
    params: PyTree,
    key: Array,
    data: PyTree,
    most_leaps: Any,
    first: Array | None = None,
    extent: Extent | None = None,
) -> Chains:
    """Run Hamiltonian chains in the base space of an approximation, from its own draws.

    The target seen from there (see `bbvi.diagnostics.base_space.standardised`) is the standard
    normal if the approximation is exact. The nearer it is, the longer are the steps that chains can
    take; the step size follows the acceptance while they settle. Chains that forget where they
    began have left behind what was wrong with the approximation.

    Args:
        target: the target.
        family: a family whose draws are a one-to-one function of D base normals.
        params: its parameters.
        key: a typed random key.
        data: the user's data.
        most_leaps: limit on the steps of a trajectory; see `affordable_leaps`.
        first: where they begin instead (chains, D), in the base space.
        extent: how many they are, and how long; many by default.

    Returns:
        what they found, as NumPy arrays but for the course.

    Source: Hoffman et al. 2019 (arXiv:1903.03704) for chains in the base space; Wang, Kasprzak
    and Huggins 2023 (AISTATS, "TADDAA") for short chains as a check.
    """
    dim = target.dim
    extent = extent or many(dim)
    start_key, key = split(key, 2)
    if first is None:
        first = jnp.asarray(
            generator(start_key).standard_normal((extent.chains, dim)), target.dtype
        )
    stride = jnp.full((), dim**-0.25, target.dtype)
    settling, times = np.int32(extent.settling), np.arange(extent.states, dtype=np.int32)
    args = (target, family, params, key, data, most_leaps, first, stride, settling, times)
    seen = advance(*args)
    course = Course(first, seen.path, 1, seen.stride)
    return _found(target, family, params, data, course, [seen], 0)


def go_on(
    target: Target,
    family: Family,
    params: PyTree,
    chains: Chains,
    key: Array,
    data: PyTree,
    most_leaps: Any,
    shorter: bool = False,
) -> Chains:
    """The same chains after as many trajectories again; every other state is kept.

    Args:
        target: the target.
        family: as in `run_chains`.
        params: its parameters.
        chains: the chains.
        key: a typed random key.
        data: the user's data.
        most_leaps: limit on the steps of a trajectory.
        shorter: in steps of half the length, of which fewer diverge.
    """
    assert chains.course is not None, "pooled chains cannot go on"
    first, path, apart, stride = chains.course
    stride = stride * _SHORTER if shorter else stride
    segments = []
    state, times = path[-1], np.arange(len(path), dtype=np.int32)
    for segment_key in split(key, apart):
        args = (target, family, params, segment_key, data, most_leaps, state, stride)
        segments.append(advance(*args, np.int32(0), times))
        state = segments[-1].path[-1]
    every = 2 * apart
    paths = [path[1::2], *(seen.path[every - 1 :: every] for seen in segments)]
    course = Course(first, jnp.concatenate(paths), every, stride)
    found = _found(target, family, params, data, course, segments, int(chains.num_gradients))
    pace = _pace(chains.persistence, found.persistence, len(first))
    return found._replace(paces=(chains.paces[1], pace))


def _found(target, family, params, data, course, segments, spent) -> Chains:
    """What a course amounts to; acceptance and divergences are those of the segments."""
    seen = jax.device_get([s._replace(path=None) for s in segments])
    summary = jax.device_get(_describe(target, family, params, course.first, course.path, data))
    draws, moments, memory, persistence, drift, drift_se, largest = summary
    shape = tail_shape(largest[None], len(draws))
    moments = with_tail_errors(moments, shape, len(draws))
    return Chains(
        len(course.first),
        draws,
        moments,
        memory,
        persistence,
        drift,
        drift_se,
        acceptance=np.mean([s.acceptance for s in seen]),
        divergent_share=np.mean([s.divergent_share for s in seen]),
        num_gradients=np.asarray(spent + sum(int(s.num_gradients) for s in seen)),
        course=course,
    )


@quick_jit(0, (0, 1))
def _describe(
    target: Target, family: Family, params: PyTree, first: Array, path: Array, data: PyTree
) -> tuple:
    """Draws after settling, moments, memory, persistence, drift and its error, largest squares."""

    def place(eps):
        return family.reparam(params, eps)[0]

    def scalars(z):
        return jax.vmap(lambda z: target.scalars(target.constrain(z, data)))(z)

    draws = jax.lax.map(place, path[Extent(*path.shape[1::-1]).settling :])
    x, x0 = jax.lax.map(scalars, draws), scalars(place(first))
    moments, persistence, drift, drift_se = _summarise(x)
    units = (x - moments.mean) / jnp.maximum(moments.sd, jnp.finfo(x.dtype).tiny)
    squares = units.reshape(-1, x.shape[-1]).T ** 2
    largest = largest_terms(squares, squares.shape[1])
    memory = _correlation(x0, x[-1])
    return draws.reshape(-1, target.dim), moments, memory, persistence, drift, drift_se, largest


def pool(one: Chains, other: Chains) -> Any:
    """What two independent sets of chains of equal number found together, as NumPy arrays."""
    first, second = one.moments, other.moments
    mean = (first.mean + second.mean) / 2
    apart = (first.mean - second.mean) ** 2 / 4
    hypot: Any = np.hypot
    rest: Any = {"draws": None, "course": None}
    moments = Moments(
        mean,
        ((first.sd**2 + second.sd**2) / 2 + apart) ** 0.5,
        hypot(first.mean_se, second.mean_se) / 2,
        hypot(first.sd_se, second.sd_se) / 2,
    )
    averaged = jax.tree.map(lambda a, b: (a + b) / 2, one._replace(**rest), other._replace(**rest))
    return averaged._replace(
        number=one.number + other.number,
        draws=np.concatenate([one.draws, other.draws]),
        moments=moments,
        drift_se=hypot(one.drift_se, other.drift_se) / 2,
        num_gradients=one.num_gradients + other.num_gradients,
    )


def _summarise(x: Array) -> tuple[Moments, Array, Array, Array]:
    """Moments, persistence, drift and its error from scalars (W, chains, C)."""
    number = x.shape[1]
    origin = x[0, 0]
    x = x - origin
    mean = jnp.mean(x, axis=(0, 1))
    squares = (x - mean) ** 2
    variance = jnp.mean(squares, axis=(0, 1))
    sd = jnp.sqrt(variance)
    tiny = jnp.finfo(x.dtype).tiny
    safe = jnp.maximum(sd, tiny)

    def error(by_chain):
        return jnp.std(by_chain, axis=0) / jnp.sqrt(number)

    mean_se = error(jnp.mean(x, axis=0))
    sd_se = error(jnp.mean(squares, axis=0)) / (2 * safe)
    half = x.shape[0] // 2
    signs = jnp.where(jnp.arange(x.shape[0]) < half, -1.0, 1.0).astype(x.dtype) / half
    early, late = jnp.mean(x[:half], axis=0), jnp.mean(x[half:], axis=0)
    moved = late - early
    widened = einsum("w,wnc->nc", signs, squares) / (2 * safe)
    drift = jnp.stack([jnp.mean(moved, 0), jnp.mean(widened, 0)]) / safe
    drift_se = jnp.stack([error(moved), error(widened)]) / safe
    moments = Moments(origin + mean, sd, mean_se, sd_se)
    # Of the distances too: of a spike within a slab, means forget at once in which they are. Not of
    # the squares, of which a few decide in heavy tails.
    away = jnp.abs(x - mean)
    near = _correlation(jnp.mean(away[:half], axis=0), jnp.mean(away[half:], axis=0))
    return moments, jnp.maximum(_correlation(early, late), near), drift, drift_se


def _correlation(a: Array, b: Array) -> Array:
    """Correlation (C,) over the leading axis; 0 where either does not vary."""
    a, b = a - jnp.mean(a, axis=0), b - jnp.mean(b, axis=0)
    scale = jnp.sqrt(jnp.sum(a**2, axis=0) * jnp.sum(b**2, axis=0))
    return jnp.where(scale > 0, jnp.sum(a * b, axis=0) / jnp.where(scale > 0, scale, 1), 0)
