"""Scales of effects that were written non-centred, whatever the data's distribution."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bbvi.families.noncentred import log_scale, log_scale_slope
from bbvi.stages.coordinates import Coordinates
from bbvi.stages.hierarchy.scales import Found, Known, density_of, layer_in_basis

# Points beyond the unknowns: what is left over says whether there is such a scale.
_MORE = 24
# What may be left over, as a share of a score, and by how much powers may be off. It was rounding,
# 1e-16 or 1e-8, of all scales in a dozen models, and 1e-3 or more of all else.
_LEFT, _LEFT_FLOAT32, _OFF = 1e-10, 1e-6, 0.05
# How many times as much the effects' own prior is to count.
_COUNTS = 10
# A column that is as little beside those before it says nothing.
_DEPENDENT, _DEPENDENT_FLOAT32 = 1e-9, 1e-4
_HUGE = 1e100  # squares of what is less are finite
_POWERS = np.array([0.5, 1.0, 2.0])


class Orbit(NamedTuple):
    """A scale exp(p s) by which others are multiplied, wherever the data see them.

    Attributes:
        at: s.
        power: p.
        effects: (E,) the others.
    """

    at: int
    power: float
    effects: np.ndarray


def find_orbits(
    at: Coordinates, centre: np.ndarray, unit: np.ndarray, saturates: np.ndarray, single: bool
) -> list[Orbit]:
    r"""Scales of standard normal effects of which the likelihood sees the products only.

    If the log density is l(exp(p s) theta, u) - |theta|^2 / 2 + h(s) + k(u), then the likelihood is
    the same all along (s, theta) -> (s + t, exp(-p t) theta), and at every point

        dlog p/ds = p sum_j (theta_j dlog p/dtheta_j + theta_j^2) + h'(s).

    At points in which each coordinate has one of two values h' has two values as well, and this is
    a linear equation in the p of each coordinate, zero for what is no effect. A few more points
    than coordinates have to agree, which without such a scale they do not; one factorisation tells
    it of all coordinates at once.

    Args:
        at: the coordinates.
        centre: (D,) of what is known of the posterior.
        unit: (D,) sds of that.
        saturates: (D,) as in `bbvi.families.noncentred.Layer`.
        single: whether the target computes in single precision.

    Source: the identity is Euler's for what is constant along the orbits of a group; on writing
    effects so, Papaspiliopoulos, Roberts and Sköld 2007 (Statistical Science 22).
    """
    dim = len(centre)
    random = np.random.default_rng(dim)
    signs = random.choice([-1.0, 1.0], (dim + 2 + _MORE, dim))
    # no two values of two coordinates are alike: of such there are more equations that hold
    lengths = random.uniform(-0.5, 0.5, dim) + random.uniform(0.7, 1.3, dim) * signs
    points = centre + unit * lengths
    _, score, ok = at.score(points)
    ok = ok & (np.abs(score) < _HUGE).all(axis=1)
    if ok.sum() < dim + 2 + _MORE // 2:
        return []
    points, signs, score = points[ok], signs[ok], score[ok]
    equations = _Equations(points * score + points**2, signs, np.linalg.norm(score, axis=1), single)
    # a scale in an interval moves its log by less than itself
    wanted = score / log_scale_slope(points, 1.0, saturates)
    found = []
    for i, power in equations.solutions(wanted):
        orbit = _rounded(i, power)
        if orbit is None:
            continue
        # deep in the neck of a funnel effects grow with their scale, and nothing else counts
        prior = np.sum(points[:, orbit.effects] ** 2, axis=1)
        if equations.size(prior) > _COUNTS * equations.least * equations.size(wanted[:, i]):
            found.append(orbit)
    return found


class _Equations:
    """Sums of products (S, D) with a power each, and two values of what goes with one sign.

    Each is divided by what its scores (S,) amount to: where the log of a noise is a curve they
    differ by ten orders of magnitude, and of the largest the effects' prior is rounding.
    """

    def __init__(
        self, products: np.ndarray, signs: np.ndarray, amount: np.ndarray, single: bool
    ) -> None:
        self.least = _LEFT_FLOAT32 if single else _LEFT
        self._weights = 1 / np.maximum(amount, np.finfo(float).tiny)
        products = self._weighted(products)
        size = np.sqrt(np.mean(products**2, axis=0))
        self._size = np.where(size > 0, size, 1)
        basis, upper = np.linalg.qr(products / self._size)
        dependent = (_DEPENDENT_FLOAT32 if single else _DEPENDENT) * np.sqrt(len(products))
        self._told = np.abs(np.diagonal(upper)) > dependent
        self._basis, self._upper = basis[:, self._told], upper[np.ix_(self._told, self._told)]
        self._signs = self._weighted(signs)

    def _weighted(self, x: np.ndarray) -> np.ndarray:
        return (self._weights * x.T).T

    def _left(self, x: np.ndarray) -> np.ndarray:
        """What no products say of x (S, ...)."""
        for _ in range(2):  # once more, for what rounding has left
            x = x - self._basis @ (self._basis.T @ x)
        return x

    def solutions(self, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Coordinates i whose column (S, D), but for two values, is products; powers (D,)."""
        sizes = self.size(wanted)
        wanted = self._weighted(wanted)
        ones, turns, left = map(self._left, (self._weights, self._signs, wanted))
        for i, (turn, rest) in enumerate(zip(turns.T, left.T, strict=True)):
            ends = np.stack([ones, turn], axis=1)
            values, *_ = np.linalg.lstsq(ends, rest, rcond=None)
            if not np.linalg.norm(rest - ends @ values) < self.least * sizes[i]:
                continue
            by_products = wanted[:, i] - values[0] * self._weights - values[1] * self._signs[:, i]
            power = np.zeros(len(self._told))
            power[self._told] = np.linalg.solve(self._upper, self._basis.T @ by_products)
            yield i, power / self._size

    def size(self, x: np.ndarray) -> np.ndarray:
        """How much x (S, ...) varies, () or (D,)."""
        w = self._weights**2
        return np.linalg.norm(self._weighted(x - w @ x / w.sum()), axis=0)


