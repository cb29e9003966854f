"""Regressions: counts, shares, categories, outliers, raw scales, more columns than rows."""

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betaln, gammaln, logsumexp

from bbvi import greater_than, positive, real, unit_interval
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import expit, of

# --- logistic, columns on raw scales -------------------------------------------------------------


def raw_logistic(params, data):
    eta = params["alpha"] + data["x"] @ params["beta"]
    prior = d.normal(params["alpha"], 0.0, 20.0) + d.normal(params["beta"], 0.0, 10.0)
    return prior + d.binomial_logit(data["y"], 1.0, eta)


def _raw_logistic_data():
    rng = np.random.default_rng(101)
    distance, arsenic = rng.gamma(1.5, 32.0, 800), 0.5 + rng.gamma(1.2, 1.0, 800)
    school = rng.integers(0, 17, 800)
    x = np.stack([distance, arsenic, school, distance * arsenic], 1)
    eta = -0.2 - 0.01 * distance + 0.5 * arsenic + 0.04 * school - 0.001 * distance * arsenic
    return {"x": x, "y": (rng.random(800) < expit(eta)).astype(float)}


# --- overdispersed counts with exposures ---------------------------------------------------------


def negative_binomial(params, data):
    alpha, beta, size = params["alpha"], params["beta"], params["size"]
    eta = data["log_exposure"] + alpha + data["x"] @ beta
    prior = d.normal(alpha, 0.0, 5.0) + d.normal(beta, 0.0, 2.0) + d.gamma(size, 2.0, 0.5)
    return prior + jnp.sum(d.negative_binomial(data["y"], eta, size))


def _negative_binomial_data():
    rng = np.random.default_rng(102)
    x, exposure = rng.normal(size=(150, 3)), rng.uniform(1, 20, 150)
    mean = exposure * np.exp(-0.5 + x @ [0.6, -0.4, 0.1])
    y = rng.poisson(mean * rng.gamma(1.3, 1 / 1.3, 150))
    return {"x": x, "log_exposure": np.log(exposure), "y": y.astype(float)}


# --- counts with too many zeros ------------------------------------------------------------------


def zero_inflated(params, data):
    zero, rate = data["x"] @ params["zero"], data["x"] @ params["rate"]
    log_zero, log_count = -jnp.logaddexp(0.0, -zero), -jnp.logaddexp(0.0, zero)
    counted = log_count + data["y"] * rate - jnp.exp(rate)
    none = jnp.logaddexp(log_zero, log_count - jnp.exp(rate))
    prior = d.normal(params["zero"], 0.0, 2.0) + d.normal(params["rate"], 0.0, 2.0)
    return prior + jnp.sum(jnp.where(data["y"] == 0, none, counted))


def _zero_inflated_data():
    rng = np.random.default_rng(103)
    x = np.concatenate([np.ones((200, 1)), rng.normal(size=(200, 2))], 1)
    y = rng.poisson(np.exp(x @ [0.3, 0.5, -0.2]))
    y[rng.random(200) < expit(x @ [-0.7, 0.2, 0.9])] = 0
    return {"x": x, "y": y.astype(float)}


# --- shares between zero and one -----------------------------------------------------------------


def beta_regression(params, data):
    mean = 1 / (1 + jnp.exp(-(data["x"] @ params["beta"])))
    a, b = mean * params["precision"], (1 - mean) * params["precision"]
    prior = d.normal(params["beta"], 0.0, 3.0) + d.gamma(params["precision"], 1.0, 0.01)
    return prior + d.beta(data["y"], a, b) - jnp.sum(betaln(a, b))


def _beta_regression_data():
    rng = np.random.default_rng(104)
    x = np.concatenate([np.ones((60, 1)), rng.normal(size=(60, 3))], 1)
    mean = expit(x @ [-1.0, 0.7, 0.0, -0.3])
    return {"x": x, "y": np.clip(rng.beta(12 * mean, 12 * (1 - mean)), 1e-4, 1 - 1e-4)}


# --- one category of four ------------------------------------------------------------------------


