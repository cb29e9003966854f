"""Results of batches as files."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bbvi import storage
from bbvi._types import LogJoint, PyTree
from bbvi.batch.engine import Work
from bbvi.batch.packing import flatten_mixtures, flatten_singles, read_mixtures, read_singles
from bbvi.batch.problems import Problems
from bbvi.batch.programs import Plan
from bbvi.batch.records import records_like
from bbvi.encoding import decode_family, decode_target, encode_family, encode_target
from bbvi.solvers import BatchAndMatch
from bbvi.status import InputError

if TYPE_CHECKING:
    from bbvi.batch.result import BatchResult


def write_batch(path: str | os.PathLike, results: "BatchResult") -> None:
    """Write all of a result but its data."""
    header = {
        **encode_target(results.plan.target),
        "family": encode_family(results.plan.family),
        "params": storage.encode_structure(results.records.params),
        "work": [results.work.steps, results.work.slot_steps],
        "timings": results.timings,
    }
    arrays = storage.flatten("records", results.records) | flatten_mixtures(results.mixtures)
    storage.write(path, "batch", header, arrays | flatten_singles(results.singles))


def read_batch(
    path: str | os.PathLike,
    log_joint: LogJoint | None,
    problems: Problems | None,
    support: PyTree,
) -> dict[str, Any]:
    """The fields of the `BatchResult` that `write_batch` wrote.

    Args:
        path: the file.
        log_joint: the log joint, or None.
        problems: the starts and data, or None.
        support: the supports, where they cannot be in a file.
    """
    header, arrays = storage.read(path, "batch")
    try:
        return _decode(path, header, arrays, log_joint, problems, support)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {type(error).__name__} {error}.") from error


def _decode(path, header, arrays, log_joint, problems, support) -> dict[str, Any]:
    params = storage.decode_structure(header["params"])
    records = jax.tree.map(np.asarray, storage.rebuild("records", arrays, records_like(params)))
    if problems is not None and problems.size != len(records.level):
        raise InputError(
            f"{path} holds {len(records.level)} problems, but {problems.size} were given."
        )
    solver: Any = _Fitted(family=decode_family(path, header["family"]))
    shape: Any = None if problems is None else problems.shape
    return {
        "plan": Plan(None, decode_target(header, log_joint, support), solver, shape),
        "records": records,
        "singles": read_singles(arrays, log_joint, support),
        "problems": problems,
        "work": Work(*header["work"]),
        "support": support,
        "timings": tuple((name, seconds) for name, seconds in header["timings"]),
        "mixtures": read_mixtures(arrays),
    }


@dataclass(frozen=True)
class _Fitted(BatchAndMatch):
    """Stands for the solver of a loaded result: all that is known of it is its family."""

    family: Any = None  # not known until it is read
