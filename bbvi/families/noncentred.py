"""Families in coordinates in which scales and what they are the scales of are independent."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._arrays import namespace
from bbvi._linalg import dot
from bbvi._types import AnyArray, Array, PyTree
from bbvi.families.base import Family
from bbvi.families.fullrank import FullRankGaussian
from bbvi.families.straightened import Straightened

NO_DATA = -1e4  # log precision of data that say nothing


class Layer(NamedTuple):
    r"""Effects whose scales are other coordinates, given these and what the data say of them.

    Effects theta have, given a scale exp(w) and all else, a prior with mean m and the precision
    exp(-2w) Q, and a likelihood with precision W. In a basis V with V'QV = I and V'WV = diag(omega)
    each of y = V^-1 theta has the conditional

        N(rho (m + exp(2w) b), exp(2w) rho),    rho = 1/(1 + exp(2w) omega),

    of which x is the standardised residual: for small scales the effects are non-centred, for
    large ones centred on the data. The prior's mean is m = A hubs + a. Effects that were written
    non-centred are these divided by exp(w).

    Attributes:
        scale: (D,) which coordinate is the scale of this one.
        power: (D,) p in w = p s; zero for all that are no effects, which stay what they are.
        saturates: (D,) one where s is that coordinate less log(1 + exp) of it, the log of a
            fraction of an interval, and zero where s is the coordinate.
        divided: (D,) one for effects that were written non-centred, else zero.
        hubs: (H,) which coordinates m is linear in.
        lead: (D, H) A.
        rest: (D,) a.
        log_omega: (D,) log precision of the data.
        pull: (D,) b, what they pull with.
        basis: (D, D) V, and the identity for all others; or (D,) its diagonal if that is all.
        inverse: V^-1, likewise.
        log_det: log |det V|.
    """

    scale: AnyArray
    power: AnyArray
    saturates: AnyArray
    divided: AnyArray
    hubs: AnyArray
    lead: AnyArray
    rest: AnyArray
    log_omega: AnyArray
    pull: AnyArray
    basis: AnyArray
    inverse: AnyArray
    log_det: AnyArray


def plain_layer(dim: int) -> Layer:
    """A layer without effects, on the host."""
    of_scales = np.arange(dim, dtype=np.int32), np.zeros(dim), np.zeros(dim), np.zeros(dim)
    leads = np.zeros(0, np.int32), np.zeros((dim, 0)), np.zeros(dim)
    data = np.full(dim, NO_DATA), np.zeros(dim)
    return Layer(*of_scales, *leads, *data, np.ones(dim), np.ones(dim), np.zeros(()))


def stacked(layers: list[Layer]) -> Layer:
    """Layers of the host as one, with a leading axis."""
    most = max(len(layer.hubs) for layer in layers)
    dense = any(layer.basis.ndim == 2 for layer in layers)
    alike = []
    for layer in layers:
        room = most - len(layer.hubs)
        parts: dict[str, AnyArray] = {
            "hubs": np.pad(layer.hubs, (0, room)),  # the first one, by nothing
            "lead": np.pad(layer.lead, ((0, 0), (0, room))),
        }
        for name in ("basis", "inverse"):
            part = getattr(layer, name)
            parts[name] = np.diag(part) if dense and part.ndim == 1 else part
        alike.append(layer._replace(**parts))
    return Layer(*(np.stack(parts) for parts in zip(*alike, strict=True)))


def joined(one: Layer, other: Layer) -> Layer:
    """Two layers of the host in one, neither of which moves what the other depends on."""
    mine = other.power != 0
    pairs = zip(one, other, strict=True)
    found = Layer(*(np.where(mine, b, a) if np.shape(a) == mine.shape else a for a, b in pairs))
    hubs = np.union1d(one.hubs, other.hubs).astype(np.int32)
    lead = np.zeros((len(mine), len(hubs)))
    for layer in (one, other):
        lead[:, np.searchsorted(hubs, layer.hubs)] += layer.lead
    parts: dict[str, AnyArray] = {"hubs": hubs, "lead": lead}
    for name in ("basis", "inverse"):
        a, b = getattr(one, name), getattr(other, name)
        if max(a.ndim, b.ndim) == 2:
            a, b = (np.diag(x) if x.ndim == 1 else x for x in (a, b))
            parts[name] = np.where(mine[:, None], b, a)
    return found._replace(log_det=one.log_det + other.log_det, **parts)


class Conditional(NamedTuple):
    """Of effects, given their scales.

    Attributes:
        w: (S, D) log scales.
        rho: (S, D) how much of what is known of them is the prior's.
        pulled: (S, D) exp(2w) rho b, divided where effects are.
        mean: (S, D).
        log_width: (S, D); zero for what is no effect.
    """

    w: AnyArray
    rho: AnyArray
    pulled: AnyArray
    mean: AnyArray
    log_width: AnyArray


def log_scale(s: AnyArray, power: AnyArray, saturates: AnyArray) -> AnyArray:
    """w of scales s, by their powers and whether they saturate; see `Layer`."""
    return power * (s - saturates * namespace(s).logaddexp(0, s))


def log_scale_slope(s: np.ndarray, power: AnyArray, saturates: AnyArray) -> np.ndarray:
    """dw/ds at scales s, on the host."""
    return power * (1 - saturates / (1 + np.exp(-s)))


def conditional(layer: Layer, y: AnyArray) -> Conditional:
    """Of effects, given all other coordinates of y (S, D)."""
    xp = namespace(y)
    w = log_scale(y[:, layer.scale], layer.power, layer.saturates)
    log_rho = -xp.logaddexp(0, layer.log_omega + 2 * w)
    times = w * layer.divided
    rho, pulled = xp.exp(log_rho), xp.exp(log_rho + 2 * w - times) * layer.pull
    led = xp.exp(log_rho - times) * (dot(y[:, layer.hubs], layer.lead.T) + layer.rest)
    log_width = xp.where(layer.power != 0, w - times + 0.5 * log_rho, 0)
    return Conditional(w, rho, pulled, led + pulled, log_width)


def _turned(y, basis):
    return y * basis if basis.ndim == 1 else dot(y, basis.T)


def apply(layer: Layer, x: AnyArray) -> tuple[AnyArray, AnyArray]:
    """z (S, D) at x (S, D), and log |det dz/dx| (S,)."""
    xp, given = namespace(x), conditional(layer, x)
    y = xp.where(layer.power != 0, given.mean + xp.exp(given.log_width) * x, x)
    return _turned(y, layer.basis), given.log_width.sum(axis=-1) + layer.log_det


def invert(layer: Layer, z: AnyArray) -> tuple[AnyArray, AnyArray]:
    """x (S, D) at z (S, D), and log |det dz/dx| (S,) there."""
    xp = namespace(z)
    y = _turned(z, layer.inverse)
    given = conditional(layer, y)
    x = xp.where(layer.power != 0, (y - given.mean) * xp.exp(-given.log_width), y)
    return x, given.log_width.sum(axis=-1) + layer.log_det


def pull_back(layer: Layer, x: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The gradient (S, D) by x of a log density of x, from that of z, on the host."""
    given, effects = conditional(layer, x), layer.power != 0
    width, by_y = np.exp(given.log_width), _turned(score, layer.basis.T)
    by_mean = np.where(effects, by_y * given.rho * np.exp(-given.w * layer.divided), 0)
    found = np.where(effects, by_y * width, by_y)
    found[:, layer.hubs] += by_mean @ layer.lead
    width_by_w = given.rho - layer.divided
    mean_by_w = 2 * (given.pulled - (1 - given.rho) * given.mean) - layer.divided * given.mean
    by_w = by_y * (mean_by_w + width * x * width_by_w) + width_by_w
    by_s = by_w * log_scale_slope(x[:, layer.scale], layer.power, layer.saturates)
    np.add.at(found.T, layer.scale[effects], by_s[:, effects].T)
    return found


