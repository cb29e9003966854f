"""The bound along a run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bbvi.plot.style import BLUE, GREY, axes_or_new, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bbvi.result import FitResult

# Nobody acts on a difference below this many nats, so no axis magnifies one.
_SMALLEST_RANGE = 0.02


def plot_trace(result: FitResult, axes: Axes | None = None) -> Axes:
    """The ELBO along the run with its noise, and where it ended on fresh draws.

    Args:
        result: what `bbvi.fit` returned.
        axes: matplotlib axes to draw on; new ones if None.

    Returns:
        the axes.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    axes = axes_or_new(axes, (7.2, 3.2))
    draw_trace(axes, result)
    return axes


def draw_trace(axes: Axes, result: FitResult) -> None:
    """The bound along the run with its noise, and the final bound on fresh draws."""
    step, elbo, error = (np.asarray(x, dtype=float) for x in result.history)
    seen = np.isfinite(elbo)
    step, elbo = step[seen], elbo[seen]
    error = np.nan_to_num(error[seen], posinf=0.0)
    final, final_error = result.elbo, result.elbo_se

    if len(step):
        label = "during the run (\N{PLUS-MINUS SIGN} 2 standard errors)"
        axes.plot(step, elbo, color=GREY, lw=1.2, label=label, zorder=3)
        axes.fill_between(step, elbo - 2 * error, elbo + 2 * error, color=GREY, alpha=0.25, lw=0)
    if np.isfinite(final):
        label = f"final fit, fresh draws: {_with_error(final, final_error)}"
        axes.axhline(final, color=BLUE, lw=1.4, label=label, zorder=2)
        if np.isfinite(final_error):
            low, high = final - 2 * final_error, final + 2 * final_error
            axes.axhspan(low, high, color=BLUE, alpha=0.2, lw=0)
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
    plain(axes)


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
