"""Many dimensions: series whose neighbours are nearly the same."""

import jax.numpy as jnp
import numpy as np

from bbvi import real
from benchmarks.posteriordb.model import Model


def _series(size, correlation):
    """A stationary autoregression of unit innovations."""

    def log_joint(params, data):
        x = params["x"]
        steps = x[1:] - correlation * x[:-1]
        return -0.5 * (1 - correlation**2) * x[0] ** 2 - 0.5 * jnp.sum(steps**2)

    def draw(rng, number):
        x = rng.normal(size=(number, size))
        x[:, 0] /= np.sqrt(1 - correlation**2)
        for i in range(1, size):
            x[:, i] += correlation * x[:, i - 1]
        return {"x": x}

    return Model(log_joint, lambda data: {"x": (real, (size,))}), draw


MODELS = {"series_of_500": _series(500, 0.95), "series_of_1000": _series(1000, 0.99)}
