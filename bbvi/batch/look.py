"""A first look at a fit: few fresh draws, and moments by control variates."""

import jax
import jax.numpy as jnp

from bbvi._types import Array, PyTree
from bbvi.batch.weighing import weigh
from bbvi.diagnostics.figures import Diagnostics
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
    """Diagnostics from a few hundred draws, where the family's own moments are known.

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
        the figures of `bbvi.batch.weighing.weigh`.
    """
    z, log_q, log_mixture, own = family.propose(params, key, num_draws)
    log_p = target.log_densities(z, data)
    x = jax.vmap(lambda z: target.scalars(target.constrain(z, data)), out_axes=1)(z)
    share = (own / jnp.sum(own)).astype(log_p.dtype)
    return weigh(log_p, log_q, log_mixture, share, x, mean, sd, True)
