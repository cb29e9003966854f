"""The 46 posteriors of posteriordb with reference draws, as log joints for bbvi."""

from .registry import MISSING, POSTERIORS, Posterior, find_database

__all__ = ["MISSING", "POSTERIORS", "Posterior", "find_database"]
