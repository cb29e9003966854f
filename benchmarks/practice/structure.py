"""Structure in data: orders, steps, rare shares, covariances, selection, uneven noise, regimes."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jax.scipy.stats import norm

from bbvi import cov_cholesky, greater_than, interval, positive, real, simplex
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import expit, of

# --- rankings, each the next best of what is left ------------------------------------------------


def rankings(params, data):
    worth = (params["sd"] * params["raw"])[data["order"].astype(int)]  # (judges, items)
    left = jax.lax.cumlogsumexp(worth, axis=1, reverse=True)
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["sd"], 0.0, 1.0)
    return prior + jnp.sum(worth - left)


def _rankings_data():
    rng = np.random.default_rng(1101)
    worth = 0.9 * rng.normal(size=12)
    return {"order": np.argsort(-(worth + rng.gumbel(size=(25, 12))), axis=1) * 1.0}


# --- grades of a cause, whose effect goes one way ------------------------------------------------


def monotone(params, data):
    steps = jnp.concatenate([jnp.zeros(1), jnp.cumsum(params["share"])])
    mean = params["alpha"] + params["beta"] * steps[data["grade"].astype(int)]
    prior = d.dirichlet(params["share"], 1.0) + d.normal(params["beta"], 0.0, 2.0)
    prior += d.normal(params["alpha"], 0.0, 5.0) + d.normal(params["sigma"], 0.0, 2.0)
    return prior + d.normal(data["y"], mean, params["sigma"])


def _monotone_data():
    rng = np.random.default_rng(1102)
    grade = rng.integers(0, 6, 100)
    mean = 1 + np.array([0, 0.1, 0.9, 1.0, 1.6, 1.7])[grade]
    return {"grade": grade * 1.0, "y": mean + 0.8 * rng.normal(size=100)}


# --- shares of kinds, of which many were hardly seen ---------------------------------------------


def rare(params, data):
    share = params["share"]
    prior = d.dirichlet(share, 0.5)
    return prior + jnp.sum(data["counts"] * jnp.log(share))


def _rare_data():
    rng = np.random.default_rng(1103)
    return {"counts": rng.multinomial(80, rng.dirichlet(np.full(25, 0.3))) * 1.0}


# --- a covariance from few rows ------------------------------------------------------------------


def covariance(params, data):
    root = params["root"]
    z = jax.scipy.linalg.solve_triangular(root, (data["y"] - params["mean"]).T, lower=True)
    log_diagonal = jnp.log(jnp.diag(root))
    dim, number = z.shape
    # inverse Wishart(dim + 2, I) of the covariance, as a density of its root
    inverse = jax.scipy.linalg.solve_triangular(root, jnp.eye(dim), lower=True)
    power = dim - jnp.arange(dim) - (2 * dim + 3)
    prior = -0.5 * jnp.sum(inverse**2) + jnp.sum(power * log_diagonal)
    prior += d.normal(params["mean"], 0.0, 3.0)
    return prior - 0.5 * jnp.sum(z**2) - number * jnp.sum(log_diagonal)


def _covariance_data():
    rng = np.random.default_rng(1104)
    mix = np.tril(0.5 * rng.normal(size=(5, 5)), -1) + np.diag(rng.uniform(0.5, 1.5, 5))
    return {"y": 0.5 + rng.normal(size=(18, 5)) @ mix.T}


# --- wages of those who work ---------------------------------------------------------------------


def selection(params, data):
    works = data["z"] @ params["works"]
    mean, sigma, rho = data["x"] @ params["wage"], params["sigma"], params["rho"]
    z = (data["y"] - mean) / sigma
    given = norm.logcdf((works + rho * z) / jnp.sqrt(1 - rho**2))
    seen = -0.5 * z**2 - jnp.log(sigma) + given
    prior = d.normal(params["works"], 0.0, 1.0) + d.normal(params["wage"], 0.0, 2.0)
    prior += d.normal(sigma, 0.0, 1.0)
    return prior + jnp.sum(jnp.where(data["working"] > 0, seen, norm.logcdf(-works)))


def _selection_data():
    rng = np.random.default_rng(1105)
    x = np.stack([np.ones(250), rng.normal(size=250)], 1)
    z = np.concatenate([x, rng.normal(size=(250, 1))], 1)
    u = rng.normal(size=250)
    v = 0.6 * u + 0.8 * rng.normal(size=250)
    working = (z @ [0.3, 0.4, 0.7] + u > 0) * 1.0
    return {"x": x, "z": z, "working": working, "y": working * (x @ [1.0, 0.5] + 0.7 * v)}


# --- returns whose variance remembers, with heavy tails ------------------------------------------


def clusters(params, data):
    share, kept, df = params["share"], params["kept"], params["df"]

    def step(carry, y):
        variance, before = carry
        variance = params["base"] + share * before**2 + kept * variance
        return (variance, y), variance

    y = data["y"]
    first = jnp.var(y)
    _, variance = jax.lax.scan(step, (first, jnp.sqrt(first)), y)
    scale2 = variance * (df - 2) / df
    each = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * jnp.log(df * scale2)
    each += -0.5 * (df + 1) * jnp.log1p(y**2 / (df * scale2))
    prior = d.normal(params["base"], 0.0, 0.5) + d.gamma(df - 2, 2.0, 0.2)
    return prior + d.beta(share, 2.0, 8.0) + jnp.sum(each)


def _clusters_data():
    rng = np.random.default_rng(1106)
    y, variance = np.zeros(400), 1.0
    for t in range(400):
        variance = 0.08 + 0.12 * (y[t - 1] ** 2 if t else 1.0) + 0.8 * variance
        y[t] = np.sqrt(variance * 4 / 6) * rng.standard_t(6)
    return {"y": y}


def _rest_of_share(params, data):
    return 1.0 - params["share"]


# --- noise that depends on what is measured ------------------------------------------------------


def uneven(params, data):
    mean, log_sigma = data["x"] @ params["beta"], data["x"] @ params["gamma"]
    prior = d.normal(params["beta"], 0.0, 3.0) + d.normal(params["gamma"], 0.0, 1.0)
    z = (data["y"] - mean) * jnp.exp(-log_sigma)
    return prior - jnp.sum(0.5 * z**2 + log_sigma)


def _uneven_data():
    rng = np.random.default_rng(1107)
    x = np.stack([np.ones(120), rng.normal(size=120), rng.normal(size=120)], 1)
    sigma = np.exp(x @ [-0.3, 0.5, 0.2])
    return {"x": x, "y": x @ [1.0, 0.8, -0.4] + sigma * rng.normal(size=120)}


# --- a series with two regimes, and a smooth way from one to the other ---------------------------


def regimes(params, data):
    before, now = data["y"][:-1], data["y"][1:]
    high = jax.nn.sigmoid(params["steep"] * (before - params["turn"]))
    mean = (1 - high) * (params["low"][0] + params["low"][1] * before)
    mean += high * (params["high"][0] + params["high"][1] * before)
    prior = d.normal(params["low"], 0.0, 1.0) + d.normal(params["high"], 0.0, 1.0)
    prior += d.normal(params["turn"], 0.0, 0.5) + d.lognormal(params["steep"], 1.5, 0.7)
    return prior + d.normal(params["sigma"], 0.0, 1.0) + d.normal(now, mean, params["sigma"])


def _regimes_data():
    rng = np.random.default_rng(1108)
    y = np.zeros(200)
    for t in range(1, 200):
        high = expit(5 * y[t - 1])
        mean = (1 - high) * (-0.3 + 0.7 * y[t - 1]) + high * (0.6 - 0.4 * y[t - 1])
        y[t] = mean + 0.4 * rng.normal()
    return {"y": y}


# --- groups, some of them far from the others ----------------------------------------------------


def outlying(params, data):
    # a normal with a scale of its own for each group: Student t effects
    scale = params["sd"] * jnp.sqrt(params["own"])
    effect = params["mean"] + scale * params["raw"]
    half = params["df"] / 2
    prior = d.normal(params["raw"], 0.0, 1.0) + d.gamma(params["df"], 2.0, 0.1)
    # inverse gamma(df / 2, df / 2)
    log_own = jnp.log(params["own"])
    own = half * jnp.log(half) - gammaln(half) - (half + 1) * log_own - half / params["own"]
    prior += jnp.sum(own) + d.normal(params["mean"], 0.0, 5.0) + d.normal(params["sd"], 0.0, 2.0)
    return prior + d.normal(data["y"], effect, data["sigma"])


def _outlying_data():
    rng = np.random.default_rng(1109)
    sigma = rng.uniform(0.2, 0.8, 18)
    effect = 1 + 0.5 * rng.standard_t(3, 18)
    return {"y": effect + sigma * rng.normal(size=18), "sigma": sigma}


MODELS = {
    "rankings": (Model(rankings, of(sd=(positive, ()), raw=(real, (12,)))), _rankings_data),
    "monotone": (
        Model(
            monotone,
            of(alpha=(real, ()), beta=(real, ()), share=(simplex, (5,)), sigma=(positive, ())),
        ),
        _monotone_data,
    ),
    "rare": (Model(rare, of(share=(simplex, (25,)))), _rare_data),
    "covariance": (
        Model(covariance, of(mean=(real, (5,)), root=(cov_cholesky, (5, 5)))),
        _covariance_data,
    ),
    "selection": (
        Model(
            selection,
            of(
                works=(real, (3,)),
                wage=(real, (2,)),
                sigma=(positive, ()),
                rho=(interval(-1.0, 1.0), ()),
            ),
        ),
        _selection_data,
    ),
    "clusters": (
        Model(
            clusters,
            of(
                base=(positive, ()),
                share=(interval(0.0, 1.0), ()),
                kept=(interval(0.0, _rest_of_share), ()),
                df=(greater_than(2.0), ()),
            ),
        ),
        _clusters_data,
    ),
    "uneven": (Model(uneven, of(beta=(real, (3,)), gamma=(real, (3,)))), _uneven_data),
    "regimes": (
        Model(
            regimes,
            of(
                low=(real, (2,)),
                high=(real, (2,)),
                turn=(real, ()),
                steep=(positive, ()),
                sigma=(positive, ()),
            ),
        ),
        _regimes_data,
    ),
    "outlying": (
        Model(
            outlying,
            of(
                mean=(real, ()),
                sd=(positive, ()),
                df=(positive, ()),
                own=(positive, (18,)),
                raw=(real, (18,)),
            ),
        ),
        _outlying_data,
    ),
}
