"""Gaussians with any covariance."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from bbvi._arrays import namespace
from bbvi._linalg import dot
from bbvi._score import with_score
from bbvi._types import Array, PyTree
from bbvi.families.base import LOG_2PI, Family, Frame, broadcast_scale


@dataclass(frozen=True)
class FullRankGaussian(Family):
    r"""N(loc, L L') with L lower triangular: O(S D^2) time, O(D^2) memory.

    L has exp(log_diag) on its diagonal and the strict lower triangle of `lower` below it.

    Example:
        >>> import jax.numpy as jnp
        >>> family = FullRankGaussian()
        >>> params = family.init(jnp.zeros(2), jnp.array([[1.0, 0.0], [0.5, 2.0]]))
        >>> family.covariance(params).tolist()
        [[1.0, 0.5], [0.5, 4.25]]

    Source: Kucukelbir et al. 2017, JMLR 18(14), section 2.4.
    """

    def init(self, loc: Array, scale: Array) -> PyTree:
        scale = broadcast_scale(loc, scale)
        factor = namespace(scale).diag(scale) if scale.ndim == 1 else scale
        return _with_factor(loc, factor)

    def factor(self, params: PyTree) -> Array:
        """L, lower triangular (D, D)."""
        xp = namespace(params["loc"])
        return xp.tril(params["lower"], -1) + xp.diag(xp.exp(params["log_diag"]))

    def reparam(self, params: PyTree, eps: Array) -> tuple[Array, Array]:
        return params["loc"] + dot(eps, self.factor(params).T), self._log_q(params, eps)

    def reparam_held(self, params: PyTree, eps: Array) -> tuple[Array, Array]:
        z, log_q = self.reparam(params, eps)
        # one triangular solve, where `log_prob` and its derivative take two
        score = self.pull_back(jax.lax.stop_gradient(params), -eps)
        return z, with_score(log_q, score, z)

    def log_prob(self, params: PyTree, z: Array) -> Array:
        return self._log_q(params, self.normals(params, z))

    def normals(self, params: PyTree, z: Array) -> Array:
        return solve_triangular(self.factor(params), (z - params["loc"]).T, lower=True).T

    def entropy(self, params: PyTree) -> Array:
        dim = params["loc"].shape[0]
        return jnp.sum(params["log_diag"]) + 0.5 * dim * (1 + LOG_2PI)

    def mean(self, params: PyTree) -> Array:
        """The mean (D,)."""
        return params["loc"]

    def sd(self, params: PyTree) -> Array:
        """The standard deviations (D,)."""
        xp = namespace(params["loc"])
        return xp.sqrt(xp.sum(self.factor(params) ** 2, axis=-1))

    def covariance(self, params: PyTree) -> Array:
        """The covariance matrix (D, D)."""
        factor = self.factor(params)
        return dot(factor, factor.T)

    def pull_back(self, params: PyTree, score: Array) -> Array:
        """The score (S, D) of z = loc + L x, from that of x (S, D)."""
        return solve_triangular(self.factor(params), score.T, trans=1, lower=True).T

    def directions(self, params: PyTree) -> Array:
        """Those (D, D) in which the mean of all others goes with one scalar."""
        factor = self.factor(params)
        return directions_of(factor)

    def frame(self, params: PyTree) -> Frame:
        return Frame(params["loc"], self.factor(params))

    def to_frame(self, params: PyTree, frame: Frame) -> PyTree:
        factor = frame.unscale(self.factor(params))
        return _with_factor(frame.unscale(params["loc"] - frame.loc), factor)

    def from_frame(self, params: PyTree, frame: Frame) -> PyTree:
        factor = frame.rescale(self.factor(params))
        return _with_factor(frame.loc + frame.rescale(params["loc"]), factor)

    @staticmethod
    def _log_q(params, eps):
        dim = eps.shape[-1]
        log_det = jnp.sum(params["log_diag"])
        return -0.5 * jnp.sum(eps**2, axis=-1) - log_det - 0.5 * dim * LOG_2PI


def directions_of(factor: Array) -> Array:
    """The rows of factors (..., D, D) as unit vectors."""
    xp = namespace(factor)
    return factor / xp.sqrt(xp.sum(factor**2, axis=-1, keepdims=True))


def _with_factor(loc: Array, factor: Array) -> PyTree:
    xp = namespace(factor)
    log_diag = xp.log(xp.diagonal(factor))
    return {"loc": loc, "log_diag": log_diag, "lower": xp.tril(factor, -1)}
