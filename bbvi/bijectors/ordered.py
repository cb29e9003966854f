"""Vectors in increasing order."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._types import Array
from bbvi.bijectors.base import Bijector, as_float, tiny


def _cumulative(steps: Array) -> Array:
    """Cumulative sums along the last axis, kept strictly increasing in spite of rounding.

    A step smaller than the spacing of floats would leave two neighbours equal, and a parallel
    prefix sum can even swap them. Floats of one dtype are consecutive integers once their bits
    are read in order, so pushing y_k to at least one float above y_{k-1} is a running maximum of
    rank - k.
    """
    y = jnp.cumsum(steps, -1)
    integer = np.dtype(f"int{jnp.finfo(y.dtype).bits}")
    lowest = np.iinfo(integer).min

    def reorder(i: Array) -> Array:  # sign and magnitude <-> two's complement: its own inverse
        return jnp.where(i < 0, lowest - i, i)

    position = jax.lax.broadcasted_iota(integer, y.shape, y.ndim - 1)
    rank = reorder(jax.lax.bitcast_convert_type(jax.lax.stop_gradient(y), integer))
    rank = jax.lax.cummax(rank - position, axis=y.ndim - 1) + position
    increasing = jax.lax.bitcast_convert_type(reorder(rank), y.dtype)
    return y + jax.lax.stop_gradient(increasing - y)


@dataclass(frozen=True)
class Ordered(Bijector):
    r"""Vectors of K real numbers in strictly increasing order, as `ordered`.

    y_1 = x_1 and y_k = y_{k-1} + exp(x_k), with log_det = sum_{k >= 2} x_k. Neighbours that
    rounding would make equal are one float apart.

    Shapes: x (..., K), y (..., K).

    Example:
        >>> import jax.numpy as jnp
        >>> from bbvi.bijectors import ordered
        >>> print(ordered.forward(jnp.array([-1.0, 0.0, 0.0])))
        [-1.  0.  1.]

    Source: Stan Reference Manual, "Constraint Transforms", ordered vector.
    """

    name = "ordered"
    event_ndim = 1

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        x = as_float(x)
        steps = jnp.concatenate([x[..., :1], jnp.exp(x[..., 1:])], -1)
        return _cumulative(steps), jnp.sum(x[..., 1:])

    def inverse(self, y: Array) -> Array:
        y = as_float(y)
        return jnp.concatenate([y[..., :1], jnp.log(jnp.diff(y))], -1)

    def contains(self, y: Array) -> Array:
        y = as_float(y)
        return jnp.all(jnp.diff(y) > 0) & jnp.all(jnp.isfinite(y))


@dataclass(frozen=True)
class PositiveOrdered(Bijector):
    r"""Vectors of K positive numbers in strictly increasing order, as `positive_ordered`.

    y_1 = exp(x_1) and y_k = y_{k-1} + exp(x_k), with log_det = sum_k x_k. Neighbours that
    rounding would make equal are one float apart.

    Shapes: x (..., K), y (..., K).

    Example:
        >>> import jax.numpy as jnp
        >>> from bbvi.bijectors import positive_ordered
        >>> print(positive_ordered.forward(jnp.array([0.0, 0.0, 0.0])))
        [1. 2. 3.]

    Source: Stan Reference Manual, "Constraint Transforms", positive ordered vector.
    """

    name = "positive_ordered"
    event_ndim = 1

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        x = as_float(x)
        return _cumulative(jnp.maximum(jnp.exp(x), tiny(x))), jnp.sum(x)

    def inverse(self, y: Array) -> Array:
        y = as_float(y)
        return jnp.log(jnp.concatenate([y[..., :1], jnp.diff(y)], -1))

    def contains(self, y: Array) -> Array:
        y = as_float(y)
        return jnp.all(jnp.diff(y) > 0) & jnp.all(y > 0) & jnp.all(jnp.isfinite(y))


ordered = Ordered()
positive_ordered = PositiveOrdered()
