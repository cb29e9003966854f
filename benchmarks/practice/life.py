"""Doses, cultures, animals, trials, tests, shares and places: what biologists count and weigh."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from bbvi import corr_cholesky, cov_cholesky, positive, real, unit_interval, zero_sum
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import expit, of

# --- what twenty people have in their blood after one dose ----------------------------------------

USUAL = np.array([0.5, 1.0, 3.0])  # logarithms of uptake, clearance and volume


def _after_a_dose(rates, time, xp=np):
    uptake, clearance, volume = xp.exp(rates).T[:, :, None]
    loss = clearance / volume
    share = uptake / (volume * (uptake - loss))
    return xp.log(100 * share * (xp.exp(-loss * time) - xp.exp(-uptake * time)))


def kinetics(params, data):
    rates = USUAL + params["mean"] + params["sd"] * params["raw"]
    prior = d.normal(params["mean"], 0.0, 0.5) + d.normal(params["sd"], 0.0, 0.5)
    prior += d.normal(params["raw"], 0.0, 1.0) + d.normal(params["noise"], 0.0, 0.5)
    seen = _after_a_dose(rates, data["time"], jnp)
    return prior + d.normal(data["log_level"], seen, params["noise"])


def _kinetics_data():
    rng = np.random.default_rng(1102)
    rates = np.array([0.4, 1.1, 3.2]) + np.array([0.4, 0.3, 0.2]) * rng.normal(size=(20, 3))
    time = np.array([0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0])
    level = _after_a_dose(rates, time)
    return {"time": time, "log_level": level + 0.15 * rng.normal(size=level.shape)}


# --- fifteen cultures that grow to a limit, each with a capacity, a rate and a start --------------


def _grown(traits, time, xp=np):
    limit, rate, first = xp.exp(traits).T[:, :, None]
    return limit / (1 + (limit / first - 1) * xp.exp(-rate * time))


def cultures(params, data):
    prior = d.normal(params["mean"], jnp.array([0.0, -0.5, -4.0]), 1.0)
    prior += d.normal(params["sd"], 0.0, 0.5) + d.normal(params["noise"], 0.0, 0.2)
    prior += d.normal(params["trait"], params["mean"], params["sd"])
    return prior + d.normal(data["y"], _grown(params["trait"], data["time"], jnp), params["noise"])


def _cultures_data():
    rng = np.random.default_rng(1108)
    sd = np.array([0.15, 0.2, 0.4])
    traits = np.array([0.1, -0.4, -3.8]) + sd * rng.normal(size=(15, 3))
    time = np.linspace(0, 20, 21)
    y = _grown(traits, time)
    return {"time": time, "y": y + 0.03 * rng.normal(size=y.shape)}


# --- animals caught, marked and caught again, whose survival differs by year ----------------------


def recaptures(params, data):
    survival = jax.nn.log_sigmoid(params["level"] + params["sd"] * params["raw"])
    caught = params["caught"]
    years = len(survival)
    first, later = jnp.arange(years)[:, None], jnp.arange(years)
    survived = jnp.concatenate([jnp.zeros(1), jnp.cumsum(survival)])
    missed = (later - first) * jnp.log1p(-caught)
    seen = survived[later + 1] - survived[first] + missed + jnp.log(caught)
    after = later >= first
    seen = jnp.where(after, seen, 0.0)
    never = jnp.log1p(-jnp.sum(jnp.where(after, jnp.exp(seen), 0.0), axis=1))
    prior = d.normal(params["level"], 0.0, 1.5) + d.normal(params["sd"], 0.0, 1.0)
    prior += d.normal(params["raw"], 0.0, 1.0)
    return prior + jnp.sum(data["again"] * seen) + jnp.sum(data["lost"] * never)


def _recaptures_data():
    rng = np.random.default_rng(1104)
    years, marked = 11, 40
    survival = expit(0.8 + 0.5 * rng.normal(size=years))
    again, lost = np.zeros((years, years)), np.zeros(years)
    for first in range(years):
        for _ in range(marked):
            for year in range(first, years):
                if rng.random() > survival[year]:
                    lost[first] += 1
                    break
                if rng.random() < 0.4:
                    again[first, year] += 1
                    break
            else:
                lost[first] += 1
    return {"again": again, "lost": lost}


# --- shares of five taxa in thirty samples, whose logits are normal together ----------------------


def taxa(params, data):
    factor = params["sd"][:, None] * params["corr"]
    eta = params["mean"] + data["treated"][:, None] * params["effect"] + params["raw"] @ factor.T
    eta = jnp.concatenate([eta, jnp.zeros((len(eta), 1))], axis=1)
    prior = d.normal(params["mean"], 0.0, 2.0) + d.normal(params["effect"], 0.0, 1.0)
    prior += d.normal(params["sd"], 0.0, 1.0) + d.lkj_cholesky(params["corr"], 2.0)
    prior += d.normal(params["raw"], 0.0, 1.0)
    return prior + jnp.sum(data["count"] * jax.nn.log_softmax(eta))


def _taxa_data():
    rng = np.random.default_rng(1110)
    treated = np.repeat([0.0, 1.0], 15)
    eta = rng.normal(size=4) + treated[:, None] * np.array([1.0, 0.0, -0.5, 0.0])
    eta += rng.multivariate_normal(np.zeros(4), 0.4 * np.eye(4) + 0.3, 30)
    odds = np.exp(np.column_stack([eta, np.zeros(30)]))
    chance = odds / odds.sum(axis=1, keepdims=True)
    return {"treated": treated, "count": np.array([rng.multinomial(200, p) for p in chance]) * 1.0}


# --- how often a test is right, of the ill and of the well, in 25 studies -------------------------


def accuracy(params, data):
    factor, logit = params["factor"], params["logit"]
    widths = jnp.log(jnp.diagonal(factor))
    rest = solve_triangular(factor, (logit - params["mean"]).T, lower=True)
    prior = d.normal(params["mean"], 0.0, 2.0) + d.normal(factor[1, 0], 0.0, 0.7)
    prior += d.normal(widths, -0.7, 0.5) - jnp.sum(widths)
    prior += -0.5 * jnp.sum(rest**2) - len(logit) * jnp.sum(widths)
    return prior + d.binomial_logit(data["right"], data["number"], logit)


def _accuracy_data():
    rng = np.random.default_rng(1112)
    logit = rng.multivariate_normal([1.5, 2.0], [[0.5, -0.25], [-0.25, 0.6]], 25)
    number = rng.integers(10, 80, (25, 2))
    return {"number": number * 1.0, "right": rng.binomial(number, expit(logit)) * 1.0}


# --- six treatments, two of them in each of 24 trials ---------------------------------------------


def network(params, data):
    effect = jnp.concatenate([jnp.zeros(1), params["effect"]])
    apart = effect[data["other"]] - effect[data["one"]] + params["sd"] * params["raw"]
    eta = jnp.stack([params["base"], params["base"] + apart], axis=1)
    prior = d.normal(params["base"], 0.0, 5.0) + d.normal(params["effect"], 0.0, 2.0)
    prior += d.normal(params["sd"], 0.0, 1.0) + d.normal(params["raw"], 0.0, 1.0)
    return prior + d.binomial_logit(data["y"], data["number"], eta)


def _network_data():
    rng = np.random.default_rng(1119)
    one = rng.integers(0, 6, 24)
    other = (one + rng.integers(1, 6, 24)) % 6
    one, other = np.minimum(one, other), np.maximum(one, other)
    effect = np.array([0.0, 0.5, -0.3, 0.8, 0.2, -0.6])
    base = rng.normal(-1, 0.5, 24)
    there = base + effect[other] - effect[one] + 0.3 * rng.normal(size=24)
    eta = np.column_stack([base, there])
    number = rng.integers(30, 150, (24, 2))
    y = rng.binomial(number, expit(eta)) * 1.0
    return {"one": one, "other": other, "number": number * 1.0, "y": y}


# --- an epidemic that renews itself: how many each case infects walks over eighty days ------------


def renewal(params, data):
    walk = jnp.concatenate([jnp.zeros(1), params["step"] * jnp.cumsum(params["raw"])])
    log_infects = jnp.repeat(params["first"] + walk, 2)

    def day(recent, log_number):
        new = jnp.exp(log_number) * (recent @ data["delay"])
        return jnp.concatenate([new[None], recent[:-1]]), new

    begin = jnp.full(len(data["delay"]), jnp.exp(params["log_cases"]))
    eta, size = jnp.log(jax.lax.scan(day, begin, log_infects)[1]), jnp.exp(params["log_size"])
    prior = d.normal(params["first"], 0.3, 0.3) + d.normal(params["step"], 0.0, 0.2)
    prior += d.normal(params["raw"], 0.0, 1.0) + d.normal(params["log_cases"], 2.0, 1.0)
    prior += d.normal(params["log_size"], 2.0, 1.0)
    return prior + jnp.sum(d.negative_binomial(data["y"], eta, size))


def _renewal_data():
    rng = np.random.default_rng(1116)
    delay = np.exp(-0.5 * ((np.arange(1, 13) - 5) / 2.0) ** 2)
    delay /= delay.sum()
    walk = np.concatenate([[0.0], np.cumsum(0.07 * rng.normal(size=39))])
    recent, y = np.full(12, 8.0), []
    for log_number in np.repeat(0.3 + walk, 2):
        new = np.exp(log_number) * (recent @ delay)
        recent = np.concatenate([[new], recent[:-1]])
        y.append(rng.negative_binomial(8, 8 / (8 + new)))
    return {"delay": delay, "y": np.array(y) * 1.0}


# --- cases in 72 areas: what neighbours share and what they do not, of one scale ------------------


def areas(params, data):
    shared = params["shared"]
    gaps = shared[data["one"]] - shared[data["other"]]
    share = params["share"]
    both = jnp.sqrt(share) * data["unit"] * shared + jnp.sqrt(1 - share) * params["own"]
    slope = params["slope"]
    eta = slope[0] + slope[1] * data["x"] + params["sd"] * both + data["log_expected"]
    prior = -0.5 * jnp.sum(gaps**2) + d.normal(params["own"], 0.0, 1.0)
    prior += d.normal(params["sd"], 0.0, 1.0) + d.beta(share, 0.5, 0.5) + d.normal(slope, 0.0, 1.0)
    return prior + d.poisson_log(data["cases"], eta)


def _areas_data():
    rng = np.random.default_rng(1103)
    at = np.arange(72).reshape(8, 9)
    one = np.concatenate([at[:-1].ravel(), at[:, :-1].ravel()])
    other = np.concatenate([at[1:].ravel(), at[:, 1:].ravel()])
    precision = np.zeros((72, 72))
    for i, j in zip(one, other, strict=True):
        precision[[i, j], [i, j]] += 1
        precision[[i, j], [j, i]] -= 1
    covariance = np.linalg.pinv(precision)
    unit = np.exp(-0.5 * np.mean(np.log(np.diag(covariance))))
    x = rng.normal(size=72)
    shared = rng.multivariate_normal(np.zeros(72), covariance) * unit
    expected = rng.uniform(3, 20, 72)
    risk = np.exp(0.1 + 0.3 * x + 0.5 * (0.8 * shared + 0.6 * rng.normal(size=72)))
    cases = rng.poisson(expected * risk) * 1.0
    seen = {"x": x, "log_expected": np.log(expected), "cases": cases}
    return {"one": one, "other": other, "unit": unit} | seen


MODELS = {
    "kinetics": (
        Model(
            kinetics,
            of(mean=(real, (3,)), sd=(positive, (3,)), raw=(real, (20, 3)), noise=(positive, ())),
        ),
        _kinetics_data,
    ),
    "cultures": (
        Model(
            cultures,
            of(mean=(real, (3,)), sd=(positive, (3,)), trait=(real, (15, 3)), noise=(positive, ())),
        ),
        _cultures_data,
    ),
    "recaptures": (
        Model(
            recaptures,
            of(level=(real, ()), sd=(positive, ()), raw=(real, (11,)), caught=(unit_interval, ())),
        ),
        _recaptures_data,
    ),
    "taxa": (
        Model(
            taxa,
            of(
                mean=(real, (4,)),
                effect=(real, (4,)),
                sd=(positive, (4,)),
                corr=(corr_cholesky, (4, 4)),
                raw=(real, (30, 4)),
            ),
        ),
        _taxa_data,
    ),
    "accuracy": (
        Model(
            accuracy,
            of(mean=(real, (2,)), factor=(cov_cholesky, (2, 2)), logit=(real, (25, 2))),
        ),
        _accuracy_data,
    ),
    "network": (
        Model(
            network,
            of(base=(real, (24,)), effect=(real, (5,)), sd=(positive, ()), raw=(real, (24,))),
        ),
        _network_data,
    ),
    "renewal": (
        Model(
            renewal,
            of(
                first=(real, ()),
                step=(positive, ()),
                raw=(real, (39,)),
                log_cases=(real, ()),
                log_size=(real, ()),
            ),
        ),
        _renewal_data,
    ),
    "areas": (
        Model(
            areas,
            of(
                slope=(real, (2,)),
                shared=(zero_sum, (72,)),
                own=(real, (72,)),
                sd=(positive, ()),
                share=(unit_interval, ()),
            ),
        ),
        _areas_data,
    ),
}
