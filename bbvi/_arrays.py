"""Formulas that hold for arrays of JAX and of numpy alike.

A program that is used once costs the compiler a hundred times what its arithmetic costs numpy.
Where nothing has to be differentiated, batched or kept on a device, the first fit of a model
therefore computes on the host; the same functions, given arrays of JAX, are what a batch compiles.
"""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._types import AnyArray, PyTree


def namespace(x: AnyArray) -> ModuleType:
    """numpy for its arrays, `jax.numpy` for all others."""
    return np if isinstance(x, (np.ndarray, np.generic)) else jnp


def is_traced(tree: Any) -> bool:
    """Whether any leaf is known by its shape alone, inside `jit`, `vmap` or `grad`."""
    return any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(tree))


def is_on_host(tree: Any) -> bool:
    """Whether all leaves are arrays of numpy."""
    return all(isinstance(x, (np.ndarray, np.generic)) for x in jax.tree.leaves(tree))


def logsumexp(x: AnyArray) -> AnyArray:
    """log sum exp over the last axis."""
    if namespace(x) is jnp:
        return jax.nn.logsumexp(x, axis=-1)
    top = x.max(-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(x - top).sum(-1)) + top[..., 0]


def softmax(x: AnyArray) -> AnyArray:
    """Weights proportional to exp x, which sum to one over the last axis."""
    xp = namespace(x)
    weights = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return weights / xp.sum(weights, axis=-1, keepdims=True)


def at_levels(weights: np.ndarray, number: int, offset: float = 0.5) -> np.ndarray:
    """Which of S weighted things lie at so many even levels of the running sum, (N,).

    With a random offset in (0, 1) each is there as many times as its weight says, up to one.
    """
    levels = (np.arange(number) + offset) / number
    return np.minimum(np.searchsorted(np.cumsum(weights), levels), len(weights) - 1)


def put(x: AnyArray, at: Any, values: AnyArray) -> AnyArray:
    """A copy of x (S,) with `values` at the indices, or the slice, `at`."""
    if namespace(x) is jnp:
        return x.at[at].set(values)
    x = x.copy()
    x[at] = values
    return x


def top_k(x: AnyArray, number: int) -> tuple[AnyArray, AnyArray]:
    """The largest along the last axis, in descending order, and where they are."""
    if namespace(x) is jnp:
        return jax.lax.top_k(x, number)
    at = np.argpartition(x, x.shape[-1] - number, axis=-1)[..., -number:]
    order = np.argsort(-np.take_along_axis(x, at, -1), axis=-1, kind="stable")
    at = np.take_along_axis(at, order, -1)
    return np.take_along_axis(x, at, -1), at


def top_values(x: AnyArray, number: int) -> AnyArray:
    """The same without their places, of numpy's, which finds them in two thirds of the time."""
    at = x.shape[-1] - number
    return np.sort(np.partition(x, at, axis=-1)[..., at:], axis=-1)[..., ::-1]


def choose(mask: AnyArray, new: PyTree, old: PyTree) -> PyTree:
    """Leaf by leaf `new` where `mask` (...) holds, else `old`; leaves have axes behind its own."""
    xp = namespace(mask)
    if xp is np and mask.all():
        return new  # no copies: a search in a million dimensions holds a gigabyte

    def one(a, b):
        return xp.where(mask.reshape(mask.shape + (1,) * (xp.ndim(a) - mask.ndim)), a, b)

    return jax.tree.map(one, new, old)
