"""Scales and their effects, found from gradients far out, where a scale is all that counts."""

from functools import reduce

import numpy as np

from bbvi._types import Array, PyTree
from bbvi.bijectors import Interval
from bbvi.evaluate import generator
from bbvi.families.noncentred import Layer, Tails, invert, joined, untail
from bbvi.stages.coordinates import Coordinates
from bbvi.stages.hierarchy.location_scale import FEWEST, location_scale_effects
from bbvi.stages.hierarchy.location_scale import most_gradients as most_gradients_of_a_shape
from bbvi.stages.hierarchy.normal_effects import normal_effects
from bbvi.stages.hierarchy.orbits import Orbit, find_orbits, orbit_effects
from bbvi.stages.hierarchy.scales import Found, Known, Scale, endless
from bbvi.target import Target

# By how much a coordinate is moved either way, to see whose gradients grow exponentially.
_PUSHES = (6.0, 8.0)
# Twice the power is a whole number: log sds, log variances and log precisions have 2, 1 and -1.
_RATE_OFF, _MOST_RATE = 0.4, 4
# Effects of a scale that varies less, in nats, have nearly the same width everywhere. A Gaussian
# in plain coordinates has seen as little as an eighth of it.
_VARIES, _SEEN = 0.05, 0.01
_MOST_LAYERS = 4
# Coordinates that are looked at, those that most others' gradients grow with: of hierarchies up to
# 37 were asked for, of choices among many options 190, which took minutes and came to nothing.
_MOST_SCALES = 32
# ... of which so many are asked whether the prior of their effects has a shape that is not normal,
# if gradients grow with them no faster than those of a Laplace distribution do.
_MOST_SHAPES, _MOST_SHAPED = 4, 0.5
# Gradients have saturated that still change by this share of what they change by on the way.
_STILL = 1e-2


def most_gradients(dim: int) -> int:
    """What `find_layers` spends at most, roughly."""
    return _MOST_LAYERS * 10 * dim + _MOST_SHAPES * most_gradients_of_a_shape(dim)


def find_layers(
    target: Target, centre: np.ndarray, unit: np.ndarray, key: Array, data: PyTree, rows: int
) -> Coordinates:
    r"""Coordinates in which the effects of scales do not depend on these.

    Moved far enough along a coordinate that scales the prior of others that prior is all that
    counts, or counts for nothing, and gradients there tell what it is, whatever the data are: see
    `normal_effects`, which is exact and cheap, and `location_scale_effects`. What does not hold at
    other draws is left as it is; so are scales that vary little. Effects that were written
    non-centred are found by what the likelihood cannot tell, and come first: see `find_orbits`.

    Of several scales those come first whose effects no others lean on; then the rest, in the new
    coordinates. Three hundred to 1,500 gradients find all there is in 10 to 100 dimensions.

    Args:
        target: the target.
        centre: (D,) of what is known of the posterior.
        unit: (D,) sds of that.
        key: a typed random key.
        data: the user's data.
        rows: how many points are evaluated at once.
    """
    coordinates = Coordinates(target, data, rows)
    random = generator(key)
    single = target.dtype == np.float32
    saturates = saturating(target)
    x, unit = np.array(centre, float), np.array(unit, float)
    tails = Tails(*(np.array(part) for part in coordinates.tails))
    asked: set[int] = set()  # whether their effects' prior has another shape
    with np.errstate(all="ignore"):
        orbits = find_orbits(coordinates, x, unit, saturates, single)
    for _ in range(_MOST_LAYERS):
        with np.errstate(all="ignore"):
            draws = x + unit * random.standard_normal((2, target.dim))
            known = Known(draws, x, unit, saturates, single)
            layer, scales = _next_layer(coordinates, known, asked, orbits)
        if layer is None:
            break
        effects = layer.power != 0
        for part, plain in zip(tails, (0.0, 1.0, 0.0), strict=True):
            part[effects] = plain  # scales of earlier layers that have a scale themselves
        for scale in scales:
            x[scale.at], unit[scale.at] = scale.loc, scale.sd
            for part, value in zip(tails, scale.tail, strict=True):
                part[scale.at] = value
            coordinates.normal &= scale.normal
        x = invert(layer, x[None])[0][0]
        x = np.where(effects, np.clip(x, -3, 3), x)
        unit = np.where(effects, 1.0, unit)
        coordinates.layers.append(layer)
        orbits = []
    names = [target.leaves[target.owners[i]].name for i in endless(coordinates, x, single)]
    coordinates.endless = tuple(dict.fromkeys(names))
    coordinates.tails = tails
    with np.errstate(all="ignore"):
        coordinates.centre = untail(tails, x[None])[0]
    coordinates.unit = unit / np.abs(tails.unit)
    return coordinates


