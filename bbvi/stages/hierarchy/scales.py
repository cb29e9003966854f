"""Scales found in a hierarchy: whether their effects are normal given them, and their tails."""

from typing import NamedTuple

import numpy as np

from bbvi._arrays import softmax
from bbvi.diagnostics.propriety import LEAST_FALL, is_level, log_scale_ends
from bbvi.families.noncentred import (
    NO_DATA,
    Layer,
    Tails,
    conditional,
    invert,
    log_scale,
    plain_layer,
    tail,
    untail,
)
from bbvi.stages.coordinates import Coordinates

# Where the density of a scale is looked at, given the others: nats of width around the centre's.
PROFILE = np.arange(-8.0, 8.01, 0.25)
# Where scales are small, so many nats of width below the centre's, effects are looked at.
CHECKED_AT = (3.0, 6.0)
# By how much scores of effects may differ there from those of standard normals at two places,
# squared, where they were read off, and elsewhere ...
NORMAL = (0.1, 1.0)
# ... of a prior of another shape, which was compared at both depths where it was read off.
SHAPED = (1.0, 1.0)
# By which factor what they are shifted by may grow between the two depths, and by how much besides.
_GROWS, _MORE = 2.0, 0.5
# Where tails are tried, in sds from the mean, how wide, and how long beside what the density says.
_SHIFTS, _STRETCHES = np.linspace(-0.6, 1.5, 15), np.exp(np.linspace(-1.5, 0.3, 13))
_SHARES = np.array([1.0, 0.5, 0.25, 0.1, 0.0])
# Densities that fall more slowly than this, in nats a unit, are hardly proper.
_SLOWEST = 0.1
# What is so little beside a diagonal is left out.
_BESIDE = 1e-3
# Data whose precision is this share of the prior's at the centre, or less, say nothing.
_SAYS = 1e-6


class Known(NamedTuple):
    """What is known of a posterior whose scales are looked for.

    Attributes:
        draws: (2, D) where priors are read off, and where they have to hold too.
        centre: (D,) of it.
        unit: (D,) sds of it.
        saturates: (D,) as in `bbvi.families.noncentred.Layer`.
        single: whether the target computes in single precision.
    """

    draws: np.ndarray
    centre: np.ndarray
    unit: np.ndarray
    saturates: np.ndarray
    single: bool


class Scale(NamedTuple):
    """A coordinate that others' gradients grow with, and these."""

    at: int
    power: float  # zero where they do not grow, but saturate
    moved: np.ndarray


class Found(NamedTuple):
    """A scale with its effects, and its density's mean, sd and tail."""

    at: int
    layer: Layer
    loc: float
    sd: float
    tail: Tails
    normal: bool = True  # whether its effects have a normal prior

    @property
    def effects(self) -> np.ndarray:
        return self.layer.power != 0

    @property
    def hubs(self) -> np.ndarray:
        """What the means of the effects depend on."""
        hubs = np.zeros(len(self.layer.power), bool)
        hubs[self.layer.hubs] = True
        return hubs

    @property
    def spread(self) -> float:
        """Of the log scale, in nats."""
        return self.sd * float(np.abs(self.layer.power).max())


def layer_of(known: Known, at: int, power: float, own, hubs, lead, rest, omega) -> Layer:
    """A layer of effects on the host, whose basis is still the identity.

    Args:
        known: of the posterior.
        at: of the scale.
        power: of the scale.
        own: (E,) which coordinates are effects.
        hubs: (H,) which coordinates their means lean on.
        lead: (E, H) how, in units of the basis that they will have.
        rest: (E,) what is left of the means, in these units.
        omega: (E,) precision of the data, in these units.
    """
    layer, saturates = plain_layer(len(known.centre)), known.saturates[at]
    layer.scale[own], layer.power[own], layer.saturates[own] = at, power, saturates
    layer.rest[own] = rest
    leading = np.zeros((len(known.centre), len(hubs)))
    leading[own] = lead
    informed = omega > _SAYS * np.exp(-2 * log_scale(known.centre[at], power, saturates))
    layer.log_omega[own] = np.where(informed, np.log(np.maximum(omega, 1e-300)), NO_DATA)
    return layer._replace(hubs=hubs.astype(np.int32), lead=leading)


