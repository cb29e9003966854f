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
from bbvi.pareto import largest_terms, psis, rate_lost
from bbvi.target import Target

# Fresh draws, fewer where they are long. With 2,048 the tail that k-hat is fitted to begins in
# the bulk of the weights, and nearly perfect fits read 2 and more; here it is 2% of the draws.
_MOST_DRAWS, _LEAST_DRAWS = 16_384, 1_024
_TOTAL_ELEMENTS = 1 << 24
# Elements of draws held at once; their first five powers are.
_CHUNK_ELEMENTS = 1 << 21
# Elements of draws kept in the result, for pictures and checks: 16 MiB in float32.
_KEPT_ELEMENTS = 1 << 22


class Moments(NamedTuple):
    """Mean and standard deviation of each scalar parameter, with Monte Carlo errors; all (C,).

    A standard error says nothing of terms that were not drawn: where the weighted squares have a
    heavy tail, that of a corrected sd is larger by `bbvi.pareto.rate_lost`.
    """

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

    # Where a reported scalar sits at 1e6 with an sd of 1, its squares would lose the sd: it is
    # measured from about its mean, in units of about its sd where only the size counts.
    origin, unit = _place(scalars(first.z), weights[:size])
    even = (own / number).astype(weights.dtype)
    sets = jnp.stack([even, even**2, weights, weights**2]).reshape(4, chunks, size)

    def power_sums(drawn, sets):
        # a draw without weight may lie where the map to the parameters overflows
        x = jnp.where(jnp.any(sets > 0, axis=0)[:, None], scalars(drawn.z) - origin, 0)
        powers = jnp.stack([jnp.ones_like(x), x, x**2, x**3, x**4])
        terms = sets[2] * (x / unit).T ** 2
        return einsum("ws,psc->wpc", sets, powers), largest_terms(terms, chunks * size)

    sums, largest = over_chunks(power_sums, jnp.moveaxis(sets, 1, 0))
    sums = jnp.sum(sums, axis=0)
    raw, corrected = (_moments(origin, sums[i], sums[i + 1]) for i in (0, 2))
    slower = rate_lost(largest, chunks * size).astype(origin.dtype)
    corrected = corrected._replace(sd_se=corrected.sd_se * slower)
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


def _place(x: Array, weights: Array) -> tuple[Array, Array]:
    """Mean and sd of scalars (S, C) under weights; one of them and 1 where these say nothing."""
    used = weights > 0
    share = weights / jnp.maximum(jnp.sum(weights), jnp.finfo(x.dtype).tiny)
    x = jnp.where(used[:, None], x, x[0])
    mean = jnp.where(jnp.any(used), x[0] + einsum("s,sc->c", share, x - x[0]), x[0])
    sd = jnp.sqrt(einsum("s,sc->c", share, (x - mean) ** 2))
    return mean, jnp.where(sd > 0, sd, 1)
