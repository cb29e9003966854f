"""AR, ARMA, GARCH and hidden Markov models."""

import jax
import jax.numpy as jnp
import numpy as np

from bbvi import interval, ordered, positive, positive_ordered, real, simplex, unit_interval

from . import density as d
from .model import Model


def ark(params, data):
    alpha, beta, sigma = params["alpha"], params["beta"], params["sigma"]
    prior = d.normal(alpha, 0.0, 10.0) + d.normal(beta, 0.0, 10.0) + d.cauchy(sigma, 0.0, 2.5)
    return prior + d.normal(data["y"], alpha + data["lags"] @ beta, sigma)


def _ark_parameters(data):
    order = data["lags"].shape[1]
    return {"alpha": (real, ()), "beta": (real, (order,)), "sigma": (positive, ())}


def _ark_prepare(raw):
    y, order = np.asarray(raw["y"]), raw["K"]
    lags = np.stack([y[order - k : len(y) - k] for k in range(1, order + 1)], axis=1)
    return {"y": y[order:], "lags": lags}


def arma11(params, data):
    mu, phi, theta, sigma = (params[name] for name in ("mu", "phi", "theta", "sigma"))
    y = data["y"]
    first = y[0] - (mu + phi * mu)

    def step(error, pair):
        previous, current = pair
        error = current - (mu + phi * previous + theta * error)
        return error, error

    _, rest = jax.lax.scan(step, first, (y[:-1], y[1:]))
    prior = d.normal(mu, 0.0, 10.0) + d.normal(phi, 0.0, 2.0) + d.normal(theta, 0.0, 2.0)
    prior += d.cauchy(sigma, 0.0, 2.5)
    return prior + d.normal(first, 0.0, sigma) + d.normal(rest, 0.0, sigma)


def _arma11_parameters(data):
    real_ones = {name: (real, ()) for name in ("mu", "phi", "theta")}
    return real_ones | {"sigma": (positive, ())}


def garch11(params, data):
    mu, alpha0, alpha1, beta1 = (params[name] for name in ("mu", "alpha0", "alpha1", "beta1"))
    y = data["y"]
    first = jnp.zeros_like(mu) + data["sigma1"] ** 2

    def step(variance, previous):
        variance = alpha0 + alpha1 * (previous - mu) ** 2 + beta1 * variance
        return variance, variance

    _, rest = jax.lax.scan(step, first, y[:-1])
    return d.normal(y, mu, jnp.sqrt(jnp.concatenate([first[None], rest])))


def _what_alpha1_leaves(params, data):
    return 1 - params["alpha1"]


def _garch11_parameters(data):
    return {
        "mu": (real, ()),
        "alpha0": (positive, ()),
        "alpha1": (unit_interval, ()),
        "beta1": (interval(0.0, _what_alpha1_leaves), ()),
    }


def _forward(log_emission, params):
    return d.hidden_markov(log_emission, jnp.log(jnp.stack([params["theta1"], params["theta2"]])))


def _hmm_drive_prior(params, data):
    start = jnp.array([0.0, 3.0])
    return (
        d.dirichlet(params["theta1"], data["alpha"][0])
        + d.dirichlet(params["theta2"], data["alpha"][1])
        + d.normal(params["phi"], start, 1.0)
        + d.normal(params["lambda"], start, 1.0)
    )


def hmm_drive_0(params, data):
    u, v = data["u"][:, None], data["v"][:, None]
    phi, lam = params["phi"], params["lambda"]
    emission = jnp.log(phi) - phi * u + jnp.log(lam) - lam * v
    return _hmm_drive_prior(params, data) + _forward(emission, params)


def hmm_drive_1(params, data):
    u, v = data["u"][:, None], data["v"][:, None]
    z_u, z_v = (u - params["phi"]) / data["tau"], (v - params["lambda"]) / data["rho"]
    return _hmm_drive_prior(params, data) + _forward(-0.5 * (z_u**2 + z_v**2), params)


def _hmm_drive_parameters(order):
    def parameters(data):
        rows = {"theta1": (simplex, (2,)), "theta2": (simplex, (2,))}
        return rows | {"phi": (order, (2,)), "lambda": (order, (2,))}

    return parameters


def hmm_example(params, data):
    mu = params["mu"]
    prior = d.normal(mu, jnp.array([3.0, 10.0]), 1.0)
    return prior + _forward(-0.5 * (data["y"][:, None] - mu) ** 2, params)


def _hmm_example_parameters(data):
    return {
        "theta1": (simplex, (2,)),
        "theta2": (simplex, (2,)),
        "mu": (positive_ordered, (2,)),
    }


MODELS = {
    "arK": Model(ark, _ark_parameters, _ark_prepare),
    "arma11": Model(arma11, _arma11_parameters),
    "garch11": Model(garch11, _garch11_parameters),
    "hmm_drive_0": Model(hmm_drive_0, _hmm_drive_parameters(positive_ordered)),
    "hmm_drive_1": Model(hmm_drive_1, _hmm_drive_parameters(ordered)),
    "hmm_example": Model(hmm_example, _hmm_example_parameters),
}
