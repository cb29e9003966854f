"""Where to start: a race between points, the ends of uphill paths, and points on the way."""

from typing import Any, NamedTuple

import numpy as np

from bbvi._types import AnyArray, PyTree
from bbvi.bijectors.elementwise import GreaterThan, LessThan
from bbvi.evaluate import densities, generator, in_blocks, paired_normals
from bbvi.families import MeanFieldGaussian
from bbvi.solvers.lbfgs import SNAPSHOTS, paths_uphill
from bbvi.target import Target

# Half-widths of the random starts. Near ones: the usual choice for MCMC in unconstrained units
# (Stan), and twice that. Four far pairs x, -x, whose paths look for modes that have no near point
# in their basin: without them a mode of weight 0.3, 8 sds away, was missed on most keys.
_NEAR, _MIDDLE, _FAR, _FAR_PAIRS = 2.0, 4.0, 10.0, 4
# Up to so many dimensions the near starts are the highest of a thousand points each: the rates of
# a predator and its prey had a path to their mode on three keys of five, and have one on all.
_SCREENED = 32
_HIGHEST_NEAR, _HIGHEST_MIDDLE = 2, 4
ORIGINS = 2 + _HIGHEST_NEAR + _HIGHEST_MIDDLE + 2 * _FAR_PAIRS
PATH_EVALUATIONS = 150
CANDIDATES = ORIGINS * (2 + len(SNAPSHOTS))
DRAWS = 32  # a candidate; the bound only has to rank them
# Rounding is looked for where draws of one candidate differ by more nats: no start that a fit is
# won from does, and heights made of rounding do by far.
UNEVEN = 1e3
# A height that moves by this share, and by more than a nat, when the point moves by rounding.
_ROUGH, _ROUNDINGS = 1e-3, 4
HIGHEST = 1e15  # nats, of which no data have as many: of doubles the next is a quarter of one off

FAMILY = MeanFieldGaussian()  # of a candidate


class Starts(NamedTuple):
    """Candidates of a race, best first.

    Attributes:
        loc: (P, D) centres.
        scale: (P, D) standard deviations.
        elbo: (P,) estimated bounds of the factorised Gaussians, nats, -inf where none.
        num_gradients: evaluations spent on gradients.
        num_densities: evaluations spent on densities alone.
    """

    loc: AnyArray
    scale: AnyArray
    elbo: AnyArray
    num_gradients: int
    num_densities: int


