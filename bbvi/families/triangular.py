"""A chain of regressions: each coordinate around a quadratic of those before it."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._arrays import namespace
from bbvi._linalg import dot
from bbvi._types import AnyArray, Array, PyTree
from bbvi.families.base import (
    LOG_2PI,
    Family,
    Frame,
    broadcast_scale,
    frame_of_draws,
    moment_normals,
)

# Dimensions up to which means follow products of two coordinates, and not squares alone.
_PRODUCTS = 12
# In units: what a quadratic would be further out, no draw has shown.
_CLIPPED = 30.0


def products(dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Which two coordinates are multiplied, (P,) and (P,): of many dimensions each with itself."""
    return np.triu_indices(dim) if dim <= _PRODUCTS else (np.arange(dim), np.arange(dim))


def quadratics(x: AnyArray) -> AnyArray:
    """One, all coordinates of x (S, D), and products of two (S, F)."""
    xp, (number, dim) = namespace(x), x.shape
    one, other = products(dim)
    return xp.concatenate([xp.ones_like(x, shape=(number, 1)), x, x[:, one] * x[:, other]], axis=1)


def before(dim: int) -> np.ndarray:
    """Which quadratics (F, D) are of coordinates before each."""
    one, other = products(dim)
    last = np.concatenate([[-1], np.arange(dim), np.maximum(one, other)])
    return last[:, None] < np.arange(dim)


def _features(x):
    return quadratics(namespace(x).clip(x, -_CLIPPED, _CLIPPED))


@dataclass(frozen=True)
class TriangularGaussian(Family):
    r"""Coordinates one after the other, each normal around a quadratic of those before it.

    With x the coordinates in an order and in units, and f(x) one, all of them and their squares, in
    up to 12 dimensions also their products,

        x_k = sum_j A_jk f_j(x_1, ..., x_{k-1}) + s_k eps_k,

    so that a coordinate may be the square of another, and a third the square of that.

    Fitted to draws rather than optimised: see `bbvi.stages.bent.chained.chain`. `init` makes one of
    which no mean bends yet.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> family = TriangularGaussian()
        >>> params = family.init(jnp.zeros(2), jnp.ones(2))
        >>> params["means"] = params["means"].at[3, 1].set(1.0)  # z_1 is about the square of z_0
        >>> z, log_q = family.sample_and_log_prob(params, jax.random.key(0), 10_000)
        >>> bool(jnp.abs(jnp.mean(z[:, 1] - z[:, 0] ** 2)) < 0.05)
        True

    Source: a triangular map (Spantini, Bigoni and Marzouk 2018, JMLR 19(66)).
    """

    def init(self, loc: Array, scale: Array) -> PyTree:
        scale = broadcast_scale(loc, scale)
        factor = jnp.diag(scale) if scale.ndim == 1 else scale
        dim, units = len(loc), jnp.sqrt(jnp.sum(factor**2, axis=1))
        root = factor / units[:, None]
        # z = L eps, so that row by row x_k = (L_k,<k L_<k^-1) x_<k + L_kk eps_k
        linear = jnp.eye(dim) - jnp.linalg.solve(root.T, jnp.diag(jnp.diagonal(root))).T
        means = jnp.zeros((len(before(dim)), dim), loc.dtype).at[1 : dim + 1].set(linear.T)
        order = jnp.arange(dim, dtype=jnp.int32)
        return self.join(order, loc, units, means, jnp.log(jnp.diagonal(root)))

    def join(
        self,
        order: AnyArray,
        loc: AnyArray,
        units: AnyArray,
        means: AnyArray,
        log_widths: AnyArray,
    ) -> PyTree:
        """Parameters, with coordinates in the given order.

        Args:
            order: (D,) which coordinate is where.
            loc: (D,) where x is zero.
            units: (D,) of x.
            means: (F, D) A; zero where f is of a coordinate that is not before.
            log_widths: (D,) log s.
        """
        places = namespace(order).argsort(order).astype(order.dtype)
        named = {"loc": loc, "units": units, "means": means, "log_widths": log_widths}
        return {"order": order, "places": places, **named}

    def reparam(self, params: PyTree, eps: Array) -> tuple[Array, Array]:
        return self._from_normals(params, eps), self._log_q(params, eps)

    def log_prob(self, params: PyTree, z: Array) -> Array:
        return self._log_q(params, self.normals(params, z))

    def normals(self, params: PyTree, z: Array) -> Array:
        xp = namespace(z)
        x = (z[:, params["order"]] - params["loc"]) / params["units"]
        means = dot(_features(x), params["means"])
        return (x - means) * xp.exp(-params["log_widths"])

    def frame(self, params: PyTree) -> Frame:
        """Units of the mean and the covariance, as 4,096 normals tell it."""
        loc = params["loc"]
        eps = namespace(loc).asarray(moment_normals(len(loc)), loc.dtype)
        return frame_of_draws(self._from_normals(params, eps))

    def to_frame(self, params: PyTree, frame: Frame) -> PyTree:
        raise NotImplementedError("a chain of regressions is fitted to draws, and not step by step")

    from_frame = to_frame

    def _from_normals(self, params, eps):
        xp, dim = namespace(eps), eps.shape[1]
        noise = eps * xp.exp(params["log_widths"])

        def following(k, x):
            """Coordinate k, of those before it; those after it do not count, whatever is there."""
            return dot(_features(x), params["means"][:, k]) + noise[:, k]

        if xp is np:
            x = np.zeros_like(eps)
            for k in range(dim):
                x[:, k] = following(k, x)
        else:
            add = lambda k, x: x.at[:, k].set(following(k, x))  # noqa: E731
            x = jax.lax.fori_loop(0, dim, add, jnp.zeros_like(eps))
        return (params["loc"] + params["units"] * x)[:, params["places"]]

    @staticmethod
    def _log_q(params, eps):
        xp = namespace(eps)
        log_det = xp.sum(params["log_widths"]) + xp.sum(xp.log(params["units"]))
        return -0.5 * xp.sum(eps**2, axis=-1) - log_det - 0.5 * eps.shape[-1] * LOG_2PI
