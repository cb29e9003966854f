"""A batch at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bbvi.diagnostics.evidence import KHAT_USABLE
from bbvi.plot.style import GREY, OF_LEVEL, plain, require_pyplot

if TYPE_CHECKING:
    from bbvi.batch.result import BatchResult

_BINS = 40


def plot_batch(results: BatchResult) -> np.ndarray:
    """How many problems are trusted, their k-hats, and what each of them cost.

    Args:
        results: what `bbvi.fit_batch` returned.

    Returns:
        three matplotlib axes: numbers by verdict, k-hats, and gradients a problem.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    pyplot = require_pyplot()
    figure = pyplot.figure(figsize=(10.5, 3.2), layout="constrained")
    axes: Any = figure.subplots(1, 3)
    levels = [level for level in OF_LEVEL if (results.verdict == level).any()]
    colours = [OF_LEVEL[level] for level in levels]
    groups = [results.verdict == level for level in levels]

    counts = [int(group.sum()) for group in groups]
    bars = axes[0].barh(levels, counts, color=colours)
    axes[0].bar_label(bars, labels=[f"{n:,}" for n in counts], padding=3, fontsize=9)
    axes[0].margins(x=0.2)
    axes[0].invert_yaxis()
    axes[0].set_xlabel("problems", fontsize=9)

    khat = np.clip(np.nan_to_num(results.khat, nan=np.inf), -0.5, 1.5)
    _stack(axes[1], [khat[group] for group in groups], colours, levels)
    axes[1].axvline(KHAT_USABLE, color=GREY, ls="--", lw=1)
    axes[1].set_xlabel(
        f"Pareto k-hat (dashed: {KHAT_USABLE}; ends hold what is beyond)", fontsize=9
    )
    axes[1].set_ylabel("problems", fontsize=9)

    spent = np.maximum(results.num_gradients, 1)
    _stack(axes[2], [spent[group] for group in groups], colours, levels, log=True)
    axes[2].set_xlabel("gradients a problem", fontsize=9)
    if len(levels) > 1:
        axes[2].legend(fontsize=8.5, frameon=False)
    for panel in axes:
        plain(panel)
    return axes


def _stack(axes: Any, groups: list, colours: list, labels: list, log: bool = False) -> None:
    everything = np.concatenate(groups).astype(float)
    low, high = everything.min(), everything.max()
    if not high > low:
        low, high = (low / 1.1, high * 1.1) if log else (low - 0.05, high + 0.05)
    wide = log and high > 10 * low  # a part of a decade has no ticks to read
    edges = np.geomspace(low, high, _BINS + 1) if wide else np.linspace(low, high, _BINS + 1)
    axes.hist(groups, bins=edges, color=colours, label=labels, stacked=True)
    if wide:
        axes.set_xscale("log")
