"""Matrix products at full precision: accelerators round float32 factors to 10 bits by default."""

from collections.abc import Callable
from functools import partial, wraps

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from bbvi._arrays import namespace
from bbvi._types import AnyArray

einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def dot(a: AnyArray, b: AnyArray) -> AnyArray:
    """a @ b, of arrays of JAX or of numpy."""
    if namespace(a) is np and namespace(b) is np:
        return a @ b
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def at_full_precision(function: Callable) -> Callable:
    """Decorator: products of somebody else's code too, unless they chose a precision themselves.

    Rounded to 10 bits, a coefficient of 1 +- 0.001 has two values within its posterior.
    """

    @wraps(function)
    def wrapped(*args, **kwargs):
        if jax.config.jax_default_matmul_precision is not None:
            return function(*args, **kwargs)
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return wrapped


def cholesky(x: AnyArray) -> AnyArray:
    """The lower triangular factor, NaN where there is none."""
    if namespace(x) is jnp:
        return jnp.linalg.cholesky(x)
    try:
        return np.linalg.cholesky(x)
    except np.linalg.LinAlgError:
        return np.full_like(x, np.nan)


def eigh(x: AnyArray) -> tuple[AnyArray, AnyArray]:
    """Eigenvalues and vectors of a symmetric matrix, NaN where it is not finite."""
    if namespace(x) is jnp:
        return jnp.linalg.eigh(x)
    try:
        return np.linalg.eigh(x)
    except np.linalg.LinAlgError:
        return np.full_like(x[0], np.nan), np.full_like(x, np.nan)


def solve_lower(root: AnyArray, x: AnyArray) -> AnyArray:
    """The y with root y = x, for a lower triangular factor."""
    if namespace(root) is np and namespace(x) is np:
        return np.linalg.solve(root, x)
    return solve_triangular(root, x, lower=True)


def lower_factor(root: np.ndarray) -> np.ndarray:
    """The lower factor L (..., F, F) with L L' = root root', a product that is never formed."""
    lower = np.swapaxes(np.linalg.qr(np.swapaxes(root, -1, -2), mode="r"), -1, -2)
    return lower * np.where(np.diagonal(lower, axis1=-2, axis2=-1) < 0, -1.0, 1.0)[..., None, :]
