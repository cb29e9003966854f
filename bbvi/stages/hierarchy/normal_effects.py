"""Effects whose prior is normal, given a scale: read off where it is small."""

import numpy as np

from bbvi.families.noncentred import Layer, log_scale
from bbvi.stages.coordinates import Coordinates
from bbvi.stages.hierarchy.scales import NORMAL, Found, Known, Scale, density_where, layer_in_basis

# Widths of effects are so much smaller where their prior is read off: what the data say is then
# a share of its square. More would be lost to rounding.
_DEPTH, _DEPTH_FLOAT32 = 10.0, 5.5
_DEEPER, _DEEPER_FLOAT32 = 16.0, 8.0  # where means are, of which less is lost
_INDEPENDENT, _INDEPENDENT_FLOAT32 = 1e-6, 1e-3  # what is left of the precision of one of them
_ASYMMETRY, _BENT = 1e-2, 1e-2


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
    return layer and density_where(at, layer, known, NORMAL)


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
    return layer_in_basis(known, i, power, own, hubs, lead, rest, lower, data)


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
