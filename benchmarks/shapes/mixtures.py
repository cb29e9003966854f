"""Mixtures of normals: near one another, apart, and one within another."""

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from bbvi import real
from benchmarks.posteriordb.model import Model


def _mixture(weights, locs, sds):
    weights, locs, sds = (np.asarray(x, float) for x in (weights, locs, sds))
    size = locs.shape[1]

    def log_joint(params, data):
        squares = jnp.sum((params["x"] - locs) ** 2, axis=1) / sds**2
        return logsumexp(np.log(weights) - size * np.log(sds) - 0.5 * squares)

    def draw(rng, number):
        which = rng.choice(len(weights), number, p=weights)
        return {"x": locs[which] + sds[which, None] * rng.normal(size=(number, size))}

    return Model(log_joint, lambda data: {"x": (real, (size,))}), draw


MODELS = {
    "two_that_overlap": _mixture([0.5, 0.5], [[-1.5, 0], [1.5, 0]], [1, 1]),
    "two_near": _mixture([0.3, 0.7], [[-2] * 5, [1] * 5], [1, 1]),
    "two_far": _mixture([0.4, 0.6], [[-3] * 20, [3] * 20], [1, 1]),
    "three_apart": _mixture([0.2, 0.3, 0.5], [[-6, 0], [0, 6], [6, 0]], [1, 1, 1]),
    "with_a_halo": _mixture([0.9, 0.1], [[0] * 3, [0] * 3], [1, 4]),
    "spike_and_slab": _mixture([0.5, 0.5], [[0, 0], [0, 0]], [0.1, 2]),
}
