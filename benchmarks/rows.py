"""Rows of measurements: kept in a file, printed, and put in a table."""

import json
import math
import os
import platform
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import jax

import bbvi

KEPT = {"FullRankGaussian": "gaussian", "CouplingFlow": "flow"}


def environment() -> str:
    """What the figures depend on besides the code."""
    versions = f"bbvi {bbvi.__version__}, jax {jax.__version__}, Python {platform.python_version()}"
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return f"{versions}; {machine}, {jax.devices()[0].device_kind}"


def record(path: Path, row: dict) -> list[dict]:
    """Put a row in the file in place of an earlier one of its kind; returns all rows."""

    def identity(row):
        return row["dtype"], row["posterior"], row["key"]

    row = _plain(row)
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = [r for r in kept if identity(r) != identity(row)] + [row]
    rows.sort(key=identity)
    lines = ",\n".join(json.dumps(r) for r in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(f'{{"rows": [\n{lines}\n]}}\n')
    unfinished.replace(path)  # in one go: an interrupted run leaves a whole file
    return rows


def _plain(value: Any) -> Any:
    """Values that JSON has; it has no NaN and no infinity."""
    if isinstance(value, dict):
        return {name: _plain(x) for name, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def describe(row: dict) -> str:
    """A row as a line to read while it runs."""
    right = "half-right" if row["half_right"] else "right" if row["right"] else "WRONG"
    head = f"{row['posterior']} {row['key']}: {right}, {row['verdict']}"
    if row["verdict"] == "error":
        return f"{head}: {row['reasons'][0]}"
    low, high = row["sd_ratio"]
    kept = KEPT.get(row["kept"], row["kept"]) + " corrected" * row["corrected"]
    return (
        f"{head}; worst {row['worst']}: mean {row['mean_error']:.3f} sd, sds {low:.3f}-{high:.3f}; "
        f"{kept}, k-hat {row['khat']:.2f}, ess {row['ess']:.0f}, {row['gradients']:,} gradients, "
        f"{row['wall']:.1f} s {'cold' if row['cold'] else 'warm'}"
    )


def summarise(rows: list[dict]) -> str:
    """Counts of what was right, and of what was said about it."""
    verdicts = Counter(row["verdict"] for row in rows)
    said = ", ".join(f"{level} {count}" for level, count in verdicts.most_common())
    trusted_wrong = [r for r in rows if r["verdict"] == "trusted" and not r["right"]]
    rejected_right = [r for r in rows if r["verdict"] == "rejected" and r["right"]]
    return (
        f"right {sum(r['right'] for r in rows)} of {len(rows)}, "
        f"{sum(r['half_right'] for r in rows)} within half of the tolerance; {said}; "
        f"trusted and wrong {len(trusted_wrong)}, rejected and right {len(rejected_right)}"
    )


HEAD = (
    "posterior",
    "D",
    "right",
    "half",
    "verdicts",
    "mean error",
    "sd ratio",
    "k-hat",
    "kept",
    "gradients",
    "cold s",
    "warm s",
)


def write_table(rows: list[dict], path: Path, title: str) -> None:
    """All rows as a Markdown file, one line a posterior and the worst over its keys."""
    parts = [f"# {title}"]
    parts.append(
        "Right: every scalar parameter has its mean within 0.1 reference sd and its sd within "
        "10%; half: within half of that. Mean error (in sds), sd ratio and k-hat are the worst "
        "over parameters and keys, gradients and seconds the median over keys. Cold includes "
        "compiling. Written by `python -m benchmarks.accuracy`."
    )
    for dtype in sorted({row["dtype"] for row in rows}, reverse=True):
        of_dtype = [row for row in rows if row["dtype"] == dtype]
        names = list(dict.fromkeys(row["posterior"] for row in of_dtype))
        lines = [HEAD, ["---"] * 2 + ["--:"] * 2 + ["---"] + ["--:"] * 3 + ["---"] + ["--:"] * 3]
        lines += [_aggregate([r for r in of_dtype if r["posterior"] == n]) for n in names]
        parts.append(f"## {dtype}")
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
        parts.append(f"{summarise(of_dtype)[0].upper()}{summarise(of_dtype)[1:]}.")
    parts += [f"On {on}." for on in sorted({row["on"] for row in rows})]
    path.write_text("\n\n".join(parts) + "\n")


def _aggregate(rows: list[dict]) -> list[str]:
    """One line of the table: all keys of a posterior."""
    fits = [row for row in rows if row["verdict"] != "error"]

    def over(choose, name, form, of=fits):
        values = [row[name] for row in of if row[name] is not None]
        return format(choose(values), form) if values else "-"

    def counts(values):
        return ", ".join(f"{value} {count}" for value, count in Counter(values).most_common())

    ratios = [x for row in fits for x in row["sd_ratio"] if x is not None]
    kept = [KEPT.get(r["kept"], r["kept"]) + " corrected" * r["corrected"] for r in fits]
    return [
        rows[0]["posterior"],
        over(max, "dim", "d"),
        f"{sum(row['right'] for row in rows)}/{len(rows)}",
        f"{sum(row['half_right'] for row in rows)}/{len(rows)}",
        counts(row["verdict"] for row in rows),
        over(max, "mean_error", ".3f"),
        f"{min(ratios):.3f}-{max(ratios):.3f}" if ratios else "-",
        over(max, "khat", ".2f"),
        counts(kept),
        over(median, "gradients", ",.0f"),
        over(median, "wall", ".1f", [row for row in fits if row["cold"]]),
        over(median, "wall", ".1f", [row for row in fits if not row["cold"]]),
    ]
