"""Several processes of `jax.distributed`: each fits a share, and all get all results."""

import io
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from bbvi import storage
from bbvi._tree import pick
from bbvi._types import PyTree
from bbvi.batch.engine import Work, join
from bbvi.batch.packing import flatten_mixtures, flatten_singles, read_mixtures, read_singles
from bbvi.batch.records import Records, records_like
from bbvi.result import FitResult


def own_share(size: int) -> np.ndarray:
    """Numbers of the problems of this process: every P-th of them, for P processes."""
    return np.arange(jax.process_index(), size, jax.process_count(), dtype=np.int32)


def own_folder(path: str | os.PathLike | None) -> str | os.PathLike | None:
    """The folder of this process's shards: that of the batch, or one in it."""
    number = jax.process_count()
    if path is None or number == 1:
        return path
    return Path(path) / f"process-{jax.process_index()}-of-{number}"


def gather(
    index: np.ndarray,
    records: Records,
    mixtures: dict[int, PyTree],
    singles: dict[int, FitResult],
    work: Work,
) -> tuple[Records, dict[int, PyTree], dict[int, FitResult], Work]:
    """What all processes found, in the order of the problems; the same on each process.

    Args:
        index: numbers of this process's problems.
        records: what is kept of them.
        mixtures: mixtures by number.
        singles: fits of problems by themselves, by number.
        work: what stepping cost here.
    """
    if jax.process_count() == 1:
        return records, mixtures, singles, work
    arrays = {
        "index": index,
        "work": np.array([work.steps, work.slot_steps]),
        **storage.flatten("records", records),
        **flatten_mixtures(mixtures),
        **flatten_singles(singles),
    }
    every = [_unpack(x) for x in _exchange(_pack(arrays))]
    found = {i: single for x in every for i, single in read_singles(x).items()}
    order = np.argsort(np.concatenate([x["index"] for x in every]))
    like = records_like(records.params)
    parts = [jax.tree.map(np.asarray, storage.rebuild("records", x, like)) for x in every]
    mixed = {i: mixture for x in every for i, mixture in read_mixtures(x).items()}
    steps = np.sum([x["work"] for x in every], axis=0)
    return pick(join(parts), order), mixed, found | singles, Work(*map(int, steps))


def _pack(arrays: dict[str, np.ndarray]) -> np.ndarray:
    buffer = io.BytesIO()
    packed: Any = arrays
    np.savez(buffer, **packed)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def _unpack(content: np.ndarray) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content.tobytes()), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _exchange(content: np.ndarray) -> list[np.ndarray]:
    """The bytes of every process."""
    sizes = multihost_utils.process_allgather(np.int32(len(content)))
    padded = np.zeros(int(np.max(sizes)), np.uint8)
    padded[: len(content)] = content
    every = multihost_utils.process_allgather(padded)
    return [np.asarray(x)[:n] for x, n in zip(every, np.ravel(sizes), strict=True)]
