"""Matrix products at full precision: accelerators round float32 factors to 10 bits by default."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._arrays import namespace
from bbvi._types import Array

einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def dot(a: Array, b: Array) -> Array:
    """a @ b, of arrays of JAX or of numpy."""
    if namespace(a) is np and namespace(b) is np:
        return a @ b
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
