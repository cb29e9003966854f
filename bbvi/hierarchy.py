"""Scales and their effects, found from gradients far out, where a scale is all that counts."""

from functools import reduce

import numpy as np

from bbvi._types import Array, PyTree
from bbvi.bijectors import Interval
from bbvi.coordinates import Coordinates
from bbvi.evaluate import generator
from bbvi.families.noncentred import (
    NO_DATA,
    Layer,
    Tails,
    conditional,
    invert,
    joined,
    plain_layer,
    untail,
)
from bbvi.scales import CHECKED_AT, SHIFTED, STAYS, Found, Scale, density_of, endless
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
# Widths of effects are so much smaller where their prior is read off: what the data say is then
# a share of its square. More would be lost to rounding.
_DEPTH, _DEPTH_FLOAT32 = 10.0, 5.5
_DEEPER, _DEEPER_FLOAT32 = 16.0, 8.0  # where means are, of which less is lost
_INDEPENDENT, _INDEPENDENT_FLOAT32 = 1e-6, 1e-3  # what is left of the precision of one of them
_ASYMMETRY, _BENT = 1e-2, 1e-2
# What is so little beside a diagonal is left out.
_BESIDE = 1e-3
# Of effects that were written non-centred: a shift that is less is none, and one that grows by
# less, as a share of its square, stays.
_RIDES = 0.05


def most_gradients(dim: int) -> int:
    """What `find_layers` spends at most, roughly."""
    return _MOST_LAYERS * 10 * dim


