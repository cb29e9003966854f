"""The evidence lower bound."""

from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp

from bbvi._types import Array, PyTree
from bbvi.families import Family
from bbvi.objectives.base import LossInfo, MaskedLogDensity, Objective
from bbvi.objectives.draws import normals

_ENTROPIES = ("closed_form", "stl", "monte_carlo")


@dataclass(frozen=True)
class ELBO(Objective):
    r"""The negative evidence lower bound, estimated with reparameterised draws.

        loss = -(1/S) sum_s [log p(z_s) - log q(z_s)],  z_s = reparam(params, eps_s).

    Draws at which the log density or its gradient is not finite are left out of the average
    and counted.

    Args:
        num_draws: S, even when `antithetic`.
        entropy: how -E[log q] enters. "stl" (sticking the landing) holds the parameters of
            log q fixed, so that the gradient's variance vanishes where q = p (Roeder, Wu and
            Duvenaud 2017); "closed_form" uses the family's exact entropy; "monte_carlo"
            averages -log q with its full gradient.
        antithetic: draws in pairs eps, -eps.
        quasi: base normals from a randomly shifted lattice.
        chunk_size: evaluate the log joint at no more than so many draws at a time, which
            bounds memory; None bounds them by the work of one.

    Example:
        >>> ELBO(num_draws=64, entropy="closed_form", quasi=True).draws
        64
    """

    num_draws: int = 16
    entropy: Literal["closed_form", "stl", "monte_carlo"] = "stl"
    antithetic: bool = True
    quasi: bool = False
    chunk_size: int | None = None

    def __post_init__(self):
        if self.entropy not in _ENTROPIES:
            raise ValueError(f"entropy must be one of {_ENTROPIES}, not {self.entropy!r}.")
        if self.num_draws < 1 or (self.antithetic and self.num_draws % 2):
            kind = "a positive even number of draws (antithetic)" if self.antithetic else ">= 1"
            raise ValueError(f"num_draws must be {kind}, not {self.num_draws}.")
        if self.chunk_size is not None and self.chunk_size < 1:
            raise ValueError(f"chunk_size must be positive or None, not {self.chunk_size}.")

    @property
    def draws(self) -> int:
        return self.num_draws

    def noise(self, key: Array, family: Family, dim: int, dtype: Any) -> Array:
        size = family.noise_size(dim)
        return normals(
            key, self.num_draws, size, dtype, antithetic=self.antithetic, quasi=self.quasi
        )

    def loss(
        self, family: Family, params: PyTree, eps: Array, log_density: MaskedLogDensity
    ) -> tuple[Array, LossInfo]:
        draw = family.reparam_held if self.entropy == "stl" else family.reparam
        z, log_q = draw(params, eps)
        log_p, ok = log_density(z)
        count = jnp.sum(ok)
        share = jnp.maximum(count, 1).astype(z.dtype)
        if self.entropy == "closed_form":
            elbo = jnp.sum(jnp.where(ok, log_p, 0)) / share + family.entropy(params)
        else:
            elbo = jnp.sum(jnp.where(ok, log_p - log_q, 0)) / share
        info = LossInfo(elbo, self.num_draws - count, count > 0)
        return -elbo, info
