"""A first look at a fit: few fresh draws, and moments by control variates."""

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from bbvi._linalg import dot
from bbvi._types import Array, PyTree
from bbvi.diagnostics import Diagnostics, Moments, psis
from bbvi.families import Family
from bbvi.target import Target


def first_look(
    target: Target,
    family: Family,
    params: PyTree,
    key: Array,
    data: PyTree,
    num_draws: int,
    mean: Array,
    sd: Array,
) -> Diagnostics:
    r"""Diagnostics from a few hundred draws, where the family's own moments are known.

    Draws z_s come from the family's proposal with density m. With weights w_s ~ p/m of the
    posterior and v_s ~ q/m of the family, each summing to one,

        E_p[x] ~ E_q[x] + sum_s (w_s - v_s) x_s,

    whose noise vanishes as q approaches p, where that of sum_s w_s x_s alone stays 1/sqrt(S).

    Args:
        target: the target.
        family: the family of the approximation.
        params: its parameters.
        key: a typed random key.
        data: the user's data.
        num_draws: S.
        mean: (C,) means of the scalar parameters under the family.
        sd: (C,) their standard deviations.

    Returns:
        the figures of `bbvi.diagnostics.diagnose`, without draws; `raw` is exact, and the errors
        of `corrected` are those of its distance from `raw`.

    Source: Owen 2013, sections 8.9 and 9.10, for control variates with importance sampling.
    """
    z, log_q, log_mixture, own = family.propose(params, key, num_draws)
    log_p = target.log_densities(z, data)
    x = jax.vmap(lambda z: target.scalars(target.constrain(z, data)))(z) - mean
    ok = jnp.isfinite(log_p - log_q)
    outside = jnp.isneginf(log_p)
    number, judged = jnp.sum(own), ok & own
    count = jnp.maximum(jnp.sum(judged), 1)
    gap = log_p - log_q
    elbo = jnp.sum(jnp.where(judged, gap, 0)) / count
    spread = jnp.sqrt(jnp.sum(jnp.where(judged, (gap - elbo) ** 2, 0)) / count)
    log_ratio = jnp.where(ok, log_p - log_mixture, -jnp.inf)
    log_weights, khat = psis(log_ratio)
    w, v = jnp.exp(log_weights), jax.nn.softmax(log_q - log_mixture)

    # a draw without weight may lie where the map to the parameters overflows
    x = jnp.where(((w > 0) | (v > 0))[:, None] & jnp.isfinite(x), x, 0)
    difference = w - v
    shift, squares = dot(difference, x), dot(difference, x**2)
    variance = jnp.maximum(sd**2 + squares - shift**2, 0)
    tiny = jnp.finfo(x.dtype).tiny
    noise = jnp.sqrt(dot(difference**2, x**2))
    square_noise = jnp.sqrt(dot(difference**2, (x**2 - sd**2) ** 2))
    zero = jnp.zeros_like(mean)
    corrected = Moments(
        mean + shift, jnp.sqrt(variance), noise, square_noise / jnp.maximum(2 * sd, tiny)
    )
    return Diagnostics(
        elbo=elbo,
        elbo_se=spread / jnp.sqrt(count),
        log_evidence=logsumexp(log_ratio) - jnp.log(num_draws),
        khat=khat,
        ess=1 / jnp.sum(w**2),
        best_ess=1 / jnp.sum(v**2),
        bad_share=jnp.sum(own & ~ok & ~outside) / number,
        outside_share=jnp.sum(own & outside) / number,
        raw=Moments(mean, sd, zero, zero),
        corrected=corrected,
        num_draws=jnp.asarray(num_draws),
        draws=z[:0],
        log_weights=log_weights[:0],
        own=own[:0],
    )
