"""A posterior seen from the base space of a family: of an exact fit, a standard normal."""

import jax
import jax.numpy as jnp

from bbvi._compile import SMALL_EVALUATION, once_jit, quick_jit
from bbvi._types import Array, PyTree
from bbvi.families import Family
from bbvi.target import Target


def standardised(
    target: Target, family: Family, params: PyTree, eps: Array, data: PyTree
) -> tuple[Array, Array, Array]:
    r"""z(eps), the log density of eps and its gradient, for points (S, D).

    With z = z(eps) the map of a family from base normals,

        log pi(eps) = log p(z(eps)) + log |det dz/deps|,

    up to a constant. Where it is not finite it is -inf, and the gradient zero.

    Args:
        target: the target.
        family: a family whose draws are a one-to-one function of D base normals.
        params: its parameters.
        eps: (S, D).
        data: the user's data.
    """

    def total(eps):
        z, log_q = family.reparam(params, eps)
        still = jax.lax.stop_gradient(z)
        log_p, score, ok = target.score(still, data)
        tangent = jnp.sum(score * (z - still), axis=-1)
        value = log_p + tangent - 0.5 * jnp.sum(eps**2, axis=-1) - log_q
        value = jnp.where(ok & jnp.isfinite(value), value, -jnp.inf)
        return jnp.sum(jnp.where(jnp.isfinite(value), value, 0)), (z, value)

    (_, (z, value)), slope = jax.value_and_grad(total, has_aux=True)(eps)
    return z, value, jnp.where(jnp.isfinite(slope), slope, 0)


compiled = quick_jit(0, (0, 1), small=SMALL_EVALUATION)(standardised)


@once_jit((0,))
def enter(family: Family, params: PyTree, z: Array) -> Array:
    """The base normals (S, D) of points (S, D), compiled."""
    return family.normals(params, z)
