"""The shapes: their densities are those of their draws."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import bbvi
from benchmarks.accuracy import describe, measure
from benchmarks.shapes import SHAPES

NUM_DRAWS = 2_000


def stein_scores(shape):
    """z-scores of what Stein's identity says is zero: E[grad log p], E[z grad log p] + 1."""
    model, draws = shape.model, shape.draws(NUM_DRAWS)
    target, _, data = bbvi.make_target(model.log_joint, model.init({}), {}, model.support({}))
    zs = jax.jit(jax.vmap(lambda p: target.unconstrain(p, data)))(draws)
    if model.support({}) == {"x": bbvi.unit_vector}:  # a length that the direction leaves open
        lengths = np.sqrt(np.random.default_rng(1).chisquare(3, (NUM_DRAWS, 1)))
        zs = zs / np.linalg.norm(zs, axis=1, keepdims=True) * lengths
    _, score, ok = jax.device_get(jax.jit(target.score)(zs, data))
    assert ok.all()
    zero = np.concatenate([score, (zs - zs.mean(0)) * score + 1], axis=1)
    return zero.mean(0) / (zero.std(0, ddof=1) / np.sqrt(NUM_DRAWS))


@pytest.mark.parametrize("name", SHAPES)
def test_draws_are_of_the_density(name, x64):
    # up to 2,000 scores a shape: the normal tail beyond 5 is 6e-7
    assert np.abs(stein_scores(SHAPES[name])).max() < 5


def test_a_wrong_density_is_noticed(x64):
    shape = SHAPES["gumbel"]
    wrong = replace(shape, draw=lambda rng, number: {"x": 1.1 * rng.gumbel(size=(number, 20))})
    assert np.abs(stein_scores(wrong)).max() > 5


# the flow of a ring has a seam: its means were trusted 0.16 sd off
@pytest.mark.parametrize("name, key", [("order_statistics", 0), ("three_apart", 0), ("ring", 3)])
def test_default_is_right(name, key, x64):
    row = measure(SHAPES[name], key)
    assert row["right"], describe({"posterior": name, "key": key, "cold": True} | row)
    assert row["verdict"] == "trusted"
