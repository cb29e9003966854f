"""Effects whose prior is a location and scale family of any shape: Student-t, Laplace, logistic."""

from collections.abc import Callable

import numpy as np

from bbvi.families.noncentred import Layer, log_scale
from bbvi.stages.coordinates import Coordinates
from bbvi.stages.hierarchy.scales import CHECKED_AT, SHAPED, Found, Known, density_where, layer_of

# By how much a scale is moved either way, to where its effects' prior is a point, or flat.
_FAR = 8.0
# Fewer make no neck that is out of reach.
FEWEST = 3
# Places that are tried at once, on how wide a range about the centre, in sds, and how often.
_PLACES, _RANGE, _ROUNDS = 9, 8.0, 12
# Between which shares of an sd a half width is looked for, and how often.
_WIDTHS, _WIDTH_ROUNDS = (1e-6, 1e2), 6
# Pulls of less than this share of a score are rounding.
_ROUNDING, _ROUNDING_FLOAT32 = 1e-9, 1e-5
# Shapes at two depths are compared at these places, in half widths; they and powers are to agree.
_SHAPE, _ALIKE = np.array([-2.0, -0.7, 0.7, 2.0]), 0.05
_POWERS = (0.5, 1.0)


def location_scale_effects(at: Coordinates, i: int, known: Known) -> Found | None:
    r"""A scale whose effects have independent priors of one shape, given it and hubs.

    The prior of effects theta, given a scale s and hubs u, is for some density f

        prod_j f((theta_j - m_j) / w) / w,    w = exp(p s),    m = A u + a.

    How the prior pulls at effects is their score where s is small less that where it is large: data
    say the same in both. An effect's m is where that changes its sign, and one half width from it
    the pull is one over the half width, which is in proportion to w. Beyond it the pull need not
    grow as s gets smaller, as that of a normal prior does: that of a Student-t does not.

    Args:
        at: the coordinates so far.
        i: of the scale.
        known: of the posterior.

    Returns:
        None if there are no such effects.
    """
    layer = _layer(at, i, known)
    found = None if layer is None else density_where(at, layer, known, SHAPED)
    return found and found._replace(normal=False)


def most_gradients(dim: int) -> int:
    """What it spends at most, roughly."""
    searches = 2 * _PLACES * (_ROUNDS + len(CHECKED_AT) * _WIDTH_ROUNDS)
    return searches + 12 * dim


