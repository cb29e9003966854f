"""Hierarchies whose parameter is the logarithm of a scale: a long tail, with exact moments."""

import jax.numpy as jnp
import numpy as np

INIT = {"mu": 0.0, "log_tau": 0.0, "eta": np.zeros(8)}


def log_joint(p, data):
    """Eight groups, non-centred; down to tau = 0 the density falls like exp(log tau) only."""
    tau = jnp.exp(p["log_tau"])
    prior = -0.5 * (p["mu"] / 5) ** 2 - 0.5 * (tau / 2) ** 2 + p["log_tau"]
    residual = (data["y"] - p["mu"] - tau * p["eta"]) / data["s"]
    return prior - 0.5 * jnp.sum(p["eta"] ** 2) - 0.5 * jnp.sum(residual**2)


def data(number):
    """So many problems, with groups from all alike to far apart."""
    rng = np.random.default_rng(0)
    s, spread = rng.uniform(0.5, 1.5, (number, 8)), rng.uniform(0, 1.5, (number, 1))
    y = rng.normal(size=(number, 1)) + spread * rng.normal(size=(number, 8))
    y += s * rng.normal(size=(number, 8))
    return {"y": y.astype(np.float32), "s": s.astype(np.float32)}


def exact(y, s):
    """Mean and sd of log tau: given it all else is Gaussian, so one integral is left."""
    y, s = y.astype(float), s.astype(float)
    grid = np.linspace(-30, 5, 8000)
    tau = np.exp(grid)[:, None]
    variance = s**2 + tau**2
    precision = (1 / variance).sum(1) + 1 / 25
    centre = (y / variance).sum(1) / precision
    log_p = -0.5 * (np.log(variance).sum(1) + np.log(precision) + (y**2 / variance).sum(1))
    log_p += 0.5 * centre**2 * precision - 0.5 * (tau[:, 0] / 2) ** 2 + grid
    w = np.exp(log_p - log_p.max())
    w /= w.sum()
    mean = w @ grid
    return mean, np.sqrt(w @ (grid - mean) ** 2)
