"""Constraints on parameters: maps from unconstrained reals onto constrained sets."""

from bbvi.bijectors.base import Bijector, Chain
from bbvi.bijectors.elementwise import (
    GreaterThan,
    Interval,
    LessThan,
    Real,
    greater_than,
    interval,
    less_than,
    negative,
    positive,
    real,
    unit_interval,
)
from bbvi.bijectors.matrix import (
    CorrCholesky,
    Correlation,
    Covariance,
    CovCholesky,
    corr_cholesky,
    correlation,
    cov_cholesky,
    covariance,
)
from bbvi.bijectors.ordered import Ordered, PositiveOrdered, ordered, positive_ordered
from bbvi.bijectors.simplex import Simplex, simplex
from bbvi.bijectors.vector import UnitVector, ZeroSum, unit_vector, zero_sum

__all__ = [
    "Bijector",
    "Chain",
    "CorrCholesky",
    "Correlation",
    "CovCholesky",
    "Covariance",
    "GreaterThan",
    "Interval",
    "LessThan",
    "Ordered",
    "PositiveOrdered",
    "Real",
    "Simplex",
    "UnitVector",
    "ZeroSum",
    "corr_cholesky",
    "correlation",
    "cov_cholesky",
    "covariance",
    "greater_than",
    "interval",
    "less_than",
    "negative",
    "ordered",
    "positive",
    "positive_ordered",
    "real",
    "simplex",
    "unit_interval",
    "unit_vector",
    "zero_sum",
]
