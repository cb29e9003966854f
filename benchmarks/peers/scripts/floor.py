"""Importing jax and optax, and one small program: no tool on them can take less."""

import jax
import optax  # noqa: F401
from density import DIM, log_density

print(jax.jit(jax.grad(log_density))(jax.numpy.zeros(DIM)).sum())
