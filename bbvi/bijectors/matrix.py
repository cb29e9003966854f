"""Correlation and covariance matrices, and their Cholesky factors.

Unconstrained vectors list a triangle row by row. Row and column indices i, j count from 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._types import Array
from bbvi.bijectors.base import Bijector, as_float, spread, tiny, tolerance


@dataclass(frozen=True)
class _Triangular(Bijector):
    """A K x K matrix whose degrees of freedom are a lower triangle."""

    event_ndim = 2
    redundant = True
    diagonal: ClassVar[int]  # 0: the triangle includes the diagonal; -1: it does not

    def unconstrained_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        shape = super().unconstrained_shape(shape)
        if shape[-1] != shape[-2]:
            raise ValueError(f"{self.name} needs a square matrix, not shape {shape}.")
        return (*shape[:-2], self._length(shape[-1]))

    def _length(self, size: int) -> int:
        return size * (size + 1 + 2 * self.diagonal) // 2

    def _size(self, x: Array) -> int:
        """K, from the number of entries of x."""
        length = x.shape[-1]
        size = (math.isqrt(8 * length + 1) - 1) // 2 - self.diagonal
        if self._length(size) != length:
            raise ValueError(f"{self.name}: {length} numbers do not fill a triangle.")
        return size

    def _place(self, x: Array) -> Array:
        """A (..., K, K) matrix with the entries of x in its triangle, row by row, else zeros."""
        size = self._size(x)
        # Gathering from (0, x) compiles faster than scattering x, and K = 1 is nothing special.
        source = np.zeros((size, size), int)
        source[np.tril_indices(size, self.diagonal)] = np.arange(1, x.shape[-1] + 1)
        return jnp.concatenate([jnp.zeros((*x.shape[:-1], 1), x.dtype), x], -1)[..., source]

    def _take(self, y: Array) -> Array:
        """The triangle of a matrix, row by row."""
        rows, columns = np.tril_indices(y.shape[-1], self.diagonal)
        return y[..., rows, columns]


def _diag(y: Array) -> Array:
    return jnp.diagonal(y, axis1=-2, axis2=-1)


def _is_cholesky(y: Array) -> Array:
    finite = jnp.all(jnp.isfinite(y))
    return finite & jnp.all(jnp.triu(y, 1) == 0) & jnp.all(_diag(y) > 0)


def _is_positive_definite(y: Array) -> Array:
    scale = jnp.max(jnp.abs(y), axis=(-2, -1), keepdims=True)
    symmetric = jnp.all(jnp.abs(y - y.mT) <= tolerance(y) * scale)
    # A matrix that is not positive definite has a Cholesky factor of NaN.
    return symmetric & jnp.all(jnp.isfinite(jnp.linalg.cholesky(y)))


def _product(factor: Array) -> Array:
    return jnp.matmul(factor, factor.mT, precision=jax.lax.Precision.HIGHEST)


def _corr_factor(x: Array) -> tuple[Array, Array]:
    """The factor of a correlation matrix, and log sech(x) in its place; see `CorrCholesky`.

    Args:
        x: (..., K, K), strictly lower triangular.
    """
    size = x.shape[-1]
    inside = jnp.broadcast_to(np.tri(size, k=-1, dtype=bool), x.shape)
    log_sech = jnp.where(inside, math.log(2) - jnp.logaddexp(x, -x), 0)
    # Column j of a row needs the sum over the columns before it.
    before = np.triu(np.ones((size, size)), 1).astype(x.dtype)
    left = jnp.exp(jnp.matmul(log_sech, before, precision=jax.lax.Precision.HIGHEST))
    return jnp.maximum(left, tiny(x)) * (jnp.tanh(x) + spread(np.eye(size), x)), log_sech


@dataclass(frozen=True)
class CorrCholesky(_Triangular):
    r"""Cholesky factors L of K x K correlation matrices, as `corr_cholesky`.

    L is lower triangular with rows of length one and a positive diagonal. The tanh of x are
    canonical partial correlations, which break each row's unit length into pieces:

        L_ij = tanh(x_ij) prod_{k<j} sech(x_ik) for j < i,     L_ii = prod_{k<i} sech(x_ik),
        log_det = sum_{j<i} (i - j + 1) log sech(x_ij)

    with respect to the strict lower triangle of L. A diagonal entry that underflows is the
    smallest normal number instead of 0.

    Shapes: x (..., K(K-1)/2), y (..., K, K).

    Example:
        >>> import jax.numpy as jnp
        >>> from bbvi.bijectors import corr_cholesky
        >>> print(corr_cholesky.forward(jnp.array([jnp.arctanh(0.6)])).round(3))
        [[1.  0. ]
         [0.6 0.8]]

    Source: Lewandowski, Kurowicka & Joe (2009), Generating random correlation matrices based on
    vines and extended onion method; Stan Reference Manual, "Constraint Transforms".
    """

    name = "corr_cholesky"
    diagonal = -1

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        y, log_sech = _corr_factor(self._place(as_float(x)))
        row, column = np.indices(y.shape[-2:])
        return y, jnp.sum(log_sech * spread(row - column + 1, y))

    def inverse(self, y: Array) -> Array:
        y = as_float(y)
        rows, columns = np.tril_indices(y.shape[-1], -1)
        # sinh(x_ij) = L_ij / (length of the row beyond column j): unlike arctanh of a ratio to the
        # length from column j on, this loses no digits near a correlation of one.
        squares = jnp.tril(y) ** 2
        beyond = jax.lax.cumsum(squares, axis=y.ndim - 1, reverse=True)[..., rows, columns + 1]
        return jnp.arcsinh(self._take(y) / jnp.sqrt(beyond))

    def contains(self, y: Array) -> Array:
        y = as_float(y)
        lengths = jnp.sqrt(jnp.sum(y**2, -1))
        return _is_cholesky(y) & jnp.all(jnp.abs(lengths - 1) <= tolerance(y))


@dataclass(frozen=True)
class Correlation(_Triangular):
    r"""K x K correlation matrices, as `correlation`.

    y = L L^T with L from `corr_cholesky`. With respect to the strict lower triangle of y,

        log_det = sum_{j<i} (K - j) log sech(x_ij).

    Prefer `corr_cholesky` where the density allows: it needs no factorisation, and near a
    correlation of one it keeps digits that y itself cannot hold (beyond |x| of about 8 in float32
    and 18 in float64, y rounds to a singular matrix).

    Shapes: x (..., K(K-1)/2), y (..., K, K).

    Example:
        >>> import jax.numpy as jnp
        >>> from bbvi.bijectors import correlation
        >>> print(correlation.forward(jnp.array([jnp.arctanh(0.6)])).round(3))
        [[1.  0.6]
         [0.6 1. ]]

    Source: Lewandowski, Kurowicka & Joe (2009), Generating random correlation matrices based on
    vines and extended onion method; Stan Reference Manual, "Constraint Transforms".
    """

    name = "correlation"
    diagonal = -1

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        factor, log_sech = _corr_factor(self._place(as_float(x)))
        product = _product(factor)
        size = product.shape[-1]
        diagonal = jnp.broadcast_to(np.eye(size, dtype=bool), product.shape)
        y = jnp.where(diagonal, 1, product)  # without rounding
        return y, jnp.sum(log_sech * spread(size - np.arange(size), y))

    def inverse(self, y: Array) -> Array:
        return corr_cholesky.inverse(jnp.linalg.cholesky(as_float(y)))

    def contains(self, y: Array) -> Array:
        y = as_float(y)
        unit_diagonal = jnp.all(jnp.abs(_diag(y) - 1) <= tolerance(y))
        return unit_diagonal & _is_positive_definite(y)


@dataclass(frozen=True)
class CovCholesky(_Triangular):
    r"""Lower triangular K x K matrices with a positive diagonal, as `cov_cholesky`.

    The Cholesky factors of covariance matrices: L_ij = x_ij for j < i and L_ii = exp(x_ii). With
    respect to the lower triangle of L, log_det = sum_i x_ii.

    Shapes: x (..., K(K+1)/2), y (..., K, K).

    Example:
        >>> import jax.numpy as jnp
        >>> from bbvi.bijectors import cov_cholesky
        >>> print(cov_cholesky.forward(jnp.array([0.0, 0.5, jnp.log(2.0)])).round(2))
        [[1.  0. ]
         [0.5 2. ]]

    Source: Pinheiro & Bates (1996), Unconstrained parametrizations for variance-covariance
    matrices.
    """

    name = "cov_cholesky"
    diagonal = 0

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        x = self._place(as_float(x))
        diagonal = jnp.broadcast_to(np.eye(x.shape[-1], dtype=bool), x.shape)
        log_diagonal = jnp.where(diagonal, x, 0)  # exp of the others might overflow
        y = jnp.where(diagonal, jnp.maximum(jnp.exp(log_diagonal), tiny(x)), x)
        return y, jnp.sum(log_diagonal)

    def inverse(self, y: Array) -> Array:
        y = as_float(y)
        diagonal = jnp.broadcast_to(np.eye(y.shape[-1], dtype=bool), y.shape)
        return self._take(jnp.where(diagonal, jnp.log(jnp.where(diagonal, y, 1)), y))

    def contains(self, y: Array) -> Array:
        return _is_cholesky(as_float(y))


@dataclass(frozen=True)
class Covariance(_Triangular):
    r"""K x K covariance matrices, as `covariance`.

    y = L L^T, with L_ij = x_ij for j < i and L_ii = exp(x_ii / 2): the diagonal of x holds log
    conditional variances, so that the largest entries of y grow like exp(x) and not exp(2x). With
    respect to the lower triangle of y,

        log_det = sum_i (K - i + 1) x_ii / 2.

    Prefer `cov_cholesky` where the density allows: it needs no factorisation, and stays accurate
    where y rounds to a singular matrix.

    Shapes: x (..., K(K+1)/2), y (..., K, K).

    Example:
        >>> import jax.numpy as jnp
        >>> from bbvi.bijectors import covariance
        >>> print(covariance.forward(jnp.array([0.0, 0.5, 0.0])).round(3))
        [[1.   0.5 ]
         [0.5  1.25]]

    Source: Muirhead (1982), Aspects of Multivariate Statistical Theory, theorem 2.1.9 (the
    Jacobian of L L^T).
    """

    name = "covariance"
    diagonal = 0

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        x = as_float(x)
        size = self._size(x)
        rows, columns = np.tril_indices(size)
        diagonal = rows == columns
        factor = cov_cholesky.forward(x * spread(np.where(diagonal, 0.5, 1.0), x))
        weight = np.where(diagonal, 0.5 * (size - rows + 1), 0.0)
        return _product(factor), jnp.sum(x * spread(weight, x))

    def inverse(self, y: Array) -> Array:
        x = cov_cholesky.inverse(jnp.linalg.cholesky(as_float(y)))
        rows, columns = np.tril_indices(self._size(x))
        return x * spread(np.where(rows == columns, 2.0, 1.0), x)

    def contains(self, y: Array) -> Array:
        return _is_positive_definite(as_float(y))


corr_cholesky = CorrCholesky()
correlation = Correlation()
cov_cholesky = CovCholesky()
covariance = Covariance()
