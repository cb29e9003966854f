"""Small helpers on pytrees and keys."""

import operator
from collections.abc import Iterator
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._arrays import namespace
from bbvi._types import Array, Key, PyTree
from bbvi.status import InputError


def path_name(root: str, path) -> str:
    """`root['mu'][0]`: how a person would write the leaf at `path`."""
    return root + jax.tree_util.keystr(path)


def as_key(key: Key) -> Array:
    """A typed key from an int, a legacy uint32 key or a typed key."""
    if isinstance(key, (int, np.integer)):
        return jax.random.key(int(key))
    if hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.shape == ():
            return key
        raise InputError(f"key must be one random key, not an array of shape {key.shape}.")
    if hasattr(key, "dtype") and key.dtype == jnp.uint32 and key.shape == (2,):
        return jax.random.wrap_key_data(jnp.asarray(key))
    raise InputError(
        f"key must be an int or a JAX random key, not {type(key).__name__}: try key=0."
    )


def split(key: Array, number: int) -> tuple[Array, ...]:
    """Several keys from one on the host, where `jax.random.split` would compile a program."""
    words = np.asarray(jax.random.key_data(key))
    bits = np.random.SeedSequence(words.tolist()).generate_state(number * words.size)
    rows = bits.reshape(number, *words.shape)
    return tuple(jax.random.wrap_key_data(row, impl=jax.random.key_impl(key)) for row in rows)


def as_arrays(tree: PyTree, root: str) -> PyTree:
    """Every leaf as a strongly typed array, so that a Python scalar costs no second compile."""

    def one(path, leaf):
        if isinstance(leaf, jax.Array):
            weak = getattr(leaf, "weak_type", False)
            return jax.lax.convert_element_type(leaf, leaf.dtype) if weak else leaf
        array = np.asarray(leaf)
        if array.dtype.kind not in "biufcV":
            what = array.dtype if isinstance(leaf, np.ndarray) else type(leaf).__name__
            raise InputError(
                f"{path_name(root, path)} holds {what}, which cannot be traced: pass arrays of "
                "numbers only, and close over settings in the function instead."
            )
        return jnp.asarray(array)

    return jax.tree_util.tree_map_with_path(one, tree)


def as_strong(tree: PyTree) -> PyTree:
    """Every leaf without a weak type, which would change at the first step of a loop."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.asarray(x).dtype), tree)


def tie(tree: PyTree, key: Array) -> PyTree:
    """The same values, formally computed from `key`.

    Inside `shard_map` a constant counts as equal on all devices and cannot become the carry of
    a loop whose body makes it differ; what is computed from a per-device key can.
    """
    zero = jnp.ravel(jax.random.key_data(key))[0] * 0

    def one(x):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return x
        return x ^ (zero != 0) if x.dtype == bool else x + zero.astype(x.dtype)

    return jax.tree.map(one, tree)


def tree_where(condition: Array, new: PyTree, old: PyTree) -> PyTree:
    """Leaf by leaf `new` where the scalar `condition` holds, else `old`."""
    if namespace(condition) is np:
        return new if condition else old
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def all_finite(tree: PyTree) -> Array:
    """Whether every entry of every floating leaf is finite; a scalar."""
    leaves = jax.tree.leaves(tree)
    finite = [namespace(x).all(namespace(x).isfinite(x)) for x in leaves]
    return reduce(operator.and_, finite) if finite else jnp.array(True)


def pick(tree: PyTree, chosen: Any) -> PyTree:
    """Entries along the leading axis of every array."""
    return jax.tree.map(lambda x: x[chosen], tree)


def rows(tree: PyTree, number: int) -> Iterator[PyTree]:
    """The first `number` entries along the leading axis of every array, one after the other."""
    leaves, treedef = jax.tree.flatten(tree)
    for i in range(number):
        yield jax.tree.unflatten(treedef, [x[i] for x in leaves])
