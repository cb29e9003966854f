"""The flat space that chains move on: the unconstrained one, or a family's base space."""

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp

from bbvi._compile import plain_jit
from bbvi._types import Array, PyTree
from bbvi.families import Family
from bbvi.families.base import LOG_2PI
from bbvi.target import Target


@partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=["family"])
@dataclass(frozen=True)
class BaseSpace:
    r"""The base space of a member of a family, from which z = z(eps).

    There the log density is log p(z(eps)) + log |det dz/deps|, which is that of a standard
    normal if the member is the posterior.

    Attributes:
        family: a family whose draws are a one-to-one function of D base normals.
        params: its parameters.

    Source: Hoffman et al. 2019 (arXiv:1903.03704).
    """

    family: Family
    params: PyTree = field(repr=False)

    def leave(self, eps: Array) -> tuple[Array, Array]:
        """The unconstrained vector (D,) at `eps` (D,), and log |det dz/deps|."""
        z, log_q = self.family.reparam(self.params, eps[None])
        return z[0], jnp.sum(-0.5 * eps**2 - 0.5 * LOG_2PI) - log_q[0]


def log_density(target: Target, z: Array, data: PyTree, base: BaseSpace | None) -> Array:
    """The log density at one vector (D,) of the base space, or of the unconstrained one."""
    if base is None:
        value = target.log_density(z, data)
    else:
        z, log_det = base.leave(z)
        value = target.log_density(z, data) + log_det
    # NaN and +inf, far out, are refused: one such point would hold a chain for good
    return jnp.where(value < jnp.inf, value, -jnp.inf)


@plain_jit((0,))
def constrain(target: Target, zs: Array, data: PyTree, base: BaseSpace | None) -> PyTree:
    """Vectors (..., D) in the user's structure, with the same leading axes."""

    def one(z):
        return target.constrain(z if base is None else base.leave(z)[0], data)

    constrained = jax.vmap(one)(zs.reshape(-1, zs.shape[-1]))
    return jax.tree.map(lambda x: x.reshape(zs.shape[:-1] + x.shape[1:]), constrained)
