"""Bones of children, dugongs, rats, seeds, and dogs that learn."""

import jax
import jax.numpy as jnp
import numpy as np

from bbvi import corr_cholesky, interval, positive, real, unit_interval
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model, numbers

# --- skeletal ages of children by the grades of their bones --------------------------------------


def bones_model(params, data):
    """A grade is a run of passed thresholds and one that is not, unless it is the highest.

    The difference of two sigmoids is their two outer tails times a factor without theta.
    """
    theta, passed, failed = params["theta"], data["passed"], data["failed"]
    eta = data["delta"][:, None] * (theta[:, None, None] - data["gamma"])
    prior = d.normal(theta, 0.0, 36.0)
    return prior + d.binomial_logit(passed, passed + failed, eta)


def _bones_parameters(data):
    return {"theta": (real, data["passed"].shape[:1])}


def _bones_prepare(raw):
    """Of each grade the last threshold passed and the first failed, none where it is missing."""
    data = numbers({name: raw[name] for name in ("gamma", "delta")})
    grade, highest = np.asarray(raw["grade"])[..., None], np.asarray(raw["ncat"])[:, None]
    threshold = np.arange(1, data["gamma"].shape[1] + 1)
    failed = (threshold == grade) & (grade < highest)
    return data | numbers({"passed": threshold == grade - 1, "failed": failed})


# --- lengths of dugongs by age -------------------------------------------------------------------


def dugongs_model(params, data):
    alpha, beta, tau = params["alpha"], params["beta"], params["tau"]
    prior = d.normal(alpha, 0.0, 1000.0) + d.normal(beta, 0.0, 1000.0) + d.gamma(tau, 1e-4, 1e-4)
    mean = alpha - beta * params["lambda"] ** data["x"]
    return prior + d.normal(data["Y"], mean, 1 / jnp.sqrt(tau))


def _dugongs_parameters(data):
    return {
        "alpha": (real, ()),
        "beta": (real, ()),
        "lambda": (interval(0.5, 1.0), ()),
        "tau": (positive, ()),
    }


# --- weights of rats by age: lines, centred ------------------------------------------------------


def rats_model(params, data):
    alpha, beta, rat = params["alpha"], params["beta"], data["rat"].astype(int)
    mu_alpha, mu_beta = params["mu_alpha"], params["mu_beta"]
    prior = d.normal(mu_alpha, 0.0, 100.0) + d.normal(mu_beta, 0.0, 100.0)
    prior += d.normal(alpha, mu_alpha, params["sigma_alpha"])
    prior += d.normal(beta, mu_beta, params["sigma_beta"])
    mean = alpha[rat] + beta[rat] * (data["x"] - data["xbar"])
    return prior + d.normal(data["y"], mean, params["sigma_y"])


def _rats_parameters(data):
    rats = int(data["N"])
    lines = {"alpha": (real, (rats,)), "beta": (real, (rats,))}
    lines |= {"mu_alpha": (real, ()), "mu_beta": (real, ())}
    return lines | {name: (positive, ()) for name in ("sigma_y", "sigma_alpha", "sigma_beta")}


def _rats_prepare(raw):
    data = numbers(raw)
    return data | {"rat": data["rat"] - 1}


# --- seeds that germinate, by plate --------------------------------------------------------------

_ALPHAS = ("alpha0", "alpha1", "alpha12", "alpha2")


def _germinated(params, data, plate):
    x1, x2 = data["x1"], data["x2"]
    eta = params["alpha0"] + params["alpha1"] * x1 + params["alpha2"] * x2
    eta += params["alpha12"] * x1 * x2 + plate
    return d.binomial_logit(data["n"], data["N"], eta)


def _slopes(params, scale):
    return sum(d.normal(params[name], 0.0, scale) for name in _ALPHAS)


def seeds_model(params, data):
    tau, b = params["tau"], params["b"]
    prior = _slopes(params, 1e3) + d.gamma(tau, 1e-3, 1e-3) + d.normal(b, 0.0, 1 / jnp.sqrt(tau))
    return prior + _germinated(params, data, b)


def seeds_centered_model(params, data):
    """What the plates share goes to the intercept."""
    sigma, c = params["sigma"], params["c"]
    prior = _slopes(params, 1.0) + d.cauchy(sigma, 0.0, 1.0) + d.normal(c, 0.0, sigma)
    return prior + _germinated(params, data, c - jnp.mean(c))


