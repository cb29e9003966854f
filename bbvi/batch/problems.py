"""Many problems of one shape: where their axes are, and how a few of them are picked out."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._compile import plain_jit
from bbvi._tree import as_key, path_name, pick
from bbvi._types import Array, Key, PyTree
from bbvi.status import InputError


class Layout(NamedTuple):
    """How a tree is put together from leaves that have a problem axis and leaves that are shared.

    Attributes:
        treedef: structure of the tree.
        own: one flag a leaf, whether each problem has its own.
    """

    treedef: Any
    own: tuple[bool, ...]

    def join(self, own: tuple, shared: tuple) -> PyTree:
        """The tree of one problem from its own leaves and the shared ones."""
        own_leaves, shared_leaves = iter(own), iter(shared)
        leaves = [next(own_leaves) if mine else next(shared_leaves) for mine in self.own]
        return self.treedef.unflatten(leaves)


class Rows(NamedTuple):
    """What a few problems have of their own; every array has the problem axis in front.

    Attributes:
        index: numbers of the problems in the batch.
        words: words of their random keys, or None where they follow from the batch's key.
        init: leaves of their starts.
        data: leaves of their data.
    """

    index: Any
    words: Any
    init: tuple
    data: tuple


class Common(NamedTuple):
    """What all problems share: the words of the batch's key, and leaves of starts and data."""

    words: Any
    init: tuple
    data: tuple


class Shape(NamedTuple):
    """The static part of a batch: how starts and data are put together, and the kind of key."""

    init: Layout
    data: Layout
    key: str

    def problem(self, row: Rows, common: Common) -> tuple[PyTree, PyTree, Array]:
        """Start, data and random key of one problem, from its row without the problem axis."""
        if row.words is None:
            root = jax.random.wrap_key_data(common.words, impl=self.key)
            key = jax.random.fold_in(root, row.index)
        else:
            key = jax.random.wrap_key_data(row.words, impl=self.key)
        init = self.init.join(row.init, common.init)
        return init, self.data.join(row.data, common.data), key


@plain_jit((0,))
def _problem_key(shape: Shape, row: Rows, common: Common) -> Array:
    return shape.problem(row, common)[2]


@dataclass(frozen=True)
class Problems:
    """B problems, their arrays on the host.

    Attributes:
        size: B.
        shape: the static part.
        rows: all problems' own arrays, as NumPy arrays.
        common: what they share.
    """

    size: int
    shape: Shape
    rows: Rows
    common: Common

    def take(self, index: np.ndarray) -> Rows:
        """The rows of some problems."""
        init, data = (tuple(x[index] for x in part) for part in (self.rows.init, self.rows.data))
        words = None if self.rows.words is None else self.rows.words[index]
        return Rows(self.rows.index[index], words, init, data)

    def one(self, i: int) -> tuple[PyTree, PyTree]:
        """Start and data of problem `i`."""
        row = pick(self.take(np.array([i])), 0)
        shape, common = self.shape, self.common
        return shape.init.join(row.init, common.init), shape.data.join(row.data, common.data)

    def key(self, i: int) -> Array:
        """The random key of problem `i`."""
        row = pick(self.take(np.array([i])), 0)
        return _problem_key(self.shape, row, self.common)

    def subset(self, index: np.ndarray) -> "Problems":
        """Some of the problems as a batch of their own, each with the key it has here."""
        keys = np.stack([np.asarray(jax.random.key_data(self.key(int(i)))) for i in index])
        rows = self.take(np.asarray(index))
        rows = rows._replace(index=np.arange(len(index), dtype=np.int32), words=keys)
        return Problems(len(index), self.shape, rows, self.common._replace(words=None))


