"""The posteriors of posteriordb that come without reference draws, with moments by NUTS.

Real data, and programs that others wrote: what a user brings. All were ported before bbvi was run
on one of them, and no constant of the default is chosen by these figures.
"""

from .registry import UNREFERENCED, Unreferenced

__all__ = ["UNREFERENCED", "Unreferenced"]