def find_layers(
    target: Target, centre: np.ndarray, unit: np.ndarray, key: Array, data: PyTree, rows: int
) -> Coordinates:
    r"""Coordinates in which the effects of scales do not depend on these.

    Where a coordinate s scales the prior of others, its part in the log density is, in all these,

        -0.5 exp(-2 p s) (theta - A u - a)'Q(theta - A u - a).

    Moved far enough along s it is all that counts, and gradients there, at points that differ in
    one coordinate each, give p, Q, A and a: exactly for a normal prior, whatever the data are.
    Coordinates that Q leaves free given the others are no effects but the hubs u that the means
    lean on. At the centre a difference of gradients is Q and what the data say, together. What does
    not hold at other draws, or is not normal where it should be, is left as it is; so are scales
    that vary little. Effects that were written non-centred are found in the same way, on the other
    side, where the data count and the prior does not.

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
    saturates = np.zeros(target.dim)
    for leaf in target.leaves:
        if isinstance(leaf.bijector, Interval):
            saturates[leaf.start : leaf.start + leaf.size] = 1
    x, unit = np.array(centre, float), np.array(unit, float)
    tails = Tails(*(np.array(part) for part in coordinates.tails))
    for _ in range(_MOST_LAYERS):
        with np.errstate(all="ignore"):
            layer, scales = _next_layer(coordinates, x, unit, saturates, random, single)
        if layer is None:
            break
        effects = layer.power != 0
        for part, plain in zip(tails, (0.0, 1.0, 0.0), strict=True):
            part[effects] = plain  # scales of earlier layers that have a scale themselves
        for i, _, loc, sd, shape in scales:
            x[i], unit[i] = loc, sd
            for part, value in zip(tails, shape, strict=True):
                part[i] = value
        x = invert(layer, x[None])[0][0]
        x = np.where(effects, np.clip(x, -3, 3), x)
        unit = np.where(effects, 1.0, unit)
        coordinates.layers.append(layer)
    names = [target.leaves[target.owners[i]].name for i in endless(coordinates, x, single)]
    coordinates.endless = tuple(dict.fromkeys(names))
    coordinates.tails = tails
    with np.errstate(all="ignore"):
        coordinates.centre = untail(tails, x[None])[0]
    coordinates.unit = unit / np.abs(tails.unit)
    return coordinates


def _next_layer(
    at: Coordinates, centre, unit, saturates, random, single
) -> tuple[Layer | None, list[Found]]:
    """Effects of as many scales as do not depend on one another, and these."""
    draws = centre + unit * random.standard_normal((2, len(centre)))
    found: list[Found] = []
    for scale in _scales(at, draws[0], unit):
        if at.num_gradients > most_gradients(len(centre)):
            break
        layer = _effects(at, scale, draws[0], centre, unit, saturates, single)
        if layer is None:
            continue
        ridden = _ridden(at, layer, scale, draws[0], centre, unit)
        seen = None
        if ridden is not None:
            seen = density_of(at, _pulled(at, ridden, centre), scale, draws, centre, STAYS)
        if seen is None:
            seen = density_of(at, _pulled(at, layer, centre), scale, draws, centre, SHIFTED)
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
    """Coordinates with which the gradients of others grow as exp(2 |p| s) far out."""
    dim = len(draw)
    found = []
    points = np.concatenate(
        [draw + side * push * np.eye(dim) for side in (-1, 1) for push in _PUSHES]
    )
    _, score, ok = at.score(np.concatenate([draw[None], points]))
    usable = ok[1:].reshape(2, 2, dim).all(axis=1)
    size = np.log(np.abs(score) + 1e-300)
    near, far = (size[1:].reshape(2, 2, dim, dim)[:, k] for k in (0, 1))
    rates = (far - near) / (_PUSHES[1] - _PUSHES[0])
    for i in range(dim):
        for side in (0, 1):
            others = np.arange(dim) != i
            grown = others & (rates[side, i] > 0.5) & (far[side, i] > size[0] + 1)
            if not (usable[side, i] and grown.any()):
                continue
            rate = round(float(np.median(rates[side, i][grown])))
            off = np.abs(rates[side, i] - rate)
            moved = grown & (off < _RATE_OFF)
            if not 1 <= rate <= _MOST_RATE or 2 * moved.sum() < grown.sum():
                continue
            power = 0.5 * rate * (1 - 2 * side)
            half = others & (np.abs(rates[side, i] / rate - 0.5) < 0.25)
            if abs(power) * unit[i] >= _SEEN:
                found.append(Scale(i, power, *map(np.flatnonzero, (moved, half))))
    found.sort(key=lambda scale: -len(scale.moved))
    return found[:_MOST_SCALES]


def _effects(at: Coordinates, scale: Scale, draw, centre, unit, saturates, single):
    """The layer of one scale, where its effects have a Gaussian prior."""
    i, power = scale.at, scale.power
    depth, deeper = (_DEPTH_FLOAT32, _DEEPER_FLOAT32) if single else (_DEPTH, _DEEPER)

    def log_scale(x):
        s = x[..., i]
        return power * (s - saturates[i] * np.logaddexp(0, s))

    prior = _prior(at, scale, draw, unit, depth, log_scale, single)
    if prior is None:
        return None
    own, hubs, precision, lead, rest = prior
    try:
        lower = np.linalg.cholesky(precision)
    except np.linalg.LinAlgError:
        return None

    # where the scale is smaller still means are read off to so many more digits
    deep = draw.copy()
    deep[i] -= deeper / power
    points = deep + np.concatenate([np.zeros((1, len(deep))), np.diag(unit)[hubs]])
    points[:, own] = points[:, hubs] @ lead.T + rest
    _, score, ok = at.score(points)
    if not ok.all():
        return None
    off = np.linalg.solve(precision, score[:, own].T).T * np.exp(2 * log_scale(deep))
    more = ((off[1:] - off[0]) / unit[hubs][:, None]).T
    lead, rest = lead + more, rest + off[0] - more @ deep[hubs]

    # what the data say, at the centre
    steps = 0.5 * np.diag(unit)[own]
    _, score, ok = at.score(np.concatenate([centre[None], centre + steps, centre - steps]))
    if not ok.all():
        return None
    up, down = score[1 : 1 + len(own)], score[1 + len(own) :]
    total = -(up - down)[:, own] / unit[own][:, None]
    data = (total + total.T) / 2 - precision * np.exp(-2 * log_scale(centre))
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
    layer = plain_layer(len(draw))
    layer.scale[own], layer.power[own], layer.saturates[own] = i, power, saturates[i]
    layer.rest[own] = inverse @ rest
    leading = np.zeros((len(draw), len(hubs)))
    leading[own] = inverse @ lead
    informed = omega > 1e-6 * np.exp(-2 * log_scale(centre))
    log_omega = np.log(np.maximum(omega, 1e-300))
    layer.log_omega[own] = np.where(informed, log_omega, layer.log_omega[own])
    log_det = np.asarray(-np.sum(np.log(np.diagonal(lower))))
    layer = layer._replace(hubs=hubs.astype(np.int32), lead=leading, log_det=log_det)
    if turn is None and np.abs(lower - np.diag(np.diagonal(lower))).max() < _BESIDE * lower.max():
        layer.basis[own], layer.inverse[own] = np.diagonal(half), np.diagonal(lower)
        return layer
    whole = np.eye(len(draw)), np.eye(len(draw))
    for to, part in zip(whole, (basis, inverse), strict=True):
        to[np.ix_(own, own)] = part
    return layer._replace(basis=whole[0], inverse=whole[1])


def _prior(at: Coordinates, scale: Scale, draw, unit, depth, log_scale, single):
    """Effects (E,), hubs (H,), precision (E, E) for a scale of one, and means' (E, H) and (E,)."""
    moved = scale.moved
    deep = draw.copy()
    deep[scale.at] -= depth / scale.power
    steps = np.diag(unit)[moved]
    _, score, ok = at.score(np.concatenate([deep[None], deep + steps, deep - steps]))
    if not ok[0]:
        return None
    # what is not linear in itself is no effect of this scale, but what effects depend on besides
    number = len(moved)
    up, down = score[1 : 1 + number, moved], score[1 + number :, moved]
    bent, across = up + down - 2 * score[0, moved], down - up
    alone = np.abs(np.diagonal(bent)) < _BENT * np.diagonal(across)
    kept = alone & ok[1 : 1 + number] & ok[1 + number :]
    moved = moved[kept]
    within = np.ix_(kept, kept)
    if not kept.any() or np.abs(bent[within]).max() > _BENT * np.abs(across[within]).max():
        return None
    precision = across[within] / (2 * unit[moved][:, None])
    root = np.sqrt(np.diagonal(precision))
    scaled = precision / np.outer(root, root)
    if not np.abs(scaled - scaled.T).max() < _ASYMMETRY:
        return None
    scaled = (scaled + scaled.T) / 2
    chosen = _independent(scaled, np.argsort(root), single)
    others = np.setdiff1d(np.arange(len(moved)), chosen)
    own, hubs = moved[chosen], moved[others]
    precision = scaled * np.outer(root, root)
    of_own = precision[np.ix_(chosen, chosen)]
    try:
        lead = -np.linalg.solve(of_own, precision[np.ix_(chosen, others)])
        rest = deep[own] + np.linalg.solve(of_own, score[0][own]) - lead @ deep[hubs]
    except np.linalg.LinAlgError:
        return None
    return own, hubs, of_own * np.exp(2 * log_scale(deep)), lead, rest


