"""Pareto-smoothed importance weights, and the shapes of tails."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._arrays import logsumexp, namespace, put, softmax, top_k, top_values
from bbvi._types import Array

# Averages of terms whose tail has this Pareto shape can still be used (Vehtari et al. 2024,
# section 3.2).
USABLE = 0.7
# Largest weights that exceed those at the tail's start by less than this share are no tail:
# their spread is that of rounding, whose steps the Pareto fit would read as the heaviest tail.
_FLAT = 0.02
# Elements of the tails of many scalars, 4 MiB: enough for 5,000 of them.
_TAIL_ELEMENTS = 1 << 20
# Blocks of terms whose largest are compared.
_BLOCKS = 32, 512


def tail_size(size: int) -> int:
    """M, how many of S draws are the tail that a Pareto distribution is fitted to."""
    return int(min(0.2 * size, 3 * size**0.5))


def psis(log_ratio: Array) -> tuple[Array, Array]:
    r"""Pareto-smoothed importance weights and the tail's shape k-hat.

    The M = min(S/5, 3 sqrt(S)) largest ratios are replaced by the expected order statistics
    of a generalised Pareto distribution fitted to them. Averages under the weights have
    finite variance for k < 1/2 and are usable up to k of about 0.7.

    Args:
        log_ratio: log p - log q (S,), up to a constant; -inf is a weight of zero.

    Returns:
        log weights (S,), normalised to sum to one, and k-hat, a scalar: +inf when fewer than
        five ratios are finite.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> z = jax.random.normal(jax.random.key(0), (4000,))
        >>> log_weights, khat = psis(0.5 * z**2 - 0.5 * (z / 0.8) ** 2)  # a narrower target
        >>> bool(khat < 0.5)
        True

    Source: Vehtari, Simpson, Gelman, Yao and Gabry 2024, JMLR 25(72).
    """
    xp, size = namespace(log_ratio), log_ratio.shape[0]
    tail = tail_size(size)
    if tail < 1:
        return log_ratio - logsumexp(log_ratio), xp.full((), xp.inf, log_ratio.dtype)
    finite = xp.sum(xp.isfinite(log_ratio))
    top = xp.max(log_ratio)
    log_ratio = log_ratio - xp.where(xp.isfinite(top), top, 0)
    largest, at = _select(log_ratio, tail + 1)
    with np.errstate(all="ignore"):
        cut, khat, scale, flat = _fit_tail(xp.exp(largest))
        largest, at = largest[tail - 1 :: -1], at[tail - 1 :: -1]
        probability = (xp.arange(tail, dtype=cut.dtype) + 0.5) / tail
        smoothed = xp.log(cut + scale * _pareto_quantile(probability, khat))
    usable = xp.isfinite(khat) & ~flat & (finite > tail)
    smoothed = xp.where(usable, xp.minimum(smoothed, 0), largest)
    log_weights = put(log_ratio, at, smoothed)
    khat = xp.where(finite < 5, xp.inf, khat)
    return log_weights - logsumexp(log_weights), khat


def _select(x: Array, number: int) -> tuple[Array, Array]:
    """The largest along the last axis, in descending order, and where they are.

    The barrier keeps the compiler from turning the selection into a sort of everything. It has
    an operand more, since on several devices XLA of jax 0.7 aborts where one takes just what
    `top_k` gives.
    """
    values, at = top_k(x, number)
    if namespace(x) is np:
        return values, at
    values, at, _ = jax.lax.optimization_barrier((values, at, x[..., :1]))
    return values, at


def largest_terms(terms: Array, total: int) -> Array:
    """The tail of each row of terms (C, S) >= 0, and where it begins, in descending order.

    Args:
        terms: those of one chunk of draws.
        total: how many draws all chunks have.

    Returns:
        (C, M + 1), or fewer where the chunk has fewer; (C, 0) where they are too many to keep.
    """
    xp, number = namespace(terms), tail_size(total) + 1
    if terms.shape[0] * number > _TAIL_ELEMENTS:
        return xp.zeros((len(terms), 0), xp.float32)
    # single precision, for which XLA has a selection that is not a sort of everything
    with np.errstate(over="ignore"):
        terms = terms.astype(xp.float32)
    number = min(number, terms.shape[1])
    return top_values(terms, number) if xp is np else _select(terms, number)[0]


def tail_shape(largest: Array, total: int) -> Array:
    """Pareto shapes (C,) of the tails of rows of terms; zero where they were too many to keep.

    Args:
        largest: from `largest_terms`, of all chunks (chunks, C, M + 1).
        total: how many draws all chunks have.
    """
    xp, tail = namespace(largest), tail_size(total)
    if largest.size == 0:
        return xp.zeros(largest.shape[1], largest.dtype)
    if largest.shape[0] > 1:
        together = xp.moveaxis(largest, 0, 1).reshape(largest.shape[1], -1)
        largest = top_k(together, tail + 1)[0][None]
    with np.errstate(all="ignore"):
        return _fit_tail(largest[0])[1]


def rate_lost(shape: Array, total: int, usable: float = USABLE) -> Array:
    r"""By how much the errors of sums with heavy tails are larger than their standard errors.

    The sum of M terms whose tail has the Pareto shape k > 1/2 is known to a share of about
    M^{k - 1}, where its standard error promises M^{-1/2}. Up to k = 0.7 that is usable all the
    same; beyond, it is too small by

        M^{k - 1/2}.

    Args:
        shape: k, from `tail_shape`.
        total: how many draws there are, of which M are the tail.
        usable: the shape up to which a standard error is believed.

    Source: Feller 1971, An Introduction to Probability Theory and Its Applications II, on domains
    of attraction of stable laws; Vehtari et al. 2024 on where they begin to matter.
    """
    xp = namespace(shape)
    with np.errstate(all="ignore"):
        return xp.where(shape < usable, 1, tail_size(total) ** (shape - 0.5))


def growth_shape(terms: Array) -> Array:
    r"""Like `tail_shape`, by how fast the largest terms grow: nothing is sorted or fitted.

    The largest of n terms whose tail has the Pareto shape k grows like n^k. Of blocks of 32 and
    of 512 terms it is therefore in the mean apart by a factor 16^k. From few blocks a large k is
    read too small, by about a fifth; from fewer than two, as zero.

    Args:
        terms: (C, S) >= 0.
    """
    size = terms.shape[1]
    large = min(_BLOCKS[1], size // 2)
    if large <= _BLOCKS[0]:
        return jnp.zeros(len(terms), terms.dtype)
    tiny = jnp.finfo(terms.dtype).tiny

    def mean_of_largest(block):
        # each with terms from all over: draws may come component by component
        blocks = terms[:, : size // block * block].reshape(len(terms), block, -1)
        return jnp.maximum(jnp.mean(jnp.max(blocks, axis=1), axis=1), tiny)

    growth = jnp.log(mean_of_largest(large) / mean_of_largest(_BLOCKS[0]))
    return growth / math.log(large / _BLOCKS[0])


def growth_lost(shape: Array, total: int) -> Array:
    """Like `rate_lost`, of so many terms with a shape from `growth_shape`."""
    return (total / _BLOCKS[0]) ** jnp.maximum(shape - 0.5, 0)


def _fit_tail(largest: Array) -> tuple[Array, Array, Array, Array]:
    """Start, shape, scale of tails (..., M + 1), descending, and whether they are none at all."""
    xp = namespace(largest)
    cut = largest[..., -1]
    excess = largest[..., -2::-1] - cut[..., None]
    shape, scale = fit_pareto(excess)
    flat = excess[..., -1] <= _FLAT * cut
    shape = xp.where(flat, 0, xp.where(xp.isnan(shape), xp.inf, shape))
    return cut, shape, scale, flat


def fit_pareto(excess: Array) -> tuple[Array, Array]:
    """Shape and scale of generalised Pareto distributions from ordered excesses (..., M) >= 0.

    The posterior mean under a weak prior, on a grid; the shape is then drawn towards 1/2 with
    the weight of ten observations.

    Source: Zhang and Stephens 2009, Technometrics 51(3); the last step from Vehtari et al.
    2024, appendix C.
    """
    xp, n = namespace(excess), excess.shape[-1]
    grid = 30 + int(n**0.5)
    index = xp.arange(1, grid + 1, dtype=excess.dtype)
    tiny = xp.finfo(excess.dtype).tiny
    largest = xp.maximum(excess[..., -1:], tiny)
    quartile = xp.maximum(excess[..., int(n / 4 + 0.5) - 1, None], tiny)
    theta = 1 / largest + (1 - xp.sqrt(grid / (index - 0.5))) / (3 * quartile)
    # theta = 0 is the exponential distribution, at which the formulas divide by zero
    theta = xp.where(xp.abs(theta) * largest < 1e-6, 1e-6 / largest, theta)
    shapes = xp.mean(xp.log1p(-theta[..., None] * excess[..., None, :]), axis=-1)
    log_likelihood = n * (xp.log(-theta / shapes) - shapes - 1)
    weight = softmax(xp.where(xp.isnan(log_likelihood), -xp.inf, log_likelihood))
    mean = xp.sum(theta * weight, axis=-1)
    shape = xp.mean(xp.log1p(-mean[..., None] * excess), axis=-1)
    scale = -shape / mean
    return (n * shape + 5) / (n + 10), scale


def _pareto_quantile(probability: Array, shape: Array) -> Array:
    """Quantiles of the generalised Pareto distribution of scale one."""
    xp = namespace(probability)
    small = xp.abs(shape) < 1e-6
    safe = xp.where(small, 1, shape)
    power = xp.expm1(-safe * xp.log1p(-probability)) / safe
    return xp.where(small, -xp.log1p(-probability), power)
