"""Problems of different numbers of rows: padded to a few lengths, with a mask."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from bbvi.status import InputError

MASK = "mask"
ROWS = "rows"


@dataclass(frozen=True)
class Bucket:
    """Problems that are padded to the same number of rows.

    Attributes:
        index: (B',) numbers of the problems.
        data: arrays (B', N, ...) by name, rows past a problem's own zero; "mask" (B', N) is
            true at its own.
    """

    index: np.ndarray
    data: dict


@dataclass(frozen=True)
class Ragged:
    """Problems of different numbers of rows, for `fit_batch`.

    Attributes:
        buckets: the problems, by length.
        labels: what the problems are called: the groups of a table, or their numbers.
        sizes: (B,) numbers of rows.
    """

    buckets: tuple[Bucket, ...]
    labels: list
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def padded(self) -> dict:
        """All problems in their order, padded to the most rows: arrays (B, N, ...)."""
        most = max(b.data[MASK].shape[1] for b in self.buckets)
        order = np.argsort(np.concatenate([b.index for b in self.buckets]))

        def join(*parts):
            wide = [_pad_rows(x, most) for x in parts]
            return np.concatenate(wide)[order]

        return jax.tree.map(join, *(b.data for b in self.buckets))


def ragged(data: Any, by: str | None = None, *, max_buckets: int = 4) -> Ragged:
    """Put problems of different numbers of rows together.

    Args:
        data: a list with one entry a problem, an array (N_i, ...) or a dict of such arrays; or
            a table: a dict of columns, or a pandas or polars frame.
        by: of a table, the column that says which problem a row belongs to.
        max_buckets: at most so many lengths; each is a program of its own to compile, and more
            of them waste less on padding.

    Returns:
        the problems, to be given to `fit_batch` as its data. The log joint of one gets a dict
        with "mask" (N,) beside the arrays (or "rows" where a problem is one array), and must
        leave out the rows at which the mask is false, which hold zeros:
        `jnp.sum(jnp.where(data["mask"], terms, 0))`.

    Raises:
        InputError: if arrays of one problem have different numbers of rows, or the structures of
            two problems differ.

    Example:
        >>> import numpy as np
        >>> data = ragged([np.ones(3), np.ones(5), np.ones(2)], max_buckets=1)
        >>> data.buckets[0].data["mask"].sum(axis=1).tolist()
        [3, 5, 2]
        >>> table = {"store": ["a", "b", "a"], "sales": [1.0, 2.0, 3.0]}
        >>> ragged(table, by="store").labels
        ['a', 'b']
    """
    if max_buckets < 1:
        raise InputError(f"max_buckets must be at least 1, not {max_buckets}.")
    if by is None:
        if isinstance(data, Mapping) or not isinstance(data, Sequence):
            raise InputError(
                "ragged needs a list with one entry a problem, or a table and by=, the name of its "
                "group column."
            )
        groups, labels = [_as_dict(x) for x in data], list(range(len(data)))
    else:
        groups, labels = _split_table(data, by)
    if not groups:
        raise InputError("ragged was given no problems.")
    sizes = np.array([_size(group, i) for i, group in enumerate(groups)])
    _check_alike(groups)
    lengths = _bucket_lengths(sizes, max_buckets)
    buckets = []
    for low, high in zip([0, *lengths[:-1]], lengths, strict=True):
        index = np.flatnonzero((sizes > low) & (sizes <= high)).astype(np.int32)
        if low == 0:
            index = np.flatnonzero(sizes <= high).astype(np.int32)
        if index.size:
            buckets.append(_bucket(groups, sizes, index, high))
    return Ragged(tuple(buckets), labels, sizes)


def _as_dict(problem: Any) -> dict:
    tree = dict(problem) if isinstance(problem, Mapping) else {ROWS: problem}
    if MASK in tree:
        raise InputError(f"a problem has an array called {MASK!r}, which ragged adds: rename it.")
    return {name: np.asarray(values) for name, values in tree.items()}


def _split_table(table: Any, by: str) -> tuple[list[dict], list]:
    """One dict of columns a group, and the groups, in the order of their names."""
    names = list(table.keys()) if isinstance(table, Mapping) else list(table.columns)
    if by not in names:
        raise InputError(f"the table has no column {by!r}; it has {', '.join(map(str, names))}.")
    columns = _as_dict({name: np.asarray(table[name]) for name in names})
    group = columns.pop(by)
    sizes = {name: len(values) for name, values in columns.items() if len(values) != len(group)}
    if sizes:
        raise InputError(
            f"{by!r} has {len(group)} rows, but {', '.join(map(repr, sizes))} differ: give columns "
            "of one length."
        )
    labels, which = np.unique(group, return_inverse=True)
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which))[:-1]
    pieces = {name: np.split(values[order], ends) for name, values in columns.items()}
    groups = [{name: parts[i] for name, parts in pieces.items()} for i in range(len(labels))]
    return groups, labels.tolist()


def _size(group: dict, number: int) -> int:
    lengths = {name: len(x) if x.ndim else -1 for name, x in group.items()}
    if -1 in lengths.values() or len(set(lengths.values())) != 1:
        raise InputError(
            f"the arrays of problem {number} have {lengths} rows: give all of them the same number."
        )
    return next(iter(lengths.values()))


def _check_alike(groups: list[dict]) -> None:
    def form(group):
        return {name: (x.shape[1:], x.dtype.kind) for name, x in group.items()}

    first = form(groups[0])
    for number, group in enumerate(groups):
        if form(group) != first:
            raise InputError(
                f"problem {number} differs from problem 0 in its names, row shapes or kinds of "
                "numbers: give all problems the same."
            )


def _grid() -> Iterator[int]:
    """1, 2, 3, 4, 6, 8, 12, 16, ...: lengths that different tables have in common."""
    step = 1
    while True:
        yield step
        if step > 1:
            yield step + step // 2
        step *= 2


def _bucket_lengths(sizes: np.ndarray, most: int) -> list[int]:
    """At most so many lengths, the last one enough for all, with the least padding."""
    grid: list[int] = []
    for length in _grid():
        grid.append(length)
        if length >= sizes.max():
            break
    counts = np.bincount(np.searchsorted(grid, sizes), minlength=len(grid))
    used = [(length, int(n)) for length, n in zip(grid, counts, strict=True) if n]
    lengths, number = [x for x, _ in used], np.cumsum([0] + [n for _, n in used])
    # best[k][j]: least rows in all that hold the first j lengths in k buckets
    total = len(used)
    best: list[tuple[float, list[int]]] = [(0, [])] + [(np.inf, [])] * total
    for _ in range(min(most, total)):
        fresh: list[tuple[float, list[int]]] = [(0, [])]
        for j in range(1, total + 1):
            options = [
                (best[i][0] + int(number[j] - number[i]) * lengths[j - 1], [*best[i][1], j])
                for i in range(j)
            ]
            fresh.append(min([*options, best[j]], key=lambda option: option[0]))
        best = fresh
    return [lengths[j - 1] for j in best[total][1]]


def _bucket(groups: list[dict], sizes: np.ndarray, index: np.ndarray, length: int) -> Bucket:
    data = {
        name: np.stack([_pad_rows(groups[i][name][None], length)[0] for i in index])
        for name in groups[0]
    }
    data[MASK] = np.arange(length) < sizes[index][:, None]
    return Bucket(index, data)


def _pad_rows(x: np.ndarray, length: int) -> np.ndarray:
    """(B, N, ...) with zeros up to `length` rows."""
    return np.pad(x, [(0, 0), (0, length - x.shape[1])] + [(0, 0)] * (x.ndim - 2))
