"""Tests, ratings, votes and games: a number for each person and for each item."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from bbvi import positive, real, simplex
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import expit

# --- one number an item, and two -----------------------------------------------------------------


def rasch(params, data):
    eta = params["sd"] * params["ability"][:, None] - params["hard"]
    prior = d.normal(params["ability"], 0.0, 1.0) + d.normal(params["hard"], 0.0, 2.0)
    return prior + d.normal(params["sd"], 0.0, 2.0) + d.binomial_logit(data["y"], 1.0, eta)


def _rasch_data(people, items, seed):
    rng = np.random.default_rng(seed)
    eta = 1.2 * rng.normal(size=(people, 1)) - rng.normal(size=items)
    return {"y": (rng.random(eta.shape) < expit(eta)).astype(float)}


def _rasch_parameters(data):
    people, items = data["y"].shape
    return {"ability": (real, (people,)), "hard": (real, (items,)), "sd": (positive, ())}


def two_parameters(params, data):
    sharp = params["sharp"]
    eta = sharp * (params["ability"][:, None] - params["hard"])
    prior = d.normal(params["ability"], 0.0, 1.0) + d.lognormal(sharp, 0.0, params["spread"])
    prior += d.normal(params["hard"], params["centre"], params["width"])
    prior += d.normal(params["centre"], 0.0, 2.0) + d.normal(params["width"], 0.0, 2.0)
    return prior + d.normal(params["spread"], 0.0, 1.0) + d.binomial_logit(data["y"], 1.0, eta)


def _two_parameters_data():
    rng = np.random.default_rng(302)
    sharp, hard = rng.lognormal(0, 0.4, 16), rng.normal(0.2, 1, 16)
    eta = sharp * (rng.normal(size=(120, 1)) - hard)
    return {"y": (rng.random(eta.shape) < expit(eta)).astype(float)}


def _two_parameters_parameters(data):
    people, items = data["y"].shape
    ones = {"centre": (real, ()), "width": (positive, ()), "spread": (positive, ())}
    of_items = {"hard": (real, (items,)), "sharp": (positive, (items,))}
    return ones | of_items | {"ability": (real, (people,))}


# --- partial credit: four grades -----------------------------------------------------------------


def partial_credit(params, data):
    steps = params["sharp"][:, None] * (params["ability"][:, None, None] - params["steps"])
    zero = jnp.zeros((*steps.shape[:2], 1))
    eta = jnp.concatenate([zero, jnp.cumsum(steps, -1)], -1)  # (people, items, 4)
    prior = d.normal(params["ability"], 0.0, 1.0) + d.lognormal(params["sharp"], 0.0, 0.5)
    prior += d.normal(params["steps"], 0.0, 2.0)
    return prior + jnp.sum(jnp.sum(data["y"] * eta, -1) - logsumexp(eta, axis=-1))


def _partial_credit_data():
    rng = np.random.default_rng(303)
    sharp, steps = rng.lognormal(0, 0.3, 8), np.sort(rng.normal(0, 1.2, (8, 3)), 1)
    each = sharp[:, None] * (rng.normal(size=(100, 1, 1)) - steps)
    eta = np.concatenate([np.zeros((100, 8, 1)), np.cumsum(each, -1)], -1)
    return {"y": np.eye(4)[np.argmax(eta + rng.gumbel(size=eta.shape), -1)]}


# --- raters who err, true classes summed out -----------------------------------------------------


def raters(params, data):
    log_share, log_says = jnp.log(params["share"]), jnp.log(params["says"])
    each = log_share + jnp.einsum("irk,rck->ic", data["y"], log_says)
    alpha = 1.0 + 3.0 * jnp.eye(3)
    prior = d.dirichlet(params["share"], 2.0) + d.dirichlet(params["says"], alpha)
    return prior + jnp.sum(logsumexp(each, axis=1))


def _raters_data():
    rng = np.random.default_rng(304)
    says = np.stack([[rng.dirichlet(1 + 6 * np.eye(3)[c]) for c in range(3)] for _ in range(5)])
    true = rng.choice(3, 100, p=[0.5, 0.3, 0.2])
    said = [[rng.choice(3, p=says[r, c]) for r in range(5)] for c in true]
    return {"y": np.eye(3)[np.array(said)]}


# --- games between teams -------------------------------------------------------------------------


def games(params, data):
    one, two = data["home"].astype(int), data["away"].astype(int)
    eta = params["ground"] + params["sd"] * (params["team"][one] - params["team"][two])
    prior = d.normal(params["team"], 0.0, 1.0) + d.normal(params["sd"], 0.0, 1.0)
    return prior + d.normal(params["ground"], 0.0, 1.0) + d.binomial_logit(data["y"], 1.0, eta)


def _games_data():
    rng = np.random.default_rng(305)
    team = 0.8 * rng.normal(size=20)
    home = rng.integers(0, 20, 300)
    away = (home + rng.integers(1, 20, 300)) % 20
    y = rng.random(300) < expit(0.3 + team[home] - team[away])
    return {"home": home * 1.0, "away": away * 1.0, "y": y.astype(float)}


# --- topics of documents, each anchored by the words that its prior prefers ----------------------


def topics(params, data):
    words = params["mix"] @ params["topic"]  # (documents, words)
    prior = d.dirichlet(params["mix"], 0.8) + d.dirichlet(params["topic"], data["anchor"])
    return prior + jnp.sum(data["counts"] * jnp.log(words))


def _topics_data():
    rng = np.random.default_rng(306)
    anchor = np.full((3, 15), 0.7)
    for k in range(3):
        anchor[k, 5 * k : 5 * k + 2] = 6.0
    topic = np.stack([rng.dirichlet(a) for a in anchor])
    mix = rng.dirichlet([0.8] * 3, 25)
    counts = np.stack([rng.multinomial(60, m @ topic) for m in mix])
    return {"counts": counts * 1.0, "anchor": anchor}


# --- answers that share two hidden factors -------------------------------------------------------


def factors(params, data):
    from_first, from_second = params["first"], params["second"]
    loading = jnp.zeros((8, 2)).at[0, 0].set(params["lead"][0]).at[1, 1].set(params["lead"][1])
    loading = loading.at[1:, 0].set(from_first).at[2:, 1].set(from_second)
    covariance = loading @ loading.T + jnp.diag(params["noise"] ** 2)
    root = jnp.linalg.cholesky(covariance)
    z = jax.scipy.linalg.solve_triangular(root, (data["y"] - params["mean"]).T, lower=True)
    prior = d.normal(from_first, 0.0, 1.0) + d.normal(from_second, 0.0, 1.0)
    prior += d.normal(params["lead"], 0.0, 1.0) + d.normal(params["noise"], 0.0, 1.0)
    prior += d.normal(params["mean"], 0.0, 5.0)
    return prior - 0.5 * jnp.sum(z**2) - z.shape[1] * jnp.sum(jnp.log(jnp.diag(root)))


def _factors_data():
    rng = np.random.default_rng(307)
    loading = np.array([[1.0, 0], [0.2, 0.9], [0.8, 0.1], [0, 0.7], [0.6, 0.5], [0.9, -0.4],
                        [0.1, 0.8], [0.5, 0.0]])  # fmt: skip
    return {"y": rng.normal(size=(150, 2)) @ loading.T + 0.6 * rng.normal(size=(150, 8))}


MODELS = {
    "rasch_300": (Model(rasch, _rasch_parameters), lambda: _rasch_data(300, 20, 301)),
    "rasch_1500": (Model(rasch, _rasch_parameters), lambda: _rasch_data(1500, 30, 308)),
    "two_parameters": (Model(two_parameters, _two_parameters_parameters), _two_parameters_data),
    "partial_credit": (
        Model(
            partial_credit,
            lambda data: {
                "ability": (real, (100,)),
                "sharp": (positive, (8,)),
                "steps": (real, (8, 3)),
            },
        ),
        _partial_credit_data,
    ),
    "raters": (
        Model(raters, lambda data: {"share": (simplex, (3,)), "says": (simplex, (5, 3, 3))}),
        _raters_data,
    ),
    "games": (
        Model(
            games, lambda data: {"ground": (real, ()), "sd": (positive, ()), "team": (real, (20,))}
        ),
        _games_data,
    ),
    "topics": (
        Model(topics, lambda data: {"mix": (simplex, (25, 3)), "topic": (simplex, (3, 15))}),
        _topics_data,
    ),
    "factors": (
        Model(
            factors,
            lambda data: {
                "mean": (real, (8,)),
                "lead": (positive, (2,)),
                "first": (real, (7,)),
                "second": (real, (6,)),
                "noise": (positive, (8,)),
            },
        ),
        _factors_data,
    ),
}
