"""A richer stage for many problems at once: a few Gaussians, refitted to their weighted draws."""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import logsumexp

from bbvi._linalg import dot
from bbvi._types import Array, PyTree
from bbvi.batch.marginals import is_elementwise, marginal_moments
from bbvi.batch.start import QuickStart
from bbvi.batch.weighing import weigh
from bbvi.diagnostics.figures import Diagnostics
from bbvi.families import GaussianMixture
from bbvi.families.base import LOG_2PI
from bbvi.families.proposals import TAIL_DF, with_tails
from bbvi.stages.gaussians.modes import FAR, VALLEY_NATS, VISIBLE_NATS, between, depth
from bbvi.target import Target

FAMILY = GaussianMixture()
# One Gaussian is cut into so many slices, at these places along the direction in which it is
# wrong the most, in standard deviations and with soft edges.
_PLACES, _WIDTH = (-1.3, 0.0, 1.3), 0.7
# One component more is for a peak on which a path uphill ended: half a percent of the mass, far
# out, is half of some variances.
COMPONENTS = len(_PLACES) + 1
# Dimensions up to which D^2/2 products are compiled one by one, in half a second.
_WRITTEN_OUT = 16
_STRIDE, _LEAST_CURVATURE = 0.1, 1e-2  # in units of the width that the path saw
# Effective draws a dimension that tell several covariances apart, and no less than a part of
# the draws in each component.
_DRAWS_TO_SPLIT = 40
_LEAST_SHARE = 0.01


@lru_cache(maxsize=8)
def base_draws(dim: int, number: int) -> np.ndarray:
    """Draws (K, D, S/K) that every problem turns its own way, half normal, half Student-t.

    Directions are random, radii the quantiles of their distributions in a random order. After
    a random rotation these are draws of the two distributions, with less noise than independent
    ones; a problem pays for D^2 random numbers and not for S D.

    Source: Genz and Monahan 1998, SIAM J. Sci. Comput. 19(2), for random rotations.
    """
    rng, parts = np.random.default_rng(dim), COMPONENTS
    half = number // parts // 2
    squares = rng.chisquare(dim, (2, 64, parts * half))
    squares[1] *= TAIL_DF / rng.chisquare(TAIL_DF, squares[1].shape)
    # order statistics, averaged over many sets
    radii = np.sqrt(np.sort(squares, axis=2).mean(axis=1))
    radii = np.stack([rng.permutation(r).reshape(parts, half) for r in radii], axis=1)
    directions = rng.normal(size=(dim, parts, 2, half))
    directions /= np.linalg.norm(directions, axis=0)
    return np.moveaxis(directions * radii, 0, 1).reshape(parts, dim, 2 * half)


def begin_mixture(params: PyTree) -> PyTree:
    """Full-rank Gaussians' parameters, W of them on the host, as mixtures of equals."""
    loc, lower = np.asarray(params["loc"]), np.asarray(params["lower"])
    number, dim = loc.shape
    factor = np.tril(lower, -1)
    factor[:, np.arange(dim), np.arange(dim)] = np.exp(params["log_diag"])
    return {
        "log_weights": np.full((number, COMPONENTS), -math.log(COMPONENTS), loc.dtype),
        "loc": np.repeat(loc[:, None], COMPONENTS, axis=1),
        "factor": np.repeat(factor[:, None], COMPONENTS, axis=1),
    }


def add_peak(target: Target, mixture: PyTree, start: QuickStart, data: PyTree) -> PyTree:
    """The mixture with its last component at the end of a path that it covers the least.

    The component has the curvature there, from differences of scores.

    Args:
        target: the target.
        mixture: parameters of `FAMILY`.
        start: where the paths ended.
        data: the user's data.
    """
    log_p, _, ok = target.score(start.peaks, data)
    gap = jnp.where(ok, log_p - FAMILY.log_mixture(mixture, start.peaks), -jnp.inf)
    peak, width = start.peaks[jnp.argmax(gap)], start.widths[jnp.argmax(gap)]
    strides = jnp.diag(_STRIDE * width)
    _, ahead, _ = target.score(peak + strides, data)
    _, behind, _ = target.score(peak - strides, data)
    bends = (behind - ahead) / (2 * _STRIDE) * width  # minus the Hessian, in units of the width
    curvature, axes = jnp.linalg.eigh(0.5 * (bends + bends.T))
    root = width[:, None] * axes / jnp.sqrt(jnp.maximum(curvature, _LEAST_CURVATURE))
    return {
        "log_weights": mixture["log_weights"],
        "loc": mixture["loc"].at[-1].set(peak),
        "factor": mixture["factor"].at[-1].set(jnp.linalg.cholesky(dot(root, root.T))),
    }


