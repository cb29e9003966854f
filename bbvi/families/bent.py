"""Gaussians whose other coordinates move and narrow as a few of them go."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from bbvi._arrays import namespace
from bbvi._linalg import cholesky, dot, solve_lower
from bbvi._types import AnyArray, Array, PyTree
from bbvi.families.base import LOG_2PI, Family, Frame, broadcast_scale

# Drivers, for which all members of a dimension have room, so that one program serves them.
MOST_DRIVERS = 5
# In sds of a driver: what follows it does so no further.
_CLIPPED = 8.0
_AT, _BY = (x.copy() for x in np.polynomial.hermite_e.hermegauss(64))


def curve(roundness: float) -> np.ndarray:
    """What sets s_r: r, and its mean before it is centred and its variance for a normal a, (3,)."""
    raw = _raw(_AT, roundness)
    mean = _BY @ raw / _BY.sum()
    return np.array([roundness, mean, _BY @ (raw - mean) ** 2 / _BY.sum()])


def _raw(a, roundness):
    # the same as above, without a difference of nearly equal numbers
    return 2 * a**2 / (1 + namespace(a).sqrt(1 + (roundness * a) ** 2))


_KINK = curve(1.0)


def feature_sizes(dim: int) -> tuple[int, int]:
    """How many features means and log widths have in D = `dim`, F and 2 K."""
    number = min(MOST_DRIVERS, dim)
    return 2 * number + 3 * number * (number - 1) // 2, 2 * number


def features(a: AnyArray, curve: AnyArray) -> tuple[AnyArray, AnyArray]:
    """What means (S, F) and log widths (S, 2 K) are linear in, from drivers a (S, K)."""
    xp = namespace(a)
    a = xp.clip(a, -_CLIPPED, _CLIPPED)
    level, kink = _raw(a, curve[0]) - curve[1], _raw(a, 1.0) - _KINK[1]
    one, other = np.triu_indices(a.shape[1], 1)
    pairs = [a[:, one] * a[:, other], level[:, one] * a[:, other], a[:, one] * level[:, other]]
    return xp.concatenate([a, level, *pairs], axis=1), xp.concatenate([a, kink], axis=1)


@dataclass(frozen=True)
class BentGaussian(Family):
    r"""A Gaussian in some coordinates, the drivers, and given these in all others.

    With a = (eps_1, ..., eps_K), and F lower triangular in an order in which the drivers come
    first,

        z_j = loc_j + f(a)'A_j + exp(w_j) (F eps)_j,    w_j = sum_i C_ij a_i + D_ij s_1(a_i),
        f(a) = (a_i, s_r(a_i), a_i a_k, s_r(a_i) a_k),
        s_r(a) = 2 (sqrt(1 + r^2 a^2) - 1)/r^2 - const,

    where A, C and D are zero for the drivers themselves. For r near zero s_r is a parabola, such as
    a product of two parameters makes of its ridge; else what follows a driver may do so more on
    one side than on the other: the scale of effects makes a funnel that ends where the data say
    more of the effects than it does.

    Fitted to draws rather than optimised: see `bbvi.bending.bend`. `init` makes one that is not
    bent yet.

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
        return self.join(jnp.asarray(_KINK, loc.dtype), order, loc, factor, *follow)

    def join(
        self,
        curve: AnyArray,
        order: AnyArray,
        loc: AnyArray,
        factor: AnyArray,
        means: AnyArray,
        widths: AnyArray,
    ) -> PyTree:
        """Parameters, with coordinates in the given order.

        Args:
            curve: (3,) what `curve(r)` is for the r of means.
            order: (D,) which coordinate is where, the drivers first.
            loc: (D,) means.
            factor: (D, D) F, lower triangular.
            means: (F, D) A; zero in the columns of drivers, and where f is of anything else.
            widths: (2 K, D) C and D, likewise.
        """
        places = namespace(order).argsort(order).astype(order.dtype)
        named = {"loc": loc, "factor": factor, "means": means, "widths": widths}
        return {"curve": curve, "order": order, "places": places, **named}

    def reparam(self, params: PyTree, eps: Array) -> tuple[Array, Array]:
        shift, widening = self._follow(params, eps)
        z = params["loc"] + shift + dot(eps, params["factor"].T) * jnp.exp(widening)
        return z[:, params["places"]], self._log_q(params, eps, widening)

    def log_prob(self, params: PyTree, z: Array) -> Array:
        x, factor = z[:, params["order"]] - params["loc"], params["factor"]
        few = len(params["widths"]) // 2
        # right of drivers, which follow none; what is wrong of others drives none
        drivers = solve_lower(factor[:few, :few], x[:, :few].T).T
        shift, widening = self._follow(params, drivers)
        eps = solve_lower(factor, ((x - shift) * jnp.exp(-widening)).T).T
        return self._log_q(params, eps, widening)

    def frame(self, params: PyTree) -> Frame:
        """Units of the mean and the covariance, whose correlations are as of normal log widths."""
        factor, means, widths = params["factor"], params["means"], params["widths"]
        xp, few = namespace(factor), len(widths) // 2
        one = xp.ones(few, factor.dtype)
        other, pair = params["curve"][2] * one, xp.ones(few * (few - 1) // 2, factor.dtype)
        pairs = [pair, *2 * [params["curve"][2] * pair]]
        # E[exp(w_i + w_j)], by quadrature where i is j
        at = features(_AT.astype(factor.dtype)[:, None], params["curve"])[1]
        along = xp.exp(2 * xp.einsum("nf,fkd->nkd", at, widths.reshape(2, few, -1)))
        log_squares = xp.sum(xp.log(xp.tensordot(_BY / _BY.sum(), along, 1)), axis=0)
        by_size = xp.concatenate([one, _KINK[2] ** 0.5 * one])[:, None] * widths
        shared = dot(by_size.T, by_size)
        apart = xp.diagonal(shared)[:, None] + xp.diagonal(shared) - 2 * shared
        together = 0.5 * (log_squares[:, None] + log_squares - apart)
        covariance = dot(factor, factor.T) * xp.exp(together)
        led = dot(factor[:, :few], means[:few])
        of_means = xp.concatenate([one, other, *pairs])[:, None] * means
        covariance = covariance + led + led.T + dot(of_means.T, means)
        places = params["places"]
        return Frame(params["loc"][places], cholesky(covariance[places][:, places]))

    def to_frame(self, params: PyTree, frame: Frame) -> PyTree:
        raise NotImplementedError("a bent Gaussian is fitted to draws, and not step by step.")

    from_frame = to_frame

    @staticmethod
    def _follow(params, eps):
        """What the first of eps (S, D) add to z and to its log widths, both (S, D)."""
        of_means, of_widths = features(eps[:, : len(params["widths"]) // 2], params["curve"])
        return dot(of_means, params["means"]), dot(of_widths, params["widths"])

    @staticmethod
    def _log_q(params, eps, widening):
        log_det = jnp.sum(widening, axis=-1) + jnp.sum(jnp.log(jnp.diagonal(params["factor"])))
        return -0.5 * jnp.sum(eps**2, axis=-1) - log_det - 0.5 * eps.shape[-1] * LOG_2PI
