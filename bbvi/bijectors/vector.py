"""Vectors that sum to zero, and vectors of length one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._types import Array
from bbvi.bijectors.base import Bijector, as_float, spread, tiny, tolerance


def to_zero_sum(x: Array) -> Array:
    r"""The vector of the zero-sum hyperplane that has coordinates x in the Helmert basis.

    Basis vector n = 1..K-1 is (1, ..., 1, -n, 0, ..., 0) / sqrt(n (n + 1)), with n ones. Entry i
    of the result is then sum_{n >= i} w_n - (i - 1) w_{i-1}, where w_n = x_n / sqrt(n (n + 1)):
    one reverse cumulative sum, and no K x K matrix.

    Args:
        x: (..., K-1) coordinates.

    Returns:
        (..., K) entries. The map keeps lengths and angles.
    """
    n = np.arange(1, x.shape[-1] + 1)
    w = x * spread(1 / np.sqrt(n * (n + 1.0)), x)
    zero = jnp.zeros((*x.shape[:-1], 1), x.dtype)
    tails = jax.lax.cumsum(w, axis=x.ndim - 1, reverse=True)
    return jnp.concatenate([tails, zero], -1) - jnp.concatenate([zero, w * spread(n, w)], -1)


def from_zero_sum(y: Array) -> Array:
    """The coordinates of y in the Helmert basis: `to_zero_sum` transposed, hence its inverse.

    A constant added to y makes no difference.

    Args:
        y: (..., K) entries.

    Returns:
        (..., K-1) coordinates.
    """
    n = np.arange(1, y.shape[-1])
    heads = jnp.cumsum(y, -1)[..., :-1]
    return (heads - y[..., 1:] * spread(n, heads)) * spread(1 / np.sqrt(n * (n + 1.0)), heads)


@dataclass(frozen=True)
class ZeroSum(Bijector):
    r"""Vectors of K real numbers that sum to zero, as `zero_sum`.

    y = V x, where the K-1 columns of V are an orthonormal basis of the hyperplane sum(y) = 0.
    The density of y is taken with respect to the volume on that hyperplane, which V keeps, so
    the log-determinant is 0, and independent normal x give every y_k the same variance.

    Shapes: x (..., K-1), y (..., K).

    Example:
        >>> import jax.numpy as jnp
        >>> from bbvi.bijectors import zero_sum
        >>> print(zero_sum.forward(jnp.sqrt(jnp.array([2.0, 6.0]))).round(2))
        [ 2.  0. -2.]

    Source: Stan Reference Manual, "Constraint Transforms", zero sum vector; Egozcue et al. (2003),
    Isometric logratio transformations for compositional data analysis.
    """

    name = "zero_sum"
    event_ndim = 1
    redundant = True

    def unconstrained_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        shape = super().unconstrained_shape(shape)
        return (*shape[:-1], shape[-1] - 1)

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        x = as_float(x)
        return to_zero_sum(x), jnp.zeros((), x.dtype)

    def inverse(self, y: Array) -> Array:
        return from_zero_sum(as_float(y))

    def contains(self, y: Array) -> Array:
        y = as_float(y)
        scale = jnp.maximum(1.0, jnp.sum(jnp.abs(y), -1))
        return jnp.all(jnp.abs(jnp.sum(y, -1)) <= tolerance(y) * scale) & jnp.all(jnp.isfinite(y))


@dataclass(frozen=True)
class UnitVector(Bijector):
    r"""Vectors of K real numbers with length one, as `unit_vector`.

    y = x / r with r = |x|: K reals for K-1 degrees of freedom, r being an auxiliary variable. In
    polar coordinates dx = r^(K-1) dr dS(y), where dS is surface area on the sphere, so a density
    p(y) on the sphere needs a density of r to become one of x. With r chi-distributed with K
    degrees of freedom,

        log_det = log chi_K(r) - (K-1) log r = -r^2/2 - log(2^(K/2-1) Gamma(K/2)),

    the integral of p(y(x)) exp(log_det) over x is exactly the integral of p over dS: evidence
    with respect to surface area is unchanged, and a uniform p gives independent standard normal x.
    At x = 0, where no direction is defined, y is the first axis, with derivative 0.

    `inverse` can only return one of the x of a ray: the one of length sqrt(K-1), where chi_K has
    its mode.

    Shapes: x (..., K), y (..., K), with K >= 2.

    Example:
        >>> import jax.numpy as jnp
        >>> from bbvi.bijectors import unit_vector
        >>> print(unit_vector.forward(jnp.array([3.0, 4.0])).round(3))
        [0.6 0.8]

    Source: Stan Reference Manual, "Constraint Transforms", unit vector; Muller (1959), A note on a
    method for generating points uniformly on n-dimensional spheres.
    """

    name = "unit_vector"
    event_ndim = 1
    redundant = True

    def unconstrained_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        shape = super().unconstrained_shape(shape)
        if shape[-1] < 2:
            raise ValueError(f"unit_vector needs a vector of at least two elements, not {shape}.")
        return shape

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        x = as_float(x)
        size = x.shape[-1]
        # Dividing by the largest entry first keeps the squares from under- or overflowing. As y
        # does not depend on that scale, its derivative can be left out.
        largest = jax.lax.stop_gradient(jnp.max(jnp.abs(x), -1, keepdims=True))
        undefined = largest < tiny(x)
        first_axis = spread(np.eye(size)[0], x)
        direction = jnp.where(undefined, first_axis, x / jnp.where(undefined, 1.0, largest))
        y = direction / jnp.sqrt(jnp.sum(direction**2, -1, keepdims=True))
        log_normalizer = (size / 2 - 1) * math.log(2) + math.lgamma(size / 2)
        return y, -0.5 * jnp.sum(x**2) - math.prod(x.shape[:-1]) * log_normalizer

    def inverse(self, y: Array) -> Array:
        y = as_float(y)
        return y * math.sqrt(y.shape[-1] - 1)

    def contains(self, y: Array) -> Array:
        y = as_float(y)
        return jnp.all(jnp.abs(jnp.sqrt(jnp.sum(y**2, -1)) - 1) <= tolerance(y))


zero_sum = ZeroSum()
unit_vector = UnitVector()
