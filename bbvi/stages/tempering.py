"""Draws by their weights, tempered until enough of them count."""

from typing import NamedTuple

import numpy as np

from bbvi._arrays import at_levels, softmax
from bbvi._types import AnyArray
from bbvi.diagnostics.figures import Diagnostics

# So many draws count, and so many for each dimension.
_LEAST, _LEAST_PER_DIMENSION = 400, 20
_HALVINGS = 30  # of the interval of powers


class Resampled(NamedTuple):
    """Points by the weights of draws.

    Attributes:
        points: (N, D).
        worth: how many independent ones they are worth.
    """

    points: AnyArray
    worth: float


def resampled(d: Diagnostics, number: int, random: np.random.Generator) -> Resampled:
    """Points by the weights of a judgement's draws, to the largest power that leaves enough.

    The power beta makes them draws of p^beta q^(1 - beta).

    Args:
        d: diagnostics with draws and weights.
        number: N.
        random: of the host.

    Raises:
        numpy.linalg.LinAlgError: where there are too few draws.
    """
    z, log_weights = (np.asarray(x, float) for x in (d.draws, d.log_weights))
    kept = np.isfinite(log_weights) & np.isfinite(z).all(axis=1)
    z, log_weights = z[kept], log_weights[kept]
    least = _LEAST + _LEAST_PER_DIMENSION * z.shape[1]
    if len(z) < least:
        raise np.linalg.LinAlgError("too few draws")

    weights, _ = tempered(log_weights, least)
    worth = 1 / float(np.sum(weights**2))
    return Resampled(z[at_levels(weights, number, random.random())], worth)


def tempered(log_weights: AnyArray, least: float) -> tuple[AnyArray, float]:
    """Weights (S,) to the largest power with which they are worth so many, and that power."""

    def to(power):
        weights = softmax(power * log_weights)
        return weights, 1 / float(np.sum(weights**2))

    low, high = 0.0, 1.0
    weights, worth = to(high)
    if worth >= least:
        return weights, high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if to(middle)[1] >= least else (low, middle)
    return to(low)[0], low
