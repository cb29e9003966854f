"""Hierarchies: rows in groups, crossed groups, correlated slopes, patients with frailties."""

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

from bbvi import corr_cholesky, positive, real
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import expit, groups, of

# --- houses in counties, intercepts and slopes, centred ------------------------------------------


def counties(params, data):
    a, b = params["a"], params["b"]
    county = data["county"].astype(int)
    mean = a[county] + b[county] * data["floor"]
    level = params["level"] + params["slope"] * data["soil"]
    prior = d.normal(a, level, params["sd_a"]) + d.normal(b, params["effect"], params["sd_b"])
    prior += sum(d.normal(params[name], 0.0, 5.0) for name in ("level", "slope", "effect"))
    prior += sum(d.cauchy(params[name], 0.0, 1.0) for name in ("sd_a", "sd_b", "sigma"))
    return prior + d.normal(data["y"], mean, params["sigma"])


def _counties_data(count, sizes, seed):
    rng = np.random.default_rng(seed)
    county = groups(rng, count, sizes)
    soil, floor = rng.normal(0, 0.4, count), (rng.random(len(county)) < 0.2).astype(float)
    a, b = 1.3 + 0.7 * soil + rng.normal(0, 0.25, count), -0.6 + rng.normal(0, 0.3, count)
    y = a[county] + b[county] * floor + rng.normal(0, 0.75, len(county))
    return {"county": county.astype(float), "soil": soil, "floor": floor, "y": y}


def _counties_parameters(data):
    count = data["soil"].shape
    ones = {name: (real, ()) for name in ("level", "slope", "effect")}
    ones |= {name: (positive, ()) for name in ("sd_a", "sd_b", "sigma")}
    return ones | {"a": (real, count), "b": (real, count)}


# --- growth of animals, each its own line, raw scales --------------------------------------------


def growth(params, data):
    mean = params["a"][:, None] + params["b"][:, None] * data["age"]
    prior = d.normal(params["a"], params["mu_a"], params["sd_a"])
    prior += d.normal(params["b"], params["mu_b"], params["sd_b"])
    prior += d.normal(params["mu_a"], 0.0, 500.0) + d.normal(params["mu_b"], 0.0, 50.0)
    prior += sum(d.cauchy(params[name], 0.0, 20.0) for name in ("sd_a", "sd_b", "sigma"))
    return prior + d.normal(data["y"], mean, params["sigma"])


def _growth_data():
    rng = np.random.default_rng(202)
    age = np.array([8.0, 15, 22, 29, 36])
    a, b = rng.normal(106, 10, 30), rng.normal(6.2, 0.5, 30)
    return {"age": age, "y": a[:, None] + b[:, None] * age + rng.normal(0, 6, (30, 5))}


# --- failures of operations, and seeds that germinate --------------------------------------------


def hospitals(params, data):
    prior = d.normal(params["eta"], params["mu"], params["sd"])
    prior += d.normal(params["mu"], 0.0, 10.0) + d.cauchy(params["sd"], 0.0, 1.0)
    return prior + d.binomial_logit(data["y"], data["n"], params["eta"])


def _hospitals_data():
    rng = np.random.default_rng(203)
    n = rng.integers(45, 800, 12).astype(float)
    return {"n": n, "y": rng.binomial(n.astype(int), expit(rng.normal(-2.5, 0.4, 12))) * 1.0}


def plates(params, data):
    eta = data["x"] @ params["beta"] + params["sd"] * params["raw"]
    prior = d.normal(params["beta"], 0.0, 10.0) + d.normal(params["raw"], 0.0, 1.0)
    return prior + d.normal(params["sd"], 0.0, 1.0) + d.binomial_logit(data["y"], data["n"], eta)


def _plates_data():
    rng = np.random.default_rng(204)
    kind, extract = rng.integers(0, 2, 21), rng.integers(0, 2, 21)
    x = np.stack([np.ones(21), kind, extract, kind * extract], 1).astype(float)
    n = rng.integers(4, 81, 21)
    eta = x @ [-0.5, 0.1, 1.3, -0.8] + rng.normal(0, 0.3, 21)
    return {"x": x, "n": n * 1.0, "y": rng.binomial(n, expit(eta)) * 1.0}


