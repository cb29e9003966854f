"""Families of approximations: one a file, each a hashable spec beside its parameters."""

from bbvi.families.base import Family, Frame
from bbvi.families.fullrank import FullRankGaussian
from bbvi.families.lowrank import LowRankGaussian
from bbvi.families.meanfield import MeanFieldGaussian

__all__ = ["Family", "Frame", "FullRankGaussian", "LowRankGaussian", "MeanFieldGaussian"]
