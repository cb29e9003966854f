"""Normal distributions of all else given hyperparameters, by gradients."""

from typing import Any, NamedTuple

import numpy as np

from bbvi._arrays import logsumexp
from bbvi._linalg import lower_factor, solve_lower
from bbvi.evaluate import paired_normals
from bbvi.families import Frame
from bbvi.stages.coordinates import Coordinates

# Newton's method at a point: rounds, of so many steps that take one gradient each and then all
# second derivatives, and by how much a step that leads down is too long; a step in sds of all
# coordinates together at which a round ends, and at which a point is good; the longest step; how
# much a precision may change in a round that is the last, and in any. (With three rounds and no
# shorter steps most points a few sds from the match were lost, where basis functions of a curve are
# let go one after the other as its length grows.)
_ROUNDS, _STEPS, _SHORTER = 6, 8, 0.25
_SMALL, _GOOD, _LONGEST = 0.05, 0.3, 1.5
_SETTLED, _CLIPPED = 4.0, 9.0
# Draws of all else at a point, in pairs and of the same normals everywhere, by which its density is
# known. (By Laplace's method alone it was off by 0.4 to 1.3 nats of difference between points for a
# volatility in 153 dimensions: an sd was said to be 13% larger than it is, and fits that were right
# went on to chains.)
_DRAWS = 32


class Points(NamedTuple):
    """Normal distributions of all else, given hyperparameters.

    Attributes:
        theta: (N, H).
        mean: (N, F), in units of `Conditionals`.
        precision: (N, F, F), likewise.
        log_p: (N,) log density of theta, but for a constant, by draws of all else.
    """

    theta: np.ndarray
    mean: np.ndarray
    precision: np.ndarray
    log_p: np.ndarray

    def and_others(self, other: "Points") -> "Points":
        return Points(*map(np.concatenate, zip(self, other, strict=True)))

    def pick(self, which: Any) -> "Points":
        return Points(*(x[which] for x in self))

    def divergence_from(self, mean: np.ndarray, factor: np.ndarray) -> np.ndarray:
        """Divergences (N,) of other normal distributions from these, nats.

        Args:
            mean: (N, F) of the others.
            factor: (N, F, F) lower, of their precisions.
        """
        own = np.linalg.cholesky(self.precision)
        wide = np.swapaxes(own, 1, 2) @ np.swapaxes(np.linalg.inv(factor), 1, 2)
        off = np.einsum("nij,ni->nj", own, mean - self.mean)
        log_dets = [np.log(np.diagonal(x, axis1=1, axis2=2)).sum(axis=1) for x in (factor, own)]
        squares = np.sum(wide**2, axis=(1, 2)) + np.sum(off**2, axis=1) - mean.shape[1]
        return squares / 2 + log_dets[0] - log_dets[1]


