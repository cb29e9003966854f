"""Checks for people who add their own parts to the framework."""

from bbvi.testing.bijectors import check_bijector, jacobian_log_det
from bbvi.testing.families import check_family
from bbvi.testing.solvers import check_solver

__all__ = ["check_bijector", "check_family", "check_solver", "jacobian_log_det"]
