"""Cholera, carbon in soil, and deaths by an epidemic in fourteen countries."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from bbvi import positive, unit_interval
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model, numbers

# --- people who fall ill from bacteria in the water ----------------------------------------------

KAPPA = 1e6  # bacteria that infect at half the contact rate

# Steps in an interval of three paths that run side by side, with 16, 32 and 64 steps. A path waits
# where a step of it is 0. The logarithms of the path are off by less than 5e-9 near the mode.
_STRIDES = np.array([4.0, 2.0, 1.0])
_STEPS = np.where(np.arange(64)[:, None] % _STRIDES == 0, _STRIDES, 0.0) / 64


def _shed(gamma, delta, h):
    """Bacteria alive after h that one infected shed at a rate of one."""
    gap = delta - gamma  # may be 0
    x = (0.5 * gap * h) ** 2
    near = x < 0.01
    series = h * jnp.exp(-0.5 * (gamma + delta) * h) * (1 + x / 6 * (1 + x / 20 * (1 + x / 42)))
    safe = jnp.where(near, 1.0, gap)
    return jnp.where(near, series, (jnp.exp(-gamma * h) - jnp.exp(-delta * h)) / safe)


def _log_share(log_hazard):
    """log(1 - exp(-hazard)), also where the hazard itself is too small for a float."""
    hazard = jnp.exp(log_hazard)
    near = hazard < 0.01
    series = log_hazard - 0.5 * hazard * (1 - hazard / 12)
    return jnp.where(near, series, jnp.log(-jnp.expm1(-jnp.where(near, 1.0, hazard))))


def _log_course(params, start, times):
    """log(newly infected) in each interval up to `times`, and log(bacteria) at its end.

    Strang's splitting: an infection step, all else held, between two half steps of recovery,
    shedding and dying, both exact, so that no rate is too fast and nothing turns negative. Its
    error has even powers of the step only, of which the paths together remove the first two.
    """
    beta, gamma, xi, delta = (params[name] for name in ("beta", "gamma", "xi", "delta"))
    h = jnp.diff(times, prepend=0.0)[:, None, None] * _STEPS  # (intervals, steps, paths)
    factors = jnp.exp(-gamma * h / 2), jnp.exp(-delta * h / 2), xi * _shed(gamma, delta, h / 2)

    def half(log_b, ratio, factors):
        ill, alive, shed = factors
        grown = alive + shed * ratio
        return log_b + jnp.log(grown), ratio * ill / grown

    def step(state, now):
        log_s, log_b, ratio = state  # of infected to bacteria
        log_rate, factors = now
        log_b, ratio = half(log_b, ratio, factors)
        log_hazard = log_rate + jax.nn.log_sigmoid(log_b - np.log(KAPPA))
        new = log_s + _log_share(log_hazard)
        log_b, ratio = half(log_b, ratio + jnp.exp(new - log_b), factors)
        return (log_s - jnp.exp(log_hazard), log_b, ratio), new

    def to_next(state, steps):
        state, new = jax.lax.scan(step, state, steps)
        return state, jnp.stack([logsumexp(new, axis=0), state[1]])

    first = jnp.stack([jnp.log(start[0]), jnp.log(start[3]), start[1] / start[3]])
    state = tuple(jnp.outer(first, jnp.ones(3)))
    _, course = jax.lax.scan(to_next, state, (jnp.log(beta) + jnp.log(h), factors))
    for power in (4, 16):
        course = course[..., 1:] + jnp.diff(course) / (power - 1)
    return course[:, 0, 0], course[:, 1, 0]


def sir(params, data):
    log_new, log_bacteria = _log_course(params, data["y0"], data["t"])
    prior = d.cauchy(params["beta"], 0.0, 2.5) + d.cauchy(params["gamma"], 0.0, 1.0)
    prior += d.cauchy(params["xi"], 0.0, 25.0) + d.cauchy(params["delta"], 0.0, 1.0)
    prior += d.lognormal(data["B_hat"], log_bacteria, 0.15)
    return prior + d.poisson_log(data["stoi_hat"], log_new)


def _sir_parameters(data):
    return {name: (positive, ()) for name in ("beta", "gamma", "xi", "delta")}


# --- carbon that two pools in soil pass to each other and to the air -----------------------------


def soil_incubation(params, data):
    """The pools obey linear equations, so that their sum is one of two exponentials."""
    names = ("k1", "k2", "alpha21", "alpha12", "gamma", "sigma")
    k1, k2, alpha21, alpha12, gamma, sigma = (params[name] for name in names)
    total, t = data["totalC_t0"], data["ts"] - data["t0"]
    mean = 0.5 * (k1 + k2)
    root = jnp.sqrt(0.25 * (k1 - k2) ** 2 + alpha12 * alpha21 * k1 * k2)
    loss = gamma * k1 * (1 - alpha21) + (1 - gamma) * k2 * (1 - alpha12)  # of a unit, at first
    gap = -0.5 * jnp.expm1(-2 * root * t)
    left = jnp.exp((root - mean) * t) * (1 - gap + gap / root * (mean - loss))
    prior = d.beta(gamma, 10.0, 1.0) + d.cauchy(sigma, 0.0, 1.0)
    prior += d.normal(jnp.stack([k1, k2, alpha21, alpha12]), 0.0, 1.0)
    return prior + d.normal(data["eCO2mean"], total * (1 - left), sigma)


def _soil_incubation_parameters(data):
    rates = {name: (positive, ()) for name in ("k1", "k2", "alpha21", "alpha12")}
    return rates | {"gamma": (unit_interval, ()), "sigma": (positive, ())}


# --- deaths by covid-19: infections of a day follow from those of the days before ----------------


def covid19imperial(params, data):
    mu, y, tau, kappa = (params[name] for name in ("mu", "y", "tau", "kappa"))
    alpha = params["alpha_hier"] - np.log(1.05) / 6
    spread = mu * jnp.exp(-data["X"] @ alpha)  # (days, countries)

    def step(infections, spread):
        """`infections` are of (days ago, countries)."""
        free = 1 - jnp.sum(infections, axis=0) / data["pop"]
        deaths = jnp.sum(data["f"] * infections, axis=0)
        new = free * spread * (data["SI"] @ infections)
        return jnp.concatenate([new[None], infections[:-1]]), deaths

    _, deaths = jax.lax.scan(step, data["seeded"][:, None] * y, spread)
    log_mean = jnp.log(params["ifr_noise"] * deaths)
    prior = -0.03 * tau - jnp.sum(y / tau + jnp.log(tau))
    prior += d.normal(params["phi"], 0.0, 5.0) + d.normal(kappa, 0.0, 0.5)
    prior += d.normal(mu, 3.28, kappa) + d.gamma(params["alpha_hier"], 0.1667, 1.0)
    prior += d.normal(params["ifr_noise"], 1.0, 0.1)
    log_p = d.negative_binomial(data["deaths"], log_mean, params["phi"])
    return prior + jnp.sum(data["counted"] * log_p)


def _covid19imperial_parameters(data):
    countries, measures = data["pop"].shape, data["X"].shape[-1:]
    return {
        "mu": (positive, countries),
        "alpha_hier": (positive, measures),
        "kappa": (positive, ()),
        "y": (positive, countries),
        "phi": (positive, ()),
        "tau": (positive, ()),
        "ifr_noise": (positive, countries),
    }


def _covid19imperial_prepare(raw):
    """The days after those whose infections are seeded, up to the last that counts anywhere."""
    seeded, end = raw["N0"], max(raw["N"])
    data, day = numbers(raw), np.arange(end)[:, None]
    counted = (day >= data["EpidemicStart"] - 1) & (day < data["N"])
    if counted[:seeded].any():
        raise ValueError("Deaths count in days whose infections are seeded.")
    return {
        "seeded": (day[:, 0] < seeded) * 1.0,
        "X": data["X"].transpose(1, 0, 2)[seeded:end],
        "SI": data["SI"][:end],
        "f": data["f"][:end],
        "pop": data["pop"],
        "deaths": np.where(counted, data["deaths"][:end], 0.0)[seeded:],
        "counted": counted[seeded:] * 1.0,
    }


MODELS = {
    "sir": Model(sir, _sir_parameters),
    "soil_incubation": Model(soil_incubation, _soil_incubation_parameters),
    "covid19imperial_v2": Model(
        covid19imperial, _covid19imperial_parameters, _covid19imperial_prepare
    ),
    "covid19imperial_v3": Model(
        covid19imperial, _covid19imperial_parameters, _covid19imperial_prepare
    ),
}
