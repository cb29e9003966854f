"""Curves by basis functions whose length and height are their own, and counts that scatter."""

import jax
import jax.numpy as jnp
import numpy as np

from bbvi import positive, real
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import expit, of

# --- sightings along a road: a Gaussian process by its first twenty sines ------------------------
# (Solin and Särkkä 2020, Statistics and Computing 30)


def _sines(t, number, half=1.5):
    """Sines (N, K) on (-half, half) at times t, and their frequencies (K,)."""
    w = np.arange(1, number + 1) * np.pi / (2 * half)
    return np.sin(w * (t[:, None] + half)) / np.sqrt(half), w


def _heights(height, length, w):
    """sds of the coefficients of sines with frequencies w, of a squared-exponential kernel."""
    return height * jnp.sqrt(np.sqrt(2 * np.pi) * length) * jnp.exp(-0.25 * (length * w) ** 2)


def sightings(params, data):
    rate = data["sines"] @ (_heights(params["height"], params["length"], data["w"]) * params["raw"])
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["level"], 0.0, 2.0)
    prior += d.lognormal(params["height"], 0.0, 1.0) + d.lognormal(params["length"], -0.5, 0.7)
    return prior + d.poisson_log(data["seen"], params["level"] + rate)


def _sightings_data():
    rng = np.random.default_rng(403)
    t = np.linspace(-1, 1, 80)
    sines, w = _sines(t, 20)
    return {"sines": sines, "w": w, "seen": rng.poisson(np.exp(1 + np.sin(5 * t))) * 1.0}


def _sightings_exact(data):
    """On a grid of height and length, and by weighted normal draws of all else given these.

    NUTS with 12,000 draws, 2,300 of them effective, has an sd of the height 15% short.
    """

    def log_p(place, x):
        height, length = jnp.exp(place)
        params = {"height": height, "length": length, "level": x[0], "raw": x[1:]}
        return sightings(params, data) + jnp.sum(place)

    half = np.random.default_rng(0).standard_normal((64, 21))
    eps = jnp.asarray(np.concatenate([half, -half]))
    shares = jnp.array([1.0, 0.5, 0.25, 0.1, 0.0])

    def given(place):
        """Log evidence, and means and mean squares of all else."""

        def climb(x, _):
            way = jnp.linalg.solve(-jax.hessian(log_p, 1)(place, x), jax.grad(log_p, 1)(place, x))
            heights = jax.vmap(lambda share: log_p(place, x + share * way))(shares)
            return x + shares[jnp.nanargmax(heights)] * way, None

        mode, _ = jax.lax.scan(climb, jnp.zeros(21).at[0].set(1.0), None, length=15)
        root = jnp.linalg.cholesky(-jax.hessian(log_p, 1)(place, mode))
        draws = mode + jax.scipy.linalg.solve_triangular(root.T, eps.T).T
        log_q = -0.5 * jnp.sum(eps**2, axis=1) + jnp.sum(jnp.log(jnp.diagonal(root)))
        log_w = jax.vmap(lambda x: log_p(place, x))(draws) - log_q
        # beside those of the normal distribution itself, what weights change
        more = jax.nn.softmax(log_w) - 1 / len(eps)
        covariance = jax.scipy.linalg.cho_solve((root, True), jnp.eye(21))
        first = mode + more @ draws
        second = mode**2 + jnp.diagonal(covariance) + more @ draws**2
        return jax.nn.logsumexp(log_w), first, second

    height, length = np.meshgrid(np.linspace(-2.5, 5.0, 41), np.linspace(-2.6, 0.6, 25))
    places = np.stack([height.ravel(), length.ravel()], axis=1)
    log_w, first, second = (np.asarray(x) for x in jax.lax.map(given, places, batch_size=32))
    w = np.exp(log_w - log_w.max())
    w /= w.sum()
    first = np.concatenate([np.exp(places), first], axis=1)
    second = np.concatenate([np.exp(2 * places), second], axis=1)
    mean = w @ first
    sd = np.sqrt(w @ second - mean**2)
    names = {"height": 0, "length": 1, "level": 2, "raw": slice(3, None)}
    return tuple({k: x[i] for k, i in names.items()} for x in (mean, sd))


# --- deaths by age and year: each age has its share in one trend (Lee and Carter 1992) -----------


def life_tables(params, data):
    trend = jnp.cumsum(params["drift"] + params["step_sd"] * params["step"])
    log_rate = params["age"][:, None] + params["share"][:, None] * trend
    prior = d.normal(params["age"], -3.0, 2.0) + d.normal(params["share"], 0.1, 0.05)
    prior += d.normal(params["step"], 0.0, 1.0) + d.normal(params["drift"], 0.0, 1.0)
    prior += d.lognormal(params["step_sd"], -1.0, 1.0)
    return prior + jnp.sum(data["deaths"] * log_rate - data["people"] * jnp.exp(log_rate))


def _life_tables_data():
    rng = np.random.default_rng(405)
    trend = np.cumsum(-0.5 + 0.3 * rng.normal(size=25))
    age, share = np.linspace(-6, -2, 10), 0.1 + 0.03 * rng.normal(size=10)
    people = rng.uniform(2e3, 2e4, (10, 25))
    deaths = rng.poisson(people * np.exp(age[:, None] + share[:, None] * trend))
    return {"people": people, "deaths": deaths * 1.0}


# --- calls that a station may not take at all, or more or fewer of -------------------------------


def call_outs(params, data):
    """Zeros are of stations that were closed, or chance; counts scatter more than Poisson's."""
    effect = params["sd"] * params["raw"][data["station"].astype(int)]
    log_mean = params["level"] + effect + params["slope"] * data["heat"]
    closed = params["closed"][0] + params["closed"][1] * data["heat"]
    is_open = jax.nn.log_sigmoid(-closed)
    counted = is_open + d.negative_binomial(data["calls"], log_mean, params["size"])
    either = jnp.logaddexp(jax.nn.log_sigmoid(closed), counted)
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["sd"], 0.0, 1.0)
    prior += d.normal(params["level"], 0.0, 3.0) + d.normal(params["slope"], 0.0, 2.0)
    prior += d.normal(params["closed"], 0.0, 2.0) + d.lognormal(params["size"], 0.5, 1.0)
    return prior + jnp.sum(jnp.where(data["calls"] == 0, either, counted))


def _call_outs_data():
    rng = np.random.default_rng(315)
    station, heat = np.repeat(np.arange(15), 14), rng.normal(size=210)
    mean = np.exp(1 + 0.6 * rng.normal(size=15)[station] + 0.4 * heat)
    calls = rng.negative_binomial(3, 3 / (3 + mean))
    calls[rng.random(210) < expit(-1 + 0.5 * heat)] = 0
    return {"station": station * 1.0, "heat": heat, "calls": calls * 1.0}


MODELS = {
    "sightings": (
        Model(
            sightings,
            of(height=(positive, ()), length=(positive, ()), level=(real, ()), raw=(real, (20,))),
        ),
        _sightings_data,
        _sightings_exact,
    ),
    "life_tables": (
        Model(
            life_tables,
            of(
                age=(real, (10,)),
                share=(real, (10,)),
                drift=(real, ()),
                step_sd=(positive, ()),
                step=(real, (25,)),
            ),
        ),
        _life_tables_data,
    ),
    "call_outs": (
        Model(
            call_outs,
            of(
                level=(real, ()),
                sd=(positive, ()),
                raw=(real, (15,)),
                slope=(real, ()),
                closed=(real, (2,)),
                size=(positive, ()),
            ),
        ),
        _call_outs_data,
    ),
}
