"""The tail of the importance weights, which k-hat measures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bbvi.diagnostics.evidence import KHAT_USABLE
from bbvi.plot.scalars import usable_weights
from bbvi.plot.style import BLUE, GREY, VERMILION, axes_or_new, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bbvi.result import FitResult

# Of the draws, the part whose largest weights are the tail that is looked at.
_TAIL = 0.05


def plot_tail(result: FitResult, axes: Axes | None = None) -> Axes:
    r"""The share of the draws with a weight above w, both on logarithmic axes.

    A tail of shape k falls there like w^(-1/k). Steeper than the dashed line, whose k is the
    largest that is usable, averages under the weights settle down; flatter, a few draws far
    out decide them.

    Args:
        result: what `bbvi.fit` returned.
        axes: matplotlib axes to draw on; new ones if None.

    Returns:
        the axes.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    axes = axes_or_new(axes)
    log_weights = usable_weights(np.asarray(result.diagnostics.log_weights))
    axes.set_title(f"importance weights: Pareto k-hat {result.khat:.2f}", fontsize=10)
    axes.set_xlabel("weight, in units of the mean weight", fontsize=9)
    axes.set_ylabel("share of draws above it", fontsize=9)
    plain(axes)
    weights = np.zeros(0) if log_weights is None else np.exp(log_weights.astype(float))
    weights = np.sort(weights[weights > 0])[::-1]
    if len(weights) < 2 or not weights[0] > weights[-1]:
        text = "all weights are equal" if len(weights) else "there are no usable weights"
        axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=GREY)
        return axes
    weights = weights / weights.mean()
    share = np.arange(1, len(weights) + 1) / len(weights)
    usable = result.khat < KHAT_USABLE
    colour = BLUE if usable else VERMILION
    axes.loglog(weights, share, ".", ms=3, color=colour, label="draws, the largest smoothed")
    start = max(1, int(_TAIL * len(weights)))
    reach = np.array([weights[start], max(weights[0], 10 * weights[start])])
    line = share[start] * (reach / reach[0]) ** (-1 / KHAT_USABLE)
    axes.loglog(reach, line, "--", color=GREY, lw=1.2, label=f"k = {KHAT_USABLE}, the limit")
    # the smallest weights, of which nothing depends, may lie any number of decades down
    axes.set_xlim(weights[int(0.9 * (len(weights) - 1))], 2 * reach[1])
    axes.set_ylim(0.7 / len(weights), 1.4)
    axes.legend(fontsize=8.5, frameon=False, loc="upper right")
    return axes
