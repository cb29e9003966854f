"""Files: arrays in an npz, everything else as JSON inside it; no pickle anywhere."""

import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bbvi import bijectors
from bbvi._types import PyTree
from bbvi.bijectors import Bijector
from bbvi.bijectors.bounds import ArrayBound
from bbvi.status import InputError

VERSION = 1
_HEADER = "__bbvi__"
_KEY_KINDS = {"key<fry>": "threefry2x32", "key<rbg>": "rbg", "key<urbg>": "unsafe_rbg"}


def write(path: str | os.PathLike, kind: str, header: Mapping, arrays: Mapping[str, Any]) -> None:
    """Write a file whole or not at all: a kill in between leaves the old one.

    Args:
        path: where to; used as given.
        kind: what the file is, checked when it is read.
        header: anything JSON can hold.
        arrays: arrays by name; random keys are stored as their words.
    """
    path = Path(path)
    text = json.dumps({"version": VERSION, "kind": kind, **header})
    content = {name: _plain(value) for name, value in arrays.items()}
    content[_HEADER] = np.array(text)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **content)  # type: ignore[arg-type]
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def read(path: str | os.PathLike, kind: str) -> tuple[dict, dict[str, np.ndarray]]:
    """Header and arrays of a file that `write` made; safe to call on a stranger's file."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            header = json.loads(str(content[_HEADER]))
            arrays = {name: content[name] for name in content.files if name != _HEADER}
    except FileNotFoundError:
        raise
    except (
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        OSError,
        EOFError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InputError(f"{path} is not a file of bbvi, or damaged ({error}).") from error
    if not isinstance(header, dict):
        raise InputError(f"{path} is not a file of bbvi (its header is no dictionary).")
    if header.get("kind") != kind:
        raise InputError(f"{path} holds a {header.get('kind')}, not a {kind}.")
    if header.get("version", 0) > VERSION:
        raise InputError(
            f"{path} was written by a newer bbvi (format {header['version']}, this one reads "
            f"{VERSION}): upgrade bbvi."
        )
    return header, arrays


def flatten(prefix: str, tree: PyTree) -> dict[str, Any]:
    """Leaves of a tree as `prefix/0`, `prefix/1`, ..."""
    return {f"{prefix}/{i}": leaf for i, leaf in enumerate(jax.tree.leaves(tree))}


def restore(prefix: str, arrays: Mapping[str, np.ndarray], template: PyTree) -> PyTree:
    """The tree that `flatten` took apart, in the structure of `template`.

    Raises:
        InputError: if a leaf is missing or has another shape or dtype than in the template.
    """
    leaves, treedef = jax.tree.flatten(template)
    values: list[Any] = []
    for i, like in enumerate(leaves):
        is_key = jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key)
        value = arrays.get(f"{prefix}/{i}")
        if value is None:
            raise InputError(f"the file lacks {prefix}/{i}: it belongs to another problem.")
        if is_key:
            kind = _KEY_KINDS[str(like.dtype)]
            values.append(jax.random.wrap_key_data(jax.numpy.asarray(value), impl=kind))
            continue
        if value.shape != like.shape or value.dtype != like.dtype:
            raise InputError(
                f"{prefix}/{i} in the file is {value.dtype}{value.shape}, but this problem needs "
                f"{np.dtype(like.dtype)}{like.shape}."
            )
        values.append(jax.numpy.asarray(value))
    return jax.tree.unflatten(treedef, values)


def rebuild(prefix: str, arrays: Mapping[str, np.ndarray], like: PyTree) -> PyTree:
    """The tree that `flatten` took apart, in the structure of `like`, whatever its shapes."""
    treedef: Any = jax.tree.structure(like)
    count = treedef.num_leaves
    missing = [i for i in range(count) if f"{prefix}/{i}" not in arrays]
    if missing:
        raise InputError(f"the file lacks {prefix}/{missing[0]}: it is damaged.")
    leaves = [jax.numpy.asarray(arrays[f"{prefix}/{i}"]) for i in range(count)]
    return treedef.unflatten(leaves)


def checksum(tree: PyTree) -> int:
    """A number that changes when any leaf does."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        array = np.ascontiguousarray(_plain(leaf))
        total = zlib.crc32(
            array.tobytes(), zlib.crc32(f"{array.dtype}{array.shape}".encode(), total)
        )
    return total


def _plain(value: Any) -> np.ndarray:
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    return np.asarray(value)


# --- structures and supports as JSON -----------------------------------------------------


def encode_structure(tree: PyTree) -> Any:
    """Dicts, lists, tuples and None as JSON, leaves numbered in order."""
    counter = iter(range(1 << 62))

    def encode(node):
        if node is None:
            return None
        if type(node) is dict and all(isinstance(k, str) for k in node):
            return {"dict": {k: encode(node[k]) for k in sorted(node)}}
        if type(node) in (list, tuple):
            return {type(node).__name__: [encode(child) for child in node]}
        if jax.tree_util.all_leaves([node]):
            return next(counter)
        raise InputError(
            f"parameters hold a {type(node).__name__}, and only dicts with string keys, lists and "
            "tuples can be saved: convert it first."
        )

    return encode(tree)


def decode_structure(code: Any) -> PyTree:
    """The structure that `encode_structure` wrote, with its leaf numbers as leaves."""
    if code is None or isinstance(code, int):
        return code
    ((kind, children),) = code.items()
    if kind == "dict":
        return {k: decode_structure(v) for k, v in children.items()}
    decoded = [decode_structure(child) for child in children]
    return tuple(decoded) if kind == "tuple" else decoded


def encode_support(bijector: Bijector) -> Any:
    """A support as JSON; bounds that are functions are left for the reader to give again."""

    def encode(value):
        if isinstance(value, ArrayBound):
            return {"array": value.value.tolist()}
        if isinstance(value, Bijector):
            return encode_support(value)
        if isinstance(value, tuple):
            return {"tuple": [encode(v) for v in value]}
        if callable(value):
            return {"function": getattr(value, "__name__", "?")}
        return value

    assert is_dataclass(bijector)
    return {
        "support": type(bijector).__name__,
        "fields": {f.name: encode(getattr(bijector, f.name)) for f in fields(bijector)},
    }


def decode_support(code: Any) -> Bijector | None:
    """The support, or None where it has functions or is not one of bbvi's own."""

    def decode(value):
        if not isinstance(value, dict):
            return value
        if "array" in value:
            return np.asarray(value["array"])
        if "tuple" in value:
            return tuple(decode(v) for v in value["tuple"])
        if "function" in value:
            raise LookupError
        return make(value)

    def make(code):
        kind = getattr(bijectors, code["support"], None)
        if not (isinstance(kind, type) and issubclass(kind, Bijector)):
            raise LookupError
        return kind(**{name: decode(value) for name, value in code["fields"].items()})

    try:
        return make(code)
    except LookupError:
        return None
