"""Vectors of probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from bbvi._types import Array
from bbvi.bijectors.base import Bijector, as_float, tiny, tolerance
from bbvi.bijectors.vector import from_zero_sum, to_zero_sum


@dataclass(frozen=True)
class Simplex(Bijector):
    r"""Vectors of K positive numbers that sum to one, as `simplex`.

    y = softmax(V x), where the K-1 columns of V are an orthonormal basis of the vectors that sum
    to zero (the inverse of the isometric log-ratio). All elements are treated alike, and x = 0 is
    the centre. With respect to the first K-1 elements of y,

        log_det = sum_k log y_k + log(K) / 2.

    An element that underflows is the smallest normal number instead of 0.

    Shapes: x (..., K-1), y (..., K).

    Example:
        >>> import jax.numpy as jnp
        >>> from bbvi.bijectors import simplex
        >>> print(simplex.forward(jnp.zeros(3)))
        [0.25 0.25 0.25 0.25]

    Source: Egozcue et al. (2003), Isometric logratio transformations for compositional data
    analysis; Stan Reference Manual, "Constraint Transforms", unit simplex.
    """

    name = "simplex"
    event_ndim = 1
    redundant = True

    def unconstrained_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        shape = super().unconstrained_shape(shape)
        return (*shape[:-1], shape[-1] - 1)

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        log_y = jax.nn.log_softmax(to_zero_sum(as_float(x)), -1)
        half_log_size = 0.5 * math.log(log_y.shape[-1])
        log_det = jnp.sum(log_y) + math.prod(log_y.shape[:-1]) * half_log_size
        return jnp.maximum(jnp.exp(log_y), tiny(log_y)), log_det

    def inverse(self, y: Array) -> Array:
        return from_zero_sum(jnp.log(as_float(y)))

    def contains(self, y: Array) -> Array:
        y = as_float(y)
        return jnp.all(y > 0) & jnp.all(jnp.abs(jnp.sum(y, -1) - 1) <= tolerance(y))


simplex = Simplex()
