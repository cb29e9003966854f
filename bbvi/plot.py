"""One picture of a fit: the bound along the run, and marginals with and without weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bbvi.verdict import KHAT_USABLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bbvi.result import FitResult

_MAX_PANELS = 8
_MAX_COLUMNS = 4
# Blue and vermilion of the palette of Okabe and Ito: told apart with any colour vision.
_BLUE, _VERMILION = "#0072B2", "#D55E00"
_GREY = "#555555"
# The share of the draws that a panel shows; a heavy tail would squeeze the rest into one bar.
_CENTRAL = 0.99
_LONGEST_NAME = 24
_MAX_BINS = 40  # finer ones are hard to see in a small panel
# Nobody acts on a difference below this many nats, so no axis magnifies one.
_SMALLEST_RANGE = 0.02


def plot_fit(result: FitResult) -> Figure:
    """The ELBO along the run, and up to eight marginals raw against importance-weighted.

    Where the two histograms of a panel differ, the approximation is off in that parameter.
    Parameters that the verdict flags come first, with a mark as in `result.summary()`.

    Args:
        result: what `bbvi.fit` returned.

    Returns:
        a matplotlib figure: `.savefig(path)` writes it, and a notebook shows it.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib import pyplot
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise ImportError("result.plot() needs matplotlib: pip install 'bbvi[plot]'.") from error

    columns, log_weights = _chosen(result)
    own = np.asarray(result.diagnostics.own)
    grid = _grid(len(columns))
    size = (9.6, 2.9 + 1.9 * (len(grid) - 1)) if len(grid) > 1 else (9.6, 3.6)
    figure = pyplot.figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06))
    panels: Any = figure.subplot_mosaic(
        grid, height_ratios=[1.3] + [1] * (len(grid) - 1) if len(grid) > 1 else None
    )

    headline = f"verdict: {result.verdict.level}   (Pareto k-hat {result.khat:.2f})"
    figure.suptitle(headline, fontsize=13, fontweight="bold")
    _draw_trace(panels["trace"], result)
    for i, (name, values) in enumerate(columns.items()):
        flagged = name in result.verdict.flagged
        _draw_marginal(panels[i], name, values, own, log_weights, flagged)
    _draw_legend(figure, result, log_weights is not None)
    # The inline backend shows every open figure when a cell ends: with the figure as the cell's
    # value, a notebook would have it twice.
    if "inline" in matplotlib.get_backend():
        pyplot.close(figure)
    return figure