# --- polls: crossed groups -----------------------------------------------------------------------

CROSSED = {"state": 50, "age": 4, "school": 4, "age_school": 16}


def polls(params, data):
    eta = data["x"] @ params["beta"]
    prior = d.normal(params["beta"], 0.0, 5.0)
    for name in CROSSED:
        scale = params["sd_" + name]
        eta += params[name][data["in_" + name].astype(int)]
        prior += d.normal(params[name], 0.0, scale) + d.normal(scale, 0.0, 1.0)
    return prior + d.binomial_logit(data["y"], 1.0, eta)


def _polls_data():
    rng = np.random.default_rng(205)
    rows = 2000
    female, black = rng.random(rows) < 0.5, rng.random(rows) < 0.15
    x = np.stack([np.ones(rows), female, black], 1).astype(float)
    index = {name: rng.integers(0, size, rows) for name, size in CROSSED.items()}
    index["age_school"] = 4 * index["age"] + index["school"]
    spread = {"state": 0.4, "age": 0.2, "school": 0.3, "age_school": 0.15}
    effects = {name: rng.normal(0, spread[name], size) for name, size in CROSSED.items()}
    eta = x @ [0.3, -0.1, -1.5] + sum(effects[name][index[name]] for name in CROSSED)
    data = {"in_" + name: i.astype(float) for name, i in index.items()}
    return data | {"x": x, "y": (rng.random(rows) < expit(eta)).astype(float)}


def _polls_parameters(data):
    scales = {"sd_" + name: (positive, ()) for name in CROSSED}
    return {"beta": (real, (3,))} | scales | {n: (real, (size,)) for n, size in CROSSED.items()}


# --- ratings of films by viewers, both with levels of their own, as they are ---------------------


def films(params, data):
    viewer, film = data["viewer"].astype(int), data["film"].astype(int)
    mean = params["mean"] + params["viewer"][viewer] + params["film"][film]
    sd = params["sd"]
    prior = d.normal(params["viewer"], 0.0, sd[0]) + d.normal(params["film"], 0.0, sd[1])
    prior += d.normal(params["mean"], 3.0, 2.0) + d.normal(sd, 0.0, 1.0)
    return prior + d.normal(data["stars"], mean, sd[2])


def _films_data():
    rng = np.random.default_rng(209)
    viewer, film = rng.integers(0, 300, 2500), rng.integers(0, 150, 2500)
    own, level = 0.5 * rng.normal(size=300), 0.4 * rng.normal(size=150)
    stars = 3.4 + own[viewer] + level[film] + 0.8 * rng.normal(size=2500)
    return {"viewer": viewer.astype(float), "film": film.astype(float), "stars": stars}


# --- correlated intercepts and slopes, LKJ -------------------------------------------------------


def correlated_slopes(params, data):
    root = params["scale"][:, None] * params["root"]
    each = params["mean"] + params["raw"] @ root.T  # (J, 2)
    group = data["group"].astype(int)
    mean = each[group, 0] + each[group, 1] * data["x"]
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["mean"], 0.0, 5.0)
    prior += d.normal(params["scale"], 0.0, 2.0) + d.normal(params["sigma"], 0.0, 2.0)
    prior += d.lkj_cholesky(params["root"], 2.0)
    return prior + d.normal(data["y"], mean, params["sigma"])


def _correlated_slopes_data():
    rng = np.random.default_rng(206)
    group = groups(rng, 20, (4, 12))
    root = np.array([[1.0, 0.0], [-0.3, 0.4]])
    each = np.array([3.0, -1.0]) + rng.normal(size=(20, 2)) @ root.T
    x = rng.normal(size=len(group))
    y = each[group, 0] + each[group, 1] * x + 0.5 * rng.normal(size=len(group))
    return {"group": group.astype(float), "x": x, "y": y}


# --- survival with frailties, censored -----------------------------------------------------------