def is_apart(target: Target, mixture: PyTree, data: PyTree) -> Array:
    """Whether the last component is a mode of its own: far in its units, and beyond a valley.

    Args:
        target: the target.
        mixture: parameters of `FAMILY`.
        data: the user's data.
    """
    shares = jnp.exp(mixture["log_weights"])
    visible = shares[-1] > math.exp(-VISIBLE_NATS)
    gaps = mixture["loc"][:-1] - mixture["loc"][-1]
    inverse = _inverse(mixture["factor"][-1])
    far = jnp.linalg.norm(dot(gaps, inverse.T), axis=1) > FAR

    def falls(at):
        return depth(target.log_densities(between(at, mixture["loc"][-1]), data))

    return visible & jnp.all(far & (jax.vmap(falls)(mixture["loc"][:-1]) > VALLEY_NATS))


class Draws(NamedTuple):
    """Fresh draws around a mixture.

    Arrays keep the draws S as their last axis: D is small, and processors work along the last.

    Attributes:
        y: (D, S) the draws, from the mixture's centre.
        offset: (K, D) centres of the components, from there.
        by_component: (K, S) log densities of the weighted components.
        log_p: (S,) log densities of the target.
        log_q: (S,) of the mixture.
        log_proposal: (S,) of what the draws come from.
        share: (S,) weights, summing to one, under which the mixture's own draws among them
            stand for it; zero for the others.
    """

    y: Array
    offset: Array
    by_component: Array
    log_p: Array
    log_q: Array
    log_proposal: Array
    share: Array


def draw(target: Target, mixture: PyTree, key: Array, data: PyTree, base: Array) -> Draws:
    """Fresh draws of a mixture, as many of each component.

    Args:
        target: the target.
        mixture: parameters of `FAMILY`, K components.
        key: a typed random key.
        data: the user's data.
        base: (K, D, S/K) from `base_draws`.
    """
    number, dim = mixture["loc"].shape
    half = base.shape[2] // 2
    centre = FAMILY.mean(mixture)
    offset = mixture["loc"] - centre
    # as many draws of every component: those of little weight are where a tail needs more
    placed = dot(dot(mixture["factor"], _rotation(key, dim, base.dtype)), base)
    y = jnp.moveaxis(placed + offset[:, :, None], 0, 1).reshape(dim, -1)
    own = jnp.asarray([1 / half, 0], base.dtype)
    share = jnp.repeat((jnp.exp(mixture["log_weights"])[:, None] * own).reshape(-1), half)

    inverse = jax.vmap(_inverse)(mixture["factor"])
    squares = _squares(inverse, offset, y)
    log_det = jnp.sum(jnp.log(jnp.diagonal(inverse, axis1=1, axis2=2)), axis=1)
    density = (log_det - 0.5 * dim * LOG_2PI)[:, None] - 0.5 * squares
    by_component = density + mixture["log_weights"][:, None]
    log_q = logsumexp(by_component, axis=0)
    log_proposal = logsumexp(with_tails(density, squares, dim), axis=0) - math.log(number)
    z = centre[:, None] + y
    log_p = jax.vmap(lambda z: target.log_density(z, data), in_axes=1)(z)
    return Draws(y, offset, by_component, log_p, log_q, log_proposal, share)


def judge_mixture(target: Target, mixture: PyTree, draws: Draws, data: PyTree) -> Diagnostics:
    """What fresh draws say of a mixture.

    Args:
        target: the target.
        mixture: parameters of `FAMILY`.
        draws: from `draw`.
        data: the user's data.
    """
    z = FAMILY.mean(mixture)[:, None] + draws.y
    scalars = jax.vmap(lambda z: target.scalars(target.constrain(z, data)), 1, 1)(z)
    shares, sd = jnp.exp(mixture["log_weights"]), jnp.sqrt(jnp.sum(mixture["factor"] ** 2, axis=2))
    mean, spread = marginal_moments(target, shares, mixture["loc"], sd, data)
    known = is_elementwise(target)
    densities = (draws.log_p, draws.log_q, draws.log_proposal, draws.share)
    return weigh(*densities, scalars, mean, spread, known)