def _chosen(result: FitResult) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Draws of the scalars to show, by name, and log weights (S,), or None if unusable."""
    names, moments = result.posterior.target.scalar_names, result.diagnostics.raw
    # An entry fixed by its support, such as the diagonal of a correlation matrix, says nothing.
    eps = np.finfo(np.asarray(moments.sd).dtype).eps
    varies = ~(np.asarray(moments.sd) <= 8 * eps * np.abs(moments.mean))
    flagged = set(result.verdict.flagged)
    order = sorted(range(len(names)), key=lambda i: (not varies[i], names[i] not in flagged, i))
    order = order[:_MAX_PANELS]

    draws, log_weights = result.draws()
    leaves = [np.asarray(x).reshape(len(x), -1) for x in jax.tree.leaves(draws)]
    ends = np.cumsum([x.shape[1] for x in leaves])
    columns = {}
    for i in order:
        leaf = int(np.searchsorted(ends, i, side="right"))
        columns[names[i]] = leaves[leaf][:, i - int(ends[leaf])]  # counted from the leaf's end
    usable = np.isfinite(log_weights).any() and not np.isnan(log_weights).any()
    return columns, log_weights if usable else None


def _grid(count: int) -> list[list[Any]]:
    """The trace and `count` panels as rows of a mosaic; "." is left empty."""
    if count == 1:
        return [["trace", "trace", 0]]
    rows = math.ceil(count / _MAX_COLUMNS)
    width = math.ceil(count / rows)
    cells = [i if i < count else "." for i in range(rows * width)]
    return [["trace"] * width] + [cells[r * width : (r + 1) * width] for r in range(rows)]


def _draw_trace(axes: Axes, result: FitResult) -> None:
    """The bound along the run with its noise, and the final bound on fresh draws."""
    step, elbo, error = (np.asarray(x, dtype=float) for x in result.history)
    seen = np.isfinite(elbo)
    step, elbo = step[seen], elbo[seen]
    error = np.nan_to_num(error[seen], posinf=0.0)
    final, final_error = result.elbo, result.elbo_se

    if len(step):
        label = "during the run (\N{PLUS-MINUS SIGN} 2 standard errors)"
        axes.plot(step, elbo, color=_GREY, lw=1.2, label=label, zorder=3)
        axes.fill_between(step, elbo - 2 * error, elbo + 2 * error, color=_GREY, alpha=0.25, lw=0)
    if np.isfinite(final):
        label = f"final fit, fresh draws: {_with_error(final, final_error)}"
        axes.axhline(final, color=_BLUE, lw=1.4, label=label, zorder=2)
        if np.isfinite(final_error):
            low, high = final - 2 * final_error, final + 2 * final_error
            axes.axhspan(low, high, color=_BLUE, alpha=0.2, lw=0)
    low, high = _trace_range(elbo, error, final, final_error)
    axes.set_ylim(low, high)
    cut = int(np.sum(elbo < low))
    hidden = f" ({cut} of {len(elbo)} points lie below, down to {elbo.min():.4g})" if cut else ""
    axes.margins(x=0.01)
    axes.set_xlabel(f"step{hidden}")
    axes.set_ylabel("ELBO (nats)")
    axes.locator_params(axis="x", integer=True)
    axes.ticklabel_format(axis="y", useOffset=False)
    # Above the axes, where it hides no part of the trace.
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, fontsize=9, frameon=False, borderpad=0
    )
    _plain(axes)


def _trace_range(
    elbo: np.ndarray, error: np.ndarray, final: float, final_error: float
) -> tuple[float, float]:
    """Limits that show the second half of the trace; all of it if that is not much more."""
    points = np.array([final - 2 * final_error, final + 2 * final_error])
    late = slice(len(elbo) // 2, None)
    noise = 2 * error[late]
    points = np.concatenate([points, elbo[late] - noise, elbo[late] + noise])
    points = points[np.isfinite(points)]
    if not len(points):
        return 0.0, 1.0
    low, high = float(points.min()), float(points.max())
    reach = max(high - low, _SMALLEST_RANGE, 1e-5 * abs(high))
    low, high = (low + high - reach) / 2, (low + high + reach) / 2
    if len(elbo):
        low = max(min(low, float(elbo.min())), low - 3 * reach)
        high = min(max(high, float(elbo.max())), high + 3 * reach)
    return low - 0.1 * reach, high + 0.1 * reach


def _with_error(value: float, error: float) -> str:
    """A value with its standard error, to two digits of the error."""
    if not (np.isfinite(error) and error > 0):
        return f"{value:.2f}"
    digits = min(max(0, 1 - math.floor(math.log10(error))), 4)
    return f"{value:.{digits}f} \N{PLUS-MINUS SIGN} {error:.{digits}f}"


def _draw_marginal(
    axes: Axes,
    name: str,
    values: np.ndarray,
    own: np.ndarray,
    log_weights: np.ndarray | None,
    flagged: bool,
) -> None:
    """Histograms of one scalar: its own draws filled, importance weights as a line."""
    if len(name) > _LONGEST_NAME:
        half = _LONGEST_NAME // 2
        name = f"{name[: half - 3]}...{name[-half:]}"  # the index at the end tells entries apart
    # A dollar sign in a name is no formula.
    title = axes.set_title(f"{name} (!)" if flagged else name, fontsize=9.5, parse_math=False)
    if flagged:
        title.set(color=_VERMILION, fontweight="bold")
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
        axes.stairs(raw, edges, fill=True, color=_BLUE, alpha=0.35)
        axes.stairs(raw, edges, color=_BLUE, lw=0.8)
        for heights in weighted:
            axes.stairs(heights, edges, color=_VERMILION, lw=1.5)
        axes.set_xlim(edges[0], edges[-1])
        axes.locator_params(axis="x", nbins=4)
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    _plain(axes)


def _edges(values: np.ndarray, sets: list[np.ndarray]) -> np.ndarray:
    """Edges of bins over the central part of the draws, under whichever weights it is wider."""
    order = np.argsort(values)
    tail = (1 - _CENTRAL) / 2
    low, high = np.inf, -np.inf
    for weights in sets:
        at = np.searchsorted(np.cumsum(weights[order]), [tail, 1 - tail])
        first, last = values[order][np.minimum(at, len(values) - 1)]
        low, high = min(low, float(first)), max(high, float(last))
    if not high > low:
        low, high = low - 1e-3 * max(abs(low), 1.0), high + 1e-3 * max(abs(high), 1.0)
    bins = min(math.ceil(2 * len(values) ** (1 / 3)), _MAX_BINS)  # the Rice rule
    return np.linspace(low, high, bins + 1)


def _draw_legend(figure: Figure, result: FitResult, weighted: bool) -> None:
    """One legend for all marginals, below them."""
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=_BLUE + "59", edgecolor=_BLUE, label="approximation")]
    if weighted:
        label = "importance-weighted (Pareto-smoothed)"
        if not result.khat < KHAT_USABLE:
            label += f", unreliable: k-hat above {KHAT_USABLE}"
        handles.append(Patch(fill=False, edgecolor=_VERMILION, lw=1.5, label=label))
    total = len(result.posterior.target.scalar_names)
    title = "marginals" if total <= _MAX_PANELS else f"{_MAX_PANELS} of {total:,} marginals"
    title += f", central {_CENTRAL:.0%} of the draws"
    if result.verdict.flagged:
        title += "; (!) marks moments that the weights contradict"
    figure.legend(
        handles=handles, title=title, loc="outside lower center", ncols=2, fontsize=9, frameon=False
    )


def _plain(axes: Axes) -> None:
    """No frame above and to the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)
