"""Hyperparameters: the few coordinates with which the curvature of a posterior changes."""

import numpy as np

from bbvi.stages.coordinates import Coordinates

# More than this take more points to cover than chains cost.
MOST = 6
# Directions along which the curvature is looked at, for each coordinate and for the few that seem
# to move it most, and how far from the centre, in sds. For each coordinate more of them where none
# is held yet: what moves it in one direction alone is seen by two in nine of ten fits, and a map
# whose two hyperparameters were not cost 1.9 million gradients, and not 160,000.
_PROBES, _FEW, _CLOSER, _PUSH = 2, 4, 24, 0.5
_PROBES_AT_FIRST = 6
# By how much, as a Frobenius norm of a relative change, what is a hyperparameter moves the
# curvature; and less, if it does so in several directions at once. Of eighteen models in 28 to 103
# dimensions 41 of 44 hyperparameters did, in 3 to 110 directions where it was less than the former;
# effects that counts are of move their own curvature, by up to 0.5 in one or two.
_MOVES, _MOVES_MANY, _MANY = 0.6, 0.3, 3.0


def most_gradients(dim: int) -> int:
    """What `hyperparameters` spends at most."""
    more = (_PROBES_AT_FIRST - _PROBES) * dim
    return 4 * ((MOST + 1) * (_PROBES * dim + (_FEW + 1) * _CLOSER) + more)


def hyperparameters(
    at: Coordinates, centre: np.ndarray, factor: np.ndarray, random: np.random.Generator
) -> np.ndarray | None:
    r"""Coordinates, ascending, given which all others are about normal; None if they are many.

    A density of x that is normal given theta has no third derivatives but those that involve theta.
    With L the factor of the covariance of all that is not held yet, and d_k its direction in which
    coordinate k goes by an sd, that which moves the curvature of the others most,

        T_k = L' (nabla^2 log p(z + d_k) - nabla^2 log p(z - d_k)) L / 2,

    in several directions, or by much, is held too, until none does. Of the product of two, as of
    loadings and factors, it is those of which there are fewer.

    Args:
        at: coordinates, plain.
        centre: (D,) of a Gaussian.
        factor: (D, D) lower, of its covariance.
        random: of the host.
    """
    dim = len(centre)
    precision = np.linalg.inv(factor @ factor.T)
    held = np.zeros(dim, bool)
    while (most := _Curvature(at, centre, precision, ~held, random).most_moved_by()) is not None:
        if held.sum() == min(MOST, dim - 2):
            return None
        held[most] = True
    for k in np.flatnonzero(held):
        held[k] = False
        held[k] = _Curvature(at, centre, precision, ~held, random).is_moved_by(int(k))
    return np.flatnonzero(held)


class _Curvature:
    """Of all that is not held, and what moves it."""

    def __init__(self, at, centre, precision, rest, random):
        self._at, self._centre, self._rest, self._random = at, centre, rest, random
        own = np.linalg.inv(precision[np.ix_(rest, rest)])
        self._lower = np.linalg.cholesky((own + own.T) / 2)
        # directions in which each goes by an sd, before L
        self._along = self._lower / np.linalg.norm(self._lower, axis=1, keepdims=True)

    def most_moved_by(self) -> int | None:
        """The coordinate that moves it most, if any does."""
        # E |T v|^2 = |T|^2 for standard normal v
        probes = _PROBES_AT_FIRST if self._rest.all() else _PROBES
        pushes = self._random.standard_normal((probes, 1, len(self._lower)))
        seen = np.mean([np.sum(self._changes(self._along, v) ** 2, axis=1) for v in pushes], axis=0)
        size, most = max((self._moved_by(k), k) for k in np.argsort(-seen)[:_FEW])
        return int(np.flatnonzero(self._rest)[most]) if size else None

    def is_moved_by(self, coordinate: int) -> bool:
        """Whether such a coordinate moves it, of which nothing else may."""
        return self._moved_by(int(np.sum(self._rest[:coordinate]))) > 0

    def _moved_by(self, k: int) -> float:
        """|T_k|^2, or zero where that is little or in few directions."""
        pushes = self._random.standard_normal((_CLOSER, len(self._lower)))
        moved = self._changes(np.repeat(self._along[k : k + 1], _CLOSER, axis=0), pushes)
        products = moved @ moved.T
        square = np.trace(products) / _CLOSER
        # E (T v . T w)^2 = tr T^4, which is |T|^4 over the number of directions
        apart = np.sum(products**2) - np.sum(np.diag(products) ** 2)
        directions = square**2 * _CLOSER * (_CLOSER - 1) / max(apart, 1e-300)
        least = _MOVES_MANY if directions >= _MANY else _MOVES
        return float(square) if square >= least**2 else 0.0

    def _changes(self, ways: np.ndarray, pushes: np.ndarray) -> np.ndarray:
        """T v (N, F) for ways (N, F) and v (N or 1, F); zero where it is not finite."""
        one, other = np.zeros((2, len(ways), len(self._centre)))
        one[:, self._rest] = ways @ self._lower.T
        other[:, self._rest] = _PUSH * pushes @ self._lower.T
        points = [self._centre + a * one + b * other for a in (1, -1) for b in (1, -1)]
        _, score, ok = self._at.score(np.concatenate(points))
        score = score.reshape(4, len(ways), -1)[:, :, self._rest]
        mixed = (score[0] - score[1] - score[2] + score[3]) @ self._lower / (4 * _PUSH)
        return np.where(ok.reshape(4, -1).all(axis=0)[:, None], mixed, 0)
