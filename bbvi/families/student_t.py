"""Multivariate Student-t distributions, for posteriors with tails heavier than a Gaussian's."""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import digamma

from bbvi._linalg import dot
from bbvi._types import Array, PyTree
from bbvi.families.base import Family, Frame
from bbvi.families.fullrank import FullRankGaussian

_BASE = FullRankGaussian()


@dataclass(frozen=True)
class StudentT(Family):
    r"""Student-t with `df` degrees of freedom, location loc and scale matrix L L'.

        z = loc + L e1 / sqrt(|e2|^2 / df),   e1 ~ N(0, I_D),   e2 ~ N(0, I_df):

    D + df base normals a draw. The chi-square variable is a sum of squares, so `df` has to be a
    whole number; the draws are then exact and smooth in the parameters. All coordinates share
    that variable: tails are heavy in every direction alike. `init` and `frame` count in
    standard deviations, sqrt(df / (df - 2)) times the rows of L, where these exist (df > 2).

    Args:
        df: degrees of freedom, a whole number of at least 1; fixed, not fitted.

    Example:
        >>> import jax.numpy as jnp
        >>> family = StudentT(df=4)
        >>> params = family.init(jnp.zeros(2), 1.0)
        >>> family.noise_size(2), family.sd(params).round(3).tolist()
        (6, [1.0, 1.0])

    Source: Kotz and Nadarajah 2004, Multivariate t Distributions and Their Applications,
    chapter 1; Dhaka et al. 2021 (arXiv:2103.01085) for its use in small D.
    """

    df: float = 5.0

    def __post_init__(self):
        if not (self.df >= 1 and float(self.df).is_integer()):
            raise ValueError(
                f"df must be a whole number of at least 1, not {self.df}: draws are made from a "
                "sum of df squared normals."
            )

    def noise_size(self, dim: int) -> int:
        return dim + int(self.df)

    def init(self, loc: Array, scale: Array) -> PyTree:
        params = _BASE.init(loc, scale)
        return params | _times(params, 1 / self._spread)

    def reparam(self, params: PyTree, eps: Array) -> tuple[Array, Array]:
        dim = params["loc"].shape[0]
        length = jnp.sqrt(jnp.mean(eps[:, dim:] ** 2, axis=-1, keepdims=True))
        x = eps[:, :dim] / length
        return params["loc"] + dot(x, _BASE.factor(params).T), self._log_q(params, x)

    def log_prob(self, params: PyTree, z: Array) -> Array:
        x = solve_triangular(_BASE.factor(params), (z - params["loc"]).T, lower=True).T
        return self._log_q(params, x)

    def entropy(self, params: PyTree) -> Array:
        dim, dtype = params["loc"].shape[0], params["loc"].dtype
        ends = digamma(jnp.array([0.5 * (self.df + dim), 0.5 * self.df], dtype))
        tail = 0.5 * (self.df + dim) * (ends[0] - ends[1])
        return tail - self._log_norm(dim) + jnp.sum(params["log_diag"])

    def mean(self, params: PyTree) -> Array:
        """The mean (D,), for df > 1."""
        if self.df <= 1:
            raise NotImplementedError(f"a Student-t with df={self.df} has no mean.")
        return params["loc"]

    def sd(self, params: PyTree) -> Array:
        """The standard deviations (D,), for df > 2."""
        self._require_variance()
        return self._spread * _BASE.sd(params)

    def covariance(self, params: PyTree) -> Array:
        """The covariance matrix (D, D), for df > 2."""
        self._require_variance()
        return self._spread**2 * _BASE.covariance(params)

    def frame(self, params: PyTree) -> Frame:
        frame = _BASE.frame(params)
        return frame._replace(scale=self._spread * frame.scale)

    def to_frame(self, params: PyTree, frame: Frame) -> PyTree:
        return _BASE.to_frame(params, frame)

    def from_frame(self, params: PyTree, frame: Frame) -> PyTree:
        return _BASE.from_frame(params, frame)

    @property
    def _spread(self) -> float:
        """Standard deviations in units of the scale; one where there are none."""
        return math.sqrt(self.df / (self.df - 2)) if self.df > 2 else 1.0

    def _require_variance(self) -> None:
        if self.df <= 2:
            raise NotImplementedError(f"a Student-t with df={self.df} has no finite variance.")

    def _log_norm(self, dim: int) -> float:
        """The log density of the standard member at its centre."""
        gammas = math.lgamma(0.5 * (self.df + dim)) - math.lgamma(0.5 * self.df)
        return gammas - 0.5 * dim * math.log(self.df * math.pi)

    def _log_q(self, params, x):
        dim = x.shape[-1]
        tail = 0.5 * (self.df + dim) * jnp.log1p(jnp.sum(x**2, axis=-1) / self.df)
        return self._log_norm(dim) - tail - jnp.sum(params["log_diag"])


def _times(params: PyTree, number: float) -> PyTree:
    """The factor of full-rank parameters, multiplied by a number."""
    return {
        "log_diag": params["log_diag"] + math.log(number),
        "lower": params["lower"] * number,
    }
