"""What is behind the data: an aptitude, curves of animals, a map, two lines."""

import jax
import jax.numpy as jnp
import numpy as np

from bbvi import ordered, positive, real, unit_interval
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import expit, of

# --- an aptitude behind seven questions that tell it more or less --------------------------------


def aptitude(params, data):
    eta = params["ease"] + params["person"][:, None] * params["loading"]
    prior = d.normal(params["person"], 0.0, 1.0) + d.normal(params["ease"], 0.0, 2.0)
    return prior + d.lognormal(params["loading"], 0.0, 0.5) + d.binomial_logit(data["y"], 1.0, eta)


def _aptitude_data():
    rng = np.random.default_rng(102)
    person = rng.normal(size=60)
    eta = np.linspace(-2, 2, 7) + person[:, None] * np.array([1, 0.5, 2, 1, 1.5, 0.8, 1.2])
    return {"y": (rng.random((60, 7)) < expit(eta)).astype(float)}


# --- weights of ten animals, each with a curve of its own ----------------------------------------


def animals(params, data):
    """The logs of the end and of the width, and the age of fastest growth, vary between them."""
    log_end, age, log_width = (params["mean"] + params["sd"] * params["raw"]).T[:, :, None]
    curve = jnp.exp(log_end) / (1 + jnp.exp(-(data["t"] - age) / jnp.exp(log_width)))
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["sd"], 0.0, 1.0)
    prior += d.normal(params["mean"], jnp.array([5.0, 7.0, 1.0]), 2.0)
    prior += d.lognormal(params["sigma"], 1.0, 1.0)
    return prior + d.normal(data["y"], curve, params["sigma"])


def _animals_data():
    rng = np.random.default_rng(103)
    t = np.arange(1.0, 13.0, 1.5)
    log_end, age, log_width = (
        mean + sd * rng.normal(size=10) for mean, sd in ((5, 0.2), (6, 0.5), (0.5, 0.1))
    )
    curve = np.exp(log_end)[:, None] / (
        1 + np.exp(-(t - age[:, None]) / np.exp(log_width)[:, None])
    )
    return {"t": t, "y": curve + 5 * rng.normal(size=curve.shape)}


# --- cases in thirty parishes, each like its neighbours ------------------------------------------


def parishes(params, data):
    """Where neighbours share all, nothing but the prior tells the level from the mean effect."""
    effect, near = params["effect"], data["near"]
    precision = jnp.diag(near.sum(axis=1)) - params["alike"] * near
    root = jnp.linalg.cholesky(precision)
    prior = -0.5 * (effect @ precision @ effect) / params["tau"] ** 2
    prior += jnp.sum(jnp.log(jnp.diag(root))) - effect.size * jnp.log(params["tau"])
    prior += d.normal(params["tau"], 0.0, 1.0) + d.normal(params["level"], 0.0, 3.0)
    return prior + d.poisson_log(data["cases"], params["level"] + effect + data["exposed"])


def _parishes_data():
    rng = np.random.default_rng(104)
    near = np.zeros((30, 30))
    for i in range(30):
        for j in (i + 1, i + 6):
            if j < 30 and not (j == i + 1 and j % 6 == 0):
                near[i, j] = near[j, i] = 1
    root = np.linalg.cholesky(np.linalg.inv(np.diag(near.sum(1)) - 0.95 * near))
    effect = 0.5 * root @ rng.normal(size=30)
    exposed = rng.uniform(0, 2, 30)
    cases = rng.poisson(np.exp(0.3 + effect + exposed)) * 1.0
    return {"near": near, "exposed": exposed, "cases": cases}


# --- points of two lines, mixed ------------------------------------------------------------------


def two_lines(params, data):
    """The lines are told apart by their slopes."""
    lines = params["level"] + params["slope"] * data["x"][:, None]
    log_share = jnp.stack([jnp.log(params["share"]), jnp.log1p(-params["share"])])
    z = (data["y"][:, None] - lines) / params["sigma"]
    each = log_share - 0.5 * z**2 - jnp.log(params["sigma"])
    prior = d.normal(params["level"], 0.0, 3.0) + d.normal(params["slope"], 0.0, 3.0)
    prior += d.lognormal(params["sigma"], -1.0, 1.0)
    return prior + jnp.sum(jax.nn.logsumexp(each, axis=1))


def _two_lines_data():
    rng = np.random.default_rng(105)
    x = rng.uniform(-2, 2, 60)
    first = rng.random(60) < 0.35
    return {"x": x, "y": np.where(first, 1 - x, 0.5 * x) + 0.4 * rng.normal(size=60)}


MODELS = {
    "aptitude": (
        Model(aptitude, of(ease=(real, (7,)), loading=(positive, (7,)), person=(real, (60,)))),
        _aptitude_data,
    ),
    "animals": (
        Model(
            animals,
            of(mean=(real, (3,)), sd=(positive, (3,)), sigma=(positive, ()), raw=(real, (10, 3))),
        ),
        _animals_data,
    ),
    "parishes": (
        Model(
            parishes,
            of(
                effect=(real, (30,)),
                tau=(positive, ()),
                alike=(unit_interval, ()),
                level=(real, ()),
            ),
        ),
        _parishes_data,
    ),
    "two_lines": (
        Model(
            two_lines,
            of(
                level=(real, (2,)),
                slope=(ordered, (2,)),
                share=(unit_interval, ()),
                sigma=(positive, ()),
            ),
        ),
        _two_lines_data,
    ),
}
