"""Targets whose moments are known exactly, kept apart: nothing is ever tuned on them.

They were written before bbvi or any peer was run on one of them, to hold kinds that posteriordb
lacks: long correlated vectors, shapes with heavy or one-sided tails, curved and split mass,
simplexes, ordered vectors, and models whose posterior is known by conjugacy or by integration on
a grid. Each function returns a log joint, an init, data, supports, and the exact means and sds.
"""

from math import exp, gamma, pi, sqrt
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_ndtr

import bbvi


class Heldout(NamedTuple):
    log_joint: Any
    init: Any
    data: Any
    support: Any
    moments: Any  # (means, sds) in the structure of init


def _both(mean, sd, like):
    mean, sd = np.broadcast_to(mean, like.shape), np.broadcast_to(sd, like.shape)
    return {"x": np.array(mean, float)}, {"x": np.array(sd, float)}


# --- Gaussians ------------------------------------------------------------------------------


def gaussian_log_joint(params, data):
    r = data["root"] @ (params["x"] - data["mean"])
    return -0.5 * jnp.sum(r**2)


def _gaussian(dim, condition, seed):
    """Random axes, sds spread evenly on a log scale."""
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
    sds = np.logspace(0, 0.5 * np.log10(condition), dim)
    mean = rng.normal(size=dim)
    init = {"x": np.zeros(dim)}
    sd = np.sqrt(((axes * sds) ** 2).sum(1))
    data = {"root": (axes / sds).T, "mean": mean}
    return Heldout(gaussian_log_joint, init, data, None, _both(mean, sd, mean))


def gaussian_100():
    return _gaussian(100, 1e4, seed=1)


def gaussian_300():
    return _gaussian(300, 1e3, seed=2)


def gp_log_joint(params, data):
    w = data["whiten"] @ params["x"]
    return -0.5 * jnp.sum(w**2) - 0.5 * jnp.sum(((data["y"] - params["x"]) / 0.3) ** 2)


def gp():
    """A latent function at 50 points, Matern 3/2, with Gaussian noise: a Gaussian posterior."""
    rng, t = np.random.default_rng(3), np.linspace(0, 5, 50)
    r = sqrt(3) * np.abs(t[:, None] - t)
    prior = (1 + r) * np.exp(-r) + 1e-6 * np.eye(50)
    y = np.sin(2 * t) + 0.3 * rng.normal(size=50)
    gain = prior @ np.linalg.inv(prior + 0.09 * np.eye(50))
    sd = np.sqrt(np.diag(prior - gain @ prior))
    data = {"whiten": np.linalg.inv(np.linalg.cholesky(prior)), "y": y}
    return Heldout(gp_log_joint, {"x": np.zeros(50)}, data, None, _both(gain @ y, sd, y))


# --- tails ----------------------------------------------------------------------------------


def student_log_joint(params, data):
    r = data["root"] @ params["x"]
    return -0.5 * (5 + len(r)) * jnp.log1p(jnp.sum(r**2) / 5)


def student_t():
    """Ten dimensions, 5 degrees of freedom, correlated."""
    rng = np.random.default_rng(4)
    a = rng.normal(size=(10, 10)) / 3 + np.eye(10)
    sd = np.sqrt(np.diag(a @ a.T) * 5 / 3)
    data, init = {"root": np.linalg.inv(a)}, np.zeros(10)
    return Heldout(student_log_joint, {"x": init}, data, None, _both(0, sd, init))


def laplace_log_joint(params, data):
    return -jnp.sum(jnp.abs(params["x"] - data["mean"]))


def laplace():
    mean = np.arange(5.0)
    init = {"x": np.zeros(5)}
    return Heldout(laplace_log_joint, init, {"mean": mean}, None, _both(mean, sqrt(2), mean))


def skew_log_joint(params, data):
    x = params["x"]
    return jnp.sum(-0.5 * x**2 + jax.scipy.stats.norm.logcdf(data["skew"] * x))


def skew_normal():
    skew = np.array([0.0, 2.0, -4.0, 8.0])
    mean = skew / np.sqrt(1 + skew**2) * sqrt(2 / pi)
    init = {"x": np.zeros(4)}
    moments = _both(mean, np.sqrt(1 - mean**2), mean)
    return Heldout(skew_log_joint, init, {"skew": skew}, None, moments)


def half_normal_log_joint(params, data):
    return -0.5 * jnp.sum((params["x"] / data["scale"]) ** 2)


def half_normal():
    scale = np.array([0.01, 0.1, 1.0, 10.0, 100.0])
    moments = _both(scale * sqrt(2 / pi), scale * sqrt(1 - 2 / pi), scale)
    init, support = {"x": np.ones(5)}, {"x": bbvi.positive}
    return Heldout(half_normal_log_joint, init, {"scale": scale}, support, moments)


