"""Full-rank Gaussians with skew and tails of their own in each coordinate."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from bbvi._linalg import dot
from bbvi._score import with_score
from bbvi._types import Array, PyTree
from bbvi.families.base import LOG_2PI, Family, Frame
from bbvi.families.fullrank import FullRankGaussian

_BASE = FullRankGaussian()


@dataclass(frozen=True)
class SinhArcsinhGaussian(Family):
    r"""A correlated Gaussian, each whitened coordinate bent by a sinh-arcsinh map.

        z = loc + L w,   w_i = sinh((arcsinh(x_i) + skew_i) exp(log_tail_i)),   x ~ N(0, I).

    skew > 0 leans to the right; log_tail > 0 makes heavier tails, < 0 lighter ones. At zero
    this is the Gaussian itself.

    Example:
        >>> import jax.numpy as jnp
        >>> family = SinhArcsinhGaussian()
        >>> params = family.init(jnp.zeros(2), 1.0)
        >>> float(family.reparam(params, jnp.ones((1, 2)))[0][0, 0])
        1.0

    Source: Jones and Pewsey 2009, Biometrika 96(4).
    """

    def init(self, loc: Array, scale: Array) -> PyTree:
        zeros = jnp.zeros_like(loc)
        return {"affine": _BASE.init(loc, scale), "skew": zeros, "log_tail": zeros}

    def reparam(self, params: PyTree, eps: Array) -> tuple[Array, Array]:
        w, log_det = bend(eps, params["skew"], params["log_tail"])
        affine = params["affine"]
        z = affine["loc"] + dot(w, _BASE.factor(affine).T)
        return z, standard_log_prob(eps) - log_det - jnp.sum(affine["log_diag"])

    def reparam_held(self, params: PyTree, eps: Array) -> tuple[Array, Array]:
        z, log_q = self.reparam(params, eps)
        held = jax.lax.stop_gradient(params)
        return z, with_score(log_q, score_behind(held, eps, -eps), z)

    def log_prob(self, params: PyTree, z: Array) -> Array:
        affine = params["affine"]
        w = affine_frame(affine).invert(z)
        x, log_det = unbend(w, params["skew"], params["log_tail"])
        return standard_log_prob(x) - log_det - jnp.sum(affine["log_diag"])

    def event(self, params: PyTree) -> tuple[int, object]:
        return super().event(params["affine"])

    def frame(self, params: PyTree) -> Frame:
        return affine_frame(params["affine"])

    def to_frame(self, params: PyTree, frame: Frame) -> PyTree:
        return params | {"affine": _BASE.to_frame(params["affine"], frame)}

    def from_frame(self, params: PyTree, frame: Frame) -> PyTree:
        return params | {"affine": _BASE.from_frame(params["affine"], frame)}


def affine_frame(affine: PyTree) -> Frame:
    """The affine part, parameterised as a full-rank Gaussian, as a frame."""
    return _BASE.frame(affine)


def standard_log_prob(x: Array) -> Array:
    """log N(x; 0, I) for x (S, D)."""
    return -0.5 * jnp.sum(x**2, axis=-1) - 0.5 * x.shape[-1] * LOG_2PI


def bend(x: Array, skew: Array, log_tail: Array) -> tuple[Array, Array]:
    """The sinh-arcsinh map of each coordinate of x (S, D), and log |det| (S,)."""
    inner = (jnp.arcsinh(x) + skew) * jnp.exp(log_tail)
    return jnp.sinh(inner), _log_slope(x, inner, log_tail)


def unbend(w: Array, skew: Array, log_tail: Array) -> tuple[Array, Array]:
    """The inverse of `bend`: x (S, D), and log |det dw/dx| (S,) there."""
    inner = jnp.arcsinh(w)
    x = jnp.sinh(inner * jnp.exp(-log_tail) - skew)
    return x, _log_slope(x, inner, log_tail)


def score_behind(params: PyTree, x: Array, score: Array) -> Array:
    """The score (S, D) of z = loc + L bend(x), from that of x (S, D) there.

    With w = bend(x) and log q(w) = log q(x) - log |det|, the chain rule divides by the slopes.
    """
    map_ = lambda x: bend(x, params["skew"], params["log_tail"])  # noqa: E731
    (w, log_det), pull = jax.vjp(map_, x)
    (slope,) = pull((jnp.ones_like(w), jnp.zeros_like(log_det)))
    (change,) = pull((jnp.zeros_like(w), jnp.ones_like(log_det)))
    return _BASE.pull_back(params["affine"], (score - change) / slope)


def _log_slope(x, inner, log_tail):
    # log cosh(inner) - log sqrt(1 + x^2) + log_tail, without overflow of cosh
    log_cosh = jnp.abs(inner) + jnp.log1p(jnp.exp(-2 * jnp.abs(inner))) - jnp.log(2.0)
    log_root = 0.5 * jnp.log1p(x**2)
    return jnp.sum(log_cosh.astype(x.dtype) - log_root + log_tail, axis=-1)