def race(
    target: Target,
    loc: AnyArray,
    key: AnyArray,
    data: PyTree,
    path_evaluations: int = PATH_EVALUATIONS,
) -> Starts:
    """Rank possible starts by their bound on common draws.

    A mode is never trusted: in a funnel the paths end in a spike where no posterior mass is,
    and the points they began from win; with badly scaled data it is the other way round.

    Args:
        target: the target.
        loc: the user's point (D,).
        key: a typed random key.
        data: the user's data.
        path_evaluations: limit on the gradient evaluations of each path.
    """
    dim, random = target.dim, generator(key)
    origins = np.concatenate([np.asarray(loc)[None], np.zeros((1, dim))])
    held = np.zeros((ORIGINS, dim), bool)
    if dim <= _SCREENED:
        origins = np.concatenate([origins, _highest(target, random, data)])
    else:
        origins = np.concatenate([origins, random.uniform(-_NEAR, _NEAR, (2, dim))])
        # from the same points once more, the scales held; or from their opposites
        waiting = slice(len(origins), 2 * len(origins))
        held[waiting] = _scales(target)
        origins = np.concatenate([origins, origins if held.any() else -origins])
    far = _far_out(random, dim)
    origins = np.concatenate([origins, far, -far]).astype(target.dtype)
    paths = paths_uphill(target, origins, data, path_evaluations, held)
    locs: AnyArray = np.concatenate([origins, paths.points.reshape(-1, dim)])
    scales: AnyArray = np.concatenate(
        [np.ones_like(origins), paths.curvature_scale.reshape(-1, dim)]
    )
    eps = paired_normals(random, DRAWS, dim).astype(target.dtype)

    def log_densities(loc, scale):
        return densities(target, loc[:, None] + scale[:, None] * eps, data)

    with np.errstate(all="ignore"):
        log_p = in_blocks(log_densities, DRAWS * dim, locs, scales).astype(float)
        ok = np.isfinite(log_p)
        count = ok.sum(1)
        mean = np.where(ok, log_p, 0).sum(1) / np.maximum(count, 1)
        elbo = mean + FAMILY.entropy({"loc": locs, "log_scale": np.log(scales)})
    # a candidate with many draws outside the support is no start
    elbo = np.where((count > DRAWS // 2) & ~np.isnan(elbo), elbo, -np.inf)
    heights = log_p[np.argmax(elbo)]
    finite = heights[np.isfinite(heights)]
    if finite.size and np.ptp(finite) > UNEVEN:
        highest = np.argmax(np.where(ok, log_p, -np.inf), axis=1)
        rough = _rough(locs + scales * eps[highest], eps, log_densities)
        elbo = np.where(rough, -np.inf, elbo)
    elbo = _on_this_side(target, locs, elbo, eps, log_densities)
    order = np.argsort(-elbo, kind="stable")
    spent = int(paths.num_gradients.sum())
    return Starts(locs[order], scales[order], elbo[order], spent, log_p.size)


def _rough(points: AnyArray, eps: AnyArray, log_densities: Any) -> AnyArray:
    """At which points (P, D) the height is made of rounding (P,)."""
    with np.errstate(all="ignore"):
        return made_of_rounding(in_blocks(log_densities, eps.size, points, roundings(points)))


def roundings(points: AnyArray) -> AnyArray:
    """Steps (P, D) that are rounding."""
    return _ROUNDINGS * np.finfo(points.dtype).eps * np.abs(points)


def made_of_rounding(near: AnyArray) -> AnyArray:
    """Whether heights (P,) are made of rounding, of which `near` (P, N) are `roundings` away.

    Such as the log density of a covariance matrix by its inverse, once that is singular to
    machine precision: paths climb there to 10^25 nats.
    """
    near = near.astype(float)
    with np.errstate(all="ignore"):
        middle = np.median(near, axis=1)
        moves = np.max(np.abs(near - middle[:, None]), axis=1)
        steady = moves <= np.maximum(1.0, _ROUGH * np.abs(middle))
        return ~(steady & (middle < HIGHEST))


def _on_this_side(
    target: Target, locs: AnyArray, elbo: AnyArray, eps: AnyArray, log_densities: Any
) -> AnyArray:
    """Bounds (P,) of candidates (P, D), without those that lie beyond where all is rounding.

    Past the inverse of the machine precision sums of a large and a small number are the large one:
    log Gamma(c) - log Gamma(c + n) is nothing then, not -n log c, and a plateau is thousands of
    nats up. It is as smooth as can be; on the way to it heights are made of rounding.
    """
    edge = -np.log(np.finfo(locs.dtype).eps)
    beyond = (np.abs(locs) * target.logarithmic > edge).any(axis=1)
    near = np.where(beyond, -np.inf, elbo)
    elbo, ways = elbo.copy(), np.linspace(0, 1, len(locs), dtype=locs.dtype)[:, None]
    while np.isfinite(near).any() and beyond[np.argmax(elbo)]:
        first, last = locs[np.argmax(near)], locs[np.argmax(elbo)]
        if not _rough(first + ways * (last - first), eps, log_densities).any():
            break
        elbo[(locs == last).all(axis=1)] = -np.inf
    return elbo


def _highest(target: Target, random: np.random.Generator, data: PyTree) -> np.ndarray:
    """Of many points in a box, and as many in a larger one, the highest that lie apart (N, D).

    As many as the candidates have draws: one program evaluates both.
    """
    shape = (CANDIDATES, DRAWS, target.dim)
    points = random.uniform(-1, 1, shape)
    points[::2] *= _NEAR
    points[1::2] *= _MIDDLE
    log_p = np.asarray(densities(target, points.astype(target.dtype), data))
    log_p = np.where(np.isnan(log_p), -np.inf, log_p)
    chosen = []
    for first, width, number in ((0, _NEAR, _HIGHEST_NEAR), (1, _MIDDLE, _HIGHEST_MIDDLE)):
        box = points[first::2].reshape(-1, target.dim)
        height = log_p[first::2].ravel()
        for _ in range(number):
            chosen.append(box[np.argmax(height)])
            # about a third of the distance between two points of the box
            near = np.linalg.norm(box - chosen[-1], axis=1) < width * np.sqrt(target.dim) / 4
            height = np.where(near, -np.inf, height)
    return np.stack(chosen)


def _scales(target: Target) -> np.ndarray:
    """Which coordinates (D,) to hold at first: the scales among others, where there are some.

    A path from where nothing fits yet raises the noise, in one step, and stays where all is noise:
    of a Lorenz system seen with noise, 82 nats below the mode that it finds if the noise waits.
    """
    sides = [isinstance(leaf.bijector, GreaterThan | LessThan) for leaf in target.leaves]
    scales = np.array(sides)[target.owners]
    return scales & (2 * scales.sum() < target.dim)


def _far_out(random: np.random.Generator, dim: int) -> np.ndarray:
    """The far starts: each coordinate has every quarter of the distance once, at either side.

    Drawn independently, one in five of five modes in a row had no start in its basin, and the
    fit of the others was trusted.
    """
    quarters = random.permuted(np.tile(np.arange(_FAR_PAIRS)[:, None], (1, dim)), axis=0)
    distances = (quarters + random.random(quarters.shape)) * _FAR / _FAR_PAIRS
    return distances * random.choice([-1, 1], quarters.shape)