def multinomial_logit(params, data):
    eta = data["x"] @ params["beta"]  # (N, 3); the first category is the base
    eta = jnp.concatenate([jnp.zeros((len(eta), 1)), eta], 1)
    return d.normal(params["beta"], 0.0, 2.5) + jnp.sum(
        jnp.sum(data["y"] * eta, 1) - logsumexp(eta, axis=1)
    )


def _multinomial_logit_data():
    rng = np.random.default_rng(105)
    x = np.concatenate([np.ones((150, 1)), rng.normal(size=(150, 4))], 1)
    eta = np.concatenate([np.zeros((150, 1)), x @ rng.normal(size=(5, 3))], 1)
    chosen = np.argmax(eta + rng.gumbel(size=eta.shape), 1)
    return {"x": x, "y": np.eye(4)[chosen]}


# --- outliers, tails learnt ----------------------------------------------------------------------


def robust(params, data):
    beta, sigma, df = params["beta"], params["sigma"], params["df"]
    z = (data["y"] - data["x"] @ beta) / sigma
    scale = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * jnp.log(df) - jnp.log(sigma)
    prior = d.normal(beta, 0.0, 10.0) + d.cauchy(sigma, 0.0, 5.0) + d.gamma(df, 2.0, 0.1)
    return prior + jnp.sum(scale - 0.5 * (df + 1) * jnp.log1p(z * z / df))


def _robust_data():
    rng = np.random.default_rng(106)
    x = np.concatenate([np.ones((100, 1)), rng.normal(size=(100, 4))], 1)
    y = x @ [3.0, 1.0, -2.0, 0.0, 0.5] + 0.8 * rng.standard_t(2.5, 100)
    return {"x": x, "y": y}


# --- more columns than rows ----------------------------------------------------------------------


def ridge(params, data):
    beta, tau, sigma = params["beta"], params["tau"], params["sigma"]
    prior = d.normal(beta, 0.0, tau) + d.cauchy(tau, 0.0, 1.0) + d.lognormal(sigma, 0.0, 0.5)
    return prior + d.normal(data["y"], data["x"] @ beta, sigma)


def _ridge_data():
    rng = np.random.default_rng(107)
    x = rng.normal(size=(80, 120))
    return {"x": x, "y": x @ (0.3 * rng.normal(size=120)) + rng.normal(size=80)}


# --- regularised horseshoe, logistic -------------------------------------------------------------


def horseshoe(params, data):
    local, share = params["local"], params["share"]
    slab = params["slab"]
    shrunk = jnp.sqrt(slab * local**2 / (slab + share**2 * local**2)) * share
    eta = params["alpha"] + data["x"] @ (params["raw"] * shrunk)
    prior = d.normal(params["raw"], 0.0, 1.0) + d.cauchy(local, 0.0, 1.0)
    prior += d.cauchy(share, 0.0, 0.05) + d.normal(params["alpha"], 0.0, 5.0)
    prior += -3.0 * jnp.log(slab) - 8.0 / slab  # inverse gamma(2, 8)
    return prior + d.binomial_logit(data["y"], 1.0, eta)


def _horseshoe_data():
    rng = np.random.default_rng(108)
    x = rng.normal(size=(120, 60))
    beta = np.zeros(60)
    beta[:4] = [2.5, -2.0, 1.5, 1.5]
    return {"x": x, "y": (rng.random(120) < expit(x @ beta)).astype(float)}


# --- sparse by gamma scales, logistic ------------------------------------------------------------


def credit(params, data):
    shrunk = params["share"] * params["local"] * params["raw"]
    prior = d.normal(params["raw"], 0.0, 1.0) + d.gamma(params["local"], 0.5, 0.5)
    prior += d.gamma(params["share"], 0.5, 0.5) + d.normal(params["alpha"], 0.0, 5.0)
    return prior + d.binomial_logit(data["y"], 1.0, params["alpha"] + data["x"] @ shrunk)


def _credit_data():
    rng = np.random.default_rng(111)
    x = rng.normal(size=(600, 24))
    beta = np.where(np.arange(24) < 8, rng.normal(size=24) * 0.6, 0)
    return {"x": x, "y": (rng.random(600) < expit(-0.8 + x @ beta)).astype(float)}


