"""Smooth functions of a few coordinates through given points."""

from typing import NamedTuple

from bbvi._arrays import namespace
from bbvi._linalg import dot
from bbvi._types import AnyArray
from bbvi.families.triangular import quadratics


class Spline(NamedTuple):
    r"""Functions of t that go through what they are at some knots, and bend as little as they can.

        c(t) = A (1, t, t t') + sum_k |t - t_k|^3 b_k

    Attributes:
        knots: (N, H) t_k.
        trend: (P, C) A.
        bend: (N, C) b.
    """

    knots: AnyArray
    trend: AnyArray
    bend: AnyArray


def cubes(t: AnyArray, knots: AnyArray) -> AnyArray:
    """|t - t_k|^3 (S, N) of t (S, H)."""
    xp = namespace(t)
    squares = xp.sum(t**2, axis=1)[:, None] + xp.sum(knots**2, axis=1) - 2 * dot(t, knots.T)
    return xp.maximum(squares, 0) ** 1.5


def spline_at(spline: Spline, t: AnyArray) -> AnyArray:
    """c (S, C) at t (S, H)."""
    return dot(quadratics(t), spline.trend) + dot(cubes(t, spline.knots), spline.bend)
