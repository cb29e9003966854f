"""Gaussians with independent coordinates."""

from dataclasses import dataclass

import jax.numpy as jnp

from bbvi._arrays import namespace
from bbvi._types import Array, PyTree
from bbvi.families.base import LOG_2PI, Family, Frame, conditional_scale


@dataclass(frozen=True)
class MeanFieldGaussian(Family):
    r"""N(loc, diag(exp(2 log_scale))): O(D) time and memory.

    Blind to correlations; where the posterior has them its standard deviations are too small
    (Margossian and Saul 2025, arXiv:2403.13748).

    Example:
        >>> import jax.numpy as jnp
        >>> family = MeanFieldGaussian()
        >>> params = family.init(jnp.zeros(2), jnp.array([1.0, 2.0]))
        >>> z, log_q = family.reparam(params, jnp.ones((1, 2)))
        >>> z.tolist()
        [[1.0, 2.0]]

    Source: Kucukelbir et al. 2017, JMLR 18(14), section 2.4.
    """

    def init(self, loc: Array, scale: Array) -> PyTree:
        return {"loc": loc, "log_scale": jnp.log(conditional_scale(loc, scale))}

    def reparam(self, params: PyTree, eps: Array) -> tuple[Array, Array]:
        z = params["loc"] + jnp.exp(params["log_scale"]) * eps
        return z, self._log_q(params, eps)

    def normals(self, params: PyTree, z: Array) -> Array:
        return (z - params["loc"]) * jnp.exp(-params["log_scale"])

    def log_prob(self, params: PyTree, z: Array) -> Array:
        return self._log_q(params, self.normals(params, z))

    def entropy(self, params: PyTree) -> Array:
        xp, dim = namespace(params["log_scale"]), params["loc"].shape[-1]
        return xp.sum(params["log_scale"], axis=-1) + 0.5 * dim * (1 + LOG_2PI)

    def mean(self, params: PyTree) -> Array:
        """The mean (D,)."""
        return params["loc"]

    def sd(self, params: PyTree) -> Array:
        """The standard deviations (D,)."""
        return namespace(params["log_scale"]).exp(params["log_scale"])

    def directions(self, params: PyTree) -> Array:
        loc = params["loc"]
        return namespace(loc).eye(len(loc), dtype=loc.dtype)

    def frame(self, params: PyTree) -> Frame:
        return Frame(params["loc"], jnp.exp(params["log_scale"]))

    def to_frame(self, params: PyTree, frame: Frame) -> PyTree:
        return {
            "loc": (params["loc"] - frame.loc) / frame.scale,
            "log_scale": params["log_scale"] - jnp.log(frame.scale),
        }

    def from_frame(self, params: PyTree, frame: Frame) -> PyTree:
        return {
            "loc": frame.loc + frame.scale * params["loc"],
            "log_scale": params["log_scale"] + jnp.log(frame.scale),
        }

    @staticmethod
    def _log_q(params, eps):
        dim = eps.shape[-1]
        log_det = jnp.sum(params["log_scale"])
        return -0.5 * jnp.sum(eps**2, axis=-1) - log_det - 0.5 * dim * LOG_2PI