def _ridden(at: Coordinates, layer: Layer, scale: Scale, draw, centre, unit) -> Layer | None:
    """The layer, where means are so many widths off, the same as the scale gets smaller."""
    effects = layer.power != 0
    riders = scale.half[~effects[scale.half]]
    near, far = (np.where(effects, 0, draw) for _ in CHECKED_AT)
    for x, depth in zip((near, far), CHECKED_AT, strict=True):
        x[scale.at] = centre[scale.at] - depth / scale.power
    _, score, ok = at.score_with(layer, np.concatenate([[near, far], far + np.diag(unit)[riders]]))
    shifts = score[:, effects]
    if not ok.all() or np.sqrt(np.mean(shifts[1] ** 2)) < _RIDES:
        return None
    if np.mean((shifts[1] - shifts[0]) ** 2) > _RIDES * np.mean(shifts[1] ** 2):
        return None
    ride = np.zeros((len(draw), len(riders)))
    ride[effects] = ((shifts[2:] - shifts[1]) / unit[riders][:, None]).T
    shift = np.zeros(len(draw))
    shift[effects] = shifts[1] - ride[effects] @ draw[riders]
    return layer._replace(riders=riders.astype(np.int32), ride=ride, shift=shift)


def _pulled(at: Coordinates, layer: Layer, centre) -> Layer:
    """The layer, with what data pull with that say something, as seen at the centre."""
    effects = layer.power != 0
    x = invert(layer, centre[None])[0]
    _, score, ok = at.score_with(layer, x)
    given = conditional(layer, x)
    # where the score is not that of a standard normal, the mean is off by so many widths
    off = (score + x)[0] * np.exp(given.log_width[0])
    pull = off / np.exp(2 * given.w[0]) / given.rho[0]
    informed = effects & (layer.log_omega > NO_DATA)
    return layer._replace(pull=np.where(informed & ok[0], pull, 0))


def _independent(scaled, order, single) -> np.ndarray:
    """Rows of a precision, in an order, that leave something of it given those before."""
    least = _INDEPENDENT_FLOAT32 if single else _INDEPENDENT
    chosen: list[int] = []
    inverse = np.zeros_like(scaled)  # of the lower factor
    for k in order:
        n = len(chosen)
        with_those = scaled[chosen, k]
        row = inverse[:n, :n] @ with_those if with_those.any() else with_those
        left = scaled[k, k] - row @ row
        if left < least:
            continue
        root = np.sqrt(left)
        inverse[n, :n] = -(row @ inverse[:n, :n]) / root if row.any() else 0
        inverse[n, n] = 1 / root
        chosen.append(int(k))
    return np.array(chosen)