def make_problems(
    init: PyTree, data: PyTree, key: Key, in_axes: PyTree, init_axes: PyTree
) -> Problems:
    """Find the problem axis of every array and put it in front.

    Args:
        init: example points.
        data: arrays in any structure.
        key: one key for the batch, or an array of one key a problem.
        in_axes: axes of the data, as in `jax.vmap`.
        init_axes: axes of the starts.

    Raises:
        InputError: if an axis does not exist, or lengths differ, or there is no axis at all.
    """
    init_layout, own_init, shared_init, lengths = _split(init, init_axes, "init", "init_axes")
    data_layout, own_data, shared_data, more = _split(data, in_axes, "data", "in_axes")
    kind, words, many = _key_words(key)
    lengths |= more | ({"key": len(words)} if many else {})
    if not lengths:
        raise InputError(
            "no array has a problem axis: give data with in_axes=0, starts with init_axes=0, or "
            "an array of keys."
        )
    (first, size), *others = lengths.items()
    for name, length in others:
        if length != size:
            raise InputError(
                f"{first} has {size} problems, but {name} has {length}: give every batched array "
                "the same length along its axis, and None in in_axes for what is shared."
            )
    if size == 0:
        raise InputError(f"{first} has length 0 along its problem axis: give at least one problem.")
    index = np.arange(size, dtype=np.int32)
    rows = Rows(index, words if many else None, own_init, own_data)
    common = Common(None if many else words, shared_init, shared_data)
    return Problems(size, Shape(init_layout, data_layout, kind), rows, common)


def _split(tree: PyTree, axes: PyTree, root: str, argument: str):
    """Layout, own leaves with the axis in front, shared leaves, and lengths by name."""
    named, treedef = jax.tree_util.tree_flatten_with_path(tree)
    own: list[np.ndarray] = []
    shared: list[np.ndarray] = []
    flags: list[bool] = []
    lengths: dict[str, int] = {}
    for (path, leaf), axis in zip(named, _spread(axes, tree, argument), strict=True):
        name = path_name(root, path)
        array = _as_numpy(leaf, name)
        flags.append(axis is not None)
        if axis is None:
            shared.append(array)
            continue
        if not -array.ndim <= axis < array.ndim:
            raise InputError(
                f"{argument} asks for axis {axis} of {name}, which has shape {array.shape}: give "
                "it a problem axis, or None in its place where it is shared."
            )
        array = np.moveaxis(array, axis, 0)
        own.append(array)
        lengths[name] = len(array)
    return Layout(treedef, tuple(flags)), tuple(own), tuple(shared), lengths


def _spread(axes: PyTree, tree: PyTree, argument: str) -> list[int | None]:
    """One axis a leaf of `tree`, from a tree of axes that may stop early."""
    flat: list[int | None] = []

    def add(axis, part):
        whole = isinstance(axis, (int, np.integer)) and not isinstance(axis, bool)
        if not (axis is None or whole):
            raise InputError(f"{argument} must hold whole numbers and None, not {axis!r}.")
        flat.extend([axis] * len(jax.tree.leaves(part)))

    try:
        jax.tree.map(add, axes, tree, is_leaf=lambda x: x is None)
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        what = argument.replace("in_axes", "data").replace("init_axes", "init")
        raise InputError(
            f"{argument} must be a number, None, or have the structure of {what}, not {axes!r}."
        ) from error
    return flat


def _as_numpy(leaf: Any, name: str) -> np.ndarray:
    array = np.asarray(leaf)
    if array.dtype.kind not in "biufcV":
        what = array.dtype if hasattr(leaf, "dtype") else type(leaf).__name__
        raise InputError(
            f"{name} holds {what}, which cannot be traced: pass arrays of numbers only, and close "
            "over settings in the function instead."
        )
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)


def _key_words(key: Key) -> tuple[str, np.ndarray, bool]:
    """Kind and words of a key or of an array of keys, and which of the two it is."""
    typed = hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if typed and key.ndim == 1:
        keys = key
    elif not typed and getattr(key, "ndim", 0) == 2 and key.dtype == np.uint32:
        keys = jax.random.wrap_key_data(jnp.asarray(key))
    else:
        keys = as_key(key)
    kind = str(jax.random.key_impl(keys))
    return kind, np.asarray(jax.random.key_data(keys)), keys.ndim == 1
