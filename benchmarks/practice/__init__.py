"""Models of the kinds people write, on simulated data, with moments from long runs of NUTS.

They were written before bbvi was run on one of them, to hold kinds and sizes that posteriordb
lacks: first those of hierarchy, nature, people, regression and series, then those of economy,
events, hidden, learning and physics, then the rest. What fails here is to be understood and mended
for its kind; no constant of the default is chosen by these figures.
"""

from .registry import PRACTICE, Practice

__all__ = ["PRACTICE", "Practice"]
