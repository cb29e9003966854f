"""What people do in experiments: reaction times, thresholds of seeing, learning, patience."""

import jax
import jax.numpy as jnp
import numpy as np

from bbvi import interval, less_than, ordered, positive, real
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import expit, of

# --- reaction times: a drift to a boundary, after a delay that is below the quickest of them ------


def reactions(params, data):
    drift = jnp.exp(params["drift"] + params["sd_drift"] * params["raw_drift"])
    bound = jnp.exp(params["bound"] + params["sd_bound"] * params["raw_bound"])
    t = data["time"] - params["delay"][:, None]  # (people, trials)
    miss = bound[:, None] - drift[:, None] * t
    each = jnp.log(bound)[:, None] - 1.5 * jnp.log(t) - 0.5 * miss**2 / t
    prior = d.normal(params["raw_drift"], 0.0, 1.0) + d.normal(params["raw_bound"], 0.0, 1.0)
    prior += d.normal(params["drift"], 1.0, 1.0) + d.normal(params["bound"], 0.0, 1.0)
    prior += d.normal(params["sd_drift"], 0.0, 0.5) + d.normal(params["sd_bound"], 0.0, 0.5)
    return prior + d.normal(params["delay"], 0.2, 0.2) + jnp.sum(each)


def _reactions_data():
    rng = np.random.default_rng(901)
    drift = np.exp(1.1 + 0.3 * rng.normal(size=(15, 1)))
    bound = np.exp(0.1 + 0.2 * rng.normal(size=(15, 1)))
    delay = rng.uniform(0.15, 0.3, (15, 1))
    return {"time": delay + rng.wald(bound / drift, bound**2, (15, 30))}


def _fastest(params, data):
    return jnp.min(data["time"], axis=1)


# --- seeing, with lapses of attention ------------------------------------------------------------


def seeing(params, data):
    threshold = params["threshold"] + params["sd"] * params["raw"]
    lapse = params["lapse"]
    sees = jax.nn.sigmoid(jnp.exp(params["slope"]) * (data["contrast"] - threshold[:, None]))
    share = 0.5 + (0.5 - lapse[:, None]) * sees
    right = data["right"] * jnp.log(share) + (data["shown"] - data["right"]) * jnp.log1p(-share)
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["threshold"], 0.0, 2.0)
    prior += d.normal(params["sd"], 0.0, 1.0) + d.normal(params["slope"], 0.0, 1.0)
    return prior + d.beta(2 * lapse, 1.0, 15.0) + jnp.sum(right)


def _seeing_data():
    rng = np.random.default_rng(902)
    contrast = np.linspace(-2.5, 2.5, 7)
    threshold = 0.2 + 0.6 * rng.normal(size=(12, 1))
    lapse = rng.beta(1, 15, (12, 1)) / 2
    share = 0.5 + (0.5 - lapse) * expit(1.8 * (contrast - threshold))
    return {
        "contrast": contrast,
        "shown": np.full((12, 7), 16.0),
        "right": rng.binomial(16, share) * 1.0,
    }


# --- learning which of two arms pays -------------------------------------------------------------


def learners(params, data):
    rate = jax.nn.sigmoid(params["rate"] + params["sd_rate"] * params["raw_rate"])
    heat = jnp.exp(params["heat"] + params["sd_heat"] * params["raw_heat"])

    def step(worth, trial):
        chosen, paid = trial  # (people, 2), (people,)
        log_p = jnp.sum(chosen * jax.nn.log_softmax(heat[:, None] * worth, axis=-1))
        miss = paid[:, None] - worth
        return worth + rate[:, None] * chosen * miss, log_p

    start = jnp.zeros((rate.shape[0], 2))
    trials = (jnp.swapaxes(data["chosen"], 0, 1), data["paid"].T)
    _, log_p = jax.lax.scan(step, start, trials)
    prior = d.normal(params["raw_rate"], 0.0, 1.0) + d.normal(params["raw_heat"], 0.0, 1.0)
    prior += d.normal(params["rate"], 0.0, 1.5) + d.normal(params["heat"], 1.0, 1.0)
    prior += d.normal(params["sd_rate"], 0.0, 1.0) + d.normal(params["sd_heat"], 0.0, 0.5)
    return prior + jnp.sum(log_p)


def _learners_data():
    rng = np.random.default_rng(903)
    rate, heat = expit(-0.8 + 0.7 * rng.normal(size=20)), np.exp(1.2 + 0.3 * rng.normal(size=20))
    worth, chosen, paid = np.zeros((20, 2)), np.zeros((20, 60, 2)), np.zeros((20, 60))
    people = np.arange(20)
    for t in range(60):
        arm = (rng.random(20) < expit(heat * (worth[:, 1] - worth[:, 0]))).astype(int)
        paid[:, t] = rng.random(20) < np.where(arm == 1, 0.7, 0.3)
        chosen[people, t, arm] = 1.0
        worth[people, arm] += rate * (paid[:, t] - worth[people, arm])
    return {"chosen": chosen, "paid": paid}


