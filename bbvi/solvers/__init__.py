"""Solvers: how a family is fitted, one a file."""

from bbvi.solvers.base import Info, Solver
from bbvi.solvers.batch_match import BatchAndMatch
from bbvi.solvers.fixed_draws import FixedDraws
from bbvi.solvers.linear_response import linear_response
from bbvi.solvers.pathfinder import Pathfinder
from bbvi.solvers.stochastic_gradient import StochasticGradient

__all__ = [
    "BatchAndMatch",
    "FixedDraws",
    "Info",
    "Pathfinder",
    "Solver",
    "StochasticGradient",
    "linear_response",
]
