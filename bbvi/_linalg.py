"""Matrix products at full precision: accelerators round float32 factors to 10 bits by default."""

from functools import partial

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
    if namespace(root) is jnp:
        return solve_triangular(root, x, lower=True)
    return np.linalg.solve(root, x)