# --- a rate that changes at an unknown share of the series, summed out ---------------------------


def change_point(params, data):
    y, log_early, log_late = data["y"], jnp.log(params["early"]), jnp.log(params["late"])
    early = jnp.cumsum(y * log_early - params["early"])
    late = y * log_late - params["late"]
    late = jnp.sum(late) - jnp.cumsum(late)
    prior = d.gamma(params["early"], 1.0, 1.0) + d.gamma(params["late"], 1.0, 1.0)
    return prior + logsumexp(early + late)


def _change_point_data():
    rng = np.random.default_rng(109)
    return {"y": rng.poisson(np.where(np.arange(110) < 40, 3.0, 1.0)).astype(float)}


# --- points of a line, some of them bad, of which kind is not known ------------------------------


def bad_points(params, data):
    good = params["slope"] * data["x"] + params["intercept"]
    spread = jnp.sqrt(params["spread"] ** 2 + data["sigma"] ** 2)
    z, b = (data["y"] - good) / data["sigma"], (data["y"] - params["centre"]) / spread
    log_good = jnp.log1p(-params["bad"]) - 0.5 * z**2 - jnp.log(data["sigma"])
    log_bad = jnp.log(params["bad"]) - 0.5 * b**2 - jnp.log(spread)
    prior = d.normal(params["slope"], 0.0, 10.0) + d.normal(params["intercept"], 0.0, 200.0)
    prior += d.normal(params["centre"], 400.0, 200.0) + d.lognormal(params["spread"], 4.0, 1.0)
    prior += d.beta(params["bad"], 1.0, 3.0)
    return prior + jnp.sum(jnp.logaddexp(log_good, log_bad))


def _bad_points_data():
    rng = np.random.default_rng(110)
    x, sigma = rng.uniform(40, 250, 24), rng.uniform(10, 35, 24)
    y = 2.2 * x + 35 + sigma * rng.normal(size=24)
    y[:5] = rng.normal(400, 120, 5)
    return {"x": x, "y": y, "sigma": sigma}


MODELS = {
    "raw_logistic": (
        Model(raw_logistic, of(alpha=(real, ()), beta=(real, (4,)))),
        _raw_logistic_data,
    ),
    "negative_binomial": (
        Model(negative_binomial, of(alpha=(real, ()), beta=(real, (3,)), size=(positive, ()))),
        _negative_binomial_data,
    ),
    "zero_inflated": (
        Model(zero_inflated, of(zero=(real, (3,)), rate=(real, (3,)))),
        _zero_inflated_data,
    ),
    "beta_regression": (
        Model(beta_regression, of(beta=(real, (4,)), precision=(positive, ()))),
        _beta_regression_data,
    ),
    "multinomial_logit": (
        Model(multinomial_logit, of(beta=(real, (5, 3)))),
        _multinomial_logit_data,
    ),
    "robust": (
        Model(robust, of(beta=(real, (5,)), sigma=(positive, ()), df=(greater_than(1.0), ()))),
        _robust_data,
    ),
    "ridge": (
        Model(ridge, of(beta=(real, (120,)), tau=(positive, ()), sigma=(positive, ()))),
        _ridge_data,
    ),
    "horseshoe": (
        Model(
            horseshoe,
            of(
                alpha=(real, ()),
                raw=(real, (60,)),
                local=(positive, (60,)),
                share=(positive, ()),
                slab=(positive, ()),
            ),
        ),
        _horseshoe_data,
    ),
    "credit": (
        Model(
            credit,
            of(alpha=(real, ()), raw=(real, (24,)), local=(positive, (24,)), share=(positive, ())),
        ),
        _credit_data,
    ),
    "change_point": (
        Model(change_point, of(early=(positive, ()), late=(positive, ()))),
        _change_point_data,
    ),
    "bad_points": (
        Model(
            bad_points,
            of(
                slope=(real, ()),
                intercept=(real, ()),
                centre=(real, ()),
                spread=(positive, ()),
                bad=(unit_interval, ()),
            ),
        ),
        _bad_points_data,
    ),
}
