"""Does the log density ever come down? Looks along lines from a point to far outside."""

import jax.numpy as jnp
import numpy as np

from bbvi._compile import quick_jit
from bbvi._types import Array, PyTree
from bbvi.families import Frame
from bbvi.target import Target

# Coordinates are looked at from the widest on; one that a posterior does not bound is wide.
_MOST_COORDINATES = 32
_MOST_AXES = 2
# Distances in fitted standard deviations. None of these counts as less than a unit, since a fit
# that failed may be far too narrow; and a runaway scale has no end to look beyond.
_FAR_ALONG_COORDINATES = (1e4, 1e6)
_FAR_ALONG_AXES = (1e3, 1e4)
_WIDEST_COORDINATE, _LONGEST_AXIS = 1e6, 1e4
# Others have units of a logarithm, in which 80 is as far as single precision goes.
_FAR_WITH_SUPPORT = (40.0, 80.0)
# ... and further than differences of log-gamma functions, or of effects that have become so narrow,
# go without rounding: that is looked at nearer too, where what is proper hardly falls, but by more
# than this. A normal prior of sd 40 on a log scale does, or of sd 18 in single precision.
_ENDS, _ENDS_FLOAT32, LEAST_FALL = (8.0, 16.0), (4.0, 7.0), 0.05
# The highest point of something wide may lie there, as of a gamma density of shape 0.1, which is
# level from one side to the other: towards the end all these points differ by no more.
_ON_THE_WAY = np.linspace(0.6, 1.0, 5)
# A centre beyond this comes from a fit that ran away, and would swallow the distances.
_FARTHEST_CENTRE = 1e12
# A density whose integral along the line converges falls faster than the inverse distance, whose
# logarithm falls by log(far / near) from one point to the other.
_FALL = 0.9
# Further below the centre no mass is at stake.
_DEPTH = 30.0


def unbounded(target: Target, centre: Array, frame: Frame, data: PyTree) -> tuple[str, ...]:
    """Names of the leaves along which the posterior has an infinite mass, as far as can be seen.

    Looks both ways along the widest coordinates and the longest axes of a fit. A density that
    does not fall with the distance is no proof where the line leaves the posterior's bulk,
    so this is for fits that are in doubt for other reasons.

    Args:
        target: the target.
        centre: a point (D,) of the posterior's bulk, and not one of a symmetry, such as equal
            effects, where the density of a proper posterior may have no bound.
        frame: the fit's units.
        data: the user's data.

    Example:
        >>> from bbvi.inputs import make_target
        >>> flat = lambda x: -0.5 * x["a"] ** 2  # of b it says nothing
        >>> target, _, data = make_target(flat, {"a": 0.0, "b": 0.0}, None, None)
        >>> unbounded(target, jnp.zeros(2), Frame(jnp.zeros(2), jnp.ones(2)), data)
        ('b',)
    """
    leaves, owner = target.leaves, target.owners
    single = target.dtype == np.float32
    directions, distances, least, nearer = _lines(frame, ~target.logarithmic, single)
    middle = np.clip(np.asarray(centre), -_FARTHEST_CENTRE, _FARTHEST_CENTRE)
    bulk = np.nan_to_num(np.asarray(frame.loc, np.float64))
    most = np.where(target.logarithmic, _FAR_WITH_SUPPORT[0], _FARTHEST_CENTRE)
    ahead = directions @ (np.clip(bulk, -most, most) - middle)
    ends = _both_ways(directions, distances, ahead)
    way = log_scale_ends(single)[1] * _ON_THE_WAY
    on_the_way = _both_ways(directions[nearer], way, ahead[nearer])
    steps = [x.reshape(-1, target.dim) for x in (ends, on_the_way)]
    points = middle + np.concatenate([*steps, np.zeros((1, target.dim))])
    log_p = np.asarray(_log_densities(target, jnp.asarray(points, target.dtype), data))
    near, far = np.moveaxis(log_p[: ends[..., 0].size].reshape(-1, 2, 2), 2, 0)
    level = is_level(near, far, log_p[-1], least[:, None])
    between = log_p[ends[..., 0].size : -1].reshape(on_the_way.shape[:-1])
    with np.errstate(invalid="ignore"):
        level[nearer] &= np.ptp(between, axis=2) < LEAST_FALL
    found = [owner[np.argmax(np.abs(d))] for d in directions[level.any(axis=1)]]
    return tuple(leaves[i].name for i in dict.fromkeys(found))


def log_scale_ends(single: bool) -> np.ndarray:
    """Two distances along a log scale (2,), whose densities hold no rounding."""
    return np.array(_ENDS_FLOAT32 if single else _ENDS)


def is_level(
    near: np.ndarray, far: np.ndarray, centre: np.ndarray, least: np.ndarray | float
) -> np.ndarray:
    """Whether log densities fall by less than `least` on the way out, where mass is at stake."""
    with np.errstate(invalid="ignore"):
        return np.isfinite(far) & (far > near - least) & (far > centre - _DEPTH)


def _lines(
    frame: Frame, plain: np.ndarray, single: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Directions (L, D) of unit length, two distances along each (L, 2), least falls (L,).

    And which of them (L,) are looked at nearer.
    """
    scale = np.nan_to_num(np.asarray(frame.scale, np.float64), nan=1.0)
    scale = np.clip(scale, -1e30, 1e30)
    sd = scale if scale.ndim == 1 else np.linalg.norm(scale, axis=1)
    widest = np.argsort(-sd)[:_MOST_COORDINATES]
    directions = np.eye(len(sd))[widest]
    distances = np.clip(sd[widest], 1.0, _WIDEST_COORDINATE)[:, None] * _FAR_ALONG_COORDINATES
    distances = np.where(plain[widest, None], distances, _FAR_WITH_SUPPORT)
    if scale.ndim == 2:
        axes, lengths, _ = np.linalg.svd(scale)
        axes = axes.T[:_MOST_AXES]
        lengths = np.clip(lengths[:_MOST_AXES, None], 1.0, _LONGEST_AXIS) * _FAR_ALONG_AXES
        directions = np.concatenate([directions, axes])
        distances = np.concatenate([distances, lengths])
    least = _FALL * np.log(distances[:, 1] / distances[:, 0])
    nearer = np.eye(len(sd))[widest[~plain[widest]]]
    ends = np.tile(log_scale_ends(single), (len(nearer), 1))
    return (
        np.concatenate([directions, nearer]),
        np.concatenate([distances, ends]),
        np.concatenate([least, np.full(len(nearer), LEAST_FALL)]),
        np.arange(len(directions) + len(nearer)) >= len(directions),
    )


def _both_ways(directions: np.ndarray, distances: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """Steps (L, 2, P, D) of distances (L, P), or (P,), along directions (L, D) and back.

    Those towards the bulk, which lies so far `ahead` (L,), are counted from there: on the way to it
    the density of a point of the tail rises.
    """
    signs = np.array([1.0, -1.0])[:, None]
    ends = signs * (distances[..., None, :] + np.maximum(signs * ahead[:, None, None], 0.0))
    return ends[..., None] * directions[:, None, None]


@quick_jit()
def _log_densities(target: Target, zs: Array, data: PyTree) -> Array:
    return target.log_densities(zs, data)
