"""Paths and fields: diffusions seen in part, volatility, intensities over a map, smooth curves."""

import jax
import jax.numpy as jnp
import numpy as np

from bbvi import interval, positive, real
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import expit, of

# --- trees in a wood: a log-Gaussian Cox process on a grid of 14 by 14 ---------------------------


def wood(params, data):
    """The field by independent normals, through the root of an exponential kernel."""
    kernel = params["height"] ** 2 * jnp.exp(-data["gaps"] / params["length"])
    root = jnp.linalg.cholesky(kernel + 1e-6 * jnp.eye(len(kernel)))
    eta = params["mean"] + root @ params["raw"]
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["mean"], 0.0, 2.0)
    prior += d.normal(params["height"], 0.0, 1.0) + d.lognormal(params["length"], -1.5, 0.5)
    return prior + d.poisson_log(data["trees"], eta)


def _wood_data():
    rng = np.random.default_rng(1601)
    at = (np.arange(14) + 0.5) / 14
    x = np.stack(np.meshgrid(at, at), -1).reshape(-1, 2)
    gaps = np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))
    root = np.linalg.cholesky(np.exp(-gaps / 0.25) + 1e-9 * np.eye(len(x)))
    return {"gaps": gaps, "trees": rng.poisson(np.exp(0.7 + root @ rng.normal(size=len(x)))) * 1.0}


# --- sick or not, by place: a Gaussian process behind a logit ------------------------------------


def places(params, data):
    """The field itself is the parameter, with a smooth kernel."""
    kernel = params["height"] ** 2 * jnp.exp(-0.5 * data["gaps"] ** 2 / params["length"] ** 2)
    kernel += 0.01 * params["height"] ** 2 * jnp.eye(len(kernel))
    root = jnp.linalg.cholesky(kernel)
    z = jax.scipy.linalg.solve_triangular(root, params["field"], lower=True)
    prior = -0.5 * jnp.sum(z**2) - jnp.sum(jnp.log(jnp.diag(root)))
    prior += d.lognormal(params["height"], 0.5, 0.5) + d.lognormal(params["length"], -1.0, 0.5)
    eta = params["mean"] + params["field"]
    return prior + d.normal(params["mean"], 0.0, 2.0) + d.binomial_logit(data["sick"], 1.0, eta)


def _places_data():
    rng = np.random.default_rng(1602)
    x = rng.random((100, 2))
    gaps = np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1))
    eta = 2 * np.sin(4 * x[:, 0]) * np.cos(3 * x[:, 1])
    return {"gaps": gaps, "sick": (rng.random(100) < expit(eta)).astype(float)}


# --- a Brownian path, its middle not seen --------------------------------------------------------


def bridge(params, data):
    x = params["x"]
    prior = d.lognormal(params["stride"], 0.0, 2.0) + d.lognormal(params["noise"], 0.0, 2.0)
    prior += d.normal(x[0], 0.0, params["stride"]) + d.normal(x[1:], x[:-1], params["stride"])
    z = (data["y"] - x) / params["noise"]
    return prior - jnp.sum(data["seen"] * (0.5 * z**2 + jnp.log(params["noise"])))


def _bridge_data():
    rng = np.random.default_rng(1603)
    t = np.arange(30)
    x = np.cumsum(0.1 * rng.normal(size=30))
    seen = (t < 10) | (t >= 20)
    return {"y": np.where(seen, x + 0.15 * rng.normal(size=30), 0), "seen": seen.astype(float)}


# --- weather: a Lorenz system with noise, of which one coordinate is seen ------------------------


def _flow(x):
    a, b, c = x[..., 0], x[..., 1], x[..., 2]
    return jnp.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], -1)


def weather(params, data):
    """Euler's steps of 0.02, each with noise; the first coordinate is seen with noise."""
    x = params["x"]
    prior = d.normal(x[0], 0.0, 10.0) + d.normal(x[1:], x[:-1] + 0.02 * _flow(x[:-1]), 0.4)
    prior += d.lognormal(params["noise"], 0.0, 1.0)
    return prior + d.normal(data["y"], x[:, 0], params["noise"])


def _weather_data():
    rng = np.random.default_rng(1604)
    path = [np.array([-4.0, -6.0, 22.0])]
    for _ in range(39):
        drift = np.asarray(_flow(path[-1]))
        path.append(path[-1] + 0.02 * drift + 0.4 * rng.normal(size=3))
    return {"y": np.array(path)[:, 0] + rng.normal(size=40)}


# --- returns whose log volatility is the parameter itself, not its innovations -------------------


