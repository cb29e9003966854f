"""Shared type names, and the axis letters that every docstring uses.

| letter | axis |
|---|---|
| D | latent dimension: the length of the flat, unconstrained vector |
| C | number of scalars in the user's own (constrained) parameters |
| S | Monte Carlo draws |
| K | elements of a vector event; also base normals a draw needs |
| R | rank |
| B | problems of a batch |
| N | rows of data |
"""

from collections.abc import Callable
from typing import Any

import jax

Array = jax.Array
AnyArray = Any  # of JAX or of numpy
PyTree = Any
Key = Any | jax.Array
LogJoint = Callable[..., Any]