def refit(mixture: PyTree, draws: Draws) -> PyTree:
    """A mixture after a step of expectation maximisation on its weighted draws.

    A mixture of equals is cut into slices first, along the direction in which the draws' third
    moments are largest, or moves as a whole where the draws are too few for that. Centres and
    covariances are those of the draws times 1 + t^2, t being a draw's place along that direction.

    Args:
        mixture: parameters of `FAMILY`.
        draws: from `draw`.

    Source: Cappé, Douc, Guillin, Marin and Robert 2008, Statistics and Computing 18(4).
    """
    offset, by_component = draws.offset, draws.by_component
    w = _truncated_weights(draws)
    y = jnp.where(w > 0, draws.y, 0)
    centre = FAMILY.mean(mixture)
    dim = offset.shape[1]
    mean = dot(y, w)
    away = y - mean[:, None]
    cov = dot(away * w, away.T)
    factor = jnp.linalg.cholesky(cov)

    units = dot(_inverse(factor), away)
    direction = dot(units, w * jnp.sum(units**2, axis=0))  # third moments: no Gaussian has any
    tiny = jnp.finfo(y.dtype).tiny
    direction = direction / jnp.maximum(jnp.linalg.norm(direction), tiny)
    places = jnp.asarray(_PLACES, y.dtype)[:, None]
    along = dot(direction, units)
    slices = jax.nn.softmax(-0.5 * ((along - places) / _WIDTH) ** 2, axis=0)
    equal = jnp.all(offset[:-1] == offset[0])
    share = jax.nn.softmax(by_component, axis=0)
    cut = jnp.concatenate([slices * (1 - share[-1]), share[-1:]])
    share = w * jnp.where(equal, cut, share)

    total = jnp.maximum(jnp.sum(share, axis=1), tiny)
    # the tail counts as much as it does for a variance: refits to the mass alone let go of it
    share = share * (1 + along**2)
    emphasised = jnp.maximum(jnp.sum(share, axis=1), tiny)
    effective = emphasised**2 / jnp.maximum(jnp.sum(share**2, axis=1), tiny**0.5)
    loc = dot(share, y.T) / emphasised[:, None]
    seconds = _sum(share[:, None, None] * y[:, None] * y) / emphasised[:, None, None]
    covs = seconds - loc[:, :, None] * loc[:, None]
    # as if D + 1 more draws had the covariance of all, or that of the peak
    peak = jnp.arange(len(offset)) == len(offset) - 1
    own = dot(mixture["factor"], jnp.swapaxes(mixture["factor"], 1, 2))
    effective = effective[:, None, None]
    prior = jnp.where(peak[:, None, None], own, cov)
    covs = (effective * covs + (dim + 1) * prior) / (effective + dim + 1)
    factors, log_weights = jnp.linalg.cholesky(covs), jnp.log(total + _LEAST_SHARE)
    # too few draws for several covariances: all but the peak's move as one
    together = equal & (1 / jnp.sum(w**2) < _DRAWS_TO_SPLIT * (dim + 1))
    one = together & ~peak
    return FAMILY.join(
        jnp.where(one, jnp.log(jnp.mean(total[:-1]) + _LEAST_SHARE), log_weights),
        centre + jnp.where(one[:, None], mean, loc),
        jnp.where(one[:, None, None], factor, factors),
    )


def _truncated_weights(draws: Draws) -> Array:
    """Importance weights (S,), summing to one, none above sqrt(S) times their mean.

    Source: Ionides 2008, Journal of Computational and Graphical Statistics 17(2).
    """
    ratio = draws.log_p - draws.log_proposal
    ratio = jnp.where(jnp.isfinite(ratio), ratio, -jnp.inf)
    number = ratio.shape[0]
    most = logsumexp(ratio) - 0.5 * math.log(number)
    return jax.nn.softmax(jnp.minimum(ratio, most))


def _inverse(factor: Array) -> Array:
    # of a triangular solve with thousands of columns a processor makes heavy weather
    return solve_triangular(factor, jnp.eye(factor.shape[0], dtype=factor.dtype), lower=True)


def _sum(x: Array) -> Array:
    """Sum over the last axis, in blocks, so that a processor adds many numbers at once."""
    block = math.gcd(x.shape[-1], 64)
    return jnp.sum(jnp.sum(x.reshape(*x.shape[:-1], -1, block), axis=-2), axis=-1)


def _rotation(key: Array, dim: int, dtype: Any) -> Array:
    """A random rotation (D, D), uniform over all of them."""
    q, r = jnp.linalg.qr(jax.random.normal(key, (dim, dim), dtype))
    return q * jnp.where(jnp.diagonal(r) < 0, -1, 1)


def _squares(inverse: Array, offset: Array, y: Array) -> Array:
    """Squared lengths (K, S) of draws (D, S) in the units of components.

    Small products in which nothing is kept but a sum of squares: written out, the compiler makes
    one loop of them, which takes a tenth of the time of its matrix product.

    Args:
        inverse: (K, D, D) inverse factors of the components, lower triangular.
        offset: (K, D) their centres.
        y: the draws.
    """
    dim = y.shape[0]
    if dim > _WRITTEN_OUT:
        # one component at a time: all at once do not fit a processor's cache
        one = lambda x: jnp.sum(dot(x[0], y - x[1][:, None]) ** 2, axis=0)  # noqa: E731
        return jax.lax.map(one, (inverse, offset))
    shift = jnp.sum(inverse * offset[:, None], axis=2)
    # as arrays that are there, or the loop would make each draw anew for each product
    inverse, shift, y = jax.lax.optimization_barrier((inverse, shift, y))
    total = jnp.zeros((inverse.shape[0], y.shape[1]), y.dtype)
    for row in range(dim):
        unit = -shift[:, row, None]
        for column in range(row + 1):
            unit = unit + inverse[:, row, column, None] * y[column]
        total = total + unit**2
    return jax.lax.optimization_barrier(total)
