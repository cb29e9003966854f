"""Diagnostics on fresh draws: bound, Pareto k-hat, importance-corrected moments."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from bbvi._compile import quick_jit
from bbvi._linalg import einsum
from bbvi._types import Array, PyTree
from bbvi.families import Family
from bbvi.target import Target

# Fresh draws, fewer where they are long. With 2,048 the tail that k-hat is fitted to begins in
# the bulk of the weights, and nearly perfect fits read 2 and more; here it is 2% of the draws.
_MOST_DRAWS, _LEAST_DRAWS = 16_384, 1_024
_TOTAL_ELEMENTS = 1 << 24
# Elements of draws held at once; their first five powers are.
_CHUNK_ELEMENTS = 1 << 21
# Largest weights that exceed those at the tail's start by less than this share are no tail:
# their spread is that of rounding, whose steps the Pareto fit would read as the heaviest tail.
_FLAT = 0.02
# Elements of draws kept in the result, for pictures and checks: 16 MiB in float32.
_KEPT_ELEMENTS = 1 << 22


class Moments(NamedTuple):
    """Mean and standard deviation of each scalar parameter, with Monte Carlo errors; all (C,)."""

    mean: Array
    sd: Array
    mean_se: Array
    sd_se: Array


class Diagnostics(NamedTuple):
    """What fresh draws say of a fit.

    Half of the draws are the approximation's own and half have heavier tails (see
    `bbvi.families.Proposal`): a member whose tails are too light cannot tell by its own draws.

    Attributes:
        elbo: the evidence lower bound, nats, over the finite ones of its own draws.
        elbo_se: its Monte Carlo standard error.
        log_evidence: the importance-sampling estimate of the log evidence, nats.
        khat: Pareto shape of the importance weights' tail; trust in the weights ends near 0.7.
        ess: effective sample size of the smoothed weights.
        best_ess: what `ess` would be if the approximation were exact.
        bad_share: share of its own draws with a NaN, or with +infinity.
        outside_share: share of its own draws with a log density of -infinity.
        raw: moments of the approximation.
        corrected: moments under Pareto-smoothed importance weights.
        num_draws: fresh draws used, S.
        draws: the first of them (S', D), unconstrained; fewer than S where D is large.
        log_weights: their smoothed log weights (S',), all S normalised to sum to one.
        own: (S',) which of them are the approximation's own.
    """

    elbo: Array
    elbo_se: Array
    log_evidence: Array
    khat: Array
    ess: Array
    best_ess: Array
    bad_share: Array
    outside_share: Array
    raw: Moments
    corrected: Moments
    num_draws: Array
    draws: Array
    log_weights: Array
    own: Array


@quick_jit(0, (0, 1, 5))
def diagnose(
    target: Target,
    family: Family,
    params: PyTree,
    key: Array,
    data: PyTree,
    num_draws: int | None = None,
) -> Diagnostics:
    """Judge an approximation on draws it was not fitted to.

    Draws are made in chunks, twice from the same keys where they do not fit in memory at
    once: first for the weights, then for the moments.

    Args:
        target: the target.
        family: the family of the approximation.
        params: its parameters.
        key: a typed random key.
        data: the user's data.
        num_draws: S; None takes 16,384, or fewer (at least 1,024) for D over 1,024.
    """
    if num_draws is None:
        num_draws = default_draws(target.dim)
    size = max(1, min(num_draws, _CHUNK_ELEMENTS // target.dim))
    chunks = -(-num_draws // size)
    size = -(-num_draws // chunks)
    keys = jax.random.split(key, chunks)
    kept = max(1, min(size, _KEPT_ELEMENTS // target.dim))

    first = family.propose(params, keys[0], size)

    def over_chunks(function, *along):
        """`function` of each chunk of draws, results stacked; one chunk is drawn but once."""
        if chunks == 1:
            return jax.tree.map(lambda x: x[None], function(first, *(x[0] for x in along)))
        redraw = partial(family.propose, params, num_draws=size)
        return jax.lax.map(lambda args: function(redraw(args[0]), *args[1:]), (keys, *along))

    def scalars(z):
        return jax.vmap(lambda z: target.scalars(target.constrain(z, data)))(z)

    mapped = over_chunks(lambda drawn: (target.log_densities(drawn.z, data), *drawn[1:]))
    log_p, log_q, log_mixture, own = (x.reshape(-1) for x in mapped)
    log_ratio = log_p - log_q
    outside = jnp.isneginf(log_p)
    ok = jnp.isfinite(log_ratio)
    judged = ok & own
    count = jnp.maximum(jnp.sum(judged), 1)
    number = jnp.sum(own)
    elbo = jnp.sum(jnp.where(judged, log_ratio, 0)) / count
    spread = jnp.sqrt(jnp.sum(jnp.where(judged, (log_ratio - elbo) ** 2, 0)) / count)
    log_ratio = jnp.where(ok, log_p - log_mixture, -jnp.inf)
    log_weights, khat = psis(log_ratio)
    weights = jnp.exp(log_weights)
    exact = jnp.exp(log_q - log_mixture)

    # Where a reported scalar sits at 1e6 with an sd of 1, its squares would lose the sd.
    origin = scalars(first.z[:1])[0]
    even = (own / number).astype(weights.dtype)
    sets = jnp.stack([even, even**2, weights, weights**2]).reshape(4, chunks, size)

    def power_sums(drawn, sets):
        # a draw without weight may lie where the map to the parameters overflows
        x = jnp.where(jnp.any(sets > 0, axis=0)[:, None], scalars(drawn.z) - origin, 0)
        powers = jnp.stack([jnp.ones_like(x), x, x**2, x**3, x**4])
        return einsum("ws,psc->wpc", sets, powers)

    sums = jnp.sum(over_chunks(power_sums, jnp.moveaxis(sets, 1, 0)), axis=0)
    raw, corrected = (_moments(origin, sums[i], sums[i + 1]) for i in (0, 2))
    return Diagnostics(
        elbo=elbo,
        elbo_se=spread / jnp.sqrt(count),
        log_evidence=logsumexp(log_ratio) - jnp.log(chunks * size),
        khat=khat,
        ess=1 / jnp.sum(weights**2),
        best_ess=jnp.sum(exact) ** 2 / jnp.sum(exact**2),
        bad_share=jnp.sum(own & ~ok & ~outside) / number,
        outside_share=jnp.sum(own & outside) / number,
        raw=raw,
        corrected=corrected,
        num_draws=jnp.asarray(chunks * size),
        draws=first.z[:kept],
        log_weights=log_weights[:kept],
        own=own[:kept],
    )


def default_draws(dim: int) -> int:
    """S when none is given, for D = `dim`."""
    return min(_MOST_DRAWS, max(_LEAST_DRAWS, _TOTAL_ELEMENTS // dim))


def _moments(origin: Array, first: Array, second: Array) -> Moments:
    """Moments and their errors from sums of w x^p and of w^2 x^p, p = 0..4, each (5, C).

    The errors are those of self-normalised importance sampling (Owen 2013, section 9.2).
    """
    m = first[1] / first[0]
    variance = jnp.maximum(first[2] / first[0] - m**2, 0)
    s0, s1, s2, s3, s4 = second
    # sums of w^2 (x - m)^2 and of w^2 ((x - m)^2 - variance)^2
    squares = s2 - 2 * m * s1 + m**2 * s0
    fourths = s4 - 4 * m * s3 + 6 * m**2 * s2 - 4 * m**3 * s1 + m**4 * s0
    quartic = fourths - 2 * variance * squares + variance**2 * s0
    sd = jnp.sqrt(variance)
    tiny = jnp.finfo(m.dtype).tiny
    return Moments(
        origin + m,
        sd,
        jnp.sqrt(jnp.maximum(squares, 0)),
        jnp.sqrt(jnp.maximum(quartic, 0)) / jnp.maximum(2 * sd, tiny),
    )


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
    size = log_ratio.shape[0]
    tail = int(min(0.2 * size, 3 * size**0.5))
    if tail < 1:
        return jax.nn.log_softmax(log_ratio), jnp.full((), jnp.inf, log_ratio.dtype)
    finite = jnp.sum(jnp.isfinite(log_ratio))
    top = jnp.max(log_ratio)
    log_ratio = log_ratio - jnp.where(jnp.isfinite(top), top, 0)
    # the barrier keeps the compiler from turning the selection into a sort of everything
    largest, at = jax.lax.optimization_barrier(jax.lax.top_k(log_ratio, tail + 1))
    cut = jnp.exp(largest[-1])
    largest, at = largest[tail - 1 :: -1], at[tail - 1 :: -1]
    excess = jnp.exp(largest) - cut
    shape, scale = fit_pareto(excess)
    probability = (jnp.arange(tail, dtype=cut.dtype) + 0.5) / tail
    smoothed = cut + scale * _pareto_quantile(probability, shape)
    usable = jnp.isfinite(shape) & (excess[-1] > _FLAT * cut) & (finite > tail)
    smoothed = jnp.where(usable, jnp.minimum(jnp.log(smoothed), 0), largest)
    log_weights = log_ratio.at[at].set(smoothed)
    khat = jnp.where(excess[-1] > _FLAT * cut, shape, jnp.zeros_like(shape))
    khat = jnp.where((finite < 5) | jnp.isnan(khat), jnp.inf, khat)
    return log_weights - logsumexp(log_weights), khat


def fit_pareto(excess: Array) -> tuple[Array, Array]:
    """Shape and scale of a generalised Pareto distribution from ordered excesses (M,) >= 0.

    The posterior mean under a weak prior, on a grid; the shape is then drawn towards 1/2 with
    the weight of ten observations.

    Source: Zhang and Stephens 2009, Technometrics 51(3); the last step from Vehtari et al.
    2024, appendix C.
    """
    n = excess.shape[0]
    grid = 30 + int(n**0.5)
    index = jnp.arange(1, grid + 1, dtype=excess.dtype)
    tiny = jnp.finfo(excess.dtype).tiny
    largest = jnp.maximum(excess[-1], tiny)
    quartile = jnp.maximum(excess[int(n / 4 + 0.5) - 1], tiny)
    theta = 1 / largest + (1 - jnp.sqrt(grid / (index - 0.5))) / (3 * quartile)
    # theta = 0 is the exponential distribution, at which the formulas divide by zero
    theta = jnp.where(jnp.abs(theta) * largest < 1e-6, 1e-6 / largest, theta)
    shapes = jnp.mean(jnp.log1p(-theta[:, None] * excess), axis=1)
    log_likelihood = n * (jnp.log(-theta / shapes) - shapes - 1)
    weight = jax.nn.softmax(jnp.where(jnp.isnan(log_likelihood), -jnp.inf, log_likelihood))
    mean = jnp.sum(theta * weight)
    shape = jnp.mean(jnp.log1p(-mean * excess))
    scale = -shape / mean
    return (n * shape + 5) / (n + 10), scale


def _pareto_quantile(probability: Array, shape: Array) -> Array:
    """Quantiles of the generalised Pareto distribution of scale one."""
    small = jnp.abs(shape) < 1e-6
    safe = jnp.where(small, 1, shape)
    power = jnp.expm1(-safe * jnp.log1p(-probability)) / safe
    return jnp.where(small, -jnp.log1p(-probability), power)
