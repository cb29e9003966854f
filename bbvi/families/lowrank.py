"""Gaussians whose covariance is a diagonal plus a few directions."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve

from bbvi._arrays import namespace
from bbvi._linalg import dot
from bbvi._types import Array, PyTree
from bbvi.families.base import LOG_2PI, Family, Frame, conditional_scale
from bbvi.families.proposals import Noise, Proposal, with_tails

# The factor starts at this share of the diagonal's scale: at exactly zero its gradient
# vanishes, and much above it the start is no longer the one asked for.
_INITIAL_FACTOR = 1e-2


@dataclass(frozen=True)
class LowRankGaussian(Family):
    r"""N(loc, diag(d^2) + W W') with W of R columns: O(S D R) time, O(D R) memory.

    d = exp(log_diag), W = factor. A draw is loc + d e1 + W e2 with D + R base normals. Exact
    `log_prob` by the matrix inversion lemma, with the quadratic form written as a sum of
    squares, since its usual difference loses all digits in float32 when W is large beside d:

        r' Sigma^-1 r = |x - V u|^2 + |u|^2,  x = r/d,  V = W/d,  u = (I + V'V)^-1 V'x.

    Args:
        rank: R; None takes round(sqrt(D)), at most 32.

    Example:
        >>> import jax.numpy as jnp
        >>> family = LowRankGaussian(rank=1)
        >>> params = family.init(jnp.zeros(3), 1.0)
        >>> family.log_prob(params, jnp.zeros((1, 3))).shape
        (1,)

    Source: Ong, Nott and Smith 2018, JCGS 27(3), "Gaussian variational approximation with a
    factor covariance structure".
    """

    rank: int | None = None

    def __post_init__(self):
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"rank must be at least 1, not {self.rank}.")

    def columns(self, dim: int) -> int:
        """R for a target of dimension D."""
        rank = min(32, max(1, round(math.sqrt(dim)))) if self.rank is None else self.rank
        return min(rank, dim)

    def noise_size(self, dim: int) -> int:
        return dim + self.columns(dim)

    def init(self, loc: Array, scale: Array) -> PyTree:
        scale = conditional_scale(loc, scale)
        dim = loc.shape[0]
        # A fixed pattern, so that the same start gives the same fit whatever the key.
        pattern = jax.random.normal(jax.random.key(0), (dim, self.columns(dim)), loc.dtype)
        factor = _INITIAL_FACTOR * scale[:, None] * pattern
        return {"loc": loc, "log_diag": jnp.log(scale), "factor": factor}

    def reparam(self, params: PyTree, eps: Array) -> tuple[Array, Array]:
        dim = params["loc"].shape[0]
        e1, e2 = eps[:, :dim], eps[:, dim:]
        z = params["loc"] + jnp.exp(params["log_diag"]) * e1 + dot(e2, params["factor"].T)
        return z, self.log_prob(params, z)

    def log_prob(self, params: PyTree, z: Array) -> Array:
        scale = jnp.exp(params["log_diag"])
        v = params["factor"] / scale[:, None]
        chol = self._capacitance(v)
        x = (z - params["loc"]) / scale
        u = cho_solve((chol, True), dot(x, v).T).T
        squares = jnp.sum((x - dot(u, v.T)) ** 2, axis=-1) + jnp.sum(u**2, axis=-1)
        return -0.5 * squares - self._half_log_det(params, chol) - 0.5 * x.shape[-1] * LOG_2PI

    def propose_at(self, params: PyTree, noise: Noise) -> Proposal:
        # More base normals than dimensions, but a linear image of a spherical distribution is
        # elliptical all the same, and its density tells the squared radius.
        z, log_q = self.reparam(params, noise.widened)
        top = self.log_prob(params, params["loc"][None])
        log_mixture = with_tails(log_q, 2 * (top - log_q), z.shape[1])
        return Proposal(z, log_q, log_mixture, noise.own)

    def entropy(self, params: PyTree) -> Array:
        dim = params["loc"].shape[0]
        v = params["factor"] * jnp.exp(-params["log_diag"])[:, None]
        return self._half_log_det(params, self._capacitance(v)) + 0.5 * dim * (1 + LOG_2PI)

    def mean(self, params: PyTree) -> Array:
        """The mean (D,)."""
        return params["loc"]

    def sd(self, params: PyTree) -> Array:
        """The standard deviations (D,)."""
        xp = namespace(params["loc"])
        return xp.sqrt(xp.exp(2 * params["log_diag"]) + xp.sum(params["factor"] ** 2, axis=-1))

    def covariance(self, params: PyTree) -> Array:
        """The covariance matrix (D, D): for small D only."""
        factor = params["factor"]
        return dot(factor, factor.T) + jnp.diag(jnp.exp(2 * params["log_diag"]))

    def frame(self, params: PyTree) -> Frame:
        return Frame(params["loc"], self.sd(params))

    def to_frame(self, params: PyTree, frame: Frame) -> PyTree:
        return {
            "loc": frame.unscale(params["loc"] - frame.loc),
            "log_diag": params["log_diag"] - jnp.log(frame.scale),
            "factor": frame.unscale(params["factor"]),
        }

    def from_frame(self, params: PyTree, frame: Frame) -> PyTree:
        return {
            "loc": frame.loc + frame.rescale(params["loc"]),
            "log_diag": params["log_diag"] + jnp.log(frame.scale),
            "factor": frame.rescale(params["factor"]),
        }

    @staticmethod
    def _capacitance(v):
        return jnp.linalg.cholesky(jnp.eye(v.shape[1], dtype=v.dtype) + dot(v.T, v))

    @staticmethod
    def _half_log_det(params, chol):
        return jnp.sum(params["log_diag"]) + jnp.sum(jnp.log(jnp.diagonal(chol)))