def layer_in_basis(
    known: Known, at: int, power: float, own, hubs, lead, rest, lower, data
) -> Layer | None:
    """A layer in a basis in which the prior's precision and the data's are diagonal.

    Args:
        known: of the posterior.
        at: of the scale.
        power: of the scale.
        own: (E,) which coordinates are effects.
        hubs: (H,) which coordinates their means lean on.
        lead: (E, H) how.
        rest: (E,) what is left of the means.
        lower: (E, E) factor of their precision for a scale of one.
        data: (E, E) precision of the data.

    Returns:
        None if there is no such basis.
    """
    half = np.linalg.inv(lower)
    by_data = half @ data @ half.T
    omega, turn = np.diagonal(by_data), None
    beside = by_data - np.diag(omega)
    if np.abs(beside).max() > _BESIDE * np.abs(by_data).max():
        try:
            omega, turn = np.linalg.eigh(by_data)
        except np.linalg.LinAlgError:
            return None
    basis, inverse = (half.T, lower.T) if turn is None else (half.T @ turn, turn.T @ lower.T)
    layer = layer_of(known, at, power, own, hubs, inverse @ lead, inverse @ rest, omega)
    log_det = np.asarray(-np.sum(np.log(np.diagonal(lower))))
    layer = layer._replace(log_det=log_det)
    if turn is None and np.abs(lower - np.diag(np.diagonal(lower))).max() < _BESIDE * lower.max():
        layer.basis[own], layer.inverse[own] = np.diagonal(half), np.diagonal(lower)
        return layer
    whole = np.eye(len(known.centre)), np.eye(len(known.centre))
    for to, part in zip(whole, (basis, inverse), strict=True):
        to[np.ix_(own, own)] = part
    return layer._replace(basis=whole[0], inverse=whole[1])


def density_of(at: Coordinates, layer: Layer, known: Known) -> Found | None:
    """What the density of a scale is, given the others; None if it is nowhere finite.

    Args:
        at: the coordinates so far.
        layer: those that the scale and its effects would add.
        known: of the posterior.
    """
    return _density(at, _pulled(at, layer, known.centre), known.centre)


def density_where(
    at: Coordinates, layer: Layer, known: Known, allowed: tuple[float, float]
) -> Found | None:
    """The same; None if its effects are not as they should where the scale is small.

    There they are to be standard normal but for a shift, which must not grow as it gets smaller:
    means that are a little wrong lie many widths off then.

    Args:
        at: the coordinates so far.
        layer: those that the scale and its effects would add.
        known: of the posterior; effects are looked at at its draws.
        allowed: by how much scores may differ from that, squared, at each draw.
    """
    draws, centre, *_ = known
    pulled, effects = _pulled(at, layer, centre), layer.power != 0
    i, power = layer.scale[effects][0], layer.power[effects][0]
    signs = np.where(np.arange(effects.sum()) % 2, -1.0, 1.0)
    small = []
    for place in draws:
        for depth in CHECKED_AT:
            for u in (0.7 * signs, -0.7 * signs):
                x = place.copy()
                x[i] = centre[i] - depth / power
                x[effects] = u
                small.append(x)
    _, score, ok = at.score_with(pulled, np.array(small))
    if not ok.all():
        return None
    beside = (score + small)[:, effects].reshape(len(draws), len(CHECKED_AT), 2, -1)
    curved = np.mean((beside[:, :, 0] - beside[:, :, 1]) ** 2, axis=2)
    shifted = np.sqrt(np.mean(((beside[:, :, 0] + beside[:, :, 1]) / 2) ** 2, axis=2))
    if not (curved[:, -1] < np.array(allowed)).all():
        return None
    if not (shifted[:, -1] < _GROWS * shifted[:, 0] + _MORE).all():
        return None
    return _density(at, pulled, centre)


def _density(at: Coordinates, layer: Layer, centre: np.ndarray) -> Found | None:
    """The density of the scale of a layer in which data pull already."""
    effects = layer.power != 0
    i, power = layer.scale[effects][0], layer.power[effects][0]
    profile = np.where(effects, 0, centre) + np.zeros((len(PROFILE), 1))
    profile[:, i] = centre[i] + PROFILE / abs(power)
    log_p, score, ok = at.score_with(layer, profile)
    return Found(i, layer, *marginal(profile[:, i], log_p, score[:, i], ok)) if ok.any() else None