class Tails(NamedTuple):
    r"""Scales whose density falls exponentially towards zero effects, from standard ones.

        s = at + unit (y - bend q(y)),    q(y) = log(1 + exp(-y))^2,

    is linear on one side and a parabola on the other, where a normal y makes an exponential s.

    Attributes:
        at: (D,) zero for all others.
        unit: (D,) one for all others; negative where small effects lie at large values.
        bend: (D,) zero for all others.
    """

    at: AnyArray
    unit: AnyArray
    bend: AnyArray


# Of Newton's method for a concave function, from a guess that is nearly right.
_NEWTON = 12


def _soft(y):
    """log(1 + exp(-y)) and its derivative."""
    xp = namespace(y)
    return xp.logaddexp(0, -y), -1 / (1 + xp.exp(y))


def tail(tails: Tails, y: AnyArray) -> tuple[AnyArray, AnyArray]:
    """x (S, D) at y (S, D), and log |dx/dy| (S, D)."""
    xp = namespace(y)
    soft, slope = _soft(y)
    x = tails.at + tails.unit * (y - tails.bend * soft**2)
    return x, xp.log(1 - 2 * tails.bend * soft * slope) + xp.log(xp.abs(tails.unit))


def untail(tails: Tails, x: AnyArray) -> AnyArray:
    """y (S, D) at x (S, D)."""
    xp = namespace(x)
    to = (x - tails.at) / tails.unit
    # the smaller root of to = y - bend y^2, which it is on the left
    y = 2 * to / (1 + xp.sqrt(1 + 4 * tails.bend * xp.maximum(-to, 0)))
    for _ in range(_NEWTON):
        soft, slope = _soft(y)
        y = y - (y - tails.bend * soft**2 - to) / (1 - 2 * tails.bend * soft * slope)
    return y


