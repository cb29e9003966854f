"""Where to start: a race between points, the ends of uphill paths, and points on the way."""

from typing import Any, NamedTuple

import numpy as np

from bbvi._types import AnyArray, PyTree
from bbvi.evaluate import densities, generator, in_blocks, paired_normals
from bbvi.families import MeanFieldGaussian
from bbvi.solvers.lbfgs import SNAPSHOTS, paths_uphill
from bbvi.target import Target

# Half-widths of the random starts, which come in pairs x, -x. One pair near: the usual choice for
# MCMC in unconstrained units (Stan). Four far, whose paths look for modes that have no near point
# in their basin: without them a mode of weight 0.3, 8 sds away, was missed on most keys.
_NEAR, _FAR, _FAR_PAIRS = 2.0, 10.0, 4
ORIGINS = 2 * (1 + _FAR_PAIRS) + 2
PATH_EVALUATIONS = 150
CANDIDATES = ORIGINS * (2 + len(SNAPSHOTS))
DRAWS = 32  # a candidate; the bound only has to rank them
# Rounding is looked for where draws of one candidate differ by more nats: no start that a fit is
# won from does, and heights made of rounding do by far.
_UNEVEN = 1e3
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
    away = np.concatenate([random.uniform(-_NEAR, _NEAR, (1, dim)), _far_out(random, dim)])
    origins = np.concatenate([np.asarray(loc)[None], np.zeros((1, dim)), away, -away])
    origins = origins.astype(target.dtype)
    paths = paths_uphill(target, origins, data, path_evaluations)
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
    if finite.size and np.ptp(finite) > _UNEVEN:
        highest = np.argmax(np.where(ok, log_p, -np.inf), axis=1)
        rough = _rough(locs + scales * eps[highest], eps, log_densities)
        elbo = np.where(rough, -np.inf, elbo)
    order = np.argsort(-elbo, kind="stable")
    spent = int(paths.num_gradients.sum())
    return Starts(locs[order], scales[order], elbo[order], spent, log_p.size)


def _rough(points: AnyArray, eps: AnyArray, log_densities: Any) -> AnyArray:
    """At which points (P, D) the height is made of rounding (P,).

    Such as the log density of a covariance matrix by its inverse, once that is singular to
    machine precision: paths climb there to 10^25 nats.
    """
    step = _ROUNDINGS * np.finfo(points.dtype).eps * np.abs(points)
    with np.errstate(all="ignore"):
        near = in_blocks(log_densities, eps.size, points, step).astype(float)
        middle = np.median(near, axis=1)
        moves = np.max(np.abs(near - middle[:, None]), axis=1)
        steady = moves <= np.maximum(1.0, _ROUGH * np.abs(middle))
        return ~(steady & (middle < HIGHEST))


def _far_out(random: np.random.Generator, dim: int) -> np.ndarray:
    """The far starts: each coordinate has every quarter of the distance once, at either side.

    Drawn independently, one in five of five modes in a row had no start in its basin, and the
    fit of the others was trusted.
    """
    quarters = random.permuted(np.tile(np.arange(_FAR_PAIRS)[:, None], (1, dim)), axis=0)
    distances = (quarters + random.random(quarters.shape)) * _FAR / _FAR_PAIRS
    return distances * random.choice([-1, 1], quarters.shape)
