"""Effects whose prior is normal, given a scale: read off where it is small."""

import numpy as np

from bbvi.coordinates import Coordinates
from bbvi.families.noncentred import Layer, log_scale
from bbvi.scales import CHECKED_AT, SHIFTED, STAYS, Found, Known, Scale, density_of, layer_of

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


def normal_effects(at: Coordinates, scale: Scale, known: Known) -> Found | None:
    r"""A scale whose effects have a normal prior, given it and hubs.

    The part of a scale s in the log density is, in all its effects theta and hubs u,

        -0.5 exp(-2 p s) (theta - A u - a)'Q(theta - A u - a).

    Where s is small gradients at points that differ in one coordinate each give p, Q, A and a:
    exactly, whatever the data are. Coordinates that Q leaves free given the others are no effects
    but the hubs that the means lean on. At the centre a difference of gradients is Q and what the
    data say, together.

    Args:
        at: the coordinates so far.
        scale: which one, p, and what may be its effects.
        known: of the posterior.

    Returns:
        None if there are no such effects.
    """
    layer = _effects(at, scale, known)
    if layer is None:
        return None
    ridden = _ridden(at, layer, scale, known)
    seen = None
    if ridden is not None:
        seen = density_of(at, ridden, known, STAYS)
    if seen is None:
        seen = density_of(at, layer, known, SHIFTED)
    return seen


def _effects(at: Coordinates, scale: Scale, known: Known) -> Layer | None:
    """The layer of one scale, where its effects have a Gaussian prior."""
    (draw, _), centre, unit, saturates, single = known
    i, power = scale.at, scale.power
    depth, deeper = (_DEPTH_FLOAT32, _DEEPER_FLOAT32) if single else (_DEPTH, _DEEPER)

    def width(x):
        return np.exp(log_scale(x[i], power, saturates[i]))

    prior = _prior(at, scale, known, depth, width)
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
    off = np.linalg.solve(precision, score[:, own].T).T * width(deep) ** 2
    more = ((off[1:] - off[0]) / unit[hubs][:, None]).T
    lead, rest = lead + more, rest + off[0] - more @ deep[hubs]

    # what the data say, at the centre
    steps = 0.5 * np.diag(unit)[own]
    _, score, ok = at.score(np.concatenate([centre[None], centre + steps, centre - steps]))
    if not ok.all():
        return None
    up, down = score[1 : 1 + len(own)], score[1 + len(own) :]
    total = -(up - down)[:, own] / unit[own][:, None]
    data = (total + total.T) / 2 - precision / width(centre) ** 2
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
    layer = layer_of(known, i, power, own, hubs, inverse @ lead, inverse @ rest, omega)
    log_det = np.asarray(-np.sum(np.log(np.diagonal(lower))))
    layer = layer._replace(log_det=log_det)
    if turn is None and np.abs(lower - np.diag(np.diagonal(lower))).max() < _BESIDE * lower.max():
        layer.basis[own], layer.inverse[own] = np.diagonal(half), np.diagonal(lower)
        return layer
    whole = np.eye(len(draw)), np.eye(len(draw))
    for to, part in zip(whole, (basis, inverse), strict=True):
        to[np.ix_(own, own)] = part
    return layer._replace(basis=whole[0], inverse=whole[1])


def _prior(at: Coordinates, scale: Scale, known: Known, depth, width):
    """Effects (E,), hubs (H,), precision (E, E) for a scale of one, and means' (E, H) and (E,)."""
    (draw, _), _, unit, _, single = known
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
    return own, hubs, of_own * width(deep) ** 2, lead, rest


def _ridden(at: Coordinates, layer: Layer, scale: Scale, known: Known) -> Layer | None:
    """The layer, where means are so many widths off, the same as the scale gets smaller."""
    (draw, _), centre, unit, *_ = known
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
