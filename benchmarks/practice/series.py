"""Series and maps: seasons, volatility, hidden states, trends that bend, neighbours, mixtures."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from bbvi import (
    cov_cholesky,
    greater_than,
    ordered,
    positive,
    real,
    simplex,
    unit_interval,
)
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

# --- a level that walks and seasons that change --------------------------------------------------


def seasons(params, data):
    level, season = params["level"], params["season"]
    window = jnp.stack([season[k : len(season) - 11 + k] for k in range(12)])
    prior = d.normal(level[1:], level[:-1], params["sd_level"]) + d.normal(level[0], 0.0, 10.0)
    prior += d.normal(jnp.sum(window, 0), 0.0, params["sd_season"])
    prior += d.normal(season[:11], 0.0, 2.0)
    prior += sum(d.normal(params[n], 0.0, 1.0) for n in ("sd_level", "sd_season", "sigma"))
    return prior + d.normal(data["y"], level + season, params["sigma"])


def _seasons_data():
    rng = np.random.default_rng(501)
    level = 7.4 + np.cumsum(0.05 * rng.normal(size=96))
    season = np.tile(0.2 * rng.normal(size=12), 8)
    return {"y": level + season - season[:12].mean() + 0.08 * rng.normal(size=96)}


# --- volatility ----------------------------------------------------------------------------------


def volatility(params, data):
    phi, sigma = 2 * params["phi"] - 1, params["sigma"]

    def step(h, noise):
        h = phi * h + sigma * noise
        return h, h

    first = params["raw"][0] * sigma / jnp.sqrt(1 - phi**2)
    _, rest = jax.lax.scan(step, first, params["raw"][1:])
    h = params["mu"] + jnp.concatenate([first[None], rest])
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["mu"], -1.0, 2.0)
    prior += d.beta(params["phi"], 20.0, 1.5) + d.normal(sigma, 0.0, 0.5)
    return prior + jnp.sum(-0.5 * h - 0.5 * data["y"] ** 2 * jnp.exp(-h))


def _volatility_data():
    rng = np.random.default_rng(502)
    h = np.zeros(150)
    h[0] = rng.normal() * 0.3 / np.sqrt(1 - 0.95**2)
    for t in range(1, 150):
        h[t] = 0.95 * h[t - 1] + 0.3 * rng.normal()
    return {"y": np.exp(0.5 * (h - 0.8)) * rng.normal(size=150)}


# --- hidden states with Gaussian noise -----------------------------------------------------------


def states(params, data):
    z = (data["y"][:, None] - params["mean"]) / params["sd"]
    emission = -0.5 * z**2 - jnp.log(params["sd"])
    prior = d.dirichlet(params["move"], 1.0 + 4.0 * jnp.eye(3))
    prior += d.normal(params["mean"], 0.0, 5.0) + d.gamma(params["sd"], 2.0, 2.0)
    return prior + d.hidden_markov(emission, jnp.log(params["move"]))


def _states_data():
    rng = np.random.default_rng(503)
    move = np.array([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.05, 0.15, 0.8]])
    state, y = 0, []
    for _ in range(250):
        state = rng.choice(3, p=move[state])
        y.append(rng.normal([-2.0, 0.5, 3.0][state], [0.8, 0.6, 1.0][state]))
    return {"y": np.array(y)}


# --- a trend that bends at some of many dates, with a yearly wave --------------------------------


def bends(params, data):
    slope = params["bend"] * params["scale"]
    trend = params["level"] + params["slope"] * data["t"] + data["ramp"] @ slope
    mean = trend + data["wave"] @ params["wave"]
    prior = -jnp.sum(jnp.abs(params["bend"])) + d.normal(params["scale"], 0.0, 0.5)
    prior += d.normal(params["level"], 0.0, 5.0) + d.normal(params["slope"], 0.0, 5.0)
    prior += d.normal(params["wave"], 0.0, 2.0) + d.normal(params["sigma"], 0.0, 0.5)
    return prior + d.normal(data["y"], mean, params["sigma"])


def _bends_data():
    rng = np.random.default_rng(504)
    t = np.linspace(0, 1, 200)
    knots = np.linspace(0, 0.8, 17)[1:]
    ramp = np.maximum(t[:, None] - knots, 0)
    angle = 2 * np.pi * 4 * t[:, None] * np.arange(1, 4)
    wave = np.concatenate([np.sin(angle), np.cos(angle)], 1)
    bend = np.zeros(16)
    bend[[3, 9]] = [3.0, -5.0]
    y = 1 + 2 * t + ramp @ bend + wave @ (0.3 * rng.normal(size=6)) + 0.15 * rng.normal(size=200)
    return {"t": t, "ramp": ramp, "wave": wave, "y": y}


# --- three series that move each other -----------------------------------------------------------


def three_series(params, data):
    error = data["y"][1:] - params["level"] - data["y"][:-1] @ params["lag"].T
    root = params["root"]
    z = jax.scipy.linalg.solve_triangular(root, error.T, lower=True)
    scale = jnp.diag(root)
    prior = d.normal(params["level"], 0.0, 2.0) + d.normal(params["lag"], 0.0, 0.5)
    prior += d.normal(root, 0.0, 2.0)
    return prior - 0.5 * jnp.sum(z**2) - z.shape[1] * jnp.sum(jnp.log(scale))


def _three_series_data():
    rng = np.random.default_rng(505)
    lag = np.array([[0.6, 0.1, 0], [-0.2, 0.5, 0.1], [0, 0.3, 0.4]])
    root = np.array([[0.5, 0, 0], [0.2, 0.4, 0], [-0.1, 0.1, 0.6]])
    y = np.zeros((80, 3))
    for t in range(1, 80):
        y[t] = [0.3, -0.1, 0.2] + lag @ y[t - 1] + root @ rng.normal(size=3)
    return {"y": y}


# --- deaths by district on a map: neighbours alike, and noise (BYM2) -----------------------------

SIDE = 12


def districts(params, data):
    alike, own, share = params["alike"], params["own"], params["share"]
    effect = jnp.sqrt(share) * alike / data["scale"] + jnp.sqrt(1 - share) * own
    eta = data["log_expected"] + params["level"] + params["sd"] * effect
    grid = alike.reshape(SIDE, SIDE)
    steps = jnp.sum(jnp.diff(grid, axis=0) ** 2) + jnp.sum(jnp.diff(grid, axis=1) ** 2)
    prior = -0.5 * steps + d.normal(jnp.sum(alike), 0.0, 0.001 * SIDE**2)
    prior += d.normal(own, 0.0, 1.0) + d.normal(params["level"], 0.0, 2.0)
    prior += d.normal(params["sd"], 0.0, 1.0) + d.beta(share, 0.5, 0.5)
    return prior + d.poisson_log(data["y"], eta)


def _districts_data():
    rng = np.random.default_rng(506)
    row, column = np.divmod(np.arange(SIDE**2), SIDE)
    apart = np.abs(row[:, None] - row) + np.abs(column[:, None] - column)
    near = (apart == 1).astype(float)
    # the inverse on all that sums to zero: the constant vector is put in and taken out again
    constant = np.full((SIDE**2, SIDE**2), 1 / SIDE**2)
    covariance = np.linalg.inv(np.diag(near.sum(1)) - near + constant) - constant
    covariance += 1e-9 * np.eye(SIDE**2)
    scale = np.exp(0.5 * np.mean(np.log(np.diag(covariance))))
    smooth = np.linalg.cholesky(covariance) @ rng.normal(size=SIDE**2) / scale
    expected = rng.gamma(4, 3, SIDE**2)
    effect = 0.4 * (np.sqrt(0.7) * smooth + np.sqrt(0.3) * rng.normal(size=SIDE**2))
    y = rng.poisson(expected * np.exp(0.1 + effect))
    return {"y": y * 1.0, "log_expected": np.log(expected), "scale": scale}


# --- a smooth curve of counts, second differences ------------------------------------------------


def curve(params, data):
    f = params["f"]
    prior = d.normal(f[2:] - 2 * f[1:-1] + f[:-2], 0.0, params["rough"])
    prior += d.normal(f[:2], 0.0, 5.0) + d.normal(params["rough"], 0.0, 0.5)
    return prior + d.poisson_log(data["y"], f)


def _curve_data():
    rng = np.random.default_rng(507)
    t = np.linspace(0, 1, 50)
    return {"y": rng.poisson(np.exp(1.5 + np.sin(6 * t))) * 1.0}


# --- a surface with a length scale of its own for each input, summed out -------------------------


def surface(params, data):
    gaps = (data["x"][:, None] - data["x"][None]) / params["length"]
    kernel = params["height"] ** 2 * jnp.exp(-0.5 * jnp.sum(gaps**2, -1))
    kernel += (params["sigma"] ** 2 + 1e-8) * jnp.eye(len(data["y"]))
    root = jnp.linalg.cholesky(kernel)
    z = jax.scipy.linalg.solve_triangular(root, data["y"], lower=True)
    prior = -6.0 * jnp.sum(jnp.log(params["length"])) - 5.0 * jnp.sum(1 / params["length"])
    prior += d.normal(params["height"], 0.0, 2.0) + d.normal(params["sigma"], 0.0, 1.0)
    return prior - 0.5 * jnp.sum(z**2) - jnp.sum(jnp.log(jnp.diag(root)))


def _surface_data():
    rng = np.random.default_rng(508)
    x = rng.uniform(-2, 2, (60, 3))
    return {"x": x, "y": np.sin(2 * x[:, 0]) + 0.5 * x[:, 1] + 0.3 * rng.normal(size=60)}


# --- three bumps ---------------------------------------------------------------------------------


def bumps(params, data):
    z = (data["y"][:, None] - params["mean"]) / params["sd"]
    each = jnp.log(params["share"]) - 0.5 * z**2 - jnp.log(params["sd"])
    prior = d.dirichlet(params["share"], 3.0) + d.normal(params["mean"], 20.0, 10.0)
    prior += d.lognormal(params["sd"], 0.5, 0.5)
    return prior + jnp.sum(logsumexp(each, axis=1))


def _bumps_data():
    rng = np.random.default_rng(509)
    kind = rng.choice(3, 82, p=[0.15, 0.75, 0.1])
    return {"y": rng.normal(np.array([10.0, 21, 33])[kind], np.array([0.6, 2.0, 1.0])[kind])}


# --- rare events: daily rain, dry and wet days ---------------------------------------------------


def rain(params, data):
    """A power of Bernoulli for wet, generalised Pareto above a threshold for how much."""
    shape, scale = params["shape"], params["scale"]
    inner = 1 + shape * data["excess"] / scale
    safe = jnp.where(inner > 0, inner, 1.0)
    gpd = -(1 / shape + 1) * jnp.log(safe) - jnp.log(scale)
    wet = data["wet"] * jnp.log(params["wet"]) + data["dry"] * jnp.log1p(-params["wet"])
    prior = d.lognormal(scale, 1.0, 1.0) + d.normal(shape, 0.1, 0.3)
    return prior + wet + jnp.sum(jnp.where(inner > 0, gpd, -jnp.inf))


def _rain_data():
    rng = np.random.default_rng(510)
    u = rng.random(60)
    return {"excess": 4.0 / 0.15 * (u**-0.15 - 1), "wet": np.array(60.0), "dry": np.array(305.0)}


MODELS = {
    "seasons": (
        Model(
            seasons,
            lambda data: {
                "sd_level": (positive, ()),
                "sd_season": (positive, ()),
                "sigma": (positive, ()),
                "level": (real, (96,)),
                "season": (real, (96,)),
            },
        ),
        _seasons_data,
    ),
    "volatility": (
        Model(
            volatility,
            lambda data: {
                "mu": (real, ()),
                "phi": (unit_interval, ()),
                "sigma": (positive, ()),
                "raw": (real, (150,)),
            },
        ),
        _volatility_data,
    ),
    "states": (
        Model(
            states,
            lambda data: {
                "move": (simplex, (3, 3)),
                "mean": (ordered, (3,)),
                "sd": (positive, (3,)),
            },
        ),
        _states_data,
    ),
    "bends": (
        Model(
            bends,
            lambda data: {
                "level": (real, ()),
                "slope": (real, ()),
                "scale": (positive, ()),
                "bend": (real, (16,)),
                "wave": (real, (6,)),
                "sigma": (positive, ()),
            },
        ),
        _bends_data,
    ),
    "three_series": (
        Model(
            three_series,
            lambda data: {
                "level": (real, (3,)),
                "lag": (real, (3, 3)),
                "root": (cov_cholesky, (3, 3)),
            },
        ),
        _three_series_data,
    ),
    "districts": (
        Model(
            districts,
            lambda data: {
                "level": (real, ()),
                "sd": (positive, ()),
                "share": (unit_interval, ()),
                "alike": (real, (SIDE**2,)),
                "own": (real, (SIDE**2,)),
            },
        ),
        _districts_data,
    ),
    "curve": (
        Model(curve, lambda data: {"rough": (positive, ()), "f": (real, (50,))}),
        _curve_data,
    ),
    "surface": (
        Model(
            surface,
            lambda data: {
                "height": (positive, ()),
                "length": (positive, (3,)),
                "sigma": (positive, ()),
            },
        ),
        _surface_data,
    ),
    "bumps": (
        Model(
            bumps,
            lambda data: {
                "share": (simplex, (3,)),
                "mean": (ordered, (3,)),
                "sd": (positive, (3,)),
            },
        ),
        _bumps_data,
    ),
    "rain": (
        Model(
            rain,
            lambda data: {
                "scale": (positive, ()),
                "shape": (greater_than(-0.5), ()),
                "wet": (unit_interval, ()),
            },
        ),
        _rain_data,
    ),
}
