"""Kinds and their shares: normals that overlap, classes behind answers, curves, directions."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

from bbvi import ordered, positive, real, simplex, unit_vector
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import expit, of

# --- three normals that overlap, of which one may be empty ---------------------------------------


def three_normals(params, data):
    """The mean of an empty one has its prior, which is wide: 1% of the mass is far out."""
    z = (data["y"][:, None] - params["mean"]) / params["sigma"]
    each = jnp.log(params["share"]) - jnp.log(params["sigma"]) - 0.5 * z**2
    prior = d.normal(params["mean"], 0.0, 5.0) + d.lognormal(params["sigma"], 0.0, 0.7)
    return prior + d.dirichlet(params["share"], 2.0) + jnp.sum(jax.nn.logsumexp(each, axis=1))


def _three_normals_data():
    rng = np.random.default_rng(13)
    which = rng.choice(3, 120, p=[0.3, 0.5, 0.2])
    mean, sigma = np.array([-3.0, 0.0, 2.5]), np.array([0.7, 0.8, 0.5])
    return {"y": mean[which] + sigma[which] * rng.normal(size=120)}


# --- two classes behind five answers -------------------------------------------------------------


def classes(params, data):
    """Told apart by the order of their logits, question by question."""
    share, y = jax.nn.sigmoid(params["logit"]), data["y"]
    each = y @ jnp.log(share) + (1 - y) @ jnp.log1p(-share) + jnp.log(params["size"])
    prior = d.dirichlet(params["size"], 2.0) + d.normal(params["logit"], 0.0, 2.0)
    return prior + jnp.sum(jax.nn.logsumexp(each, axis=1))


def _classes_data():
    rng = np.random.default_rng(4)
    share = np.array([[0.1, 0.8], [0.2, 0.7], [0.3, 0.9], [0.1, 0.6], [0.4, 0.5]])
    which = (rng.random(150) < 0.4).astype(int)
    return {"y": (rng.random((150, 5)) < share[:, which].T) * 1.0}


# --- kinds in twelve samples, whose shares differ ------------------------------------------------


def compositions(params, data):
    """Past a concentration of 10^16 it absorbs the counts, and what is computed is a plateau."""
    total, y = params["concentration"], data["y"]
    a = total * params["share"]
    each = gammaln(total) - gammaln(total + y.sum(1))
    each += jnp.sum(gammaln(y + a) - gammaln(a), axis=1)
    return d.dirichlet(params["share"], 1.0) + d.lognormal(total, 2.0, 1.5) + jnp.sum(each)


def _compositions_data():
    rng = np.random.default_rng(17)
    alpha = 15 * np.array([0.4, 0.3, 0.2, 0.05, 0.04, 0.01])
    samples = [rng.multinomial(30, rng.dirichlet(alpha)) for _ in range(12)]
    return {"y": np.array(samples) * 1.0}


# --- counts by three crossed factors -------------------------------------------------------------


def three_ways(params, data):
    """The third factor hardly matters: its scale goes to zero."""
    prior = d.cauchy(params["sd"], 0.0, 1.0) + d.normal(params["level"], 0.0, 5.0)
    eta = params["level"]
    for i, name in enumerate(("first", "second", "third")):
        prior += d.normal(params[name], 0.0, params["sd"][i])
        eta = eta + params[name][data[name].astype(int)]
    return prior + d.poisson_log(data["y"], eta)


def _three_ways_data():
    rng = np.random.default_rng(1)
    which = [rng.integers(0, n, 240) for n in (15, 10, 8)]
    effects = [sd * rng.normal(size=n) for sd, n in ((0.5, 15), (0.3, 10), (0.05, 8))]
    eta = 0.5 + sum(e[i] for e, i in zip(effects, which, strict=True))
    names = ("first", "second", "third")
    given = {name: i * 1.0 for name, i in zip(names, which, strict=True)}
    return given | {"y": rng.poisson(np.exp(eta)) * 1.0}


# --- directions in space about one, more or less -------------------------------------------------


def directions(params, data):
    """Von Mises and Fisher's distribution on the sphere."""
    k = params["concentration"]
    log_constant = jnp.log(k) - k - jnp.log1p(-jnp.exp(-2 * k))
    return d.gamma(k, 1.0, 0.1) + jnp.sum(log_constant + k * (data["x"] @ params["centre"]))


def _directions_data():
    x = np.random.default_rng(3).normal(size=(15, 3)) + np.array([1.0, 0.5, 0.2])
    return {"x": x / np.linalg.norm(x, axis=1, keepdims=True)}


# --- yes or no along a line, by a smooth curve ---------------------------------------------------


def smooth_shares(params, data):
    """A Gaussian process on the logit, from standard normals."""
    gap = (data["x"][:, None] - data["x"]) / params["length"]
    kernel = params["height"] ** 2 * jnp.exp(-0.5 * gap**2) + 1e-6 * jnp.eye(len(data["x"]))
    logit = params["level"] + jnp.linalg.cholesky(kernel) @ params["raw"]
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["height"], 0.0, 2.0)
    prior += d.gamma(params["length"], 4.0, 2.0) + d.normal(params["level"], 0.0, 2.0)
    return prior + d.binomial_logit(data["y"], 1.0, logit)


def _smooth_shares_data():
    rng = np.random.default_rng(10)
    x = np.linspace(0, 8, 40)
    return {"x": x, "y": (rng.random(40) < expit(2 * np.sin(x))) * 1.0}


MODELS = {
    "three_normals": (
        Model(
            three_normals,
            of(mean=(ordered, (3,)), sigma=(positive, (3,)), share=(simplex, (3,))),
        ),
        _three_normals_data,
    ),
    "classes": (
        Model(classes, of(size=(simplex, (2,)), logit=(ordered, (5, 2)))),
        _classes_data,
    ),
    "compositions": (
        Model(compositions, of(share=(simplex, (6,)), concentration=(positive, ()))),
        _compositions_data,
    ),
    "three_ways": (
        Model(
            three_ways,
            of(
                level=(real, ()),
                first=(real, (15,)),
                second=(real, (10,)),
                third=(real, (8,)),
                sd=(positive, (3,)),
            ),
        ),
        _three_ways_data,
    ),
    "directions": (
        Model(directions, of(centre=(unit_vector, (3,)), concentration=(positive, ()))),
        _directions_data,
    ),
    "smooth_shares": (
        Model(
            smooth_shares,
            of(
                length=(positive, ()),
                height=(positive, ()),
                level=(real, ()),
                raw=(real, (40,)),
            ),
        ),
        _smooth_shares_data,
    ),
}