class Conditionals:
    """Distributions of all else given hyperparameters, by gradients, in units of a Gaussian."""

    def __init__(self, at: Coordinates, hyper: np.ndarray, frame: Frame):
        centre, factor = (np.asarray(x, float) for x in frame)
        self._at, self.hyper = at, hyper
        self.latent = np.setdiff1d(np.arange(len(centre)), hyper)
        covariance = factor @ factor.T
        own = covariance[np.ix_(hyper, hyper)]
        self.frame = Frame(centre[hyper], np.linalg.cholesky(own))
        lean = np.linalg.solve(own, covariance[np.ix_(hyper, self.latent)])
        left = covariance[np.ix_(self.latent, self.latent)] - lean.T @ own @ lean
        self.origin, self.units = centre[self.latent], np.linalg.cholesky((left + left.T) / 2)
        # mean at t = 0, and by how much it goes with t
        self._slopes = solve_lower(self.units, lean.T @ self.frame.scale)
        self._eps = paired_normals(np.random.default_rng(0), _DRAWS, len(self.latent))

    @property
    def num_gradients(self) -> int:
        return self._at.num_gradients

    def first(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means (N, F) and factors (N, F, F) of precisions, as the Gaussian has them."""
        t = solve_lower(self.frame.scale, (theta - self.frame.loc).T)
        size = len(self.origin)
        return (self._slopes @ t).T, np.broadcast_to(np.eye(size), (len(theta), size, size))

    def score(self, theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log densities (N, J), scores (N, J, F) and whether they are finite, at x (N, J, F)."""
        z = np.zeros((*x.shape[:2], len(self.hyper) + len(self.latent)))
        z[..., self.hyper] = theta[:, None]
        z[..., self.latent] = self.origin + x @ self.units.T
        log_p, score, ok = self._at.score(z.reshape(-1, z.shape[-1]))
        score = score.reshape(z.shape)[..., self.latent] @ self.units
        return log_p.reshape(z.shape[:2]), score, ok.reshape(z.shape[:2])

    def score_at(
        self, theta: np.ndarray, mean: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same at one x each (N, F): (N,), (N, F) and (N,)."""
        value, score, ok = self.score(theta, mean[:, None])
        return value[:, 0], score[:, 0], ok[:, 0]

    def at(self, theta: np.ndarray, mean: np.ndarray, factor: np.ndarray) -> Points:
        r"""Where Newton's method, from means and factors of precisions, has come to an end.

        Second derivatives H are differences over an sd to either side in each direction, so that
        they are means over about as much as the distribution covers; the same points tell by how
        much its mean is off the mode, the skewness (1/2) sum_j d_j d_j nabla log p.

        Args:
            theta: (N, H).
            mean: (N, F) to begin at.
            factor: (N, F, F) lower, of precisions.

        Returns:
            those at which all else is normal.
        """
        number, size = mean.shape
        mean, factor = np.array(mean), np.array(factor)
        good = np.zeros(number, bool)
        ends = np.concatenate([np.zeros((1, size)), np.eye(size), -np.eye(size)])
        todo = np.arange(number)
        for _ in range(_ROUNDS):
            self._climb(theta, mean, factor, todo)
            widths = np.swapaxes(np.linalg.inv(factor[todo]), 1, 2)
            points = mean[todo][:, None] + ends @ np.swapaxes(widths, 1, 2)
            _, score, ok = self.score(theta[todo], points)
            ok = ok.all(axis=1)
            here, up, down = np.split(score @ widths, [1, 1 + size], axis=1)
            here = here[:, 0]
            turned = np.where(ok[:, None, None], (down - up) / 2, np.eye(size))
            values, vectors = np.linalg.eigh((turned + np.swapaxes(turned, 1, 2)) / 2)
            clipped = np.clip(values, 1 / _CLIPPED, _CLIPPED)
            pull = here + np.sum((up + down) / 2 - here[:, None], axis=1)
            inner = np.einsum("nij,ni->nj", vectors, np.where(ok[:, None], pull, 0))
            step = np.einsum("nij,nj->ni", vectors, inner / clipped)
            length = np.linalg.norm(step, axis=1) / np.sqrt(size)
            step *= np.minimum(1, _LONGEST / np.maximum(length, 1e-30))[:, None]
            mean[todo] += np.einsum("nij,nj->ni", widths, step)
            factor[todo] = lower_factor(factor[todo] @ (vectors * np.sqrt(clipped)[:, None]))
            changed = np.maximum(values.max(axis=1), 1 / np.maximum(values.min(axis=1), 1e-30))
            fine = ok & (length < _GOOD) & (changed < _SETTLED) & (values.min(axis=1) > 0)
            good[todo] = fine
            todo = todo[ok & ~fine]
            if not len(todo):
                break
        theta, mean, factor = (x[good] for x in (theta, mean, factor))
        log_p = self._log_density(theta, mean, factor)
        points = Points(theta, mean, factor @ np.swapaxes(factor, 1, 2), log_p)
        return points.pick(np.isfinite(log_p))

    def _log_density(self, theta: np.ndarray, mean: np.ndarray, factor: np.ndarray) -> np.ndarray:
        """log p(theta) (N,), but for a constant: of the mean of p(theta, x) / q(x) over draws."""
        if not len(theta):
            return np.zeros(0)
        widths = np.swapaxes(np.linalg.inv(factor), 1, 2)
        x = mean[:, None] + self._eps @ np.swapaxes(widths, 1, 2)
        value, _, ok = self.score(theta, x)
        log_ratio = np.where(ok, value, -np.inf) + np.sum(self._eps**2, axis=1) / 2
        log_det = np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
        return logsumexp(log_ratio) - np.log(_DRAWS) - log_det

    def _climb(self, theta, mean, factor, todo) -> None:
        """Towards modes, in place, in units of factors, one gradient a step.

        Where these are of elsewhere a step may lead down, and a shorter one is tried.
        """
        value, score, ok = self.score_at(theta[todo], mean[todo])
        todo, value, score = todo[ok], value[ok], score[ok]
        share = np.ones(len(mean))
        for _ in range(_STEPS):
            step = np.linalg.solve(factor[todo], score[..., None])
            length = np.linalg.norm(step[..., 0], axis=1) / np.sqrt(mean.shape[1])
            far = length > _SMALL
            todo, value, score, step, length = (x[far] for x in (todo, value, score, step, length))
            if not len(todo):
                break
            step *= (share[todo] * np.minimum(1, _LONGEST / length))[:, None, None]
            tried = mean.copy()
            tried[todo] += np.linalg.solve(np.swapaxes(factor[todo], 1, 2), step)[..., 0]
            higher, there, ok = self.score_at(theta[todo], tried[todo])
            up = ok & (higher > value)
            mean[todo[up]] = tried[todo[up]]
            value, score = np.where(up, higher, value), np.where(up[:, None], there, score)
            share[todo] *= np.where(up, 1 / _SHORTER, _SHORTER)
            share = np.minimum(share, 1)
