"""Rates, returned surveys, hospitals, a test, pilots, a programme watched and votes."""

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from scipy.special import gammaln

from bbvi import interval, positive, real, unit_interval
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model, numbers

# --- one rate or two, by counts of successes, under flat priors ----------------------------------


def _counts(theta, data):
    return d.beta(theta, data["k"] + 1, data["n"] - data["k"] + 1)


def one_rate(params, data):
    return _counts(params["theta"], data)


def rate_2_model(params, data):
    return _counts(jnp.stack([params["theta1"], params["theta2"]]), data)


def _rates(*names):
    def parameters(data):
        return {name: (unit_interval, ()) for name in names}

    return parameters


def _rates_prepare(raw):
    """k or k1 and k2, and likewise n."""
    return numbers({x: [raw[name] for name in sorted(raw) if name[0] == x] for x in ("k", "n")})


# --- how many were asked, by how many answered each of some surveys ------------------------------


def survey_model(params, data):
    """All numbers that may have been asked are alike before, and are summed out."""
    theta = params["theta"]
    log_parts = data["log_ways"] + data["silent"] * jnp.log1p(-theta)
    return data["answers"] * jnp.log(theta) + logsumexp(log_parts)


def _survey_prepare(raw):
    k = np.asarray(raw["k"], float)
    asked = np.arange(max(1, k.max()), raw["nmax"] + 1)
    silent = asked[:, None] - k
    ways = gammaln(asked + 1)[:, None] - gammaln(k + 1) - gammaln(silent + 1)
    return {"log_ways": ways.sum(1), "silent": silent.sum(1), "answers": k.sum()}


# --- deaths in hospitals -------------------------------------------------------------------------


def surgical_model(params, data):
    mu, b, variance = params["mu"], params["b"], params["sigmasq"]
    prior = d.normal(mu, 0.0, 1000.0) - 1.001 * jnp.log(variance) - 0.001 / variance
    prior += d.normal(b, mu, jnp.sqrt(variance))
    return prior + d.binomial_logit(data["r"], data["n"], b)


def _surgical_parameters(data):
    return {"mu": (real, ()), "sigmasq": (positive, ()), "b": (real, data["r"].shape)}


# --- five questions to a thousand students -------------------------------------------------------


def lsat_model(params, data):
    alpha, theta, beta = params["alpha"], params["theta"], params["beta"]
    prior = d.normal(alpha, 0.0, 100.0) + d.normal(theta, 0.0, 1.0) + d.normal(beta, 0.0, 100.0)
    return prior + d.binomial_logit(data["right"], 1.0, beta * theta[:, None] - alpha)


def _lsat_parameters(data):
    students, questions = data["right"].shape
    return {"alpha": (real, (questions,)), "theta": (real, (students,)), "beta": (positive, ())}


def _lsat_prepare(raw):
    """From the patterns of answers and how many students are up to each of them."""
    return numbers({"right": np.repeat(raw["response"], np.diff(raw["culm"], prepend=0), axis=0)})


# --- pilots in groups and scenarios --------------------------------------------------------------


def pilots(params, data):
    a, b, mu_a, mu_b = (params[name] for name in ("a", "b", "mu_a", "mu_b"))
    prior = d.normal(mu_a, 0.0, 1.0) + d.normal(a, 10 * mu_a, params["sigma_a"])
    prior += d.normal(mu_b, 0.0, 1.0) + d.normal(b, 10 * mu_b, params["sigma_b"])
    mean = a[data["group_id"].astype(int)] + b[data["scenario_id"].astype(int)]
    return prior + d.normal(data["y"], mean, params["sigma_y"])


def _pilots_parameters(data):
    effects = {"a": (real, (int(data["n_groups"]),)), "b": (real, (int(data["n_scenarios"]),))}
    effects |= {"mu_a": (real, ()), "mu_b": (real, ())}
    scales = ("sigma_a", "sigma_b", "sigma_y")
    return effects | {name: (interval(0.0, 100.0), ()) for name in scales}


def _pilots_prepare(raw):
    data = numbers(raw)
    return data | {name: data[name] - 1 for name in ("group_id", "scenario_id")}


# --- who watched a programme, and who voted for whom ---------------------------------------------


def sesame_one_pred_a(params, data):
    beta = params["beta"]
    return d.normal(data["watched"], beta[0] + beta[1] * data["encouraged"], params["sigma"])


def nes_logit_model(params, data):
    eta = params["alpha"] + params["beta"] * data["income"]
    return d.binomial_logit(data["vote"], 1.0, eta)


def _sesame_parameters(data):
    return {"beta": (real, (2,)), "sigma": (positive, ())}


def _nes_logit_parameters(data):
    return {"alpha": (real, ()), "beta": (real, (1,))}


MODELS = {
    "Rate_1_model": Model(one_rate, _rates("theta"), _rates_prepare),
    "Rate_2_model": Model(rate_2_model, _rates("theta1", "theta2"), _rates_prepare),
    "Rate_3_model": Model(one_rate, _rates("theta"), _rates_prepare),
    "Rate_4_model": Model(one_rate, _rates("theta", "thetaprior"), _rates_prepare),
    "Rate_5_model": Model(one_rate, _rates("theta"), _rates_prepare),
    "Survey_model": Model(survey_model, _rates("theta"), _survey_prepare),
    "surgical_model": Model(surgical_model, _surgical_parameters),
    "lsat_model": Model(lsat_model, _lsat_parameters, _lsat_prepare),
    "pilots": Model(pilots, _pilots_parameters, _pilots_prepare),
    "sesame_one_pred_a": Model(sesame_one_pred_a, _sesame_parameters),
    "nes_logit_model": Model(nes_logit_model, _nes_logit_parameters),
}
