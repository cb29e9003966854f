"""Families in which all else is normal given a few hyperparameters, however these act on it."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from bbvi._arrays import namespace, put
from bbvi._linalg import dot, solve_lower
from bbvi._types import AnyArray, Array, PyTree
from bbvi.families.base import Frame, frame_of_draws, moment_normals
from bbvi.families.mixture import GaussianMixture
from bbvi.families.proposals import Noise, Proposal
from bbvi.families.straightened import Straightened
from bbvi.families.triangular import quadratics

# Elements that are held at once.
_ELEMENTS = 1 << 22


class Spline(NamedTuple):
    r"""Functions of t that go through what they are at some knots, and bend as little as they can.

        c(t) = A (1, t, t t') + sum_k |t - t_k|^3 b_k

    Attributes:
        knots: (N, H) t_k.
        trend: (P, C) A.
        bend: (N, C) b.
    """

    knots: AnyArray
    trend: AnyArray
    bend: AnyArray


def cubes(t: AnyArray, knots: AnyArray) -> AnyArray:
    """|t - t_k|^3 (S, N) of t (S, H)."""
    xp = namespace(t)
    squares = xp.sum(t**2, axis=1)[:, None] + xp.sum(knots**2, axis=1) - 2 * dot(t, knots.T)
    return xp.maximum(squares, 0) ** 1.5


def spline_at(spline: Spline, t: AnyArray) -> AnyArray:
    """c (S, C) at t (S, H)."""
    return dot(quadratics(t), spline.trend) + dot(cubes(t, spline.knots), spline.bend)


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
class LatentGaussian(Straightened):
    r"""A family of y, of which some are hyperparameters, the others residuals, normal given these.

    See `Latent` in `bbvi.families.latent_gaussian`. Nearly exact for models in which all else is
    normal given a few coordinates (hidden processes, fields and curves with a length, a range or a
    correlation of their own); elsewhere it is Laplace's approximation given these.

    Found from gradients rather than optimised: see `bbvi.nested_laplace`. `init` makes one of
    which nothing depends on the first coordinate, which is the base family.

    Args:
        base: the family of y.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> family = LatentGaussian()
        >>> params = family.init(jnp.zeros(2), jnp.ones(2))
        >>> family.log_prob(params, jnp.zeros((1, 2))).round(3)
        Array([-1.838], dtype=float32)

    Source: Rue, Martino and Chopin 2009 (Journal of the Royal Statistical Society B 71).
    """

    base: GaussianMixture = GaussianMixture()

    def init(self, loc: Array, scale: Array) -> PyTree:
        size, dtype = loc.shape[0] - 1, loc.dtype
        nothing = np.zeros((1, 0), dtype)
        latent = Latent(
            hyper=np.arange(1, dtype=np.int32),
            latent=np.arange(1, size + 1, dtype=np.int32),
            centre=np.zeros(1, dtype),
            root=np.eye(1, dtype=dtype),
            reach=np.ones((), dtype),
            spline=Spline(np.zeros((1, 1), dtype), np.zeros((3, 0), dtype), nothing),
            means=np.zeros((1, size), dtype),
            log_widths=np.zeros((1, size), dtype),
            factors=np.zeros((1, size, size), dtype),
            origin=np.zeros(size, dtype),
            basis=np.eye(size, dtype=dtype),
            inverse=np.eye(size, dtype=dtype),
            log_det=np.zeros((), dtype),
        )
        return self.join(self.base.init(loc, scale), jax.tree.map(jnp.asarray, latent))

    def join(self, base: PyTree, latent: Latent) -> PyTree:
        """Parameters from those of the base family and what is normal."""
        return {"base": base, "latent": latent._asdict() | {"spline": latent.spline._asdict()}}

    @staticmethod
    def latent(params: PyTree) -> Latent:
        """What is normal."""
        found = params["latent"]
        return Latent(**found | {"spline": Spline(**found["spline"])})

    def place(self, params: PyTree, y: Array) -> tuple[Array, Array]:
        """z (S, D) at y (S, D), and log |det dz/dy| (S,)."""
        return self._each(params, _place, y, params["latent"]["means"].size)

    def straighten(self, params: PyTree, z: Array) -> tuple[Array, Array]:
        """y (S, D) at z (S, D), and log |det dz/dy| (S,) there."""
        return self._each(params, _residual, z, params["latent"]["basis"].size)

    def _each(self, params, function, x, elements):
        """A function of all draws, each with so many elements, in blocks that memory holds."""
        latent = self.latent(params)
        theta, others = x[:, latent.hyper], x[:, latent.latent]
        size = max(1, _ELEMENTS // max(1, elements))
        if len(x) <= size:
            others, log_det = function(latent, theta, others)
        elif namespace(x) is np:
            at = range(0, len(x), size)
            found = [function(latent, theta[i : i + size], others[i : i + size]) for i in at]
            others, log_det = map(np.concatenate, zip(*found, strict=True))
        else:

            def one(args):
                return jax.tree.map(lambda x: x[0], function(latent, *(x[None] for x in args)))

            others, log_det = jax.lax.map(one, (theta, others), batch_size=size)
        return put(x.T, latent.latent, others.T).T, log_det

    def log_mixture(self, params: PyTree, z: Array) -> Array:
        """log density (S,) of what `propose_at` draws, half of it with heavier tails."""
        y, log_det = self.straighten(params, z)
        hyper = params["latent"]["hyper"]
        return self.base.log_mixture_among(params["base"], y, hyper) - log_det

    def propose_at(self, params: PyTree, noise: Noise) -> Proposal:
        """Draws of which a quarter have heavier tails, and a quarter in hyperparameters alone."""
        hyper = params["latent"]["hyper"]
        return self._placed(params, self.base.propose_among(params["base"], noise, hyper))

    def propose_along(self, params: PyTree, noise: Noise, directions: Array) -> Proposal:
        return self._placed(params, self.base.propose_along(params["base"], noise, directions))

    def directions(self, params: PyTree) -> Array:
        """Those of the hyperparameters: however far out, all else is about normal given these."""
        return self.base.directions(params["base"])[:, params["latent"]["hyper"]]

    def _placed(self, params: PyTree, proposal: Proposal) -> Proposal:
        y, log_q, log_mixture, own = proposal
        z, log_det = self.place(params, y)
        return Proposal(z, log_q - log_det, log_mixture - log_det, own)

    def sample_and_log_prob(self, params: PyTree, key: Array, num_draws: int) -> Any:
        y, log_q = self.base.sample_and_log_prob(params["base"], key, num_draws)
        z, log_det = self.place(params, y)
        return z, log_q - log_det

    def frame(self, params: PyTree) -> Frame:
        """Units of the mean and the covariance, as 4,096 draws tell it."""
        size, dtype = self.event(params)
        xp = namespace(params["base"]["loc"])
        eps = moment_normals(size)
        number = len(eps)
        levels = np.random.default_rng(1).permutation((np.arange(number) + 0.5) / number)
        eps, length, choice = (xp.asarray(x, dtype) for x in (eps, np.ones(number), levels))
        noise = Noise(eps, length, xp.ones(number, bool), choice)
        return frame_of_draws(self.propose_at(params, noise).z)