def _rounded(i: int, power: np.ndarray) -> Orbit | None:
    """The scale i, if all powers (D,) are none or the same one that scales have."""
    moved = np.abs(power) > _OFF
    # with its own product, which no scale needs, it is any function of itself and one more
    if moved[i] or not moved.any():
        return None
    median = np.median(power[moved])
    nearest = np.sign(median) * _POWERS[np.argmin(np.abs(_POWERS - abs(median)))]
    if np.abs(power[moved] - nearest).max() > _OFF:
        return None
    return Orbit(i, float(nearest), np.flatnonzero(moved))


def orbit_effects(at: Coordinates, orbit: Orbit, known: Known) -> Found | None:
    """The scale with its effects, of which the curvature at the centre tells what data say."""
    i, power, own = orbit
    centre, unit = known.centre, known.unit
    steps = 0.5 * np.diag(unit)[own]
    _, score, ok = at.score(np.concatenate([centre + steps, centre - steps]))
    if not ok.all():
        return None
    up, down = np.split(score[:, own], 2)
    total = (down - up) / unit[own][:, None]
    prior = np.eye(len(own))
    # effects are divided by their scale: of themselves the data say less
    w = log_scale(centre[i], power, known.saturates[i])
    data = ((total + total.T) / 2 - prior) * np.exp(-2 * w)
    none = np.zeros((len(own), 0))
    nothing = np.zeros(0, int), none, np.zeros(len(own))
    layer = layer_in_basis(known, i, power, own, *nothing, prior, data)
    if layer is None:
        return None
    divided = np.zeros(len(centre))
    divided[own] = 1
    return density_of(at, layer._replace(divided=divided), known)
