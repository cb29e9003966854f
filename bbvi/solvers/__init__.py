"""Solvers: how a family is fitted, one a file."""

from bbvi.solvers.base import Info, Solver
from bbvi.solvers.batch_match import BatchAndMatch
from bbvi.solvers.stochastic_gradient import StochasticGradient

__all__ = ["BatchAndMatch", "Info", "Solver", "StochasticGradient"]