def wander(params, data):
    h, mean, persistence, sd = (params[k] for k in ("h", "mean", "persistence", "sd"))
    prior = d.normal(h[0], mean, sd / jnp.sqrt(1 - persistence**2))
    prior += d.normal(h[1:], mean + persistence * (h[:-1] - mean), sd)
    prior += d.normal(mean, 0.0, 5.0) + d.beta((persistence + 1) / 2, 20.0, 1.5)
    prior += d.gamma(sd, 2.0, 5.0)
    return prior + d.normal(data["y"], 0.0, jnp.exp(h / 2))


def _wander_data():
    rng = np.random.default_rng(1605)
    h, levels = -1.0, []
    for _ in range(400):
        h = -1.0 + 0.96 * (h + 1.0) + 0.3 * rng.normal()
        levels.append(h)
    return {"y": np.exp(np.array(levels) / 2) * rng.normal(size=400)}


# --- two thousand hours of arrivals at a hospital, busy times come and go ------------------------


def arrivals(params, data):
    """Log rates are an AR(1), by its innovations."""
    persistence, sd = params["persistence"], params["sd"]

    def step(last, noise):
        now = persistence * last + sd * noise
        return now, now

    _, level = jax.lax.scan(step, 0.0 * sd, params["raw"])
    eta = params["mean"] + level + data["day"] @ params["beta"]
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["mean"], 0.0, 2.0)
    prior += d.normal(params["beta"], 0.0, 1.0) + d.normal(sd, 0.0, 0.5)
    return prior + d.beta(persistence, 10.0, 2.0) + d.poisson_log(data["y"], eta)


def _arrivals_data():
    rng = np.random.default_rng(1606)
    hour = np.arange(2000)
    day = np.stack([np.sin(hour * np.pi / 12), np.cos(hour * np.pi / 12)], -1)
    level, levels = 0.0, []
    for _ in hour:
        level = 0.9 * level + 0.2 * rng.normal()
        levels.append(level)
    eta = 1.2 + day @ np.array([0.5, -0.3]) + np.array(levels)
    return {"day": day, "y": rng.poisson(np.exp(eta)).astype(float)}


# --- heights and ages: a penalised spline and a spread that changes with age ---------------------


def heights(params, data):
    """Second differences of the coefficients are penalised, of the mean and of the log sd."""
    prior = d.normal(params["rough"], 0.0, 1.0)
    for name in ("middle", "spread"):
        b = params[name]
        prior += d.normal(b[:2], 0.0, 5.0)
        rough = params["rough"][0 if name == "middle" else 1]
        prior += d.normal(b[2:] - 2 * b[1:-1] + b[:-2], 0.0, rough)
    mean, log_sd = data["basis"] @ params["middle"], data["basis"] @ params["spread"]
    return prior + d.normal(data["y"], mean, jnp.exp(log_sd))


def _heights_data():
    rng = np.random.default_rng(1607)
    x = np.sort(rng.random(200))
    at = x * 17
    k = at.astype(int)
    u = at - k
    basis = np.zeros((200, 20))
    weights = [(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, 1 + 3 * u + 3 * u**2 - 3 * u**3, u**3]
    for j, w in enumerate(weights):
        basis[np.arange(200), k + j] = w / 6
    y = 2 * np.sqrt(x) + np.sin(3 * x) + (0.1 + 0.4 * x) * rng.normal(size=200)
    return {"basis": basis, "y": y}


MODELS = {
    "wood": (
        Model(
            wood,
            of(mean=(real, ()), height=(positive, ()), length=(positive, ()), raw=(real, (196,))),
        ),
        _wood_data,
    ),
    "places": (
        Model(
            places,
            of(mean=(real, ()), height=(positive, ()), length=(positive, ()), field=(real, (100,))),
        ),
        _places_data,
    ),
    "bridge": (
        Model(bridge, of(stride=(positive, ()), noise=(positive, ()), x=(real, (30,)))),
        _bridge_data,
    ),
    "weather": (Model(weather, of(noise=(positive, ()), x=(real, (40, 3)))), _weather_data),
    "wander": (
        Model(
            wander,
            of(
                mean=(real, ()),
                persistence=(interval(-1.0, 1.0), ()),
                sd=(positive, ()),
                h=(real, (400,)),
            ),
        ),
        _wander_data,
    ),
    "arrivals": (
        Model(
            arrivals,
            of(
                mean=(real, ()),
                beta=(real, (2,)),
                persistence=(interval(0.0, 1.0), ()),
                sd=(positive, ()),
                raw=(real, (2000,)),
            ),
        ),
        _arrivals_data,
    ),
    "heights": (
        Model(
            heights,
            of(rough=(positive, (2,)), middle=(real, (20,)), spread=(real, (20,))),
        ),
        _heights_data,
    ),
}
