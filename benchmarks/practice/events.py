"""When things happen: survival, hazards that change, events that bring others, drugs that leave."""

import jax
import jax.numpy as jnp
import numpy as np

from bbvi import greater_than, positive, real, unit_interval
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import of

# --- survival to the end of a study --------------------------------------------------------------


def weibull(params, data):
    shape, log_scale = params["shape"], params["alpha"] + data["x"] @ params["beta"]
    log_t = jnp.log(data["time"]) - log_scale
    died = jnp.log(shape) + (shape - 1) * log_t - log_scale
    prior = d.gamma(shape, 2.0, 1.0) + d.normal(params["beta"], 0.0, 1.0)
    prior += d.normal(params["alpha"], 0.0, 5.0)
    return prior + jnp.sum(data["died"] * died - jnp.exp(shape * log_t))


def _weibull_data():
    rng = np.random.default_rng(701)
    x = rng.normal(size=(80, 3)) * [1.0, 1.0, 0.3]
    time = np.exp(2.0 + x @ [0.5, -0.3, 0.0]) * rng.weibull(1.4, 80)
    return {"x": x, "time": np.minimum(time, 8.0), "died": (time < 8.0) * 1.0}


# --- hazards of periods that walk ----------------------------------------------------------------


def hazards(params, data):
    log_base = params["start"] + jnp.cumsum(params["sd"] * params["raw"])
    eta = data["x"] @ params["beta"]
    rate = jnp.exp(log_base[None, :] + eta[:, None])
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["sd"], 0.0, 1.0)
    prior += d.normal(params["start"], -2.0, 2.0) + d.normal(params["beta"], 0.0, 1.0)
    died = jnp.sum(data["died"] * (log_base[None, :] + eta[:, None]))
    return prior + died - jnp.sum(rate * data["there"])


def _hazards_data():
    rng = np.random.default_rng(702)
    x, rates = rng.normal(size=(150, 2)), 0.15 * np.exp(np.sin(np.linspace(0, 4, 14)))
    there, died = np.zeros((150, 14)), np.zeros((150, 14))
    for i in range(150):
        for k in range(14):
            lasts = rng.exponential(1 / (rates[k] * np.exp(x[i] @ [0.7, -0.2])))
            there[i, k] = min(lasts, 1.0)
            if lasts < 1:
                died[i, k] = 1.0
                break
    return {"x": x, "there": there, "died": died}


# --- events that bring others --------------------------------------------------------------------


def hawkes(params, data):
    base, share, fade = params["base"], params["share"], params["fade"]

    def step(carried, gap):
        carried = (carried + fade * share) * jnp.exp(-fade * gap)
        return carried, carried

    gaps = jnp.diff(data["time"])
    _, carried = jax.lax.scan(step, jnp.zeros(()), gaps)
    log_rate = jnp.log(base) + jnp.sum(jnp.log(base + carried))
    total = base * data["end"] + share * jnp.sum(-jnp.expm1(-fade * (data["end"] - data["time"])))
    prior = d.gamma(base, 2.0, 4.0) + d.beta(share, 1.5, 1.5) + d.lognormal(fade, 0.0, 1.0)
    return prior + log_rate - total


def _hawkes_data():
    rng, times, end = np.random.default_rng(703), [], 120.0
    now, carried = 0.0, 0.0
    while True:
        most = 0.4 + carried
        gap = rng.exponential(1 / most)
        now, carried = now + gap, carried * np.exp(-1.5 * gap)
        if now > end:
            return {"time": np.array(times), "end": np.array(end)}
        if rng.random() * most < 0.4 + carried:
            times.append(now)
            carried += 1.5 * 0.5


# --- a drug in the blood of people who differ ----------------------------------------------------


def drug(params, data):
    own = jnp.exp(params["mean"] + params["sd"] * params["raw"])  # (people, 3)
    absorb, leave, volume = own.T
    absorb = absorb + leave  # taken up faster than it leaves
    t = data["time"]
    curve = jnp.exp(-leave[:, None] * t) - jnp.exp(-absorb[:, None] * t)
    level = (data["dose"] * absorb / (volume * (absorb - leave)))[:, None] * curve
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["sd"], 0.0, 0.5)
    prior += d.normal(params["mean"], jnp.array([0.5, -2.0, 3.0]), 1.0)
    prior += d.normal(params["sigma"], 0.0, 1.0)
    return prior + d.normal(data["log_y"], jnp.log(level), params["sigma"])


def _drug_data():
    rng = np.random.default_rng(704)
    own = np.exp([0.4, -2.3, 3.4] + np.array([0.6, 0.25, 0.15]) * rng.normal(size=(12, 3)))
    absorb, leave, volume = own.T[:, :, None]
    absorb = absorb + leave
    t, dose = np.array([0.25, 0.5, 1, 2, 3.5, 5, 7, 9, 12, 24]), rng.uniform(250, 380, 12)
    level = dose[:, None] * absorb / (volume * (absorb - leave))
    level = level * (np.exp(-leave * t) - np.exp(-absorb * t))
    return {"time": t, "dose": dose, "log_y": np.log(level) + 0.15 * rng.normal(size=(12, 10))}


# --- waiting times of two kinds, summed out ------------------------------------------------------


def queues(params, data):
    quick = jnp.log(params["share"]) - data["wait"] * params["rate"] + jnp.log(params["rate"])
    slow_rate = params["rate"] / params["slower"]
    slow = jnp.log1p(-params["share"]) - data["wait"] * slow_rate + jnp.log(slow_rate)
    prior = d.beta(params["share"], 1.0, 1.0) + d.lognormal(params["rate"], 0.0, 1.0)
    prior += d.lognormal(params["slower"] - 1.0, 1.0, 1.0)
    return prior + jnp.sum(jnp.logaddexp(quick, slow))


def _queues_data():
    rng = np.random.default_rng(705)
    return {"wait": rng.exponential(np.where(rng.random(120) < 0.6, 0.5, 2.5))}


MODELS = {
    "weibull": (
        Model(weibull, of(shape=(positive, ()), alpha=(real, ()), beta=(real, (3,)))),
        _weibull_data,
    ),
    "hazards": (
        Model(
            hazards,
            of(start=(real, ()), sd=(positive, ()), raw=(real, (14,)), beta=(real, (2,))),
        ),
        _hazards_data,
    ),
    "hawkes": (
        Model(hawkes, of(base=(positive, ()), share=(unit_interval, ()), fade=(positive, ()))),
        _hawkes_data,
    ),
    "drug": (
        Model(
            drug,
            of(mean=(real, (3,)), sd=(positive, (3,)), raw=(real, (12, 3)), sigma=(positive, ())),
        ),
        _drug_data,
    ),
    "queues": (
        Model(
            queues,
            of(share=(unit_interval, ()), rate=(positive, ()), slower=(greater_than(1.0), ())),
        ),
        _queues_data,
    ),
}
