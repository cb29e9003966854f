"""One picture of a fit: the bound along the run, and marginals with and without weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bbvi._types import PyTree
from bbvi.plot.marginal import CENTRAL, draw_marginal, marginal_handles
from bbvi.plot.scalars import choose_names, columns_of, usable_weights
from bbvi.plot.style import finished, require_pyplot
from bbvi.plot.trace import draw_trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bbvi.result import FitResult

_MAX_PANELS = 8
_MAX_COLUMNS = 4


def plot_fit(result: FitResult, reference: PyTree = None) -> Figure:
    """The ELBO along the run, and up to eight marginals raw against importance-weighted.

    Where the two histograms of a panel differ, the approximation is off in that parameter.
    Parameters that the verdict flags come first, with a mark as in `result.summary()`.

    Args:
        result: what `bbvi.fit` returned.
        reference: draws to compare with, in the user's structure, with a leading axis; black
            lines.

    Returns:
        a matplotlib figure: `.savefig(path)` writes it, and a notebook shows it.

    Raises:
        ImportError: if matplotlib is not installed.
        InputError: if the reference has another structure.
    """
    pyplot = require_pyplot()
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    names, (draws, given_weights) = choose_names(result, _MAX_PANELS), result.draws()
    columns, log_weights = columns_of(result, draws, names), usable_weights(given_weights)
    given = {} if reference is None else columns_of(result, reference, names)
    own = np.asarray(result.diagnostics.own)
    grid = _grid(len(columns))
    size = (9.6, 2.9 + 1.9 * (len(grid) - 1)) if len(grid) > 1 else (9.6, 3.6)
    figure = pyplot.figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))
    panels: Any = figure.subplot_mosaic(
        grid, height_ratios=[1.3] + [1] * (len(grid) - 1) if len(grid) > 1 else None
    )

    headline = f"verdict: {result.verdict.level}   (Pareto k-hat {result.khat:.2f})"
    figure.suptitle(headline, fontsize=13, fontweight="bold")
    draw_trace(panels["trace"], result)
    for i, (name, values) in enumerate(columns.items()):
        flagged = name in result.verdict.flagged
        draw_marginal(panels[i], name, values, own, log_weights, flagged, given.get(name))
    _draw_legend(figure, result, log_weights is not None, reference is not None)
    return finished(figure)


def _grid(count: int) -> list[list[Any]]:
    """The trace and `count` panels as rows of a mosaic; "." is left empty."""
    if count == 1:
        return [["trace", "trace", 0]]
    rows = math.ceil(count / _MAX_COLUMNS)
    width = math.ceil(count / rows)
    cells = [i if i < count else "." for i in range(rows * width)]
    return [["trace"] * width] + [cells[r * width : (r + 1) * width] for r in range(rows)]


def _draw_legend(figure: Figure, result: FitResult, weighted: bool, given: bool) -> None:
    """One legend for all marginals, below them."""
    total = len(result.posterior.target.scalar_names)
    title = "marginals" if total <= _MAX_PANELS else f"{_MAX_PANELS} of {total:,} marginals"
    title += f", central {CENTRAL:.0%} of the draws"
    if result.verdict.flagged:
        title += "; (!) marks moments that the weights contradict"
    figure.legend(
        handles=marginal_handles(result, weighted, given),
        title=title,
        loc="outside lower center",
        ncols=3,
        fontsize=9,
        frameon=False,
    )
