"""Draws by their weights, tempered until enough of them count."""

import numpy as np

from bbvi._arrays import at_levels, softmax
from bbvi.diagnostics import Diagnostics

# So many draws count, and so many for each dimension.
_LEAST, _LEAST_PER_DIMENSION = 400, 20
_HALVINGS = 30  # of the interval of powers


def resampled(d: Diagnostics, number: int, random: np.random.Generator) -> np.ndarray:
    """Points (N, D) by the weights of a judgement's draws, to the largest power that leaves enough.

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

    def enough(power):
        return 1 / np.sum(softmax(power * log_weights) ** 2) >= least

    power, low, high = 1.0, 0.0, 1.0
    if not enough(power):
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if enough(middle) else (low, middle)
        power = low
    return z[at_levels(softmax(power * log_weights), number, random.random())]