# --- conjugate ------------------------------------------------------------------------------


def poisson_log_joint(params, data):
    x, y = params["x"], data["y"]
    return jnp.sum((0.5 + y - 1) * jnp.log(x) - (0.2 + 1) * x)


def poisson_gamma():
    """Twenty rates with a gamma prior and one count each, zeros among them."""
    y = np.random.default_rng(5).poisson(2.0, 20).astype(float)
    moments = _both((0.5 + y) / 1.2, np.sqrt(0.5 + y) / 1.2, y)
    init, support = {"x": np.ones(20)}, {"x": bbvi.positive}
    return Heldout(poisson_log_joint, init, {"y": y}, support, moments)


def binomial_log_joint(params, data):
    x = params["x"]
    return jnp.sum((data["a"] - 1) * jnp.log(x) + (data["b"] - 1) * jnp.log1p(-x))


def beta_binomial():
    """Ten shares of 12 trials under a uniform prior, from none to all."""
    y = np.array([0, 0, 1, 2, 4, 6, 8, 10, 12, 12.0])
    a, b = y + 1, 13 - y
    moments = _both(a / 14, np.sqrt(a * b / (14**2 * 15)), a)
    init, support = {"x": np.full(10, 0.5)}, {"x": bbvi.unit_interval}
    return Heldout(binomial_log_joint, init, {"a": a, "b": b}, support, moments)


def dirichlet_log_joint(params, data):
    return jnp.sum((data["alpha"] - 1) * jnp.log(params["x"]))


def dirichlet():
    alpha = np.array([1.0, 1.5, 2.0, 4.0, 8.0, 20.0])
    total = alpha.sum()
    mean = alpha / total
    moments = _both(mean, np.sqrt(mean * (1 - mean) / (total + 1)), mean)
    init, support = {"x": np.full(6, 1 / 6)}, {"x": bbvi.simplex}
    return Heldout(dirichlet_log_joint, init, {"alpha": alpha}, support, moments)


def regression_log_joint(params, data):
    beta, sigma = params["beta"], params["sigma"]
    r = data["y"] - data["x"] @ beta
    fit = -0.5 * jnp.sum((r / sigma) ** 2) - len(r) * jnp.log(sigma)
    # sigma^2 is inverse gamma(2, 1), beta given sigma is N(0, 100 sigma^2)
    prior = -5 * jnp.log(sigma) - 1 / sigma**2
    return fit + prior - 0.005 * jnp.sum((beta / sigma) ** 2) - len(beta) * jnp.log(sigma)


def conjugate_regression():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(30, 6)) * np.array([1, 3, 0.3, 1, 1, 10])
    x[:, 4] = x[:, 3] + 0.2 * x[:, 4]  # two columns alike
    y = x @ np.array([1.0, -0.5, 2, 0, 1, 0.1]) + 0.7 * rng.normal(size=30)
    precision = x.T @ x + 0.01 * np.eye(6)
    mean = np.linalg.solve(precision, x.T @ y)
    a, b = 2 + 15, 1 + 0.5 * (y @ y - mean @ precision @ mean)
    variance = b / (a - 1) * np.diag(np.linalg.inv(precision))
    sigma = sqrt(b) * gamma(a - 0.5) / gamma(a)
    means = {"beta": mean, "sigma": np.array(sigma)}
    sds = {"beta": np.sqrt(variance), "sigma": np.array(sqrt(b / (a - 1) - sigma**2))}
    init = {"beta": np.zeros(6), "sigma": np.array(1.0)}
    support = {"sigma": bbvi.positive}
    return Heldout(regression_log_joint, init, {"x": x, "y": y}, support, (means, sds))


# --- shapes ---------------------------------------------------------------------------------


def banana_log_joint(params):
    x, y = params["x"][0], params["x"][1]
    return -0.5 * x**2 - 0.5 * ((y - x**2) / 0.5) ** 2


def banana():
    moments = _both(np.array([0, 1.0]), np.sqrt([1, 2 + 0.25]), np.zeros(2))
    return Heldout(banana_log_joint, {"x": np.zeros(2)}, None, None, moments)


def funnel_log_joint(params):
    v, x = params["x"][0], params["x"][1:]
    return -0.5 * v**2 - 0.5 * jnp.sum(x**2) * jnp.exp(-v) - 0.5 * len(x) * v


def funnel():
    """Log variance N(0, 1): a mild funnel, so that 4,000 exact draws have the sds to 4%."""
    sd = np.array([1.0] + [exp(0.25)] * 9)
    return Heldout(funnel_log_joint, {"x": np.zeros(10)}, None, None, _both(0, sd, sd))


