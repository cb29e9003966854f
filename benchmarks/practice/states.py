"""Series, stars and people who choose: phases, shocks, tides, customers, reactions and tastes."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import betaln, gammaln, log_ndtr

from bbvi import corr_cholesky, interval, ordered, positive, real, simplex, unit_interval
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import expit, groups, of

# --- a series in three phases, each followed by one of them ---------------------------------------


def phases(params, data):
    off = (data["y"][:, None] - params["level"]) / params["sd"]
    log_p = -0.5 * off**2 - jnp.log(params["sd"]) - 0.5 * jnp.log(2 * jnp.pi)
    prior = d.normal(params["level"], 0.0, 3.0) + d.normal(params["sd"], 0.0, 2.0)
    stays = jnp.ones((3, 3)) + 3 * jnp.eye(3)
    prior += sum(d.dirichlet(params["next"][i], stays[i]) for i in range(3))
    return prior + d.hidden_markov(log_p, jnp.log(params["next"]))


def _phases_data():
    rng = np.random.default_rng(1101)
    chances = np.array([[0.9, 0.08, 0.02], [0.1, 0.8, 0.1], [0.05, 0.15, 0.8]])
    state = [0]
    for _ in range(399):
        state.append(rng.choice(3, p=chances[state[-1]]))
    level, sd = np.array([-2.0, 0.5, 2.5])[state], np.array([0.8, 0.5, 1.0])[state]
    return {"y": level + sd * rng.normal(size=400)}


# --- a series with two lags and a shock that lasts, stationary by partial correlations ------------


def shocks(params, data):
    first, second = params["partial"]
    lag, other, mean = first * (1 - second), second, params["mean"]

    def step(carry, y):
        last, before, shock = carry
        new = y - (mean + lag * (last - mean) + other * (before - mean) + params["lasts"] * shock)
        return (y, last, new), new

    y = data["y"]
    _, shock = jax.lax.scan(step, (y[1], y[0], 0.0), y[2:])
    prior = d.normal(mean, 0.0, 5.0) + d.normal(params["sd"], 0.0, 2.0)
    return prior + d.normal(shock, 0.0, params["sd"])


def _shocks_data():
    rng = np.random.default_rng(1106)
    y, last = [0.0, 0.0], 0.0
    for _ in range(150):
        shock = rng.normal()
        y.append(0.2 + 1.1 * y[-1] - 0.3 * y[-2] + shock + 0.5 * last)
        last = shock
    return {"y": np.array(y)}


# --- four series, each of which follows all, and whose shocks go together -------------------------


def economies(params, data):
    factor = params["sd"][:, None] * params["corr"]
    y, lags = data["y"], params["lags"]
    shock = y[1:] - params["level"] - y[:-1] @ lags.T
    rest = solve_triangular(factor, shock.T, lower=True)
    prior = d.normal(lags, 0.5 * jnp.eye(4), params["tight"])
    prior += d.normal(params["tight"], 0.0, 0.5) + d.normal(params["level"], 0.0, 1.0)
    prior += d.normal(params["sd"], 0.0, 1.0) + d.lkj_cholesky(params["corr"], 2.0)
    widths = jnp.sum(jnp.log(jnp.diagonal(factor)))
    return prior - 0.5 * jnp.sum(rest**2) - len(shock) * widths


def _economies_data():
    rng = np.random.default_rng(1107)
    lags = np.array([[0.6, 0.1, 0, 0], [0, 0.5, 0.2, 0], [0.1, 0, 0.4, 0.1], [0, 0, -0.2, 0.7]])
    together = 0.5 * np.eye(4) + 0.5
    y = [np.zeros(4)]
    for _ in range(100):
        y.append(lags @ y[-1] + 0.5 * rng.multivariate_normal(np.zeros(4), together))
    return {"y": np.array(y)}


# --- monthly heights: a slow part and one that comes back every year ------------------------------


def tides(params, data):
    gap, length = data["gap"], params["length"]
    slow = jnp.exp(-0.5 * gap**2 / length[0] ** 2)
    yearly = jnp.sin(jnp.pi * gap / params["period"]) ** 2 / length[1] ** 2
    season = jnp.exp(-2 * yearly - 0.5 * gap**2 / length[2] ** 2)
    covariance = params["height"][0] ** 2 * slow + params["height"][1] ** 2 * season
    factor = jnp.linalg.cholesky(covariance + (params["noise"] ** 2 + 1e-8) * jnp.eye(len(gap)))
    rest = solve_triangular(factor, data["y"], lower=True)
    prior = d.normal(params["height"], 0.0, 2.0) + d.normal(params["period"], 1.0, 0.05)
    prior += d.lognormal(length, jnp.array([1.5, 0.0, 2.0]), 0.5)
    prior += d.normal(params["noise"], 0.0, 1.0)
    return prior - 0.5 * rest @ rest - jnp.sum(jnp.log(jnp.diagonal(factor)))


def _tides_data():
    rng = np.random.default_rng(1111)
    time = np.arange(96) / 12
    y = 0.05 * (time - 4) ** 2 - 0.4 + np.sin(2 * np.pi * time) + 0.4 * np.cos(4 * np.pi * time)
    return {"gap": time[:, None] - time, "y": y + 0.3 * rng.normal(size=96)}


# --- a level that comes back to its mean, seen at uneven times, and a change of that mean ---------


def reversion(params, data):
    rate = params["rate"]
    spread = params["pull"] ** 2 / (2 * rate)

    def step(carry, seen):
        level, variance = carry
        wait, y, after = seen
        kept = jnp.exp(-rate * wait)
        level, variance = kept * level, kept**2 * variance + spread * (1 - kept**2)
        total = variance + params["noise"] ** 2
        off = y - params["mean"] - params["change"] * after - level
        gain = variance / total
        here = -0.5 * (jnp.log(total) + off**2 / total)
        return (level + gain * off, (1 - gain) * variance), here

    _, terms = jax.lax.scan(step, (0.0, spread), (data["wait"], data["y"], data["after"]))
    prior = d.lognormal(rate, 0.0, 1.0) + d.normal(params["pull"], 0.0, 2.0)
    prior += d.normal(params["noise"], 0.0, 1.0) + d.normal(params["mean"], 0.0, 5.0)
    return prior + d.normal(params["change"], 0.0, 2.0) + jnp.sum(terms)


def _reversion_data():
    rng = np.random.default_rng(1120)
    wait = rng.exponential(0.3, 150)
    after = (np.cumsum(wait) > 20) * 1.0
    level, y = 0.0, []
    for i in range(150):
        kept = np.exp(-0.8 * wait[i])
        level = kept * level + np.sqrt((1 - kept**2) / 1.6) * rng.normal()
        y.append(level + 2 + 1.2 * after[i] + 0.4 * rng.normal())
    return {"wait": wait, "after": after, "y": np.array(y)}


# --- supernovae: how matter and dark energy bend the brightness of eighty stars -------------------


def _distance(z, grid, rate):
    step = grid[1] - grid[0]
    areas = jnp.concatenate([jnp.zeros(1), jnp.cumsum(step * (rate[1:] + rate[:-1]) / 2)])
    return 5 * jnp.log10((1 + z) * jnp.interp(z, grid, areas))


def supernovae(params, data):
    matter, state, z = params["matter"], params["state"], data["grid"]
    rate = (matter * (1 + z) ** 3 + (1 - matter) * (1 + z) ** (3 * (1 + state))) ** -0.5
    seen = params["bright"] + _distance(data["z"], z, rate)
    seen += params["colour"] * data["colour"] - params["stretch"] * data["stretch"]
    prior = d.normal(state, -1.0, 0.5 / 2**0.5) + d.normal(params["bright"], 0.0, 2.0)
    prior += d.normal(params["stretch"], 0.1, 0.2) + d.normal(params["colour"], 3.0, 1.0)
    prior += d.normal(params["scatter"], 0.0, 0.3)
    sd = jnp.sqrt(data["error"] ** 2 + params["scatter"] ** 2)
    return prior + d.normal(data["y"], seen, sd)


def _supernovae_data():
    rng = np.random.default_rng(1114)
    z = np.sort(rng.uniform(0.02, 1.2, 80))
    grid = np.linspace(0, 1.3, 200)
    rate = 1 / np.sqrt(0.3 * (1 + grid) ** 3 + 0.7)
    areas = np.concatenate([[0.0], np.cumsum((rate[1:] + rate[:-1]) / 2 * grid[1])])
    stretch, colour = rng.normal(size=80), 0.1 * rng.normal(size=80)
    error = rng.uniform(0.05, 0.15, 80)
    y = 0.2 + 5 * np.log10((1 + z) * np.interp(z, grid, areas)) - 0.14 * stretch + 3.1 * colour
    y += np.sqrt(error**2 + 0.1**2) * rng.normal(size=80)
    return {"z": z, "grid": grid, "stretch": stretch, "colour": colour, "error": error, "y": y}


# --- two lines that overlap, over a background that slopes, in counts -----------------------------


def lines(params, data):
    x, width = data["x"][:, None], params["width"]
    each = params["area"] / jnp.pi * width / ((x - params["at"]) ** 2 + width**2)
    mean = params["level"] * jnp.exp(params["tilt"] * data["x"]) + each.sum(axis=1)
    prior = d.normal(params["at"], 0.0, 2.0) + d.lognormal(width, -1.0, 0.7)
    prior += d.lognormal(params["area"], 4.0, 1.0) + d.lognormal(params["level"], 2.0, 1.0)
    return prior + d.normal(params["tilt"], 0.0, 0.5) + d.poisson_log(data["y"], jnp.log(mean))


def _lines_data():
    rng = np.random.default_rng(1115)
    x = np.linspace(-4, 4, 80)
    mean = 10 * np.exp(0.05 * x) + 60 / np.pi * 0.4 / ((x + 0.5) ** 2 + 0.16)
    mean += 40 / np.pi * 0.5 / ((x - 0.6) ** 2 + 0.25)
    return {"x": x, "y": rng.poisson(mean) * 1.0}


# --- customers who buy now and then, until one day they do not come back --------------------------


def customers(params, data):
    shape, rate, a, b = params["shape"], params["rate"], params["a"], params["b"]
    bought, last, total = data["bought"], data["last"], data["total"]
    often = gammaln(shape + bought) - gammaln(shape) + shape * jnp.log(rate)
    here = betaln(a, b + bought) - (shape + bought) * jnp.log(rate + total)
    gone = betaln(a + 1, b + jnp.maximum(bought, 1.0) - 1) - (shape + bought) * jnp.log(rate + last)
    gone = jnp.where(bought > 0, gone, -jnp.inf)
    prior = d.normal(shape, 0.0, 2.0) + d.normal(rate, 0.0, 20.0)
    prior += d.normal(a, 0.0, 3.0) + d.normal(b, 0.0, 5.0)
    return prior + jnp.sum(often + jnp.logaddexp(here, gone) - betaln(a, b))


def _customers_data():
    rng = np.random.default_rng(1113)
    total, rate = rng.uniform(20, 40, 300), rng.gamma(0.8, 1 / 6.0, 300)
    leaves = rng.beta(1.2, 2.5, 300)
    bought, last = np.zeros(300), np.zeros(300)
    for i in range(300):
        time = 0.0
        while True:
            time += rng.exponential(1 / rate[i])
            if time > total[i]:
                break
            bought[i] += 1
            last[i] = time
            if rng.random() < leaves[i]:
                break
    return {"bought": bought, "last": last, "total": total}


# --- reaction times of twenty people: normal, and then an exponential wait ------------------------


def reactions(params, data):
    person = params["mean"] + params["sd"] * params["raw"]
    mean, log_sd, log_wait = person.T[:, data["person"]]
    sd, wait, y = jnp.exp(log_sd), jnp.exp(log_wait), data["y"]
    usual, spread = jnp.array([0.4, -3.0, -2.0]), jnp.array([0.3, 1.0, 1.0])
    prior = d.normal(params["mean"], usual, spread) + d.normal(params["sd"], 0.0, 0.5)
    prior += d.normal(params["raw"], 0.0, 1.0)
    tail = (mean - y) / wait + sd**2 / (2 * wait**2) + log_ndtr((y - mean) / sd - sd / wait)
    return prior + jnp.sum(tail - log_wait)


def _reactions_data():
    rng = np.random.default_rng(1117)
    person = np.repeat(np.arange(20), 50)
    traits = np.array([0.45, -3.0, -1.8]) + np.array([0.06, 0.2, 0.3]) * rng.normal(size=(20, 3))
    own = traits[person]
    y = own[:, 0] + np.exp(own[:, 1]) * rng.normal(size=1000) + rng.exponential(np.exp(own[:, 2]))
    return {"person": person, "y": y}


# --- sixty people choose eight times among three, each by tastes of their own ---------------------


def tastes(params, data):
    taste = params["mean"] + params["sd"] * params["raw"]
    worth = jnp.einsum("ntjk,nk->ntj", data["x"], taste)
    prior = d.normal(params["mean"], 0.0, 2.0) + d.normal(params["sd"], 0.0, 1.0)
    prior += d.normal(params["raw"], 0.0, 1.0)
    log_p = jax.nn.log_softmax(worth)
    return prior + jnp.sum(jnp.take_along_axis(log_p, data["chosen"][..., None], axis=2))


def _tastes_data():
    rng = np.random.default_rng(1109)
    x = rng.normal(size=(60, 8, 3, 3))
    taste = np.array([1.0, -0.7, 0.4]) + np.array([0.8, 0.5, 0.9]) * rng.normal(size=(60, 3))
    worth = np.einsum("ntjk,nk->ntj", x, taste) + rng.gumbel(size=(60, 8, 3))
    return {"x": x, "chosen": worth.argmax(axis=-1)}


# --- three effects of each of forty groups, which go together -------------------------------------


def three_effects(params, data):
    factor = params["sd"][:, None] * params["corr"]
    effect = params["mean"] + params["raw"] @ factor.T
    eta = jnp.sum(data["x"] * effect[data["group"]], axis=1)
    prior = d.normal(params["mean"], 0.0, 1.5) + d.normal(params["sd"], 0.0, 1.0)
    prior += d.lkj_cholesky(params["corr"], 2.0) + d.normal(params["raw"], 0.0, 1.0)
    return prior + d.binomial_logit(data["y"], 1.0, eta)


def _three_effects_data():
    rng = np.random.default_rng(1105)
    group = groups(rng, 40, (8, 20))
    x = np.column_stack([np.ones(len(group)), rng.normal(size=(len(group), 2))])
    corr = np.array([[1, 0.5, -0.3], [0.5, 1, 0.2], [-0.3, 0.2, 1]])
    sd = np.array([0.8, 0.6, 0.5])
    effect = rng.multivariate_normal(np.zeros(3), corr * sd * sd[:, None], 40)
    effect += np.array([0.3, 0.7, -0.4])
    chance = expit(np.sum(x * effect[group], axis=1))
    return {"group": group, "x": x, "y": (rng.random(len(group)) < chance) * 1.0}


MODELS = {
    "phases": (
        Model(
            phases,
            of(level=(ordered, (3,)), sd=(positive, (3,)), next=(simplex, (3, 3))),
        ),
        _phases_data,
    ),
    "shocks": (
        Model(
            shocks,
            of(
                partial=(interval(-1.0, 1.0), (2,)),
                lasts=(interval(-1.0, 1.0), ()),
                mean=(real, ()),
                sd=(positive, ()),
            ),
        ),
        _shocks_data,
    ),
    "economies": (
        Model(
            economies,
            of(
                lags=(real, (4, 4)),
                tight=(positive, ()),
                level=(real, (4,)),
                sd=(positive, (4,)),
                corr=(corr_cholesky, (4, 4)),
            ),
        ),
        _economies_data,
    ),
    "tides": (
        Model(
            tides,
            of(
                height=(positive, (2,)),
                length=(positive, (3,)),
                period=(positive, ()),
                noise=(positive, ()),
            ),
        ),
        _tides_data,
    ),
    "reversion": (
        Model(
            reversion,
            of(
                rate=(positive, ()),
                pull=(positive, ()),
                noise=(positive, ()),
                mean=(real, ()),
                change=(real, ()),
            ),
        ),
        _reversion_data,
    ),
    "supernovae": (
        Model(
            supernovae,
            of(
                matter=(unit_interval, ()),
                state=(real, ()),
                bright=(real, ()),
                stretch=(real, ()),
                colour=(real, ()),
                scatter=(positive, ()),
            ),
        ),
        _supernovae_data,
    ),
    "lines": (
        Model(
            lines,
            of(
                at=(ordered, (2,)),
                width=(positive, (2,)),
                area=(positive, (2,)),
                level=(positive, ()),
                tilt=(real, ()),
            ),
        ),
        _lines_data,
    ),
    "customers": (
        Model(
            customers,
            of(shape=(positive, ()), rate=(positive, ()), a=(positive, ()), b=(positive, ())),
        ),
        _customers_data,
    ),
    "reactions": (
        Model(reactions, of(mean=(real, (3,)), sd=(positive, (3,)), raw=(real, (20, 3)))),
        _reactions_data,
    ),
    "tastes": (
        Model(tastes, of(mean=(real, (3,)), sd=(positive, (3,)), raw=(real, (60, 3)))),
        _tastes_data,
    ),
    "three_effects": (
        Model(
            three_effects,
            of(
                mean=(real, (3,)),
                sd=(positive, (3,)),
                corr=(corr_cholesky, (3, 3)),
                raw=(real, (40, 3)),
            ),
        ),
        _three_effects_data,
    ),
}
