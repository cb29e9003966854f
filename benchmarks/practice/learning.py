"""Learned functions: a network, a smooth surface, coefficients drawn to zero or that walk."""

import jax.numpy as jnp
import numpy as np

from bbvi import positive, positive_ordered, real
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import expit, of

# --- a small network, its hidden units in the order of their weights -----------------------------


def network(params, data):
    hidden = jnp.tanh(data["x"] @ params["inner"] + params["bias"])
    mean = params["ground"] + hidden @ params["outer"]
    prior = d.normal(params["inner"], 0.0, 1.5) + d.normal(params["bias"], 0.0, 1.0)
    prior += d.normal(params["outer"], 0.0, 1.5) + d.normal(params["ground"], 0.0, 1.0)
    return prior + d.normal(params["sigma"], 0.0, 0.5) + d.normal(data["y"], mean, params["sigma"])


def _network_data():
    rng = np.random.default_rng(804)
    x = rng.uniform(-2, 2, (100, 2))
    y = np.tanh(1.5 * x[:, 0] - 0.5) + 0.4 * np.sin(1.5 * x[:, 1])
    return {"x": x, "y": y + 0.2 * rng.normal(size=100)}


# --- two classes in the plane behind a smooth surface --------------------------------------------


def classifier(params, data):
    gaps = jnp.sum((data["x"][:, None] - data["x"][None]) ** 2, -1)
    kernel = jnp.exp(-0.5 * gaps / params["length"] ** 2) + 1e-6 * jnp.eye(len(gaps))
    f = params["height"] * (jnp.linalg.cholesky(kernel) @ params["raw"])
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["height"], 0.0, 3.0)
    prior += -6.0 * jnp.log(params["length"]) - 5.0 / params["length"]
    return prior + d.binomial_logit(data["y"], 1.0, f)


def _classifier_data():
    rng = np.random.default_rng(805)
    x = rng.uniform(-2, 2, (60, 2))
    eta = 3 * np.sin(1.5 * x[:, 0]) + x[:, 1]
    return {"x": x, "y": (rng.random(60) < expit(eta)) * 1.0}


# --- coefficients drawn to zero ------------------------------------------------------------------


def lasso(params, data):
    mean = params["alpha"] + data["x"] @ params["beta"]
    width = params["width"] * params["sigma"]
    prior = -jnp.sum(jnp.abs(params["beta"])) / width - params["beta"].size * jnp.log(width)
    prior += d.cauchy(params["width"], 0.0, 1.0) + d.normal(params["alpha"], 0.0, 10.0)
    return prior + d.normal(params["sigma"], 0.0, 5.0) + d.normal(data["y"], mean, params["sigma"])


def _lasso_data():
    rng = np.random.default_rng(806)
    x = rng.normal(size=(100, 25)) + 0.7 * rng.normal(size=(100, 1))
    beta = np.zeros(25)
    beta[:3] = [2.0, -1.0, 0.7]
    return {"x": x, "y": 1 + x @ beta + 1.5 * rng.normal(size=100)}


# --- slopes that walk with time ------------------------------------------------------------------


def walks(params, data):
    slopes = params["start"] + jnp.cumsum(params["sd"] * params["raw"], axis=0)  # (T, 2)
    mean = jnp.sum(data["x"] * slopes, axis=1)
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["start"], 0.0, 2.0)
    prior += d.normal(params["sd"], 0.0, 0.5) + d.normal(params["sigma"], 0.0, 1.0)
    return prior + d.normal(data["y"], mean, params["sigma"])


def _walks_data():
    rng = np.random.default_rng(807)
    x = np.stack([np.ones(80), rng.normal(size=80)], 1)
    slopes = np.array([1.0, -0.5]) + np.cumsum([0.2, 0.1] * rng.normal(size=(80, 2)), 0)
    return {"x": x, "y": np.sum(x * slopes, 1) + 0.4 * rng.normal(size=80)}


MODELS = {
    "network": (
        Model(
            network,
            of(
                inner=(real, (2, 3)),
                bias=(real, (3,)),
                outer=(positive_ordered, (3,)),
                ground=(real, ()),
                sigma=(positive, ()),
            ),
        ),
        _network_data,
    ),
    "classifier": (
        Model(
            classifier,
            of(length=(positive, ()), height=(positive, ()), raw=(real, (60,))),
        ),
        _classifier_data,
    ),
    "lasso": (
        Model(
            lasso,
            of(alpha=(real, ()), beta=(real, (25,)), width=(positive, ()), sigma=(positive, ())),
        ),
        _lasso_data,
    ),
    "walks": (
        Model(
            walks,
            of(
                start=(real, (2,)),
                sd=(positive, (2,)),
                raw=(real, (80, 2)),
                sigma=(positive, ()),
            ),
        ),
        _walks_data,
    ),
}
