"""Parts of a batch's results as flat arrays, for files and for other processes."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bbvi._types import LogJoint, PyTree
from bbvi.result import FitResult, load


def flatten_mixtures(mixtures: Mapping[int, PyTree]) -> dict[str, np.ndarray]:
    """Mixtures by number as a few arrays."""
    if not mixtures:
        return {}
    stacked = jax.tree.map(lambda *x: np.stack(x), *mixtures.values())
    arrays = {f"mixture/{name}": x for name, x in stacked.items()}
    return {"mixture/index": np.array(list(mixtures), np.int32), **arrays}


def read_mixtures(arrays: Mapping[str, np.ndarray]) -> dict[int, PyTree]:
    """What `flatten_mixtures` made arrays of."""
    index = arrays.get("mixture/index", np.empty(0, np.int32))
    names = ("log_weights", "loc", "factor")
    return {
        int(i): {name: arrays[f"mixture/{name}"][k] for name in names} for k, i in enumerate(index)
    }


def flatten_singles(singles: Mapping[int, FitResult]) -> dict[str, np.ndarray]:
    """Fits of problems by themselves, by number, as the bytes of their files."""
    arrays = {}
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "single"
        for i, single in singles.items():
            single.save(part)
            arrays[f"single/{i}"] = np.frombuffer(part.read_bytes(), np.uint8)
    return arrays


def read_singles(
    arrays: Mapping[str, np.ndarray], log_joint: LogJoint | None = None, support: Any = None
) -> dict[int, FitResult]:
    """What `flatten_singles` made arrays of."""
    singles = {}
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "single"
        for name, content in arrays.items():
            if name.startswith("single/"):
                part.write_bytes(content.tobytes())
                singles[int(name.partition("/")[2])] = load(part, log_joint, support)
    return singles
