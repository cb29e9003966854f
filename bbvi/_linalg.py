"""Matrix products at full precision: accelerators round float32 factors to 10 bits by default."""

from functools import partial

import jax
import jax.numpy as jnp

dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
