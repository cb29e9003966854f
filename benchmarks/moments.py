"""Moments that `python -m benchmarks.reference` found, in a file beside the models of a set."""

import json
from pathlib import Path

import numpy as np


def rows(path: Path) -> dict[str, dict]:
    """What is known of each model, by name."""
    return json.loads(path.read_text()) if path.exists() else {}


def write_rows(path: Path, found: dict[str, dict], names: list[str]) -> None:
    """Write them in the order of the names, a line each."""
    lines = [f"{json.dumps(name)}: {json.dumps(found[name])}" for name in names if name in found]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def settled(path: Path, name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]] | None:
    """Means and sds of one; None where no run has settled."""
    row = rows(path).get(name)
    if row is None or not row["settled"]:
        return None
    mean, sd = ({k: np.asarray(x) for k, x in row[what].items()} for what in ("mean", "sd"))
    return mean, sd
