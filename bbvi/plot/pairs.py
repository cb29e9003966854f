"""Scalars against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bbvi.plot.marginal import draw_marginal, shorten
from bbvi.plot.scalars import choose_names, columns_of, usable_weights
from bbvi.plot.style import BLUE, VERMILION, plain, require_pyplot

if TYPE_CHECKING:
    from bbvi.result import FitResult

_MOST, _POINTS = 5, 800
_REACH = (0.5, 99.5)  # percentiles


def plot_pairs(result: FitResult, names: Sequence[str] | None = None) -> np.ndarray:
    """Draws of some scalars against each other: the approximation's, and the weighted ones.

    Where the two clouds differ, the shape of the posterior is not that of the approximation.

    Args:
        result: what `bbvi.fit` returned.
        names: of the scalars, as in `result.summary()`; None takes up to five, those that the
            verdict flags first. Flagged ones are marked (!).

    Returns:
        matplotlib axes (n, n); those above the diagonal are empty.

    Raises:
        ImportError: if matplotlib is not installed.
        InputError: if there is no such scalar.
    """
    pyplot = require_pyplot()
    names = choose_names(result, _MOST) if names is None else list(names)
    draws, given_weights = result.draws()
    columns, log_weights = columns_of(result, draws, names), usable_weights(given_weights)
    own, flagged = np.asarray(result.diagnostics.own), result.verdict.flagged
    sets = [(np.flatnonzero(own)[:_POINTS], BLUE, "approximation")]
    if log_weights is not None:
        chance = np.exp(log_weights.astype(float))
        rng = np.random.default_rng(0)
        chosen = rng.choice(len(chance), _POINTS, p=chance / chance.sum())
        sets.append((chosen, VERMILION, "importance-weighted"))
    number = len(names)
    size = 1.2 + 1.9 * number
    figure = pyplot.figure(figsize=(size, size), layout="constrained")
    panels: Any = figure.subplots(number, number, squeeze=False)
    for row, below in enumerate(names):
        for column, beside in enumerate(names):
            axes = panels[row, column]
            if column > row:
                axes.set_axis_off()
            elif column == row:
                draw_marginal(axes, below, columns[below], own, log_weights, below in flagged)
            else:
                for chosen, colour, _ in sets:
                    x, y = columns[beside][chosen], columns[below][chosen]
                    axes.plot(x, y, ".", ms=4, color=colour, alpha=0.35, mew=0)
                everything = np.concatenate([chosen for chosen, _, _ in sets])
                axes.set_xlim(_limits(columns[beside][everything]))
                axes.set_ylim(_limits(columns[below][everything]))
                plain(axes)
            if column == 0 and row > 0:
                axes.set_ylabel(shorten(below), fontsize=9, parse_math=False)
            if row == number - 1 and column < row:
                axes.set_xlabel(shorten(beside), fontsize=9, parse_math=False)
    handles = [
        pyplot.Line2D([], [], color=colour, marker="o", ls="", label=label)
        for _, colour, label in sets
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return panels


def _limits(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values[np.isfinite(values)], _REACH)
    margin = 0.1 * (high - low) or 1e-3 * max(abs(low), 1.0)
    return low - margin, high + margin
