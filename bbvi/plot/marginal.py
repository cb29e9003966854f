"""One scalar's marginal: the approximation's, the weighted draws', and a reference."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bbvi._types import PyTree
from bbvi.diagnostics.evidence import KHAT_USABLE
from bbvi.plot.scalars import columns_of, usable_weights
from bbvi.plot.style import BLACK, BLUE, VERMILION, axes_or_new, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bbvi.result import FitResult

# The share of the draws that a panel shows; a heavy tail would squeeze the rest into one bar.
CENTRAL = 0.99
_LONGEST_NAME = 24
_MAX_BINS = 40  # finer ones are hard to see in a small panel


def plot_marginal(
    result: FitResult, name: str, axes: Axes | None = None, reference: PyTree = None
) -> Axes:
    """Histograms of one scalar: the approximation's filled, importance-weighted as a line.

    Args:
        result: what `bbvi.fit` returned.
        name: of the scalar, as in `result.summary()`.
        axes: matplotlib axes to draw on; new ones if None.
        reference: draws to compare with, in the user's structure, with a leading axis; a black
            line.

    Returns:
        the axes.

    Raises:
        ImportError: if matplotlib is not installed.
        InputError: if there is no such scalar, or the reference has another structure.
    """
    draws, given_weights = result.draws()
    values = columns_of(result, draws, [name])[name]
    given = None if reference is None else columns_of(result, reference, [name])[name]
    own, flagged = np.asarray(result.diagnostics.own), name in result.verdict.flagged
    axes, log_weights = axes_or_new(axes), usable_weights(given_weights)
    draw_marginal(axes, name, values, own, log_weights, flagged, given)
    handles = marginal_handles(result, log_weights is not None, given is not None)
    axes.legend(handles=handles, fontsize=8, frameon=False)
    return axes


def marginal_handles(result: FitResult, weighted: bool, given: bool) -> list[Any]:
    """What a legend of marginals shows."""
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=BLUE + "59", edgecolor=BLUE, label="approximation")]
    if weighted:
        label = "importance-weighted (Pareto-smoothed)"
        if not result.khat < KHAT_USABLE:
            label += f", unreliable: k-hat above {KHAT_USABLE}"
        handles.append(Patch(fill=False, edgecolor=VERMILION, lw=1.5, label=label))
    if given:
        handles.append(Patch(fill=False, edgecolor=BLACK, ls="--", label="reference"))
    return handles


def draw_marginal(
    axes: Axes,
    name: str,
    values: np.ndarray,
    own: np.ndarray,
    log_weights: np.ndarray | None,
    flagged: bool,
    reference: np.ndarray | None = None,
) -> None:
    """Histograms of one scalar: its own draws filled, weights and a reference as lines."""
    # A dollar sign in a name is no formula.
    label = f"{shorten(name)} (!)" if flagged else shorten(name)
    title = axes.set_title(label, fontsize=9.5, parse_math=False)
    if flagged:
        title.set(color=VERMILION, fontweight="bold")
    finite = np.isfinite(values)
    values = values[finite].astype(float)
    if len(values):
        sets = [own[finite] / max(1, own[finite].sum())]
        if log_weights is not None:
            weights = np.exp(log_weights[finite].astype(float))
            sets += [weights / weights.sum()] if weights.sum() > 0 else []
        edges = _edges(values, sets)
        # Heights are shares of all draws, those beyond the panel's ends included.
        raw, *weighted = (np.histogram(values, edges, weights=w)[0] for w in sets)
        axes.stairs(raw, edges, fill=True, color=BLUE, alpha=0.35)
        axes.stairs(raw, edges, color=BLUE, lw=0.8)
        for heights in weighted:
            axes.stairs(heights, edges, color=VERMILION, lw=1.5)
        if reference is not None:
            heights = np.histogram(reference, edges)[0] / len(reference)
            axes.stairs(heights, edges, color=BLACK, lw=1.2, ls=(0, (3, 2)))
        axes.set_xlim(edges[0], edges[-1])
        axes.locator_params(axis="x", nbins=4)
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    plain(axes)


def _edges(values: np.ndarray, sets: list[np.ndarray]) -> np.ndarray:
    """Edges of bins over the central part of the draws, under whichever weights it is wider."""
    order = np.argsort(values)
    tail = (1 - CENTRAL) / 2
    low, high = np.inf, -np.inf
    for weights in sets:
        at = np.searchsorted(np.cumsum(weights[order]), [tail, 1 - tail])
        first, last = values[order][np.minimum(at, len(values) - 1)]
        low, high = min(low, float(first)), max(high, float(last))
    if not high > low:
        low, high = low - 1e-3 * max(abs(low), 1.0), high + 1e-3 * max(abs(high), 1.0)
    bins = min(math.ceil(2 * len(values) ** (1 / 3)), _MAX_BINS)  # the Rice rule
    return np.linspace(low, high, bins + 1)


def shorten(name: str) -> str:
    """A name that fits a panel; the index at its end tells entries apart."""
    half = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[: half - 3]}...{name[-half:]}"
