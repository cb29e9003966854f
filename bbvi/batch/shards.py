"""Records on disk as they come, so that a killed batch goes on with what is left."""

import os
import time
from pathlib import Path

import jax
import numpy as np

from bbvi import storage
from bbvi.batch.engine import join
from bbvi.batch.packing import flatten_mixtures, read_mixtures
from bbvi.batch.problems import Problems
from bbvi.batch.records import Found, Records, records_like
from bbvi.observers import describe
from bbvi.result import FitResult, load
from bbvi.solvers import Solver
from bbvi.status import InputError
from bbvi.target import Target

# A shard is written when it has so many problems, or so much time has passed.
_PROBLEMS = 4096
_SECONDS = 10.0


class Shards:
    """A folder of shards, each a few thousand finished problems, and of single fits.

    A shard is written whole or not at all, and holds finished problems only: what was under way
    at a kill is done again, and nothing else is.

    Args:
        path: the folder; made if there is none.
        target: the target.
        solver: the solver.
        problems: the problems; a folder that belongs to others is refused.
    """

    def __init__(self, path: str | os.PathLike, target: Target, solver: Solver, problems: Problems):
        self._folder = Path(path)
        self._folder.mkdir(parents=True, exist_ok=True)
        leaves = [
            [x.name, list(x.shape), np.dtype(x.dtype).name, x.bijector.name] for x in target.leaves
        ]
        self._header = {
            "problem": {
                "solver": describe(solver),
                "parameters": leaves,
                "data, start and key": storage.checksum((problems.rows, problems.common)),
            }
        }
        self._waiting: list[Found] = []
        self._written = time.monotonic()
        self._next = 0

    def read(self) -> tuple[list[Found], dict[int, FitResult]]:
        """What is there already.

        Raises:
            InputError: if the folder belongs to another batch.
        """
        found = []
        for path in sorted(self._folder.glob("shard-*.npz")):
            header, arrays = storage.read(path, "shard")
            mine, theirs = self._header["problem"], header["problem"]
            other = [name for name, value in mine.items() if theirs.get(name) != value]
            if other:
                raise InputError(
                    f"{self._folder} belongs to another batch (other {' and '.join(other)}): give "
                    "another path, or delete it."
                )
            params = storage.decode_structure(header["params"])
            like = records_like(params)
            content = storage.rebuild("records", arrays, like)
            found.append(Found(arrays["index"], _as_numpy(content), read_mixtures(arrays)))
            self._next = int(path.stem.partition("-")[2]) + 1
        singles = {
            int(path.stem.partition("-")[2]): load(path)
            for path in sorted(self._folder.glob("single-*.npz"))
        }
        return found, singles

    def add(self, found: Found) -> None:
        """Take finished problems, and write a shard when it is time."""
        self._waiting.append(found)
        full = sum(len(f.numbers) for f in self._waiting) >= _PROBLEMS
        if full or time.monotonic() - self._written > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        if self._waiting:
            index = np.concatenate([f.numbers for f in self._waiting])
            records = join([f.records for f in self._waiting])
            mixtures = {i: m for f in self._waiting for i, m in f.mixtures.items()}
            header = {**self._header, "params": storage.encode_structure(records.params)}
            arrays = {
                "index": index,
                **storage.flatten("records", records),
                **flatten_mixtures(mixtures),
            }
            storage.write(self._folder / f"shard-{self._next:06d}.npz", "shard", header, arrays)
            self._next += 1
            self._waiting = []
        self._written = time.monotonic()

    def add_single(self, i: int, result: FitResult) -> None:
        """Write the fit of one problem by itself."""
        result.save(self._folder / f"single-{i:09d}.npz")


def _as_numpy(records: Records) -> Records:
    return jax.tree.map(np.asarray, records)
