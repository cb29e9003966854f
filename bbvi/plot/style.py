"""Colours, frames, and axes to draw on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# From the palette of Okabe and Ito: told apart with any colour vision.
BLUE, VERMILION, ORANGE = "#0072B2", "#D55E00", "#E69F00"
GREY, BLACK = "#555555", "#000000"
OF_LEVEL = {"trusted": BLUE, "caution": ORANGE, "rejected": VERMILION}


def require_pyplot() -> Any:
    """matplotlib.pyplot, or an error that names the extra."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'bbvi[plot]'.") from error
    return pyplot


def axes_or_new(axes: Axes | None, size: tuple[float, float] = (5.2, 3.4)) -> Axes:
    """The given axes, or those of a new figure."""
    if axes is not None:
        return axes
    pyplot = require_pyplot()
    return pyplot.figure(figsize=size, layout="constrained").add_subplot()


def finished(figure: Any) -> Any:
    """The figure, closed where a notebook shows every open one on top of a cell's value."""
    import matplotlib
    from matplotlib import pyplot

    if "inline" in matplotlib.get_backend():
        pyplot.close(figure)
    return figure


def plain(axes: Axes) -> None:
    """No frame above and to the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)
