"""Families in which all else is normal given a few hyperparameters, however these act on it."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from bbvi._arrays import logsumexp, namespace, put
from bbvi._linalg import dot, solve_lower
from bbvi._types import AnyArray, Array, PyTree
from bbvi.families.base import (
    LOG_2PI,
    Family,
    Frame,
    broadcast_scale,
    frame_of_draws,
    moment_normals,
)
from bbvi.families.mixture import GaussianMixture, by_direction
from bbvi.families.proposals import Noise, Proposal, far_normals, log_far_ratio, log_tail_ratio
from bbvi.families.splines import Spline, spline_at

# Elements that are held at once.
_ELEMENTS = 1 << 22


class Latent(NamedTuple):
    r"""All coordinates but H hyperparameters, normal given these.

    In a basis V the others are, given hyperparameters theta,

        x = x_0 + V (m + B diag(exp(d)) eps),

    with B unit upper triangular. All of m, d and B are what they are on average, and what they go
    by along C directions, as splines of t = R^-1 (theta - theta_0) do. Further out than some |t|
    they are what they are there.

    Attributes:
        hyper: (H,) which coordinates the hyperparameters are, ascending.
        latent: (F,) which the others are, ascending.
        centre: (H,) theta_0.
        root: (H, H) R, lower.
        reach: |t| as far as knots are.
        spline: of C directions.
        means: (1 + C, F) m on average, then along each direction.
        log_widths: (1 + C, F) d.
        factors: (1 + C, F, F) B but for its diagonal.
        origin: (F,) x_0.
        basis: (F, F) V.
        inverse: V^-1.
        log_det: log |det V|.
    """

    hyper: AnyArray
    latent: AnyArray
    centre: AnyArray
    root: AnyArray
    reach: AnyArray
    spline: Spline
    means: AnyArray
    log_widths: AnyArray
    factors: AnyArray
    origin: AnyArray
    basis: AnyArray
    inverse: AnyArray
    log_det: AnyArray


def in_units(latent: Latent, theta: AnyArray) -> AnyArray:
    """t (S, H) at hyperparameters (S, H), wherever they are."""
    return solve_lower(latent.root, (theta - latent.centre).T).T


def _within_reach(latent: Latent, t: AnyArray) -> AnyArray:
    xp = namespace(t)
    length = xp.sqrt(xp.sum(t**2, axis=1, keepdims=True))
    return t * xp.minimum(1, latent.reach / xp.maximum(length, 1e-30))


def _given(latent: Latent, theta: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray]:
    """One and what splines say (S, 1 + C), m (S, F) and d (S, F), at hyperparameters (S, H)."""
    xp = namespace(theta)
    along = spline_at(latent.spline, _within_reach(latent, in_units(latent, theta)))
    along = xp.concatenate([xp.ones_like(theta[:, :1]), along], axis=1)
    return along, dot(along, latent.means), dot(along, latent.log_widths)


def given_hyper(latent: Latent, theta: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray]:
    """m (S, F), d (S, F) and B (S, F, F) at hyperparameters (S, H)."""
    along, mean, log_widths = _given(latent, theta)
    size = mean.shape[1]
    factor = dot(along, latent.factors.reshape(len(latent.factors), -1)).reshape(-1, size, size)
    return mean, log_widths, factor + namespace(theta).eye(size, dtype=factor.dtype)


def _place(latent: Latent, theta: Array, x: Array) -> tuple[Array, Array]:
    """The others (S, F) at hyperparameters (S, H) and residuals (S, F), and log |det| (S,)."""
    along, mean, log_widths = _given(latent, theta)
    xp, size = namespace(theta), mean.shape[1]
    x = xp.exp(log_widths) * x
    # B x without a matrix for each draw
    ways = (along[:, :, None] * x[:, None]).reshape(len(x), -1)
    turned = x + dot(ways, xp.swapaxes(latent.factors, 1, 2).reshape(-1, size))
    others = latent.origin + dot(mean + turned, latent.basis.T)
    return others, latent.log_det + log_widths.sum(axis=1)


def _residual(latent: Latent, theta: Array, z: Array) -> tuple[Array, Array]:
    """What `_place` takes there, and the same log |det|."""
    mean, log_widths, factors = given_hyper(latent, theta)
    away = dot(z - latent.origin, latent.inverse.T) - mean
    solve = jax.vmap(partial(solve_triangular, unit_diagonal=True))
    x = solve(factors, away) * jnp.exp(-log_widths)
    return x, latent.log_det + log_widths.sum(axis=1)


@dataclass(frozen=True)
class LatentGaussian(Family):
    r"""Hyperparameters of some distribution, and all else normal given them, however these act.

    See `Latent` in `bbvi.families.latent_gaussian`. Nearly exact for models in which all else is
    normal given a few coordinates (hidden processes, fields and curves with a length, a range or a
    correlation of their own); elsewhere it is Laplace's approximation given these.

    Found from gradients rather than optimised: see `bbvi.stages.latent.nested_laplace`. `init`
    makes a Gaussian, with the first coordinate as the hyperparameter.

    Args:
        base: the family of hyperparameters. Of a mixture the family has no `reparam`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> family = LatentGaussian()
        >>> params = family.init(jnp.zeros(2), jnp.ones(2))
        >>> family.log_prob(params, jnp.zeros((1, 2))).round(3)
        Array([-1.838], dtype=float32)

    Source: Rue, Martino and Chopin 2009 (Journal of the Royal Statistical Society B 71).
    """

    base: Any = GaussianMixture()  # a family

    def init(self, loc: Array, scale: Array) -> PyTree:
        scale = broadcast_scale(loc, scale)
        scale = jnp.diag(scale) if scale.ndim == 1 else scale
        size, dtype = loc.shape[0] - 1, loc.dtype
        basis = scale[1:, 1:]
        inverse = solve_lower(basis, jnp.eye(size, dtype=dtype))
        nothing = np.zeros((1, 1), dtype)
        latent = Latent(
            hyper=np.arange(1, dtype=np.int32),
            latent=np.arange(1, size + 1, dtype=np.int32),
            centre=loc[:1],
            root=scale[:1, :1],
            reach=np.full((), np.inf, dtype),
            spline=Spline(nothing, np.eye(3, dtype=dtype)[:, 1:2], nothing),  # t itself
            means=jnp.stack([jnp.zeros(size, dtype), dot(inverse, scale[1:, 0])]),
            log_widths=np.zeros((2, size), dtype),
            factors=np.zeros((2, size, size), dtype),
            origin=loc[1:],
            basis=basis,
            inverse=inverse,
            log_det=jnp.sum(jnp.log(jnp.diagonal(basis))),
        )
        return self.join(self.base.init(loc[:1], scale[:1, :1]), jax.tree.map(jnp.asarray, latent))

    def join(self, base: PyTree, latent: Latent) -> PyTree:
        """Parameters from those of hyperparameters and what is normal given these."""
        return {"base": base, "latent": latent._asdict() | {"spline": latent.spline._asdict()}}

    @staticmethod
    def latent(params: PyTree) -> Latent:
        """What is normal."""
        found = params["latent"]
        return Latent(**found | {"spline": Spline(**found["spline"])})

    def reparam(self, params: PyTree, eps: Array) -> tuple[Array, Array]:
        hyper, latent = params["latent"]["hyper"], params["latent"]["latent"]
        theta, log_q = self.base.reparam(params["base"], eps[:, hyper])
        others = eps[:, latent]
        z, log_det = self.place(params, theta, others)
        return z, log_q + _log_normal(others)[1] - log_det

    def normals(self, params: PyTree, z: Array) -> Array:
        theta, others, _ = self.straighten(params, z)
        return self._whole(params, self.base.normals(params["base"], theta), others)

    def event(self, params: PyTree) -> tuple[int, Any]:
        found = params["latent"]
        return len(found["hyper"]) + len(found["latent"]), found["origin"].dtype

    def place(self, params: PyTree, theta: Array, others: Array) -> tuple[Array, Array]:
        """z (S, D) at hyperparameters (S, H) and residuals (S, F), and log |det| (S,)."""
        latent = self.latent(params)
        placed, log_det = _in_blocks(_place, latent, theta, others, latent.means.size)
        return self._whole(params, theta, placed), log_det

    def straighten(self, params: PyTree, z: Array) -> tuple[Array, Array, Array]:
        """Hyperparameters (S, H) and residuals (S, F) at z (S, D), and log |det dz| (S,)."""
        latent = self.latent(params)
        theta, others = z[:, latent.hyper], z[:, latent.latent]
        return theta, *_in_blocks(_residual, latent, theta, others, latent.basis.size)

    def _whole(self, params: PyTree, few: Array, others: Array) -> Array:
        """Both (S, H) and (S, F) at their places in (S, D)."""
        hyper, latent = params["latent"]["hyper"], params["latent"]["latent"]
        z = namespace(few).zeros((len(few), self.event(params)[0]), few.dtype)
        return put(put(z.T, hyper, few.T), latent, others.T).T

    def log_prob(self, params: PyTree, z: Array) -> Array:
        theta, others, log_det = self.straighten(params, z)
        return self.base.log_prob(params["base"], theta) + _log_normal(others)[1] - log_det

    def log_mixture(self, params: PyTree, z: Array) -> Array:
        """log density (S,) of what `propose_at` draws, half of it with heavier tails."""
        theta, others, log_det = self.straighten(params, z)
        return self._log_densities(params, theta, others, _log_tails)[1] - log_det

    def propose_at(self, params: PyTree, noise: Noise) -> Proposal:
        """Draws of which a quarter have heavier tails, and a quarter in hyperparameters alone.

        In many dimensions the former come near no tail of a few coordinates: what lies in these is
        then far out in all others too.
        """
        hyper, latent = params["latent"]["hyper"], params["latent"]["latent"]
        xp = namespace(noise.eps)
        alone = noise.own | (xp.arange(len(noise.eps)) % 2 == 0)
        others = xp.where(alone[:, None], noise.eps, noise.widened)[:, latent]
        few = noise.widened[None, :, hyper]
        theta = self.base.at_normals(params["base"], noise.choice, few)
        return self._proposed(params, noise, theta, others, _log_tails)

    def propose_along(self, params: PyTree, noise: Noise, directions: Array) -> Proposal:
        hyper, latent = params["latent"]["hyper"], params["latent"]["latent"]
        xp, number = namespace(noise.eps), len(noise.eps)
        few = noise._replace(eps=noise.eps[:, hyper])
        eps = by_direction(partial(far_normals, few), directions)
        along_one = 4 * xp.arange(number) >= 3 * number
        others = xp.where(along_one[:, None], noise.eps, noise.widened)[:, latent]
        theta = self.base.at_normals(params["base"], noise.choice, eps)

        def log_far(normals, squares, size):
            ratio = partial(log_far_ratio, squares=squares, beside=size)
            return by_direction(ratio, normals, directions)

        return self._proposed(params, noise, theta, others, log_far)

    def directions(self, params: PyTree) -> Array:
        """Those of hyperparameters (K, H, H): however far out, all else is normal given these."""
        return self.base.directions(params["base"])

    def _proposed(self, params, noise, theta, others, heavier) -> Proposal:
        log_q, log_mixture = self._log_densities(params, theta, others, heavier)
        z, log_det = self.place(params, theta, others)
        return Proposal(z, log_q - log_det, log_mixture - log_det, noise.own)

    def _log_densities(self, params, theta, others, heavier) -> tuple[Array, Array]:
        """log densities (S,) of hyperparameters and residuals; and times what `heavier` says.

        That is a function of base normals (K, S, H) in each component, squared distances (S,) of
        others, and of how many these are.
        """
        normals, by_component = self.base.base_normals(params["base"], theta)
        squares, log_normal = _log_normal(others)
        mixed = by_component + heavier(normals, squares, others.shape[1])
        return logsumexp(by_component.T) + log_normal, logsumexp(mixed.T) + log_normal

    def sample_and_log_prob(self, params: PyTree, key: Array, num_draws: int) -> Any:
        base_key, key = jax.random.split(key)
        theta, log_q = self.base.sample_and_log_prob(params["base"], base_key, num_draws)
        size = (num_draws, len(params["latent"]["latent"]))
        others = jax.random.normal(key, size, theta.dtype)
        z, log_det = self.place(params, theta, others)
        return z, log_q + _log_normal(others)[1] - log_det

    def frame(self, params: PyTree) -> Frame:
        """Units of the mean and the covariance, as 4,096 draws tell it."""
        size, dtype = self.event(params)
        xp = namespace(params["latent"]["origin"])
        eps = moment_normals(size)
        number = len(eps)
        levels = np.random.default_rng(1).permutation((np.arange(number) + 0.5) / number)
        eps, length, choice = (xp.asarray(x, dtype) for x in (eps, np.ones(number), levels))
        noise = Noise(eps, length, xp.ones(number, bool), choice)
        return frame_of_draws(self.propose_at(params, noise).z)

    def to_frame(self, params: PyTree, frame: Frame) -> PyTree:
        raise NotImplementedError("coordinates are found from gradients at a point.")

    from_frame = to_frame


def _log_normal(x: Array) -> tuple[Array, Array]:
    """Squared distances (S,) of standard normals (S, F), and their log densities."""
    squares = namespace(x).sum(x**2, axis=1)
    return squares, -0.5 * squares - 0.5 * x.shape[1] * LOG_2PI


def _log_tails(normals: Array, squares: Array, size: int) -> Array:
    """log of (K, S) what half has heavier tails, half of it in hyperparameters alone, over none."""
    xp = namespace(normals)
    few = xp.sum(normals**2, axis=2)
    number = normals.shape[2]
    heavy = log_tail_ratio(few + squares, number + size), log_tail_ratio(few, number)
    return xp.logaddexp(0.0, xp.logaddexp(*heavy) - math.log(2)) - math.log(2)


def _in_blocks(function, latent: Latent, theta: Array, others: Array, elements: int) -> Any:
    """A function of all draws, each with so many elements, in blocks that memory holds."""
    size = max(1, _ELEMENTS // max(1, elements))
    if len(theta) <= size:
        return function(latent, theta, others)
    if namespace(theta) is np:
        at = range(0, len(theta), size)
        found = [function(latent, theta[i : i + size], others[i : i + size]) for i in at]
        return tuple(map(np.concatenate, zip(*found, strict=True)))

    def one(args):
        return jax.tree.map(lambda x: x[0], function(latent, *(x[None] for x in args)))

    return jax.lax.map(one, (theta, others), batch_size=size)