def saturating(target: Target) -> np.ndarray:
    """(D,) one for coordinates that are a fraction of an interval, else zero."""
    found = np.zeros(target.dim)
    for leaf in target.leaves:
        if isinstance(leaf.bijector, Interval):
            found[leaf.start : leaf.start + leaf.size] = 1
    return found


def _next_layer(
    at: Coordinates, known: Known, asked: set[int], orbits: list[Orbit]
) -> tuple[Layer | None, list[Found]]:
    """Effects of as many scales as do not depend on one another, and these."""
    draws, centre, unit, *_ = known
    written = [orbit_effects(at, orbit, known) for orbit in orbits]
    found = [one for one in written if one is not None and one.spread >= _VARIES]
    for scale in () if found else _scales(at, draws[0], unit):
        if at.num_gradients > most_gradients(len(centre)):
            break
        seen = normal_effects(at, scale, known) if scale.power else None
        new = scale.at not in asked and abs(scale.power) <= _MOST_SHAPED
        if seen is None and new and len(asked) < _MOST_SHAPES:
            asked.add(scale.at)
            seen = location_scale_effects(at, scale.at, known)
        if seen is not None and seen.spread >= _VARIES:
            found.append(seen)
    # of two scales of the same effects, such as that of their prior and that of the data, the one
    # that varies less is none: it would keep the other from coming first
    found = [
        one
        for one in found
        if not any(
            (one.effects & other.effects).any() and other.spread > one.spread for other in found
        )
    ]
    taken = np.zeros(len(centre), bool)  # effects
    used = np.zeros(len(centre), bool)  # hubs, and scales

    def is_free(one):
        """Nobody else's effects lean on its effects, nor are scales among them."""
        others = [other for other in found if other is not one]
        needed = [other.hubs for other in others]
        return not (
            any((one.effects & hubs).any() for hubs in needed)
            or any(one.effects[other.at] for other in others)
        )

    chosen: list[Found] = []
    free = {id(one): is_free(one) for one in found}
    for one in sorted(found, key=lambda one: (not free[id(one)], -one.spread)):
        if chosen and not free[id(one)]:
            break
        needs = one.hubs
        needs[one.at] = True
        if (one.effects & (taken | used)).any() or (needs & taken).any():
            continue
        chosen.append(one)
        taken |= one.effects
        used |= needs
    return (reduce(joined, [one.layer for one in chosen]) if chosen else None), chosen


def _scales(at: Coordinates, draw, unit) -> list[Scale]:
    """Coordinates with which gradients of others grow far out; then those they saturate with."""
    dim = len(draw)
    points = np.concatenate(
        [draw + side * push * np.eye(dim) for side in (-1, 1) for push in _PUSHES]
    )
    _, score, ok = at.score(np.concatenate([draw[None], points]))
    usable = ok[1:].reshape(2, 2, dim).all(axis=1)
    near, far = np.moveaxis(score[1:].reshape(2, 2, dim, dim), 1, 0)
    found = _growing(score[0], near, far, usable, unit)
    return found[:_MOST_SCALES] + _saturating(near, far, usable)


def _growing(here, near, far, usable, unit) -> list[Scale]:
    """... as exp(2 |p| s)."""
    found = []
    here, near, far = (np.log(np.abs(score) + 1e-300) for score in (here, near, far))
    rates = (far - near) / (_PUSHES[1] - _PUSHES[0])
    for i in range(len(here)):
        others = np.arange(len(here)) != i
        for side in (0, 1):
            grown = others & (rates[side, i] > 0.5) & (far[side, i] > here + 1)
            if not (usable[side, i] and grown.any()):
                continue
            rate = round(float(np.median(rates[side, i][grown])))
            off = np.abs(rates[side, i] - rate)
            moved = grown & (off < _RATE_OFF)
            if not 1 <= rate <= _MOST_RATE or 2 * moved.sum() < grown.sum():
                continue
            power = 0.5 * rate * (1 - 2 * side)
            if abs(power) * unit[i] >= _SEEN:
                found.append(Scale(i, power, np.flatnonzero(moved)))
    return sorted(found, key=lambda scale: -len(scale.moved))


def _saturating(near, far, usable) -> list[Scale]:
    """... on either side, to other values, as those of effects do whose prior has heavy tails."""
    gap = np.abs(far[1] - far[0])
    still = np.abs(far - near).max(axis=0) < _STILL * gap
    moved = still & (gap > _STILL * np.abs(far).max(axis=0))
    np.fill_diagonal(moved, False)
    enough = usable.all(axis=0) & (moved.sum(axis=1) >= FEWEST)
    found = [Scale(int(i), 0.0, np.flatnonzero(moved[i])) for i in np.flatnonzero(enough)]
    return sorted(found, key=lambda scale: -len(scale.moved))