def pull_back_tails(tails: Tails, y: np.ndarray, score: np.ndarray) -> np.ndarray:
    """The gradient (S, D) by y of a log density of y, from that of x, on the host."""
    soft, slope = _soft(y)
    steep = 1 - 2 * tails.bend * soft * slope
    # the second derivative of log(1 + exp(-y)) is -slope (1 + slope)
    steeper = -2 * tails.bend * (slope**2 - soft * slope * (1 + slope))
    return score * tails.unit * steep + steeper / steep


@dataclass(frozen=True)
class Noncentred(Straightened):
    r"""A family of y, where z = T_1(T_2(... x(y))) and each T makes effects of their scales.

    See `Layer` for a map T, and `Tails` for x(y), in `bbvi.families.noncentred`. In y a hierarchy
    is nearly Gaussian that in z is a funnel, whether it was written centred or not.

    Found from gradients rather than optimised: see `bbvi.stages.hierarchy.layers.find_layers`.
    `init` makes one without layers, which is the base family.

    Args:
        base: the family of y.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> family = Noncentred()
        >>> params = family.init(jnp.zeros(2), jnp.ones(2))
        >>> family.log_prob(params, jnp.zeros((1, 2))).round(3)
        Array([-1.838], dtype=float32)

    Source: Papaspiliopoulos, Roberts and Sköld 2007 (Statistical Science 22) on centring and
    not; Gorinova, Moore and Hoffman 2020 (arXiv:1906.03028) on in between.
    """

    base: Family = FullRankGaussian()

    def init(self, loc: Array, scale: Array) -> PyTree:

        def no_layers(x):
            dtype = x.dtype if np.issubdtype(x.dtype, np.integer) else loc.dtype
            return jnp.zeros((0, *x.shape), dtype)

        none = jax.tree.map(no_layers, plain_layer(loc.shape[0]))
        tails = Tails(jnp.zeros_like(loc), jnp.ones_like(loc), jnp.zeros_like(loc))
        return self.join(self.base.init(loc, scale), tails, none)

    def join(self, base: PyTree, tails: Tails, layers: Layer) -> PyTree:
        """Parameters from those of the base family, tails, and layers with a leading axis."""
        return {"base": base, "tails": tails._asdict(), "layers": layers._asdict()}

    def place(self, params: PyTree, y: Array) -> tuple[Array, Array]:
        """z (S, D) at y (S, D), and log |det dz/dy| (S,)."""
        x, log_slopes = tail(Tails(**params["tails"]), y)

        def step(carry, layer):
            z, log_det = apply(Layer(**layer), carry[0])
            return (z, carry[1] + log_det), None

        return jax.lax.scan(
            step, (x, jnp.sum(log_slopes, axis=-1)), params["layers"], reverse=True
        )[0]

    def straighten(self, params: PyTree, z: Array) -> tuple[Array, Array]:
        """y (S, D) at z (S, D), and log |det dz/dy| (S,) there."""

        def step(carry, layer):
            x, log_det = invert(Layer(**layer), carry[0])
            return (x, carry[1] + log_det), None

        x, log_det = jax.lax.scan(step, (z, jnp.zeros_like(z[:, 0])), params["layers"])[0]
        tails = Tails(**params["tails"])
        y = untail(tails, x)
        return y, log_det + jnp.sum(tail(tails, y)[1], axis=-1)
