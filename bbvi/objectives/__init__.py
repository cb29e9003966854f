"""Objectives: what a stochastic solver minimises, one a file."""

from bbvi.objectives.base import LossInfo, Objective
from bbvi.objectives.elbo import ELBO

__all__ = ["ELBO", "LossInfo", "Objective"]
