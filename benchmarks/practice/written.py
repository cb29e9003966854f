"""Effects written non-centred, of which data that are not normal know more than their prior."""

import jax
import jax.numpy as jnp
import numpy as np

from bbvi import interval, ordered, positive, real
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import expit, groups, of

# --- recoveries on wards of hospitals: two levels, both non-centred -----------------------------


def wards(params, data):
    hospital = params["mean"] + params["between"] * params["hospital"]
    eta = hospital[data["of"].astype(int)] + params["within"] * params["ward"]
    prior = d.normal(params["hospital"], 0.0, 1.0) + d.normal(params["ward"], 0.0, 1.0)
    prior += d.normal(params["between"], 0.0, 1.0) + d.normal(params["within"], 0.0, 1.0)
    prior += d.normal(params["mean"], 0.0, 2.0)
    return prior + d.binomial_logit(data["recovered"], data["treated"], eta)


def _wards_data():
    rng = np.random.default_rng(803)
    hospital = np.repeat(np.arange(8), 6)
    treated = rng.integers(30, 300, 48)
    eta = 0.3 + 0.7 * rng.normal(size=8)[hospital] + 0.4 * rng.normal(size=48)
    recovered = rng.binomial(treated, expit(eta))
    return {"of": hospital * 1.0, "treated": treated * 1.0, "recovered": recovered * 1.0}


# --- operators who measure with a bias and a precision of their own -------------------------------


def operators(params, data):
    who = data["who"].astype(int)
    bias = params["mean"] + params["spread"] * params["bias"]
    log_sd = params["log_sd"] + params["unlike"] * params["care"]
    prior = d.normal(params["bias"], 0.0, 1.0) + d.normal(params["care"], 0.0, 1.0)
    prior += d.normal(params["spread"], 0.0, 2.0) + d.normal(params["unlike"], 0.0, 1.0)
    prior += d.normal(params["mean"], 0.0, 5.0) + d.normal(params["log_sd"], 0.0, 1.0)
    return prior + d.normal(data["seen"], bias[who], jnp.exp(log_sd[who]))


def _operators_data():
    rng = np.random.default_rng(808)
    who = groups(rng, 25, (6, 20))
    bias, log_sd = 1 + 0.8 * rng.normal(size=25), -0.2 + 0.4 * rng.normal(size=25)
    seen = bias[who] + np.exp(log_sd)[who] * rng.normal(size=len(who))
    return {"who": who * 1.0, "seen": seen}


# --- grades of four kinds, given by judges who are more or less strict ----------------------------


def judges(params, data):
    eta = params["sd"] * params["raw"][data["judge"].astype(int)] + params["slope"] * data["merit"]
    below = jax.nn.sigmoid(params["cuts"] - eta[:, None])
    ends = jnp.zeros((len(eta), 1)), jnp.ones((len(eta), 1))
    below = jnp.concatenate([ends[0], below, ends[1]], axis=1)
    shares = below[:, 1:] - below[:, :-1]
    given = jnp.take_along_axis(shares, data["grade"].astype(int)[:, None], axis=1)
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["sd"], 0.0, 1.0)
    prior += d.normal(params["slope"], 0.0, 1.0) + d.normal(params["cuts"], 0.0, 3.0)
    return prior + jnp.sum(jnp.log(given))


def _judges_data():
    rng = np.random.default_rng(810)
    judge = groups(rng, 20, (10, 60))
    merit = rng.normal(size=len(judge))
    liking = 1.2 * rng.normal(size=20)[judge] + 0.6 * merit + rng.logistic(size=len(judge))
    grade = (liking[:, None] > np.array([-1.0, 0.5, 2.0])).sum(axis=1)
    return {"judge": judge * 1.0, "merit": merit, "grade": grade * 1.0}


# --- thefts a week, whose rate goes up and down ---------------------------------------------------


def thefts(params, data):
    def step(rate, shock):
        rate = params["stays"] * rate + params["sd"] * shock
        return rate, rate

    first = params["sd"] / jnp.sqrt(1 - params["stays"] ** 2) * params["shock"][0]
    _, rate = jax.lax.scan(step, first, params["shock"][1:])
    rate = params["level"] + jnp.concatenate([first[None], rate])
    prior = d.normal(params["shock"], 0.0, 1.0) + d.normal(params["sd"], 0.0, 1.0)
    prior += d.beta((params["stays"] + 1) / 2, 5.0, 2.0) + d.normal(params["level"], 0.0, 3.0)
    return prior + d.poisson_log(data["thefts"], rate)


def _thefts_data():
    rng = np.random.default_rng(802)
    rate = [0.0]
    for _ in range(79):
        rate.append(0.8 * rate[-1] + 0.5 * rng.normal())
    return {"thefts": rng.poisson(np.exp(2.5 + np.array(rate))) * 1.0}


MODELS = {
    "wards": (
        Model(
            wards,
            of(
                mean=(real, ()),
                between=(positive, ()),
                within=(positive, ()),
                hospital=(real, (8,)),
                ward=(real, (48,)),
            ),
        ),
        _wards_data,
    ),
    "operators": (
        Model(
            operators,
            of(
                mean=(real, ()),
                log_sd=(real, ()),
                spread=(positive, ()),
                unlike=(positive, ()),
                bias=(real, (25,)),
                care=(real, (25,)),
            ),
        ),
        _operators_data,
    ),
    "judges": (
        Model(
            judges,
            of(slope=(real, ()), sd=(positive, ()), cuts=(ordered, (3,)), raw=(real, (20,))),
        ),
        _judges_data,
    ),
    "thefts": (
        Model(
            thefts,
            of(
                level=(real, ()),
                sd=(positive, ()),
                stays=(interval(-1.0, 1.0), ()),
                shock=(real, (80,)),
            ),
        ),
        _thefts_data,
    ),
}