# --- less now or more later ----------------------------------------------------------------------


def patience(params, data):
    log_k = params["k"] + params["sd"] * params["raw"]
    later = data["more"] / (1 + jnp.exp(log_k)[:, None] * data["delay"])
    eta = jnp.exp(params["heat"]) * (later - data["less"])
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["k"], -3.0, 2.0)
    prior += d.normal(params["sd"], 0.0, 2.0) + d.normal(params["heat"], -1.0, 1.0)
    return prior + d.binomial_logit(data["waits"], 1.0, eta)


def _patience_data():
    rng = np.random.default_rng(904)
    more, delay = rng.uniform(10, 40, 25), rng.choice([7.0, 14, 30, 60, 120, 180], 25)
    less = more * rng.uniform(0.2, 0.9, 25)
    k = np.exp(-4 + 1.2 * rng.normal(size=(25, 1)))
    waits = rng.random((25, 25)) < expit(0.4 * (more / (1 + k * delay) - less))
    return {"more": more, "less": less, "delay": delay, "waits": waits * 1.0}


# --- ratings on five steps, by people who use them differently -----------------------------------


def ratings(params, data):
    item, person = params["item"], params["sd"] * params["raw"]
    stretch = jnp.exp(params["spread"] * params["raw_stretch"])
    eta = item[None, :] + person[:, None]
    cuts = stretch[:, None] * params["cuts"]  # (people, 4)
    above = jax.nn.sigmoid(eta[:, :, None] - cuts[:, None, :])
    ones, zeros = jnp.ones((*eta.shape, 1)), jnp.zeros((*eta.shape, 1))
    above = jnp.concatenate([ones, above, zeros], -1)
    share = jnp.sum(data["y"] * (above[..., :-1] - above[..., 1:]), -1)
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["raw_stretch"], 0.0, 1.0)
    prior += d.normal(item, 0.0, 1.0) + d.normal(params["cuts"], 0.0, 2.0)
    prior += d.normal(params["sd"], 0.0, 1.0) + d.normal(params["spread"], 0.0, 0.5)
    return prior + jnp.sum(jnp.log(share))


def _ratings_data():
    rng = np.random.default_rng(905)
    eta = rng.normal(size=10) + 0.8 * rng.normal(size=(40, 1)) + rng.logistic(size=(40, 10))
    cuts = np.exp(0.3 * rng.normal(size=(40, 1, 1))) * np.array([-2.0, -0.7, 0.6, 2.2])
    return {"y": np.eye(5)[np.sum(eta[:, :, None] > cuts, -1)]}


# --- a bias that changes once, somewhere along the trials ----------------------------------------


def insight(params, data):
    after = jax.nn.sigmoid((data["trial"] - params["when"]) / params["width"])
    eta = params["before"] + params["gain"] * after
    prior = d.normal(params["before"], 0.0, 1.5) + d.lognormal(params["gain"], 0.5, 0.7)
    prior += d.lognormal(params["width"], 0.0, 1.0)
    return prior + d.binomial_logit(data["right"], 1.0, eta)


def _insight_data():
    rng = np.random.default_rng(906)
    trial = np.arange(80.0)
    eta = -0.3 + 2.2 * expit((trial - 33) / 1.5)
    return {"trial": trial, "right": (rng.random(80) < expit(eta)) * 1.0}


MODELS = {
    "reactions": (
        Model(
            reactions,
            of(
                drift=(real, ()),
                bound=(real, ()),
                sd_drift=(positive, ()),
                sd_bound=(positive, ()),
                raw_drift=(real, (15,)),
                raw_bound=(real, (15,)),
                delay=(less_than(_fastest), (15,)),
            ),
        ),
        _reactions_data,
    ),
    "seeing": (
        Model(
            seeing,
            of(
                threshold=(real, ()),
                sd=(positive, ()),
                raw=(real, (12,)),
                slope=(real, ()),
                lapse=(interval(0.0, 0.5), (12,)),
            ),
        ),
        _seeing_data,
    ),
    "learners": (
        Model(
            learners,
            of(
                rate=(real, ()),
                heat=(real, ()),
                sd_rate=(positive, ()),
                sd_heat=(positive, ()),
                raw_rate=(real, (20,)),
                raw_heat=(real, (20,)),
            ),
        ),
        _learners_data,
    ),
    "patience": (
        Model(
            patience,
            of(k=(real, ()), sd=(positive, ()), raw=(real, (25,)), heat=(real, ())),
        ),
        _patience_data,
    ),
    "ratings": (
        Model(
            ratings,
            of(
                item=(real, (10,)),
                raw=(real, (40,)),
                sd=(positive, ()),
                raw_stretch=(real, (40,)),
                spread=(positive, ()),
                cuts=(ordered, (4,)),
            ),
        ),
        _ratings_data,
    ),
    "insight": (
        Model(
            insight,
            of(
                before=(real, ()),
                gain=(positive, ()),
                when=(interval(0.0, 80.0), ()),
                width=(positive, ()),
            ),
        ),
        _insight_data,
    ),
}
