"""What weighted draws say of an approximation whose own moments are known."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from bbvi._linalg import dot
from bbvi._types import Array
from bbvi.diagnostics.figures import Diagnostics
from bbvi.diagnostics.moments import Moments
from bbvi.diagnostics.pareto import growth_lost, growth_shape, psis

# Squares whose errors are larger than their standard errors by this much are no controls.
_HEAVY = 2.0


def weigh(
    log_p: Array,
    log_q: Array,
    log_mixture: Array,
    share: Array,
    x: Array,
    mean: Array,
    sd: Array,
    known: Any,
) -> Diagnostics:
    r"""Diagnostics from draws of a proposal m, with the approximation's moments as controls.

    With weights w_s ~ p/m of the posterior and v_s ~ q/m of the approximation, each summing to
    one, a scalar f has

        E_p[f] ~ sum_s w_s f_s - beta (sum_s v_s f_s - E_q[f]),

    with the beta of least variance. The nearer q is to p, the less noise is left, where that of
    sum_s w_s f_s alone stays 1/sqrt(S).

    Args:
        log_p: (S,) log densities of the target.
        log_q: (S,) of the approximation.
        log_mixture: (S,) of the proposal.
        share: (S,) weights, summing to one, under which the approximation's own draws among
            them stand for it; zero for the others.
        x: (C, S) the scalar parameters.
        mean: (C,) their means under the approximation.
        sd: (C,) their standard deviations.
        known: (C,) where these are exact; elsewhere they are not used as controls.

    Returns:
        the figures of `bbvi.diagnostics.fresh_draws.diagnose`, without draws. `raw` is what was
        given; the errors of `corrected` are those of its distance from it.

    Source: Owen 2013, sections 8.9 and 9.10, for control variates with importance sampling.
    """
    number = log_p.shape[0]
    gap = log_p - log_q
    ok = jnp.isfinite(gap)
    outside = jnp.isneginf(log_p)
    judged = jnp.where(ok, share, 0)
    judged = judged / jnp.maximum(jnp.sum(judged), jnp.finfo(judged.dtype).tiny)
    gap = jnp.where(ok, gap, 0)
    elbo = jnp.sum(judged * gap)
    log_ratio = jnp.where(ok, log_p - log_mixture, -jnp.inf)
    log_weights, khat = psis(log_ratio)
    w, v = jnp.exp(log_weights), jax.nn.softmax(log_q - log_mixture)

    # a draw without weight may lie where the map to the parameters overflows
    y = x - mean[:, None]
    y = jnp.where(((w > 0) | (v > 0)) & jnp.isfinite(y), y, 0)
    use = jnp.asarray(known, y.dtype)

    def controlled(f, level, expected):
        """E_p[f], and its error, given E_q[f] and about where E_p[f] is."""
        posterior, control = w * (f - level[:, None]), v * (f - expected[:, None])
        squares = jnp.maximum(jnp.sum(control**2, axis=1), jnp.finfo(f.dtype).tiny)
        beta = use * jnp.sum(posterior * control, axis=1) / squares
        rest = posterior - beta[:, None] * control
        return level + jnp.sum(rest, axis=1), jnp.sqrt(jnp.sum(rest**2, axis=1))

    shift, shift_se = controlled(y, dot(y, w), jnp.zeros_like(mean))
    centred = (y - shift[:, None]) ** 2
    # a control whose own tail the draws miss would bring in what they miss of it
    use = use * (growth_lost(growth_shape(v * centred), number) < _HEAVY)
    variance, variance_se = controlled(centred, dot(centred, w), sd**2 + shift**2)
    shape = growth_shape(w * centred)
    variance_se = variance_se * growth_lost(shape, number)
    corrected_sd = jnp.sqrt(jnp.maximum(variance, 0))
    safe = jnp.maximum(2 * corrected_sd, jnp.finfo(y.dtype).tiny)
    zero = jnp.zeros_like(mean)
    return Diagnostics(
        elbo=elbo,
        elbo_se=jnp.sqrt(jnp.sum((judged * (gap - elbo)) ** 2)),
        log_evidence=logsumexp(log_ratio) - jnp.log(number),
        khat=khat,
        ess=1 / jnp.sum(w**2),
        best_ess=1 / jnp.sum(v**2),
        bad_share=jnp.sum(jnp.where(ok | outside, 0, share)),
        outside_share=jnp.sum(jnp.where(outside, share, 0)),
        raw=Moments(mean, sd, zero, zero),
        corrected=Moments(mean + shift, corrected_sd, shift_se, variance_se / safe),
        square_shape=shape,
        num_draws=jnp.asarray(number),
        draws=jnp.zeros((0, 0), y.dtype),
        log_weights=log_weights[:0],
        own=share[:0] > 0,
    )