def seeds_stanified_model(params, data):
    sigma, b = params["sigma"], params["b"]
    prior = _slopes(params, 1.0) + d.cauchy(sigma, 0.0, 1.0) + d.normal(b, 0.0, sigma)
    return prior + _germinated(params, data, b)


def _seeds_parameters(spread, plate):
    def parameters(data):
        slopes = {name: (real, ()) for name in _ALPHAS}
        return slopes | {spread: (positive, ()), plate: (real, data["n"].shape)}

    return parameters


# --- dogs that are shocked unless they jump: by how often they were shocked and were not ---------


def dogs(params, data):
    beta = params["beta"]
    eta = beta[0] + beta[1] * data["avoided"] + beta[2] * data["shocked"]
    return d.normal(beta, 0.0, 100.0) + d.binomial_logit(data["y"], 1.0, eta)


def dogs_log(params, data):
    eta = params["beta"][0] * data["avoided"] + params["beta"][1] * data["shocked"]
    return d.binomial_logit(data["y"], 1.0, eta)


def _dogs_parameters(data):
    return {"beta": (real, (3,))}


def _dogs_log_parameters(data):
    # the Stan program has reals, and uniform priors between these bounds
    return {"beta": (interval(np.array([-100.0, 0.0]), np.array([0.0, 100.0])), (2,))}


def _shock_by_powers(log_a, log_b, data):
    """A shock has probability a^shocked b^avoided, which is one in the first trial."""
    is_shock = data["y"] == 1
    log_p = data["shocked"] * log_a + data["avoided"] * log_b
    # -1 stands where the other branch is taken, lest a gradient be 0 times infinity
    log_q = jnp.log(-jnp.expm1(jnp.where(is_shock, -1.0, log_p)))
    return jnp.sum(jnp.where(is_shock, log_p, log_q))


def dogs_hierarchical(params, data):
    return _shock_by_powers(jnp.log(params["a"]), jnp.log(params["b"]), data)


def dogs_nonhierarchical(params, data):
    mu, sigma, root = params["mu_logit_ab"], params["sigma_logit_ab"], params["L_logit_ab"]
    # the rows of z times the root, not its transpose, as the Stan program has it
    logit_ab = mu + params["z"] @ (sigma[:, None] * root)
    prior = jnp.sum(jax.nn.log_sigmoid(mu) + jax.nn.log_sigmoid(-mu))
    prior += d.normal(sigma, 0.0, 1.0) + d.normal(params["z"], 0.0, 1.0)
    prior += d.lkj_cholesky(root, 2.0)
    log_a, log_b = jax.nn.log_sigmoid(logit_ab).T[..., None]
    return prior + _shock_by_powers(log_a, log_b, data)


def _dogs_hierarchical_parameters(data):
    return {"a": (unit_interval, ()), "b": (unit_interval, ())}


def _dogs_nonhierarchical_parameters(data):
    return {
        "mu_logit_ab": (real, (2,)),
        "sigma_logit_ab": (positive, (2,)),
        "L_logit_ab": (corr_cholesky, (2, 2)),
        "z": (real, (len(data["y"]), 2)),
    }


def _dogs_prepare(raw):
    y = np.asarray(raw["y"], float)  # (dogs, trials)
    return {"y": y, "shocked": np.cumsum(y, 1) - y, "avoided": np.cumsum(1 - y, 1) - (1 - y)}


MODELS = {
    "bones_model": Model(bones_model, _bones_parameters, _bones_prepare),
    "dugongs_model": Model(dugongs_model, _dugongs_parameters),
    "rats_model": Model(rats_model, _rats_parameters, _rats_prepare),
    "seeds_model": Model(seeds_model, _seeds_parameters("tau", "b")),
    "seeds_centered_model": Model(seeds_centered_model, _seeds_parameters("sigma", "c")),
    "seeds_stanified_model": Model(seeds_stanified_model, _seeds_parameters("sigma", "b")),
    "dogs": Model(dogs, _dogs_parameters, _dogs_prepare),
    "dogs_log": Model(dogs_log, _dogs_log_parameters, _dogs_prepare),
    "dogs_hierarchical": Model(dogs_hierarchical, _dogs_hierarchical_parameters, _dogs_prepare),
    "dogs_nonhierarchical": Model(
        dogs_nonhierarchical, _dogs_nonhierarchical_parameters, _dogs_prepare
    ),
}
