"""Gaussian processes, walks, diffusions and positions: all that is unknown between points."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from bbvi import corr_cholesky, interval, ordered, positive, real, simplex
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import expit, groups, of


def _squares_between(x):
    return (x[:, None] - x) ** 2


def _curve(squares, height, length, z):
    """A Gaussian process at points so far apart (N, N), of standard normals z (N,)."""
    covariance = height**2 * jnp.exp(-0.5 * squares / length**2)
    return jnp.linalg.cholesky(covariance + 1e-6 * jnp.eye(len(squares))) @ z


# --- a curve, and another one for the logarithm of its noise --------------------------------------


def two_curves(params, data):
    height, length, z = params["height"], params["length"], params["z"]
    mean, rest = (_curve(data["apart"], height[i], length[i], z[i]) for i in range(2))
    prior = d.normal(z, 0.0, 1.0) + d.normal(height, 0.0, 1.0) + d.lognormal(length, 0.0, 0.5)
    prior += d.normal(params["level"], -1.0, 1.0)
    return prior + d.normal(data["y"], mean, jnp.exp(rest + params["level"]))


def _two_curves_data():
    rng = np.random.default_rng(1011)
    x = np.linspace(0, 5, 60)
    noise = np.exp(-1.5 + 0.9 * np.sin(x + 1)) * rng.normal(size=60)
    return {"apart": _squares_between(x), "y": np.sin(2 * x) + noise}


# --- answers of yes or no along a curve -----------------------------------------------------------


def yes_or_no(params, data):
    z, height, length = params["z"], params["height"], params["length"]
    eta = _curve(data["apart"], height, length, z) + params["level"]
    prior = d.normal(z, 0.0, 1.0) + d.normal(params["level"], 0.0, 1.0)
    prior += d.normal(height, 0.0, 2.0) + d.lognormal(length, 0.0, 0.7)
    return prior + d.binomial_logit(data["yes"], 1.0, eta)


def _yes_or_no_data():
    rng = np.random.default_rng(1002)
    x = np.sort(rng.uniform(0, 6, 100))
    chance = expit(1.8 * np.sin(1.7 * x))
    return {"apart": _squares_between(x), "yes": (rng.random(100) < chance) * 1.0}


# --- a surface over five inputs, each with a length of its own, of which two matter ---------------


def relevance(params, data):
    at = data["x"] / params["length"]
    squares = jnp.sum((at[:, None] - at) ** 2, axis=-1)
    own = (params["noise"] ** 2 + 1e-8) * jnp.eye(len(at))
    factor = jnp.linalg.cholesky(params["height"] ** 2 * jnp.exp(-0.5 * squares) + own)
    rest = solve_triangular(factor, data["y"], lower=True)
    prior = jnp.sum(-6 * jnp.log(params["length"]) - 5 / params["length"])
    prior += d.normal(params["height"], 0.0, 2.0) + d.normal(params["noise"], 0.0, 1.0)
    return prior - 0.5 * rest @ rest - jnp.sum(jnp.log(jnp.diagonal(factor)))


def _relevance_data():
    rng = np.random.default_rng(1003)
    x = rng.uniform(-2, 2, (80, 5))
    y = np.sin(1.5 * x[:, 0]) + 0.5 * x[:, 1] ** 2 - 0.6 + 0.3 * rng.normal(size=80)
    return {"x": x, "y": y}


# --- times of decisions, as a Wiener process takes to one of two boundaries -----------------------


def _log_first_passage(time, drift, width, start):
    """Of the lower boundary (Navarro and Fuss 2009), by the series that converges faster."""
    u, k, n = time / width**2, jnp.arange(-4, 5)[:, None], jnp.arange(1, 9)[:, None]
    short, long = jnp.minimum(u, 0.5), jnp.maximum(u, 0.4)  # each where it is used
    x = start + 2 * k
    few = jnp.sum(x * jnp.exp((start**2 - x**2) / (2 * short)), axis=0)
    few = jnp.log(few) - start**2 / (2 * u) - 0.5 * jnp.log(2 * jnp.pi) - 1.5 * jnp.log(u)
    waves = n * jnp.exp((1 - n**2) * jnp.pi**2 * long / 2) * jnp.sin(n * jnp.pi * start)
    many = jnp.log(jnp.pi * jnp.sum(waves, axis=0)) - jnp.pi**2 * u / 2
    drifting = -drift * width * start - drift**2 * time / 2
    return drifting - 2 * jnp.log(width) + jnp.where(u < 0.45, few, many)


def deciders(params, data):
    who, mean, sd, raw = data["who"], params["mean"], params["sd"], params["raw"]
    drift = (mean[0] + sd[0] * raw[:, 0])[who]
    width = jnp.exp(mean[1] + sd[1] * raw[:, 1])[who]
    prior = d.normal(raw, 0.0, 1.0) + d.normal(sd, 0.0, jnp.array([1.0, 0.5]))
    prior += d.normal(mean, jnp.array([1.0, 0.3]), jnp.array([1.0, 0.5]))
    toward = jnp.where(data["upper"], -drift, drift)
    time = data["time"] - params["delay"][who]
    return prior + jnp.sum(_log_first_passage(time, toward, width, 0.5))


def _deciders_data():
    rng = np.random.default_rng(1012)
    who = np.repeat(np.arange(10), 60)
    drift, width = 1.2 + 0.5 * rng.normal(size=10), np.exp(0.4 + 0.2 * rng.normal(size=10))
    time, upper = [], []
    for i in who:
        at, spent = width[i] / 2, 0.0
        while 0 < at < width[i]:
            at += drift[i] * 0.002 + np.sqrt(0.002) * rng.normal()
            spent += 0.002
        time.append(spent + 0.25)
        upper.append(at >= width[i])
    time = np.array(time)
    first = np.array([time[who == i].min() for i in range(10)])
    return {"who": who, "time": time, "upper": np.array(upper), "first": first}


# --- strengths of twelve teams that walk over fifteen weeks ---------------------------------------


def form(params, data):
    first, steps = params["sd_first"] * params["first"], params["sd_step"] * params["step"]
    strength = jnp.cumsum(jnp.concatenate([first[None], steps]), axis=0)
    eta = strength[data["week"], data["home"]] - strength[data["week"], data["away"]]
    prior = d.normal(params["first"], 0.0, 1.0) + d.normal(params["step"], 0.0, 1.0)
    prior += d.normal(params["sd_first"], 0.0, 1.0) + d.normal(params["sd_step"], 0.0, 0.3)
    prior += d.normal(params["edge"], 0.0, 0.5)
    return prior + d.binomial_logit(data["won"], 1.0, eta + params["edge"])


def _form_data():
    rng = np.random.default_rng(1005)
    first = rng.normal(size=(1, 12))
    strength = np.cumsum(np.concatenate([first, 0.2 * rng.normal(size=(14, 12))]), 0)
    week, home = np.repeat(np.arange(15), 18), rng.integers(0, 12, 270)
    away = (home + rng.integers(1, 12, 270)) % 12
    chance = expit(strength[week, home] - strength[week, away] + 0.3)
    return {"week": week, "home": home, "away": away, "won": (rng.random(270) < chance) * 1.0}


# --- a regression whose coefficients walk ---------------------------------------------------------


def slopes(params, data):
    steps = params["sd"] * params["raw"]
    slope = jnp.cumsum(jnp.concatenate([params["first"][None], steps]), axis=0)
    prior = d.normal(params["first"], 0.0, 2.0) + d.normal(params["raw"], 0.0, 1.0)
    prior += d.normal(params["sd"], 0.0, 0.5) + d.normal(params["noise"], 0.0, 1.0)
    return prior + d.normal(data["y"], jnp.sum(data["x"] * slope, axis=1), params["noise"])


def _slopes_data():
    rng = np.random.default_rng(1007)
    x = np.c_[np.ones(120), rng.normal(size=(120, 2))]
    steps = [0.15, 0.05, 0.2] * rng.normal(size=(119, 3))
    slope = np.cumsum(np.concatenate([[[1, 0.5, -0.5]], steps]), 0)
    return {"x": x, "y": np.sum(x * slope, 1) + 0.5 * rng.normal(size=120)}


# --- people whose mean and whose scatter are their own, and go together ---------------------------


def scatter(params, data):
    who = data["who"]
    own = params["raw"] @ (params["sd"][:, None] * params["corr"]).T
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["sd"], 0.0, 1.0)
    prior += d.lkj_cholesky(params["corr"], 2.0) + d.normal(params["mean"], 0.0, 3.0)
    prior += d.normal(params["slope"], 0.0, 1.0)
    loc = params["mean"][0] + params["slope"] * data["x"] + own[who, 0]
    return prior + d.normal(data["y"], loc, jnp.exp(params["mean"][1] + own[who, 1]))


def _scatter_data():
    rng = np.random.default_rng(1006)
    who = groups(rng, 40, (10, 30))
    z = rng.normal(size=(40, 2))
    own = np.c_[0.8 * z[:, 0], 0.4 * (0.5 * z[:, 0] + 0.87 * z[:, 1])]
    x = rng.normal(size=len(who))
    noise = np.exp(-0.3 + own[who, 1]) * rng.normal(size=len(who))
    return {"who": who, "x": x, "y": 2 + 0.5 * x + own[who, 0] + noise}


# --- shares of four kinds in thirty groups, around a share that they have in common ---------------


def shares(params, data):
    share, alike = params["share"], params["alike"]
    pull = alike * params["mean"]
    prior = d.dirichlet(params["mean"], 2.0 * jnp.ones(4)) + d.lognormal(alike, 2.0, 1.0)
    constant = jax.lax.lgamma(alike) - jnp.sum(jax.lax.lgamma(pull))
    prior += len(share) * constant + d.dirichlet(share, pull)
    return prior + jnp.sum(data["count"] * jnp.log(share))


def _shares_data():
    rng = np.random.default_rng(1010)
    share = rng.dirichlet(12 * np.array([0.4, 0.3, 0.2, 0.1]), 30)
    return {"count": np.stack([rng.multinomial(rng.integers(8, 40), q) for q in share]) * 1.0}


# --- graded answers of 250 people to ten questions ------------------------------------------------


def grades(params, data):
    eta, cut = params["slope"] * params["ability"][:, None], params["cut"]
    # below all cuts, and above them
    above = jnp.concatenate([jnp.full((10, 1), -jnp.inf), cut], 1)
    below = jnp.concatenate([cut, jnp.full((10, 1), jnp.inf)], 1)

    def chance(ends):
        end = ends[jnp.arange(10), data["grade"]]
        inside = jax.nn.sigmoid(jnp.where(jnp.isinf(end), 0.0, end) - eta)
        return jnp.where(jnp.isinf(end), (end > 0) * 1.0, inside)

    prior = d.normal(params["ability"], 0.0, 1.0) + d.lognormal(params["slope"], 0.0, 0.5)
    return prior + d.normal(cut, 0.0, 2.0) + jnp.sum(jnp.log(chance(below) - chance(above)))


def _grades_data():
    rng = np.random.default_rng(1004)
    ability, slope = rng.normal(size=250), np.exp(0.4 * rng.normal(size=10))
    cut = np.sort(rng.normal(size=(10, 4)) * 1.3, 1) + 0.2 * np.arange(4)
    seen = slope * ability[:, None] + rng.logistic(size=(250, 10))
    return {"grade": np.sum(seen[..., None] > cut, -1)}


# --- opinions on four questions that go together, by utilities ------------------------------------


def opinions(params, data):
    root = params["corr"]
    away = (2 * data["yes"] - 1) * params["size"] - data["x"] @ params["slope"]
    rest = solve_triangular(root, away.T, lower=True)
    log_det = len(away) * jnp.sum(jnp.log(jnp.diagonal(root)))
    prior = d.normal(params["slope"], 0.0, 1.0) + d.lkj_cholesky(root, 2.0)
    return prior - 0.5 * jnp.sum(rest**2) - log_det


def _opinions_data():
    rng = np.random.default_rng(1014)
    x = np.c_[np.ones(120), rng.normal(size=(120, 1))]
    covariance = np.full((4, 4), 0.4) + 0.6 * np.eye(4)
    loc = x @ (0.5 * rng.normal(size=(2, 4)))
    utility = loc + rng.multivariate_normal(np.zeros(4), covariance, 120)
    return {"x": x, "yes": (utility > 0) * 1.0}


# --- who knows whom, by places in a plane that may be turned and mirrored -------------------------

_PAIRS = np.triu_indices(25, 1)


def positions(params, data):
    place = params["place"]
    squares = jnp.sum((place[:, None] - place) ** 2, axis=-1)[_PAIRS]
    eta = params["level"] - jnp.sqrt(squares + 1e-6)
    prior = d.normal(place, 0.0, 1.5) + d.normal(params["level"], 0.0, 2.0)
    return prior + d.binomial_logit(data["knows"], 1.0, eta)


def _positions_data():
    rng = np.random.default_rng(1008)
    place = 1.5 * rng.normal(size=(25, 2))
    apart = np.sqrt(np.sum((place[_PAIRS[0]] - place[_PAIRS[1]]) ** 2, 1))
    return {"knows": (rng.random(len(apart)) < expit(1.5 - apart)) * 1.0}


# --------------------------------------------------------------------------------------------------

MODELS = {
    "two_curves": (
        Model(
            two_curves,
            of(
                z=(real, (2, 60)),
                height=(positive, (2,)),
                length=(positive, (2,)),
                level=(real, ()),
            ),
        ),
        _two_curves_data,
    ),
    "yes_or_no": (
        Model(
            yes_or_no,
            of(z=(real, (100,)), level=(real, ()), height=(positive, ()), length=(positive, ())),
        ),
        _yes_or_no_data,
    ),
    "relevance": (
        Model(relevance, of(length=(positive, (5,)), height=(positive, ()), noise=(positive, ()))),
        _relevance_data,
    ),
    "deciders": (
        Model(
            deciders,
            of(
                mean=(real, (2,)),
                sd=(positive, (2,)),
                raw=(real, (10, 2)),
                delay=(interval(0.0, lambda params, data: data["first"]), (10,)),
            ),
        ),
        _deciders_data,
    ),
    "form": (
        Model(
            form,
            of(
                first=(real, (12,)),
                step=(real, (14, 12)),
                sd_first=(positive, ()),
                sd_step=(positive, ()),
                edge=(real, ()),
            ),
        ),
        _form_data,
    ),
    "slopes": (
        Model(
            slopes,
            of(first=(real, (3,)), raw=(real, (119, 3)), sd=(positive, (3,)), noise=(positive, ())),
        ),
        _slopes_data,
    ),
    "scatter": (
        Model(
            scatter,
            of(
                mean=(real, (2,)),
                slope=(real, ()),
                sd=(positive, (2,)),
                corr=(corr_cholesky, (2, 2)),
                raw=(real, (40, 2)),
            ),
        ),
        _scatter_data,
    ),
    "shares": (
        Model(shares, of(mean=(simplex, (4,)), alike=(positive, ()), share=(simplex, (30, 4)))),
        _shares_data,
    ),
    "grades": (
        Model(grades, of(ability=(real, (250,)), slope=(positive, (10,)), cut=(ordered, (10, 4)))),
        _grades_data,
    ),
    "opinions": (
        Model(
            opinions,
            of(slope=(real, (2, 4)), corr=(corr_cholesky, (4, 4)), size=(positive, (120, 4))),
        ),
        _opinions_data,
    ),
    "positions": (
        Model(positions, of(place=(real, (25, 2)), level=(real, ()))),
        _positions_data,
    ),
}
