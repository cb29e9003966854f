"""Signals and instruments: a period, two instruments, spikes, a colony, correlations, memory."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import gammaln

from bbvi import correlation, interval, positive, real
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import of

# --- the period of a star, seen on a few nights --------------------------------------------------


def period(params, data):
    """Besides the frequency that explains the data, every other one has a little of the mass."""
    turns = 2 * jnp.pi * params["frequency"] * data["t"]
    signal = params["a"] * jnp.cos(turns) + params["b"] * jnp.sin(turns)
    prior = d.normal(params["a"], 0.0, 1.0) + d.normal(params["b"], 0.0, 1.0)
    prior += d.lognormal(params["sigma"], -1.0, 1.0)
    return prior + d.normal(data["y"], signal, params["sigma"])


def _period_exact(data):
    """On a grid of frequencies and sds, the amplitudes integrated out."""
    t, y = data["t"], data["y"]
    frequency = np.linspace(0, 3, 60001)[1:-1]
    log_sigma = np.linspace(-3, 2, 201)
    waves = [f(2 * np.pi * frequency[:, None] * t) for f in (np.cos, np.sin)]
    precision = np.exp(-2 * log_sigma)
    squares = [np.sum(wave**2, 1)[:, None] * precision + 1 for wave in waves]
    both = np.sum(waves[0] * waves[1], 1)[:, None] * precision
    seen = [(wave @ y)[:, None] * precision for wave in waves]
    det = squares[0] * squares[1] - both**2
    mean = {"a": (squares[1] * seen[0] - both * seen[1]) / det}
    mean["b"] = (squares[0] * seen[1] - both * seen[0]) / det
    square = {"a": squares[1] / det + mean["a"] ** 2, "b": squares[0] / det + mean["b"] ** 2}
    log_p = 0.5 * (seen[0] * mean["a"] + seen[1] * mean["b"]) - 0.5 * np.log(det)
    log_p -= 0.5 * y @ y * precision + len(y) * log_sigma + 0.5 * (log_sigma + 1) ** 2
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    flat = {"frequency": frequency[:, None], "sigma": np.exp(log_sigma)}
    mean |= flat
    square |= {name: x**2 for name, x in flat.items()}
    means = {name: np.sum(p * x) for name, x in mean.items()}
    return means, {name: np.sqrt(np.sum(p * square[name]) - m**2) for name, m in means.items()}


def _period_data():
    rng = np.random.default_rng(5)
    t = np.sort(rng.uniform(0, 10, 25))
    return {"t": t, "y": 0.8 * np.sin(2 * np.pi * 0.63 * t) + 0.5 * rng.normal(size=25)}


# --- one line, two instruments whose errors are known but roughly --------------------------------


def instruments(params, data):
    """Which of the two is the better one decides the slope."""
    x = params["x"]
    prior = d.normal(params["a"], 0.0, 5.0) + d.normal(params["b"], 0.0, 5.0)
    prior += d.normal(params["mu"], 0.0, 5.0) + d.lognormal(params["tau"], 0.0, 1.0)
    prior += d.lognormal(params["sx"], -1.0, 0.5) + d.lognormal(params["sy"], -1.0, 0.5)
    prior += d.normal(x, params["mu"], params["tau"]) + d.normal(data["x"], x, params["sx"])
    return prior + d.normal(data["y"], params["a"] + params["b"] * x, params["sy"])


def _instruments_data():
    rng = np.random.default_rng(18)
    x = 2 + rng.normal(size=35)
    return {"x": x + 0.4 * rng.normal(size=35), "y": 1 + 2 * x + 0.4 * rng.normal(size=35)}


# --- a nerve that fires, by the equations of FitzHugh and Nagumo ---------------------------------

_STRIDE, _STEPS, _SEEN_EVERY = 0.1, 200, 10


def _nerve(x, a, b, c):
    v, r = x
    return c * (v - v**3 / 3 + r), -(v - a + b * r) / c


def _stepped(x, rates, xp):
    """One step of Runge and Kutta's."""

    def slope(x):
        return xp.stack(_nerve(x, *rates))

    k1 = slope(x)
    k2 = slope(x + _STRIDE / 2 * k1)
    k3 = slope(x + _STRIDE / 2 * k2)
    k4 = slope(x + _STRIDE * k3)
    return x + _STRIDE / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def spikes(params, data):
    rates = params["a"], params["b"], params["c"]

    def step(x, _):
        x = _stepped(x, rates, jnp)
        return x, x

    path = jax.lax.scan(step, params["start"], None, length=_STEPS)[1]
    prior = d.normal(params["a"], 0.0, 0.4) + d.normal(params["b"], 0.0, 0.4)
    prior += d.lognormal(params["c"], 1.0, 0.5) + d.normal(params["start"], 0.0, 1.0)
    prior += d.lognormal(params["sigma"], -1.0, 1.0)
    return prior + d.normal(data["y"], path[_SEEN_EVERY - 1 :: _SEEN_EVERY], params["sigma"])


def _spikes_data():
    rng = np.random.default_rng(7)
    path = [np.array([-1.0, 1.0])]
    for _ in range(_STEPS):
        path.append(_stepped(path[-1], (0.2, 0.2, 3.0), np))
    y = np.array(path[1:])[_SEEN_EVERY - 1 :: _SEEN_EVERY]
    return {"y": y + 0.3 * rng.normal(size=y.shape)}


# --- a colony that fills its dish, counted with more spread than Poisson -------------------------


def colony(params, data):
    grown = params["rate"] * data["t"]
    log_mean = jnp.log(params["room"]) + grown - jnp.logaddexp(0.0, grown + params["late"])
    prior = d.lognormal(params["room"], 5.0, 2.0) + d.lognormal(params["rate"], -2.0, 1.0)
    prior += d.normal(params["late"], 0.0, 10.0) + d.lognormal(params["size"], 1.0, 1.0)
    return prior + jnp.sum(d.negative_binomial(data["y"], log_mean, params["size"]))


