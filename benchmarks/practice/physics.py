"""Instruments: an orbit, errors on both axes, decays, a level that drifts."""

import jax
import jax.numpy as jnp
import numpy as np

from bbvi import positive, positive_ordered, real, unit_interval, unit_vector
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import of

# --- a planet on an ellipse ----------------------------------------------------------------------


def _true_anomaly(phase, e, xp, steps=20):
    """By Newton's steps on Kepler's equation."""

    def step(at, _):
        return at - (at - e * xp.sin(at) - phase) / (1 - e * xp.cos(at)), None

    at = phase + e * xp.sin(phase)
    if xp is jnp:
        at, _ = jax.lax.scan(step, at, None, length=steps)
    else:
        for _ in range(steps):
            at, _ = step(at, None)
    return 2 * xp.arctan2(xp.sqrt(1 + e) * xp.sin(at / 2), xp.sqrt(1 - e) * xp.cos(at / 2))


def orbit(params, data):
    turn = jnp.arctan2(params["passage"][1], params["passage"][0])
    point = jnp.arctan2(params["pericentre"][1], params["pericentre"][0])
    phase = 2 * jnp.pi * data["time"] / params["period"] - turn
    at = _true_anomaly(jnp.mod(phase, 2 * jnp.pi), params["e"], jnp)
    speed = params["swing"] * (jnp.cos(at + point) + params["e"] * jnp.cos(point))
    sigma = jnp.sqrt(data["sigma"] ** 2 + params["jitter"] ** 2)
    prior = d.beta(params["e"], 0.9, 3.0) + d.lognormal(params["period"], jnp.log(30.0), 0.01)
    prior += d.normal(params["swing"], 0.0, 100.0) + d.normal(params["drift"], 0.0, 50.0)
    prior += d.normal(params["jitter"], 0.0, 5.0)
    return prior + d.normal(data["y"], params["drift"] + speed, sigma)


def _orbit_data():
    rng = np.random.default_rng(801)
    time, sigma = np.sort(rng.uniform(0, 120, 45)), rng.uniform(3, 7, 45)
    at = _true_anomaly(np.mod(2 * np.pi * time / 30.2 - 0.8, 2 * np.pi), 0.35, np)
    y = 12 + 40 * (np.cos(at + 1.2) + 0.35 * np.cos(1.2))
    return {"time": time, "sigma": sigma, "y": y + np.hypot(sigma, 2.0) * rng.normal(size=45)}


# --- a line through points with errors on both axes ----------------------------------------------


def both_axes(params, data):
    true = params["true"]
    line = params["alpha"] + params["beta"] * true
    prior = d.normal(true, params["centre"], params["width"]) + d.normal(params["beta"], 0.0, 3.0)
    prior += d.normal(params["alpha"], 0.0, 5.0) + d.normal(params["centre"], 0.0, 5.0)
    prior += d.normal(params["width"], 0.0, 3.0) + d.normal(params["scatter"], 0.0, 1.0)
    sigma = jnp.sqrt(params["scatter"] ** 2 + data["sigma_y"] ** 2)
    prior += d.normal(data["x"], true, data["sigma_x"])
    return prior + d.normal(data["y"], line, sigma)


def _both_axes_data():
    rng = np.random.default_rng(802)
    sigma_x, sigma_y, true = (
        rng.uniform(0.2, 0.6, 40),
        rng.uniform(0.1, 0.4, 40),
        rng.normal(size=40),
    )
    x, y = true + sigma_x * rng.normal(size=40), 0.5 + 1.3 * true
    y = y + np.hypot(sigma_y, 0.25) * rng.normal(size=40)
    return {"x": x, "y": y, "sigma_x": sigma_x, "sigma_y": sigma_y}


# --- two decays under one curve ------------------------------------------------------------------


def decays(params, data):
    curve = jnp.exp(-data["time"][:, None] * params["rate"]) @ params["amount"]
    prior = d.lognormal(params["rate"], jnp.array([-1.0, 1.0]), 1.0)
    prior += d.lognormal(params["amount"], 0.0, 1.0) + d.normal(params["sigma"], 0.0, 1.0)
    return (
        prior
        + d.normal(data["y"], curve + params["ground"], params["sigma"])
        + d.normal(params["ground"], 0.0, 0.5)
    )


def _decays_data():
    rng = np.random.default_rng(803)
    time = np.linspace(0, 8, 50)
    curve = 1.5 * np.exp(-0.4 * time) + 2.0 * np.exp(-2.2 * time)
    return {"time": time, "y": curve + 0.1 * rng.normal(size=50)}


# --- a level and its slope, both filtered out ----------------------------------------------------


def drift(params, data):
    noise = params["sigma"] ** 2
    moved = jnp.diag(jnp.stack([params["sd_level"], params["sd_slope"]]) ** 2)
    move = jnp.array([[1.0, 1.0], [0.0, 1.0]])

    def step(carry, y):
        mean, spread = carry
        mean, spread = move @ mean, move @ spread @ move.T + moved
        seen = spread[0, 0] + noise
        gain = spread[:, 0] / seen
        miss = y - mean[0]
        log_p = -0.5 * miss**2 / seen - 0.5 * jnp.log(seen)
        return (mean + gain * miss, spread - jnp.outer(gain, spread[0])), log_p

    start = (jnp.zeros(2), jnp.diag(jnp.array([100.0, 1.0])))
    _, log_p = jax.lax.scan(step, start, data["y"])
    prior = sum(d.normal(params[n], 0.0, 1.0) for n in ("sigma", "sd_level", "sd_slope"))
    return prior + jnp.sum(log_p)


def _drift_data():
    rng = np.random.default_rng(808)
    slope = 0.1 + np.cumsum(0.02 * rng.normal(size=70))
    level = 3 + np.cumsum(slope + 0.15 * rng.normal(size=70))
    return {"y": level + 0.5 * rng.normal(size=70)}


MODELS = {
    "orbit": (
        Model(
            orbit,
            of(
                period=(positive, ()),
                swing=(positive, ()),
                e=(unit_interval, ()),
                passage=(unit_vector, (2,)),
                pericentre=(unit_vector, (2,)),
                drift=(real, ()),
                jitter=(positive, ()),
            ),
        ),
        _orbit_data,
    ),
    "both_axes": (
        Model(
            both_axes,
            of(
                alpha=(real, ()),
                beta=(real, ()),
                centre=(real, ()),
                width=(positive, ()),
                scatter=(positive, ()),
                true=(real, (40,)),
            ),
        ),
        _both_axes_data,
    ),
    "decays": (
        Model(
            decays,
            of(
                rate=(positive_ordered, (2,)),
                amount=(positive, (2,)),
                ground=(real, ()),
                sigma=(positive, ()),
            ),
        ),
        _decays_data,
    ),
    "drift": (
        Model(
            drift,
            of(sigma=(positive, ()), sd_level=(positive, ()), sd_slope=(positive, ())),
        ),
        _drift_data,
    ),
}
