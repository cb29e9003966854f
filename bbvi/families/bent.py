"""Gaussians whose other coordinates move and narrow as a few of them go."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from bbvi._arrays import namespace
from bbvi._linalg import cholesky, dot, solve_lower
from bbvi._types import AnyArray, Array, PyTree
from bbvi.families.base import LOG_2PI, Family, Frame, broadcast_scale, moment_normals

# Drivers, for which all members of a dimension have room, so that one program serves them.
MOST_DRIVERS = 5
# In sds of a driver: what follows it does so no further.
_CLIPPED = 8.0
# Knots of the cubic splines, one sd of a driver apart; the outer ones bend what is within four.
KNOTS = np.arange(-9.0, 10.0) / 2
CURVED = 2  # drivers with a curve, the first ones


def most_drivers(dim: int) -> int:
    """K, the drivers that members have room for in D = `dim`."""
    return min(MOST_DRIVERS, dim)


def feature_sizes(dim: int) -> tuple[int, int]:
    """How many features means and log widths have in D = `dim`, F and 2 K."""
    number = most_drivers(dim)
    curves = len(KNOTS) * min(number, CURVED)
    return 3 * number + 5 * number * (number - 1) // 2 + curves, 2 * number


def features(a: AnyArray, shape: AnyArray) -> tuple[AnyArray, AnyArray]:
    """What means (S, F) and log widths (S, 2 K) are linear in, from drivers a (S, K).

    Args:
        a: drivers.
        shape: (2, K) the roundness r of each, and the rate b of those that narrow the others.
    """
    xp = namespace(a)
    a = xp.clip(a, -_CLIPPED, _CLIPPED)
    roundness, rate = shape
    narrows = rate > 0
    safe = xp.where(narrows, rate, 1)
    bend = xp.where(narrows, xp.logaddexp(0, safe * a) / safe, _level(a, roundness))
    switch = xp.where(narrows, 1 / (1 + xp.exp(-safe * a)), 0)
    one, other = np.triu_indices(a.shape[1], 1)
    pairs = [a[:, one] * a[:, other]]
    for f in (bend, switch):
        pairs += [f[:, one] * a[:, other], a[:, one] * f[:, other]]
    kink = xp.concatenate([a, _level(a, 1.0)], axis=1)
    curve = _bump(2 * (a[:, :CURVED, None] - KNOTS.astype(a.dtype))).reshape(len(a), -1)
    return xp.concatenate([a, bend, switch, *pairs, curve], axis=1), kink


def _bump(t):
    """The cubic B-spline whose knots are -2, ..., 2."""
    xp, t = namespace(t), abs(t)
    outer, inner = xp.maximum(2 - t, 0), xp.maximum(1 - t, 0)
    return (outer * outer * outer - 4 * inner * inner * inner) / 6


def _level(a, roundness):
    # 2 (sqrt(1 + r^2 a^2) - 1)/r^2 without a difference of nearly equal numbers
    return 2 * a**2 / (1 + namespace(a).sqrt(1 + (roundness * a) ** 2))


@dataclass(frozen=True)
class BentGaussian(Family):
    r"""A Gaussian in some coordinates, the drivers, and given these in all others.

    With a = (eps_1, ..., eps_K), and F lower triangular in an order in which the drivers come
    first,

        z_j = loc_j + f(a)'A_j + exp(w_j) (F eps)_j,    w_j = sum_i C_ij a_i + D_ij s_1(a_i),
        s_r(a) = 2 (sqrt(1 + r^2 a^2) - 1)/r^2,

    where A, C and D are zero for the drivers themselves. Features f of the means are a_i, s_r(a_i)
    and their products with all a_k, and cubic B-splines of the first two drivers. For r near zero
    s_r is a parabola, such as a product of two parameters makes of its ridge. Where others narrow
    towards small a_i, as effects do with their scale, their means come to rest as fast: the
    features are log(1 + exp(b a_i))/b and 1/(1 + exp(-b a_i)) instead.

    Fitted to draws rather than optimised: see `bbvi.stages.bent.bending.bend`. `init` makes one
    that is not bent yet.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> family = BentGaussian()
        >>> params = family.init(jnp.zeros(2), jnp.ones(2))
        >>> params["widths"] = params["widths"].at[0, 1].set(1.0)  # z_1 is as wide as exp(z_0)
        >>> z, log_q = family.sample_and_log_prob(params, jax.random.key(0), 10_000)
        >>> narrow, wide = z[z[:, 0] < -1, 1], z[z[:, 0] > 1, 1]
        >>> bool(10 * jnp.std(narrow) < jnp.std(wide))
        True

    Source: a triangular map (Spantini, Bigoni and Marzouk 2018, JMLR 19(66)) of the form that
    Gorinova, Moore and Hoffman 2020 (arXiv:1906.03028) give to hierarchies.
    """

    def init(self, loc: Array, scale: Array) -> PyTree:
        scale = broadcast_scale(loc, scale)
        factor = jnp.diag(scale) if scale.ndim == 1 else scale
        order = jnp.arange(loc.shape[0], dtype=jnp.int32)
        sizes = feature_sizes(loc.shape[0])
        follow = (jnp.zeros((size, loc.shape[0]), loc.dtype) for size in sizes)
        shape = jnp.stack([jnp.ones(sizes[1] // 2, loc.dtype), jnp.zeros(sizes[1] // 2, loc.dtype)])
        return self.join(shape, order, loc, factor, *follow)

    def join(
        self,
        shape: AnyArray,
        order: AnyArray,
        loc: AnyArray,
        factor: AnyArray,
        means: AnyArray,
        widths: AnyArray,
    ) -> PyTree:
        """Parameters, with coordinates in the given order.

        Args:
            shape: (2, K) see `features`.
            order: (D,) which coordinate is where, the drivers first.
            loc: (D,) where all features are zero.
            factor: (D, D) F, lower triangular.
            means: (F, D) A; zero in the columns of drivers, and where f is of anything else.
            widths: (2 K, D) C and D, likewise.
        """
        places = namespace(order).argsort(order).astype(order.dtype)
        named = {"loc": loc, "factor": factor, "means": means, "widths": widths}
        return {"shape": shape, "order": order, "places": places, **named}

    def reparam(self, params: PyTree, eps: Array) -> tuple[Array, Array]:
        shift, widening = self._follow(params, eps)
        z = params["loc"] + shift + dot(eps, params["factor"].T) * jnp.exp(widening)
        return z[:, params["places"]], self._log_q(params, eps, widening)

    def log_prob(self, params: PyTree, z: Array) -> Array:
        return self._log_q(params, *self._invert(params, z))

    def normals(self, params: PyTree, z: Array) -> Array:
        return self._invert(params, z)[0]

    def frame(self, params: PyTree) -> Frame:
        """Units of the mean and the covariance, as 4,096 normals for the drivers tell it."""
        factor, means = params["factor"], params["means"]
        xp, few = namespace(factor), len(params["widths"]) // 2
        a = xp.asarray(moment_normals(MOST_DRIVERS)[:, :few], factor.dtype)
        of_means, of_widths = features(a, params["shape"])
        width = xp.exp(dot(of_widths, params["widths"]))
        led = dot(of_means, means) + width * dot(a, factor[:, :few].T)
        mean = xp.mean(led, axis=0)
        own = dot(factor[:, few:], factor[:, few:].T) * (dot(width.T, width) / len(a))
        covariance = own + dot((led - mean).T, led - mean) / len(a)
        places = params["places"]
        loc = (params["loc"] + mean)[places]
        return Frame(loc, cholesky(covariance[places][:, places]))

    def to_frame(self, params: PyTree, frame: Frame) -> PyTree:
        raise NotImplementedError("a bent Gaussian is fitted to draws, and not step by step.")

    from_frame = to_frame

    def _invert(self, params, z):
        """Base normals of z (S, D), and what is added to log widths."""
        x, factor = z[:, params["order"]] - params["loc"], params["factor"]
        few = len(params["widths"]) // 2
        # right of drivers, which follow none; what is wrong of others drives none
        drivers = solve_lower(factor[:few, :few], x[:, :few].T).T
        shift, widening = self._follow(params, drivers)
        return solve_lower(factor, ((x - shift) * namespace(x).exp(-widening)).T).T, widening

    @staticmethod
    def _follow(params, eps):
        """What the first of eps (S, D) add to z and to its log widths, both (S, D)."""
        of_means, of_widths = features(eps[:, : len(params["widths"]) // 2], params["shape"])
        return dot(of_means, params["means"]), dot(of_widths, params["widths"])

    @staticmethod
    def _log_q(params, eps, widening):
        xp = namespace(eps)
        diagonal = xp.abs(xp.diagonal(params["factor"]))  # drivers may be turned round
        log_det = xp.sum(widening, axis=-1) + xp.sum(xp.log(diagonal))
        return -0.5 * xp.sum(eps**2, axis=-1) - log_det - 0.5 * eps.shape[-1] * LOG_2PI