def _colony_data():
    rng = np.random.default_rng(16)
    t = np.arange(15.0)
    mean = 900 / (1 + np.exp(-(t - 9) * 0.5))
    return {"t": t, "y": rng.poisson(mean * rng.gamma(10, 0.1, 15)) * 1.0}


# --- correlations of eight series, of twenty days ------------------------------------------------


def closeness(params, data):
    root = jnp.linalg.cholesky(params["correlation"])
    z = solve_triangular(root, data["y"].T, lower=True)
    return -0.5 * jnp.sum(z**2) - data["y"].shape[0] * jnp.sum(jnp.log(jnp.diag(root)))


def _closeness_data():
    rng = np.random.default_rng(14)
    root = rng.normal(size=(8, 8))
    covariance = root @ root.T
    sd = np.sqrt(np.diag(covariance))
    return {"y": rng.multivariate_normal(np.zeros(8), covariance / np.outer(sd, sd), size=20)}


# --- the sides of a field, of which the area is known well and their sum roughly -----------------


def sides(params, data):
    x, y = params["x"], params["y"]
    prior = d.normal(x, 0.0, 1.0) + d.normal(y, 0.0, 3.0)
    return prior + d.normal(data["area"], x * y, 0.1) + d.normal(data["sum"], x + y, 1.0)


def _sides_exact(data):
    """On a grid; of NUTS sds were 16% short."""
    x, y = np.meshgrid(np.linspace(-6, 6, 2401), np.linspace(-12, 12, 4801), indexing="ij")
    log_p = -0.5 * (x**2 + (y / 3) ** 2 + ((data["area"] - x * y) / 0.1) ** 2)
    log_p -= 0.5 * (data["sum"] - x - y) ** 2
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    means = {"x": np.sum(p * x), "y": np.sum(p * y)}
    squares = {"x": np.sum(p * x**2), "y": np.sum(p * y**2)}
    return means, {name: np.sqrt(squares[name] - mean**2) for name, mean in means.items()}


def _sides_data():
    return {"area": np.array(0.5), "sum": np.array(1.0)}


# --- laboratories that measure the same, some of them far off ------------------------------------


def labs(params, data):
    """What they are off by is of Student-t with unknown degrees of freedom."""
    off, df = params["off"], params["df"]
    tails = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * jnp.log(df)
    prior = jnp.sum(tails - 0.5 * (df + 1) * jnp.log1p(off**2 / df)) + d.gamma(df, 2.0, 0.1)
    prior += d.normal(params["mean"], 0.0, 5.0) + d.lognormal(params["scale"], 0.0, 1.0)
    return prior + d.normal(data["y"], params["mean"] + params["scale"] * off, data["se"])


def _labs_data():
    rng = np.random.default_rng(17)
    se = rng.uniform(0.3, 1.0, 25)
    return {"se": se, "y": 1 + rng.standard_t(3, 25) + se * rng.normal(size=25)}


# --- a series with a long memory, by partial autocorrelations ------------------------------------


def memory(params, data):
    """Each in (-1, 1), hence stationary; of order three, near a unit root."""
    r = params["partial"]
    two = jnp.stack([r[0] - r[1] * r[0], r[1]])
    three = jnp.concatenate([two - r[2] * two[::-1], r[2:]])
    y = data["y"] - params["mean"]
    shock = y[3:] - three[0] * y[2:-1] - three[1] * y[1:-2] - three[2] * y[:-3]
    prior = d.lognormal(params["sigma"], 0.0, 1.0) + d.normal(params["mean"], 0.0, 10.0)
    return prior + d.student_t(shock, 4.0, 0.0, params["sigma"])


def _memory_data():
    rng = np.random.default_rng(19)
    y = [0.0, 0.0, 0.0]
    for _ in range(60):
        y.append(0.9 * y[-1] + 0.05 * y[-2] - 0.02 * y[-3] + 0.5 * rng.standard_t(4))
    return {"y": np.array(y) + 3}


MODELS = {
    "period": (
        Model(
            period,
            of(
                frequency=(interval(0.0, 3.0), ()), a=(real, ()), b=(real, ()), sigma=(positive, ())
            ),
        ),
        _period_data,
        _period_exact,
    ),
    "instruments": (
        Model(
            instruments,
            of(
                a=(real, ()),
                b=(real, ()),
                mu=(real, ()),
                tau=(positive, ()),
                sx=(positive, ()),
                sy=(positive, ()),
                x=(real, (35,)),
            ),
        ),
        _instruments_data,
    ),
    "spikes": (
        Model(
            spikes,
            of(
                a=(real, ()),
                b=(real, ()),
                c=(positive, ()),
                start=(real, (2,)),
                sigma=(positive, ()),
            ),
        ),
        _spikes_data,
    ),
    "colony": (
        Model(
            colony,
            of(room=(positive, ()), rate=(positive, ()), late=(real, ()), size=(positive, ())),
        ),
        _colony_data,
    ),
    "closeness": (Model(closeness, of(correlation=(correlation, (8, 8)))), _closeness_data),
    "sides": (Model(sides, of(x=(real, ()), y=(real, ()))), _sides_data, _sides_exact),
    "labs": (
        Model(
            labs,
            of(mean=(real, ()), scale=(positive, ()), df=(positive, ()), off=(real, (25,))),
        ),
        _labs_data,
    ),
    "memory": (
        Model(
            memory,
            of(partial=(interval(-1.0, 1.0), (3,)), mean=(real, ()), sigma=(positive, ())),
        ),
        _memory_data,
    ),
}