def frailty(params, data):
    shape, t = params["shape"], data["t"]  # (J, 2): two times of each patient
    log_rate = data["x"] @ params["beta"]
    log_rate = log_rate[:, None] + jnp.log(params["w"])[:, None]
    log_hazard = jnp.log(shape) + (shape - 1) * jnp.log(t) + log_rate
    likelihood = data["died"] * log_hazard - t**shape * jnp.exp(log_rate)
    size = params["size"]
    prior = d.gamma(params["w"], size, size) + 38 * (size * jnp.log(size) - gammaln(size))
    prior += d.normal(params["beta"], 0.0, 5.0) + d.gamma(shape, 2.0, 2.0)
    return prior + d.gamma(size, 2.0, 1.0) + jnp.sum(likelihood)


def _frailty_data():
    rng = np.random.default_rng(207)
    x = np.stack([np.ones(38), rng.normal(size=38), rng.random(38) < 0.5], 1).astype(float)
    w = rng.gamma(2.0, 0.5, 38)
    rate = np.exp(x @ [-1.0, 0.4, -0.8]) * w
    t = (rng.exponential(size=(38, 2)) / rate[:, None]) ** (1 / 1.3)
    return {"x": x, "t": np.minimum(t, 6.0) + 1e-3, "died": (t < 6.0).astype(float)}


# --- studies, heavy-tailed effects ---------------------------------------------------------------


def studies(params, data):
    prior = d.student_t(params["effect"], 4.0, params["mu"], params["tau"])
    prior += d.normal(params["mu"], 0.0, 5.0) + d.normal(params["tau"], 0.0, 1.0)
    return prior + d.normal(data["y"], params["effect"], data["sigma"])


def _studies_data():
    rng = np.random.default_rng(208)
    sigma = rng.uniform(0.1, 0.6, 22)
    y = -0.25 + 0.2 * rng.standard_t(4, 22) + sigma * rng.normal(size=22)
    return {"y": y, "sigma": sigma}


MODELS = {
    "counties_85": (
        Model(counties, _counties_parameters),
        lambda: _counties_data(85, (2, 20), 201),
    ),
    "counties_386": (
        Model(counties, _counties_parameters),
        lambda: _counties_data(386, (4, 30), 209),
    ),
    "growth": (
        Model(
            growth,
            lambda data: {
                "mu_a": (real, ()),
                "mu_b": (real, ()),
                "sd_a": (positive, ()),
                "sd_b": (positive, ()),
                "sigma": (positive, ()),
                "a": (real, (30,)),
                "b": (real, (30,)),
            },
        ),
        _growth_data,
    ),
    "hospitals": (
        Model(
            hospitals, lambda data: {"mu": (real, ()), "sd": (positive, ()), "eta": (real, (12,))}
        ),
        _hospitals_data,
    ),
    "plates": (
        Model(
            plates, lambda data: {"beta": (real, (4,)), "sd": (positive, ()), "raw": (real, (21,))}
        ),
        _plates_data,
    ),
    "polls": (Model(polls, _polls_parameters), _polls_data),
    "films": (
        Model(
            films,
            of(mean=(real, ()), sd=(positive, (3,)), viewer=(real, (300,)), film=(real, (150,))),
        ),
        _films_data,
    ),
    "correlated_slopes": (
        Model(
            correlated_slopes,
            lambda data: {
                "mean": (real, (2,)),
                "scale": (positive, (2,)),
                "root": (corr_cholesky, (2, 2)),
                "sigma": (positive, ()),
                "raw": (real, (20, 2)),
            },
        ),
        _correlated_slopes_data,
    ),
    "frailty": (
        Model(
            frailty,
            lambda data: {
                "beta": (real, (3,)),
                "shape": (positive, ()),
                "size": (positive, ()),
                "w": (positive, (38,)),
            },
        ),
        _frailty_data,
    ),
    "studies": (
        Model(
            studies,
            lambda data: {"mu": (real, ()), "tau": (positive, ()), "effect": (real, (22,))},
        ),
        _studies_data,
    ),
}
