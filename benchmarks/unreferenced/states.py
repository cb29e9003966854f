"""Hidden states, a level with seasons, and a trend with bends."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from bbvi import interval, ordered, positive, positive_ordered, real, simplex
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model, numbers


def _log_normal(y, loc, scale):
    """Of each observation in each state."""
    return -0.5 * ((y[:, None] - loc) / scale) ** 2 - jnp.log(scale)


def hmm_gaussian(params, data):
    emission = _log_normal(data["y"], params["mu"], params["sigma"])
    log_transition = jnp.log(params["A"])  # [i, j] is from i to j

    def step(log_alpha, log_e):
        return logsumexp(log_alpha[:, None] + log_transition, axis=0) + log_e, None

    last, _ = jax.lax.scan(step, jnp.log(params["pi1"]) + emission[0], emission[1:])
    return logsumexp(last)


def _hmm_gaussian_parameters(data):
    k = int(data["K"])
    return {
        "pi1": (simplex, (k,)),
        "A": (simplex, (k, k)),
        "mu": (ordered, (k,)),
        "sigma": (positive, (k,)),
    }


def iohmm_reg(params, data):
    """The Stan program weighs the state before, not the new one, by the inputs of a moment.

    Its recursion is thus a product: each output has its own mixture, weighed by the next inputs,
    and the last output has weights of one.
    """
    w, b, sigma, u = params["w"], params["b"], params["sigma"], data["u"]
    log_p = _log_normal(data["y"], u @ b.T, sigma)
    log_p = log_p.at[0].add(jnp.log(params["pi1"]))
    log_p = log_p.at[:-1].add(jax.nn.log_softmax(u[1:] @ w.T))
    prior = d.normal(w, 0.0, 5.0) + d.normal(b, 0.0, 5.0) + d.normal(sigma, 0.0, 3.0)
    return prior + jnp.sum(logsumexp(log_p, axis=1))


def _iohmm_reg_parameters(data):
    k, m = int(data["K"]), data["u"].shape[1]
    return {
        "pi1": (simplex, (k,)),
        "w": (real, (k, m)),
        "b": (real, (k, m)),
        "sigma": (positive, (k,)),
    }


def state_space_stochastic_level_stochastic_seasonal(params, data):
    mu, seasonal, sigma = params["mu"], params["seasonal"], params["sigma"]
    year = jnp.arange(len(seasonal) - 11)[:, None] + jnp.arange(12)
    prior = d.normal(jnp.sum(seasonal[year], axis=1), 0.0, sigma[0])
    prior += d.normal(jnp.diff(mu), 0.0, sigma[1]) + d.student_t(sigma, 4.0, 0.0, 1.0)
    level = mu + params["beta"] * data["x"] + params["lambda"] * data["w"]
    return prior + d.normal(data["y"], level + seasonal, sigma[2])


def _state_space_parameters(data):
    y = data["y"]
    centre, reach = np.mean(y), 3 * np.std(y, ddof=1)
    return {
        "mu": (interval(centre - reach, centre + reach), y.shape),
        "seasonal": (real, y.shape),
        "beta": (real, ()),
        "lambda": (real, ()),
        "sigma": (positive_ordered, (3,)),
    }


def prophet(params, data):
    x, beta, sigma = data["X"], params["beta"], params["sigma_obs"]
    trend = params["k"] * data["t"] + params["m"] + data["ramps"] @ params["delta"]
    mean = trend * (1 + x @ (beta * data["s_m"])) + x @ (beta * data["s_a"])
    prior = d.normal(params["k"], 0.0, 5.0) + d.normal(params["m"], 0.0, 5.0)
    prior += d.normal(beta, 0.0, data["sigmas"]) + d.normal(sigma, 0.0, 0.5)
    prior -= jnp.sum(jnp.abs(params["delta"])) / data["tau"]
    return prior + d.normal(data["y"], mean, sigma)


def _prophet_parameters(data):
    return {
        "k": (real, ()),
        "m": (real, ()),
        "delta": (real, (data["ramps"].shape[1],)),
        "sigma_obs": (positive, ()),
        "beta": (real, data["sigmas"].shape),
    }


def _prophet_prepare(raw):
    """A bend of the trend adds a ramp that starts there; the logistic trend is not ported."""
    if raw["trend_indicator"]:
        raise NotImplementedError("prophet is ported with a linear trend only.")
    data = numbers(raw)
    names = ("t", "y", "X", "sigmas", "tau", "s_a", "s_m")
    ramps = np.maximum(data["t"][:, None] - data["t_change"], 0.0)
    return {"ramps": ramps} | {name: data[name] for name in names}


MODELS = {
    "hmm_gaussian": Model(hmm_gaussian, _hmm_gaussian_parameters),
    "iohmm_reg": Model(iohmm_reg, _iohmm_reg_parameters),
    "state_space_stochastic_level_stochastic_seasonal": Model(
        state_space_stochastic_level_stochastic_seasonal, _state_space_parameters
    ),
    "prophet": Model(prophet, _prophet_parameters, _prophet_prepare),
}
