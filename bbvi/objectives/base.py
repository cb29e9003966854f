"""What an objective is: a loss of the family's parameters at given base noise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from bbvi._types import Array, PyTree
from bbvi.families import Family

# draws (S, D) -> log densities (S,), mask (S,): differentiable, bad draws zero and marked
MaskedLogDensity = Callable[[Array], tuple[Array, Array]]


class LossInfo(NamedTuple):
    """What one evaluation of a loss says beside its value.

    Attributes:
        elbo: estimate of the bound in nats, higher is better.
        num_skipped: draws left out because they were not finite.
        usable: whether any draw was left.
    """

    elbo: Array
    num_skipped: Array
    usable: Array


@dataclass(frozen=True)
class Objective:
    """A loss to minimise, as a hashable spec."""

    @property
    def draws(self) -> int:
        """S, the gradient evaluations of the log joint in one call of `loss`."""
        raise NotImplementedError

    def noise(self, key: Array, family: Family, dim: int, dtype: Any) -> Array:
        """Base normals (S, K)."""
        raise NotImplementedError

    def loss(
        self, family: Family, params: PyTree, eps: Array, log_density: MaskedLogDensity
    ) -> tuple[Array, LossInfo]:
        """The loss, a scalar differentiable in `params`, and its `LossInfo`."""
        raise NotImplementedError
