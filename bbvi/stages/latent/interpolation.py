"""What all else is given hyperparameters, in between values at which that is known."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bbvi._linalg import lower_factor, solve_lower
from bbvi.families import Frame
from bbvi.families.latent_gaussian import Latent, given_hyper, in_units
from bbvi.families.splines import Spline, cubes, spline_at
from bbvi.families.triangular import quadratics
from bbvi.stages.latent.conditionals import Conditionals, Points

# Directions of what is given hyperparameters that are kept: what the others say of a point together
# is so little, as the square of a Frobenius norm.
_LEFT = 1e-3
# Of the spline, beside distances cubed.
_RIDGE = 1e-4
# Points so many nats below the highest are left out.
_LOWEST = 30.0


class Interpolated(NamedTuple):
    """What is given hyperparameters, and their own log density, in between points.

    Attributes:
        latent: what is normal.
        log_p: the log density of t, but for a constant: the highest point has zero.
    """

    latent: Latent
    log_p: Spline

    def given(self, conditionals: Conditionals, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means (S, F) and factors (S, F, F) of precisions, in units of `Conditionals`."""
        mean, log_widths, factor = given_hyper(self.latent, theta)
        to = np.linalg.solve(conditionals.units, self.latent.basis)
        origin = solve_lower(conditionals.units, self.latent.origin - conditionals.origin)
        root = np.linalg.inv(to @ factor * np.exp(log_widths)[:, None])
        return origin + mean @ to.T, lower_factor(np.swapaxes(root, 1, 2))

    def log_density(self, theta: np.ndarray) -> np.ndarray:
        """log density (S,) of hyperparameters (S, H), wherever they are."""
        return spline_at(self.log_p, self.units(theta))[:, 0]

    def units(self, theta: np.ndarray) -> np.ndarray:
        """t (S, H)."""
        return in_units(self.latent, theta)

    def distance(self, theta: np.ndarray) -> np.ndarray:
        """How far (S,) the nearest knot is."""
        return np.cbrt(np.min(cubes(self.units(theta), self.latent.spline.knots), axis=1))


def interpolate(
    conditionals: Conditionals, points: Points, weights: np.ndarray, frame: Frame
) -> Interpolated:
    """What is given hyperparameters in between points.

    The basis is one in which the precisions have a determinant of about one, and are diagonal as
    far as they differ mostly in one way: of two that add up, such as those of a prior and of a
    likelihood, all are.

    Args:
        conditionals: of which the points are.
        points: N of them.
        weights: (N,) how much each counts for the basis, and against the smoothness.
        frame: of hyperparameters, in whose units distances are.
    """
    known = points.log_p > points.log_p.max() - _LOWEST
    points, weights = points.pick(known), weights[known] / weights[known].max()
    size = points.mean.shape[1]
    log_volume = np.linalg.slogdet(points.precision)[1] / size
    scaled = points.precision * np.exp(-log_volume)[:, None, None]
    middle = np.tensordot(weights / weights.sum(), scaled, 1)
    basis = np.linalg.inv(np.linalg.cholesky(middle)).T
    turned = basis.T @ scaled @ basis - np.eye(size)
    (way,) = _principal(np.sqrt(weights)[:, None] * turned.reshape(-1, size**2), lambda _: 1)
    basis = basis @ np.linalg.eigh(way.reshape(size, size))[1]
    lower = np.linalg.cholesky(basis.T @ points.precision @ basis)
    upper = np.swapaxes(np.linalg.inv(lower), 1, 2)
    log_widths = np.log(np.diagonal(upper, axis1=1, axis2=2))
    factors = np.triu(upper * np.exp(-log_widths)[:, None], 1)
    away = weights @ points.mean / weights.sum()
    means = np.linalg.solve(basis, (points.mean - away).T).T
    along, parts = _directions([means, log_widths, factors], weights)

    t = solve_lower(frame.scale, (points.theta - frame.loc).T).T
    log_p = points.log_p - points.log_p.max()
    spline = fit_spline(t, np.concatenate([along, log_p[:, None]], axis=1), weights)
    basis_of_z = conditionals.units @ basis
    latent = Latent(
        hyper=conditionals.hyper.astype(np.int32),
        latent=conditionals.latent.astype(np.int32),
        centre=frame.loc,
        root=frame.scale,
        reach=np.linalg.norm(t, axis=1).max(),
        spline=spline._replace(trend=spline.trend[:, :-1], bend=spline.bend[:, :-1]),
        means=parts[0],
        log_widths=parts[1],
        factors=parts[2],
        origin=conditionals.origin + conditionals.units @ away,
        basis=basis_of_z,
        inverse=np.linalg.inv(basis_of_z),
        log_det=np.linalg.slogdet(basis_of_z)[1],
    )
    log_p_of_t = spline._replace(trend=spline.trend[:, -1:], bend=spline.bend[:, -1:])
    return Interpolated(latent, log_p_of_t)


def _directions(
    parts: list[np.ndarray], weights: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """What points (N, ...) have along the few directions (1 + C, ...) in which they differ."""
    flat = np.concatenate([x.reshape(len(x), -1) for x in parts], axis=1)
    middle = weights @ flat / weights.sum()
    away = flat - middle

    def enough(squares):
        left = np.append(np.cumsum(squares[::-1])[::-1][1:], 0)
        return 1 + int(np.argmax(left < _LEFT))

    ways = _principal(np.sqrt(weights / weights.sum())[:, None] * away, enough)
    ends = np.cumsum([x[0].size for x in parts])[:-1]
    found = np.split(np.concatenate([middle[None], ways]), ends, axis=1)
    shaped = [x.reshape(-1, *like.shape[1:]) for x, like in zip(found, parts, strict=True)]
    return away @ ways.T, shaped


def _principal(x: np.ndarray, number: Callable[[np.ndarray], int]) -> np.ndarray:
    """The first right singular vectors (K, P) of x (N, P), P many.

    By the products of rows: small values are rounded, and none of those is asked for.

    Args:
        x: (N, P).
        number: K, of the squares (N,) of the singular values, the largest first.
    """
    squares, left = np.linalg.eigh(x @ x.T)
    first = slice(-1, -1 - number(squares[::-1]), -1)
    norms = np.sqrt(np.maximum(squares[first], np.finfo(float).tiny))
    return (left.T[first] @ x) / norms[:, None]


def fit_spline(t: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Spline:
    """A spline of points t (N, H) through y (N, C), the more closely the more they weigh."""
    trend = quadratics(t)
    few = trend.shape[1]
    smooth = _RIDGE / np.maximum(weights / weights.max(), 1e-2)
    system = np.block([[trend, cubes(t, t) + np.diag(smooth)], [np.zeros((few, few)), trend.T]])
    found = np.linalg.solve(system, np.concatenate([y, np.zeros((few, y.shape[1]))]))
    return Spline(t, found[:few], found[few:])
