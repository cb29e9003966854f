"""Evaluations of a log density that the host asks for, and its own random numbers."""

from collections.abc import Callable

import jax
import numpy as np

from bbvi._compile import SMALL_EVALUATION, quick_jit
from bbvi._types import Array, PyTree
from bbvi.target import Target

# Numbers that are held at once: 64 MiB in float32.
_BLOCK_ELEMENTS = 1 << 24


@quick_jit(small=SMALL_EVALUATION)
def densities(target: Target, zs: Array, data: PyTree) -> Array:
    """Log densities (...) of points (..., D), as they are, compiled."""
    return target.log_densities(zs.reshape(-1, target.dim), data).reshape(zs.shape[:-1])


@quick_jit(small=SMALL_EVALUATION)
def scores(target: Target, zs: Array, data: PyTree) -> tuple[Array, Array, Array]:
    """`Target.score` of points (S, D), compiled."""
    return target.score(zs, data)


@quick_jit(small=SMALL_EVALUATION)
def scalars(target: Target, zs: Array, data: PyTree) -> Array:
    """The scalar parameters (S, C) of points (S, D), in the user's space, compiled."""
    return jax.vmap(lambda z: target.scalars(target.constrain(z, data)))(zs)


def in_blocks(function: Callable, size: int, *along: np.ndarray) -> np.ndarray:
    """`function` of arrays along their leading axis, as many rows at once as memory allows.

    All blocks have one shape, so that one program serves them all.

    Args:
        function: gives an array with the same leading axis.
        size: how many numbers it makes of a row.
        along: the arrays.
    """
    number = len(along[0])
    block = min(number, max(1, _BLOCK_ELEMENTS // size))
    found = []
    for start in range(0, number, block):
        # the last one goes back over some rows that have been done
        first = min(start, number - block)
        found.append(
            np.asarray(function(*(x[first : first + block] for x in along)))[start - first :]
        )
    return np.concatenate(found)


def generator(key: Array) -> np.random.Generator:
    """A generator of the host for a typed key: no program has to be compiled for its numbers."""
    return np.random.Generator(np.random.Philox(np.asarray(jax.random.key_data(key)).tolist()))


def paired_normals(random: np.random.Generator, number: int, dim: int) -> np.ndarray:
    """Standard normals (S, D), the second half the first one negated."""
    half = random.standard_normal((number // 2, dim))
    return np.concatenate([half, -half])
