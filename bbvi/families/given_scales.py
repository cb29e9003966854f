"""Families in which all else is normal given a few scales, whose precisions add up."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from bbvi._linalg import dot, solve_lower
from bbvi._types import AnyArray, Array, PyTree
from bbvi.families.base import Family
from bbvi.families.fullrank import FullRankGaussian
from bbvi.families.noncentred import Tails, log_scale, tail, untail
from bbvi.families.straightened import Straightened

# Elements of precisions that are held at once.
_ELEMENTS = 1 << 22


class Given(NamedTuple):
    r"""All coordinates but K scales, normal given these.

    With log scales w_k of scales s_k the others are, from a centre, normal with the precision and
    the mean

        P = R + sum_k exp(-2 w_k) G_k,    P^-1 (r + sum_k exp(-2 w_k) g_k).

    Attributes:
        scales: (K,) which coordinates they are.
        others: (F,) which the others are.
        power: (K,) p in w = p s.
        saturates: (K,) as in `bbvi.families.noncentred.Layer`.
        centre: (F,) of the others.
        rest: (F, F) R, the precision that depends on no scale.
        pull: (F,) r.
        precisions: (K, F, F) G, for scales of one.
        pulls: (K, F) g.
    """

    scales: AnyArray
    others: AnyArray
    power: AnyArray
    saturates: AnyArray
    centre: AnyArray
    rest: AnyArray
    pull: AnyArray
    precisions: AnyArray
    pulls: AnyArray


def _factor(given: Given, s: Array) -> tuple[Array, Array, Array, Array]:
    """A lower factor L (F, F) of the precision in units (F,), and these, at scales (K,).

    In plain units the precision of effects may be past all floats. Beside these, L^-1 of what pulls
    (F,) and log |det| of `_place`.
    """
    dtype = given.rest.dtype
    # plain numbers: before numpy 2 one of single precision times these is of double
    most, eps = 0.4 * math.log(jnp.finfo(dtype).max), float(jnp.finfo(dtype).eps)
    w = log_scale(s, given.power, given.saturates)
    times = jnp.exp(jnp.clip(-2 * w, -most, most))
    precision = given.rest + jnp.tensordot(times, given.precisions, 1)
    unit = 1 / jnp.sqrt(jnp.diagonal(precision))
    size = unit.shape[0]
    scaled = unit[:, None] * precision * unit + size * eps * jnp.eye(size, dtype=dtype)
    lower = jnp.linalg.cholesky(scaled)
    pull = solve_lower(lower, unit * (given.pull + times @ given.pulls))
    log_det = jnp.sum(jnp.log(unit)) - jnp.sum(jnp.log(jnp.diagonal(lower)))
    return lower, unit, pull, log_det


def _place(given: Given, s: Array, x: Array) -> tuple[Array, Array]:
    """The others (F,) at scales (K,) and residuals (F,), and log |det|."""
    lower, unit, pull, log_det = _factor(given, s)
    away = solve_triangular(lower, pull + x, lower=True, trans=1)
    return given.centre + unit * away, log_det


def _residual(given: Given, s: Array, z: Array) -> tuple[Array, Array]:
    """What `_place` takes there, and the same log |det|."""
    lower, unit, pull, log_det = _factor(given, s)
    return dot((z - given.centre) / unit, lower) - pull, log_det


def _each(given: Given, function: Callable, *args: Array) -> Any:
    """A function of each draw, in blocks that memory holds."""
    size = max(1, _ELEMENTS // max(1, given.others.shape[0] ** 2))

    def each(args):
        return function(given, *args)

    if args[0].shape[0] <= size:
        return jax.vmap(each)(args)
    return jax.lax.map(each, args, batch_size=size)


@dataclass(frozen=True)
class GivenScales(Straightened):
    r"""A family of y, of which some are scales and the others residuals, normal given these.

    See `Given` in `bbvi.families.given_scales`; scales have `Tails` as in `Noncentred`. Exact for
    linear models with normal effects, however they are crossed; elsewhere it is Laplace's
    approximation given the scales.

    Found from gradients rather than optimised: see `bbvi.stages.hierarchy.layers.find_layers`.
    `init` makes one without scales, which is the base family.

    Args:
        base: the family of y.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> family = GivenScales()
        >>> params = family.init(jnp.zeros(2), jnp.ones(2))
        >>> family.log_prob(params, jnp.zeros((1, 2))).round(3)
        Array([-1.838], dtype=float32)

    Source: Rue, Martino and Chopin 2009 (Journal of the Royal Statistical Society B 71).
    """

    base: Family = FullRankGaussian()

    def init(self, loc: Array, scale: Array) -> PyTree:
        dim, dtype = loc.shape[0], loc.dtype
        none, of_none = np.zeros(0, np.int32), np.zeros(0, dtype)
        given = Given(
            scales=none,
            others=np.arange(dim, dtype=np.int32),
            power=of_none,
            saturates=of_none,
            centre=np.zeros(dim, dtype),
            rest=np.eye(dim, dtype=dtype),
            pull=np.zeros(dim, dtype),
            precisions=np.zeros((0, dim, dim), dtype),
            pulls=np.zeros((0, dim), dtype),
        )
        tails = Tails(jnp.zeros_like(loc), jnp.ones_like(loc), jnp.zeros_like(loc))
        return self.join(self.base.init(loc, scale), tails, jax.tree.map(jnp.asarray, given))

    def join(self, base: PyTree, tails: Tails, given: Given) -> PyTree:
        """Parameters from those of the base family, tails and what is normal."""
        return {"base": base, "tails": tails._asdict(), "given": given._asdict()}

    def place(self, params: PyTree, y: Array) -> tuple[Array, Array]:
        """z (S, D) at y (S, D), and log |det dz/dy| (S,)."""
        given = Given(**params["given"])
        x, log_slopes = tail(Tails(**params["tails"]), y)
        others, log_det = _each(given, _place, x[:, given.scales], x[:, given.others])
        return x.at[:, given.others].set(others), log_det + jnp.sum(log_slopes, axis=-1)

    def straighten(self, params: PyTree, z: Array) -> tuple[Array, Array]:
        """y (S, D) at z (S, D), and log |det dz/dy| (S,) there."""
        given, tails = Given(**params["given"]), Tails(**params["tails"])
        others, log_det = _each(given, _residual, z[:, given.scales], z[:, given.others])
        y = untail(tails, z.at[:, given.others].set(others))
        return y, log_det + jnp.sum(tail(tails, y)[1], axis=-1)

    def directions(self, params: PyTree) -> Array:
        """Those (K, D) of the scales: however far out, all else is about normal given these."""
        directions = self.base.directions(params["base"])
        assert directions is not None, "scales lie along normals of the base"
        return directions[params["given"]["scales"]]