class _Prior:
    """How the prior pulls at what may be effects of a scale, with all else as in a draw."""

    def __init__(self, at: Coordinates, i: int, known: Known) -> None:
        self._at, self._i = at, i
        (self._draw, _), self._centre, self._unit, *_ = known
        self._rounding = _ROUNDING_FLOAT32 if known.single else _ROUNDING
        # where it is a point and where it is flat; or the other way round
        self.ends = self._centre[i] - _FAR, self._centre[i] + _FAR

    def pulls(self, points: np.ndarray, s: float) -> tuple[np.ndarray, np.ndarray]:
        """Of the prior where the scale is s, and of the data (S, D), at points (S, D)."""
        points = np.concatenate([points, points])
        points[:, self._i] = np.repeat([s, self.ends[1]], len(points) // 2)
        _, score, ok = self._at.score(points)
        deep, data = np.split(np.where(ok[:, None], score, np.nan), 2)
        rounding = self._rounding * (np.abs(deep) + np.abs(data))
        return np.where(np.abs(deep - data) < rounding, 0.0, deep - data), data

    def at_places(self, own: np.ndarray, places: np.ndarray, s: float) -> np.ndarray:
        """Of the prior (S, D), where effects are at places (S, E)."""
        points = np.tile(self._draw, (len(places), 1))
        points[:, own] = places
        return self.pulls(points, s)[0]

    def independent(self) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates at which others do not pull with it, and what is linked with them."""
        others = np.delete(np.arange(len(self._draw)), self._i)
        steps = _RANGE * np.diag(self._unit)[others]
        points = np.concatenate([self._draw - steps, self._draw + steps])
        low, high = np.split(self.pulls(points, self.ends[0])[0][:, others], 2)
        linked = (low != high) & ~np.isnan(low + high)
        linked |= linked.T
        chosen: list[int] = []
        for k in np.argsort(linked.sum(axis=1), kind="stable"):
            if linked[k, k] and not linked[k, chosen].any():
                chosen.append(int(k))
        hubs = linked[chosen].any(axis=0)
        hubs[chosen] = False
        return others[np.sort(np.array(chosen, int))], others[hubs]

    def means(self, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Those which it pulls up from below and down from above, and where that changes (E,)."""
        reach = _RANGE * self._unit[own]
        low, high = self._centre[own] - reach, self._centre[own] + reach
        pull = self.at_places(own, np.stack([low, high]), self.ends[0])[:, own]
        if pull[0].sum() < 0:  # it is a point at the other end
            self.ends, pull = self.ends[::-1], -pull
        kept = (pull[0] > 0) & (pull[1] < 0)
        own = own[kept]

        def is_past(places):
            return self.at_places(own, places, self.ends[0])[:, own] < 0

        bounds = _narrowed(is_past, low[kept], high[kept], _ROUNDS)
        return own, np.mean(bounds, axis=0)

    def widths(self, own: np.ndarray, mean: np.ndarray, s: float) -> tuple[np.ndarray, np.ndarray]:
        """Half widths (E,) where the scale is s, and its pull at some places in these units."""

        def pull(off):
            return self.at_places(own, mean + off, s)[:, own]

        def is_past(log_off):
            return -np.exp(log_off) * pull(np.exp(log_off)) > 1

        low, high = (np.log(share * self._unit[own]) for share in _WIDTHS)
        widths = np.exp(np.mean(_narrowed(is_past, low, high, _WIDTH_ROUNDS), axis=0))
        return widths, widths * pull(_SHAPE[:, None] * widths)


def _layer(at: Coordinates, i: int, known: Known) -> Layer | None:
    """What the scale and its effects add to the coordinates."""
    (draw, _), centre, unit, saturates, _ = known
    prior = _Prior(at, i, known)
    own, hubs = prior.independent()
    if len(own) < FEWEST:
        return None
    own, mean = prior.means(own)
    if len(own) < FEWEST:
        return None
    to = np.sign(prior.ends[0] - centre[i])
    near, far = centre[i] + to * np.array(CHECKED_AT)
    width, shape = prior.widths(own, mean, near)
    narrower, again = prior.widths(own, mean, far)
    rates = np.log(width / narrower) / abs(far - near)
    power = min(_POWERS, key=lambda p: abs(p - np.median(rates)))
    alike = np.abs(shape - again) < _ALIKE * (1 + np.abs(shape))
    if not (np.abs(rates - power) < _ALIKE).all() or not alike.all():
        return None
    power *= -to

    # what means lean on is pulled the other way
    each = np.diag(width)
    up, down = np.split(prior.at_places(own, mean + np.concatenate([each, -each]), near), 2)
    lead = -(up - down)[:, hubs] / np.diagonal((up - down)[:, own])[:, None]
    # what data say, at the centre
    steps = 0.5 * np.diag(unit)[own]
    _, data = prior.pulls(np.concatenate([centre + steps, centre - steps]), near)
    up, down = np.split(data[:, own], 2)
    basis = width / np.exp(log_scale(near, power, saturates[i]))
    omega = np.diagonal(down - up) / unit[own] * basis**2
    if not (np.isfinite(lead).all() and np.isfinite(omega).all()):
        return None
    lead, rest = lead / basis[:, None], (mean - lead @ draw[hubs]) / basis
    layer = layer_of(known, i, power, own, hubs, lead, rest, omega)
    layer.basis[own], layer.inverse[own] = basis, 1 / basis
    log_det = np.asarray(np.sum(np.log(basis)))
    return layer._replace(log_det=log_det)


def _narrowed(
    is_past: Callable[[np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray, rounds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (E,) on where each begins to be past, from wider ones, by even places between them."""
    columns, last = np.arange(len(low)), (np.arange(_PLACES) == _PLACES - 1)[:, None]
    for _ in range(rounds):
        places = np.linspace(low, high, _PLACES)
        first = np.maximum(np.argmax(is_past(places) | last, axis=0), 1)
        low, high = places[first - 1, columns], places[first, columns]
    return low, high