def _pulled(at: Coordinates, layer: Layer, centre) -> Layer:
    """The layer, with what data pull with that say something, as seen at the centre."""
    effects = layer.power != 0
    x = invert(layer, centre[None])[0]
    _, score, ok = at.score_with(layer, x)
    given = conditional(layer, x)
    # where the score is not that of a standard normal, the mean is off by so many widths
    off = (score + x)[0] * np.exp(given.log_width[0])
    pull = off / np.exp((2 - layer.divided) * given.w[0]) / given.rho[0]
    informed = effects & (layer.log_omega > NO_DATA)
    return layer._replace(pull=np.where(informed & ok[0], pull, 0))


def endless(at: Coordinates, x: np.ndarray, single: bool) -> list[int]:
    """Scales along which the density does not fall: the posterior is improper.

    With the prior 1 / tau on the scale of effects the likelihood of tau is a constant towards zero,
    and the neck of the funnel has no end. In plain coordinates no line leads there but along all
    effects at once; in straight ones it is that of the scale.

    Args:
        at: coordinates with their layers, and no tails yet.
        x: (D,) the centre there.
        single: whether the target computes in single precision.
    """
    distances = log_scale_ends(single)
    ways: dict[int, float] = {}
    for layer in at.layers:
        effects = layer.power != 0
        ways |= dict(zip(layer.scale[effects].tolist(), layer.power[effects].tolist(), strict=True))
    if not ways:
        return []
    points = np.tile(x, (len(ways), 2, 2, 1))
    for lines, (i, power) in zip(points, ways.items(), strict=True):
        lines[..., i] += np.array([[1.0], [-1.0]]) * distances / power
    log_p, _, ok = at.score(np.concatenate([points.reshape(-1, len(x)), x[None]]))
    ok = ok[:-1].reshape(points.shape[:-1]).all(axis=-1)
    near, far = np.moveaxis(log_p[:-1].reshape(points.shape[:-1]), -1, 0)
    level = ok & is_level(near, far, log_p[-1], LEAST_FALL)
    return [i for i, ends in zip(ways, level, strict=True) if ends.any()]


def marginal(
    s: np.ndarray, log_p: np.ndarray, score: np.ndarray, ok: np.ndarray
) -> tuple[float, float, Tails]:
    """Mean, sd and tail of a scale, from log densities and scores at values s where they are ok."""
    weights = softmax(np.where(ok, log_p, -np.inf))
    loc = float(weights @ s)
    sd = float(np.sqrt(weights @ (s - loc) ** 2))
    if not is_resolved(s, sd):
        return loc, sd, Tails(loc, sd, 0.0)
    # how fast it falls at either end, where it is known
    first, last = np.flatnonzero(ok)[[0, -1]]
    falls = score[first], -score[last]
    # half by the tempered one, so that tails count
    weights = (weights + softmax(np.where(ok, log_p / 2, -np.inf))) / 2
    return loc, sd, _tail_of(s, weights, loc, sd, falls)


def is_resolved(s: np.ndarray, sd: float) -> bool:
    """Whether a density at even values s is no narrower than half a step.

    Of one that is, nothing is seen but where it is: a tail made of one or two points ends so
    steeply that a family sees nothing beyond.
    """
    return sd >= abs(s[1] - s[0]) / 2


def _tail_of(s: np.ndarray, weights: np.ndarray, loc: float, sd: float, falls) -> Tails:
    """The tail with which a standard normal is most like a density with weights at s.

    An exponential tail is one to the left or to the right, as long as the density falls there, or
    as much shorter as fits better where there is hardly any mass so far out.
    """
    candidates = []
    shifts, stretches = _SHIFTS * np.ones((len(_STRETCHES), 1)), _STRETCHES[:, None] + 0 * _SHIFTS
    for turn, fall in zip((1.0, -1.0), falls, strict=True):
        for share in _SHARES if fall > 0 else (0.0,):
            unit = sd * stretches.ravel()
            bend = share * 0.5 / max(fall, _SLOWEST) / unit
            candidates.append((loc + turn * sd * shifts.ravel(), turn * unit, bend))
    tails = Tails(*(np.concatenate(parts) for parts in zip(*candidates, strict=True)))
    y = untail(tails, s[:, None])
    log_q = -0.5 * y**2 - tail(tails, y)[1]
    best = int(np.argmax(weights @ log_q))
    return Tails(*(float(part[best]) for part in tails))