def bimodal_log_joint(params):
    x = params["x"]
    far = -0.5 * jnp.sum((x - 3) ** 2) + jnp.log(0.3)
    return jnp.logaddexp(far, -0.5 * jnp.sum((x + 3) ** 2) + jnp.log(0.7))


def bimodal():
    """Three dimensions, modes 10 sds apart, weights 0.3 and 0.7."""
    sd = sqrt(1 + 9 - 1.2**2)
    return Heldout(bimodal_log_joint, {"x": np.zeros(3)}, None, None, _both(-1.2, sd, np.ones(3)))


def ordered_log_joint(params):
    return -jnp.sum(params["x"])


def order_statistics():
    """Five exponentials in order: Renyi's spacings."""
    spacing = 1 / np.arange(5, 0, -1)
    moments = _both(np.cumsum(spacing), np.sqrt(np.cumsum(spacing**2)), spacing)
    init, support = {"x": np.arange(1.0, 6)}, {"x": bbvi.positive_ordered}
    return Heldout(ordered_log_joint, init, None, support, moments)


# --- by integration on a grid ------------------------------------------------------------------


def probit_log_joint(params, data):
    eta = data["sign"] * (data["x"] @ params["x"])
    return jnp.sum(jax.scipy.stats.norm.logcdf(eta)) - 0.5 * jnp.sum((params["x"] / 2.5) ** 2)


def probit():
    """Forty rows, an intercept and a slope, nearly separated."""
    rng = np.random.default_rng(7)
    x = np.stack([np.ones(40), rng.normal(size=40)], axis=1)
    sign = np.sign(x @ np.array([0.5, 3.0]) + rng.normal(size=40))
    axis = np.linspace(-10, 14, 700)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    log_p = -0.5 * ((grid / 2.5) ** 2).sum(1)
    for row, s in zip(x, sign, strict=True):
        log_p += log_ndtr(s * (grid @ row))
    w = np.exp(log_p - log_p.max())
    w /= w.sum()
    mean = w @ grid
    moments = _both(mean, np.sqrt(w @ (grid - mean) ** 2), mean)
    return Heldout(probit_log_joint, {"x": np.zeros(2)}, {"x": x, "sign": sign}, None, moments)


def hierarchy_log_joint(params, data):
    mu, tau, theta = params["mu"], params["tau"], params["theta"]
    prior = -0.5 * (mu / 5) ** 2 - jnp.log1p((tau / 2) ** 2)
    prior += -0.5 * jnp.sum(((theta - mu) / tau) ** 2) - len(theta) * jnp.log(tau)
    return prior - 0.5 * jnp.sum(((data["y"] - theta) / data["sigma"]) ** 2)


def hierarchy():
    """Twenty groups, centred; given tau all is Gaussian, so one integral over tau is left."""
    rng = np.random.default_rng(8)
    sigma = rng.uniform(0.5, 1.5, 20)
    y = 1 + 1.0 * rng.normal(size=20) + sigma * rng.normal(size=20)
    log_tau = np.linspace(-8, 6, 4000)
    tau = np.exp(log_tau)[:, None]
    variance = sigma**2 + tau**2
    precision = (1 / variance).sum(1) + 1 / 25
    centre = (y / variance).sum(1) / precision
    log_p = -0.5 * (np.log(variance).sum(1) + np.log(precision) + (y**2 / variance).sum(1))
    log_p += 0.5 * centre**2 * precision - np.log1p((tau[:, 0] / 2) ** 2) + log_tau
    w = np.exp(log_p - log_p.max())
    w /= w.sum()
    keep = sigma**2 / variance  # theta given mu and tau: keep mu + (1 - keep) y
    theta = keep * centre[:, None] + (1 - keep) * y
    spread = tau**2 * sigma**2 / variance + keep**2 / precision[:, None]
    means = {"mu": w @ centre, "tau": w @ tau[:, 0], "theta": w @ theta}
    squares = {
        "mu": w @ (centre**2 + 1 / precision),
        "tau": w @ tau[:, 0] ** 2,
        "theta": w @ (spread + theta**2),
    }
    sds = {name: np.sqrt(squares[name] - means[name] ** 2) for name in means}
    init = {"mu": np.array(0.0), "tau": np.array(1.0), "theta": np.zeros(20)}
    support, data = {"tau": bbvi.positive}, {"y": y, "sigma": sigma}
    return Heldout(hierarchy_log_joint, init, data, support, (means, sds))


HELDOUT = {
    function.__name__: function
    for function in (
        gaussian_100,
        gaussian_300,
        gp,
        student_t,
        laplace,
        skew_normal,
        half_normal,
        poisson_gamma,
        beta_binomial,
        dirichlet,
        conjugate_regression,
        banana,
        funnel,
        bimodal,
        order_statistics,
        probit,
        hierarchy,
    )
}
