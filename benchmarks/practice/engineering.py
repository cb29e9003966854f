"""Laboratories and plants: assays, lives under stress, wafers, counts with background, series."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from scipy import special

from bbvi import corr_cholesky, interval, positive, real, simplex, unit_interval
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import expit, of

# --- concentrations read off a curve that is itself fitted, from dilutions -----------------------


def _logistic_curve(amount, bottom, rise, middle, slope):
    return bottom + rise / (1 + (amount / middle) ** -slope)


def assay(params, data):
    """Four parameters of the curve, noise that grows with the signal, unknown samples."""
    curve = [params[k] for k in ("bottom", "rise", "middle", "slope")]
    amounts = (data["known"], params["sample"][:, None] * data["dilution"])
    prior = d.normal(params["bottom"], 0.0, 50.0) + d.normal(params["rise"], 0.0, 500.0)
    prior += d.lognormal(params["middle"], 0.0, 3.0) + d.normal(params["slope"], 0.0, 3.0)
    prior += d.lognormal(params["sample"], 0.0, 3.0) + d.normal(params["sigma"], 0.0, 5.0)
    for amount, y in zip(amounts, (data["y_known"], data["y_sample"]), strict=True):
        signal = _logistic_curve(amount, *curve)
        prior += d.normal(y, signal, params["sigma"] * signal ** params["power"])
    return prior


def _assay_data():
    rng = np.random.default_rng(1701)
    known = np.repeat(0.64 * 0.5 ** np.arange(8), 2)
    dilution = np.array([1.0, 1 / 3, 1 / 9, 1 / 27])
    sample = rng.lognormal(-1.5, 1.3, 10)
    signal = _logistic_curve(known, 14.0, 105.0, 0.06, 1.1)
    seen = _logistic_curve(sample[:, None] * dilution, 14.0, 105.0, 0.06, 1.1)
    return {
        "known": known,
        "dilution": dilution,
        "y_known": signal + 0.25 * signal**0.6 * rng.normal(size=16),
        "y_sample": seen + 0.25 * seen**0.6 * rng.normal(size=(10, 4)),
    }


# --- speed of an enzyme with an inhibitor, far below its top -------------------------------------


def enzyme(params, data):
    """In the units of the instrument; only the ratio of top and half is seen well."""
    half = params["half"] * (1 + data["inhibitor"] / params["block"])
    mean = params["top"] * data["substrate"] / (half + data["substrate"])
    prior = d.normal(params["top"], 0.0, 300.0) + d.normal(params["half"], 0.0, 500.0)
    prior += d.normal(params["block"], 0.0, 100.0) + d.normal(params["sigma"], 0.0, 10.0)
    return prior + d.normal(data["y"], mean, params["sigma"])


def _enzyme_exact(data):
    """On a grid of logarithms, the top integrated out; of NUTS the sd of `block` was 12% short."""
    half, block, sigma = np.meshgrid(
        np.geomspace(1, 3000, 160),
        np.geomspace(0.5, 1000, 160),
        np.geomspace(0.4, 30, 100),
        indexing="ij",
    )
    x = half[..., None] * (1 + data["inhibitor"] / block[..., None])
    x = data["substrate"] / (x + data["substrate"])  # of the signal of top = 1
    precision = np.sum(x**2, axis=-1) / sigma**2 + 1 / 300.0**2
    mean = x @ data["y"] / sigma**2 / precision
    width = precision**-0.5
    # above zero the normal has these moments, and this share of its mass
    log_share = special.log_ndtr(mean / width)
    hazard = np.exp(-0.5 * (mean / width) ** 2 - log_share) / np.sqrt(2 * np.pi)
    top = mean + width * hazard
    top_square = width**2 + mean * top
    log_p = -len(data["y"]) * np.log(sigma) - 0.5 * np.sum(data["y"] ** 2) / sigma**2
    log_p += 0.5 * mean**2 * precision + np.log(width) + log_share
    log_p -= 0.5 * ((half / 500) ** 2 + (block / 100) ** 2 + (sigma / 10) ** 2)
    p = np.exp(log_p - log_p.max()) * half * block * sigma
    p /= p.sum()
    values = {"top": top, "half": half, "block": block, "sigma": sigma}
    squares = {name: value**2 for name, value in values.items()} | {"top": top_square}
    means = {name: np.sum(p * value) for name, value in values.items()}
    return means, {name: np.sqrt(np.sum(p * squares[name]) - m**2) for name, m in means.items()}


def _enzyme_data():
    rng = np.random.default_rng(1702)
    substrate = np.tile([5.0, 10.0, 20.0, 40.0, 80.0], 2)
    inhibitor = np.repeat([0.0, 25.0], 5)
    mean = 90 * substrate / (130 * (1 + inhibitor / 20) + substrate)
    return {"substrate": substrate, "inhibitor": inhibitor, "y": mean + 1.2 * rng.normal(size=10)}


# --- lives of bearings under heat, in batches, many still running at the end ---------------------


def bearings(params, data):
    """Arrhenius's law on the raw inverse temperature: its level and slope go together."""
    log_scale = params["level"] + params["energy"] * data["cold"]
    log_scale = log_scale + params["batch"][data["of"].astype(int)]
    log_t, shape = jnp.log(data["hours"]) - log_scale, params["shape"]
    failed = jnp.log(shape) + (shape - 1) * log_t - log_scale
    prior = d.normal(params["batch"], 0.0, params["sd"]) + d.normal(params["sd"], 0.0, 1.0)
    prior += d.normal(params["level"], 0.0, 50.0) + d.normal(params["energy"], 0.0, 2.0)
    prior += d.gamma(shape, 2.0, 1.0)
    return prior + jnp.sum(data["failed"] * failed - jnp.exp(shape * log_t))


def _bearings_data():
    rng = np.random.default_rng(1703)
    batch = np.repeat(np.arange(12), 8)
    celsius = np.tile([70.0, 90.0, 110.0, 130.0], 24)
    cold = 1 / (8.617e-5 * (celsius + 273.15))  # per electronvolt
    log_scale = -11 + 0.6 * cold + (0.35 * rng.normal(size=12))[batch]
    hours = np.exp(log_scale) * rng.weibull(1.8, 96)
    return {
        "cold": cold,
        "of": batch * 1.0,
        "hours": np.minimum(hours, 2000.0),
        "failed": (hours < 2000) * 1.0,
    }


# --- defects of the dies of a wafer, neighbours alike: a proper autoregression -------------------


def wafer(params, data):
    """The effects as they are, with a precision and how much neighbours share."""
    effect, alike, precision = params["effect"], params["alike"], params["precision"]
    pull = effect @ (data["neighbours"] * effect) - alike * effect @ (data["near"] @ effect)
    prior = 0.5 * len(effect) * jnp.log(precision) - 0.5 * precision * pull
    prior += 0.5 * jnp.sum(jnp.log1p(-alike * data["values"]))
    prior += d.gamma(precision, 2.0, 2.0) + d.normal(params["beta"], 0.0, 5.0)
    eta = params["beta"][0] + params["beta"][1] * data["radius"] + effect
    return prior + d.poisson_log(data["defects"], eta)


def _wafer_data():
    rng = np.random.default_rng(1704)
    at = np.stack(np.meshgrid(np.arange(9) - 4.0, np.arange(9) - 4.0), -1).reshape(-1, 2)
    at = at[np.hypot(*at.T) < 4.6]  # 69 dies
    near = (np.abs(at[:, None] - at[None]).sum(-1) == 1) * 1.0
    neighbours = near.sum(1)
    values = np.linalg.eigvalsh(near / np.sqrt(np.outer(neighbours, neighbours)))
    covariance = np.linalg.inv(np.diag(neighbours) - 0.95 * near) / 1.5
    effect = np.linalg.cholesky(covariance) @ rng.normal(size=len(at))
    radius = np.hypot(*at.T)
    return {
        "near": near,
        "neighbours": neighbours,
        "values": values,
        "radius": radius,
        "defects": rng.poisson(np.exp(0.2 + 0.25 * radius + effect)) * 1.0,
    }


# --- gamma rays of a source, counted on it and beside it -----------------------------------------


def telescope(params, data):
    """A power law with a cut-off; the background of each bin is a parameter of its own."""
    energy, background = data["energy"], params["background"]
    flux = params["flux"] * energy ** -params["index"] * jnp.exp(-energy / params["cut"])
    on, off = data["exposure"] * flux + background, data["ratio"] * background
    prior = d.lognormal(params["flux"], 0.0, 3.0) + d.normal(params["index"], 2.0, 2.0)
    prior += d.normal(params["cut"], 0.0, 50.0) + d.gamma(background, 1.0, 0.01)
    prior += jnp.sum(data["on"] * jnp.log(on) - on)
    return prior + jnp.sum(data["off"] * jnp.log(off) - off)


def _telescope_data():
    rng = np.random.default_rng(1705)
    edges = np.geomspace(0.3, 30, 31)
    energy, exposure = np.sqrt(edges[1:] * edges[:-1]), 60 * np.diff(edges)
    flux, background = 1.5 * energy**-2.0 * np.exp(-energy / 8), 12 * energy**-1.2
    return {
        "energy": energy,
        "exposure": exposure,
        "ratio": np.array(3.0),
        "on": rng.poisson(exposure * flux + background) * 1.0,
        "off": rng.poisson(3 * background) * 1.0,
    }


# --- properties of alloys by two hidden factors, the scores themselves as parameters -------------


def alloys(params, data):
    """Loadings are a triangle with a positive diagonal."""
    loading = jnp.zeros((6, 2)).at[0, 0].set(params["lead"][0]).at[1, 1].set(params["lead"][1])
    loading = loading.at[1:, 0].set(params["first"]).at[2:, 1].set(params["second"])
    mean = params["mean"] + params["score"] @ loading.T
    prior = d.normal(params["score"], 0.0, 1.0) + d.normal(params["lead"], 0.0, 2.0)
    prior += d.normal(params["first"], 0.0, 2.0) + d.normal(params["second"], 0.0, 2.0)
    prior += d.normal(params["mean"], 0.0, 10.0) + d.normal(params["noise"], 0.0, 2.0)
    return prior + d.normal(data["y"], mean, params["noise"])


def _alloys_data():
    rng = np.random.default_rng(1706)
    loading = np.array([[1.6, 0], [0.3, 1.5], [0.8, -0.5], [-0.6, 0.6], [0.2, 0.8], [0.7, 0.4]])
    mean, noise = [2.0, -1.0, 4.0, 0.5, 7.0, 3.0], [0.9, 0.8, 0.5, 0.6, 0.5, 0.6]
    return {"y": mean + rng.normal(size=(80, 2)) @ loading.T + noise * rng.normal(size=(80, 6))}


# --- wind at four masts: Weibull speeds tied by a Gaussian copula --------------------------------


def winds(params, data):
    log_ratio = jnp.log(data["speed"]) - jnp.log(params["scale"])
    hazard = jnp.exp(params["shape"] * log_ratio)  # up to each speed
    log_p = jnp.log(params["shape"]) - jnp.log(params["scale"])
    log_p = log_p + (params["shape"] - 1) * log_ratio - hazard
    z = -ndtri(jnp.clip(jnp.exp(-hazard), 1e-6, 1 - 1e-6))
    root = params["root"]
    free = jax.scipy.linalg.solve_triangular(root, z.T, lower=True)
    copula = 0.5 * jnp.sum(z**2) - 0.5 * jnp.sum(free**2)
    copula -= len(z) * jnp.sum(jnp.log(jnp.diag(root)))
    prior = d.normal(params["scale"], 0.0, 20.0) + d.normal(params["shape"], 0.0, 5.0)
    return prior + d.lkj_cholesky(root, 1.0) + jnp.sum(log_p) + copula


def _winds_data():
    rng = np.random.default_rng(1707)
    alike = 0.9 ** np.abs(np.arange(4)[:, None] - np.arange(4))
    z = rng.normal(size=(150, 4)) @ np.linalg.cholesky(alike).T
    hazard = -np.log(expit(-1.702 * z))  # a normal's tail, nearly
    return {"speed": np.array([5.0, 7.0, 8.0, 11.0]) * hazard ** (1 / np.array([1.6, 2, 2.2, 2]))}


# --- a river's level by an autoregression, days of it missing ------------------------------------


def river(params, data):
    """The level above the sea, so the constant and the lags go together."""
    y = data["y"].at[data["gap"].astype(int)].set(params["missing"])
    mean = params["constant"] + params["lag"][0] * y[2:-1]
    mean = mean + params["lag"][1] * y[1:-2] + params["lag"][2] * y[:-3]
    prior = d.normal(params["lag"], 0.0, 1.0) + d.normal(params["constant"], 0.0, 20.0)
    return prior + d.normal(params["sigma"], 0.0, 1.0) + d.normal(y[3:], mean, params["sigma"])


def _river_data():
    rng = np.random.default_rng(1708)
    y = [0.0, 0.0, 0.0]
    for _ in range(170):
        y.append(1.1 * y[-1] - 0.4 * y[-2] + 0.2 * y[-3] + 0.15 * rng.normal())
    gap = np.sort(np.concatenate([np.arange(40, 55), 60 + rng.choice(60, 15, replace=False)]))
    y = 12.4 + np.array(y)[-130:]
    y[gap] = 0
    return {"y": y, "gap": gap * 1.0}


# --- monthly changes with errors that come back next month and next year -------------------------


def airline(params, data):
    """An autoregression of order one; moving averages at one and twelve months, multiplied."""
    theta, season = params["theta"], params["season"]

    def step(carry, y):
        before, errors = carry
        mean = params["mean"] + params["phi"] * (before - params["mean"])
        mean += theta * errors[0] + season * errors[11] + theta * season * errors[12]
        return (y, jnp.concatenate([(y - mean)[None], errors[:-1]])), y - mean

    start = (params["mean"], jnp.zeros(13) * params["mean"])
    _, error = jax.lax.scan(step, start, data["y"])
    prior = d.normal(params["mean"], 0.0, 10.0) + d.normal(params["sigma"], 0.0, 5.0)
    return prior + d.normal(error, 0.0, params["sigma"])


def _airline_data():
    rng = np.random.default_rng(1709)
    error, y = 1.5 * rng.normal(size=145), [0.0]
    for t in range(13, 145):
        mean = 0.75 * y[-1] - 0.3 * error[t - 1] - 0.6 * error[t - 12] + 0.18 * error[t - 13]
        y.append(mean + error[t])
    return {"y": 0.4 + np.array(y[1:])}


# --- four series of an economy, their many lags drawn in by learnt scales ------------------------


def economy_lags(params, data):
    """Minnesota's prior: own lags, other lags, and farther lags less; its two scales are learnt."""
    lag, scale = params["lag"], params["scale"]  # (3, 4, 4), by lag, equation, series
    y = data["y"]
    miss = y[3:] - params["level"]
    for k in range(3):
        miss = miss - y[2 - k : len(y) - 1 - k] @ lag[k].T
    own = jnp.eye(4)
    spread = params["tight"] * (own + params["cross"] * (1 - own)) * data["ratio"]
    prior = d.normal(lag[0], own, spread) + d.normal(lag[1], 0.0, spread / 2)
    prior += d.normal(lag[2], 0.0, spread / 3) + d.normal(params["level"], 0.0, 10.0)
    prior += d.normal(params["tight"], 0.0, 1.0) + d.normal(params["cross"], 0.0, 1.0)
    prior += d.normal(scale, 0.0, 10.0) + d.lkj_cholesky(params["root"], 2.0)
    root = scale[:, None] * params["root"]
    z = jax.scipy.linalg.solve_triangular(root, miss.T, lower=True)
    return prior - 0.5 * jnp.sum(z**2) - z.shape[1] * jnp.sum(jnp.log(jnp.diag(root)))


def _economy_lags_data():
    rng = np.random.default_rng(1710)
    lag = np.array([[0.5, 0, -0.1, 0], [0.1, 0.8, 0, 0], [0.1, 0.1, 0.85, 0], [0.3, 0, -0.2, 0.7]])
    mix = np.array([[1, 0, 0, 0], [0.3, 0.9, 0, 0], [0.2, 0.2, 0.9, 0], [-0.4, 0, 0.1, 0.9]])
    size = np.array([0.8, 0.4, 0.5, 5.0])
    y = [np.zeros(4)]
    for _ in range(110):
        y.append(lag @ y[-1] + mix @ rng.normal(size=4))
    y = np.array(y)[-90:] * size + [2.0, 2.5, 4.0, 1.0]
    sd = np.diff(y, axis=0).std(0)
    return {"y": y, "ratio": sd[:, None] / sd}


# --- the dearest tenth of rents, by area and age of the house ------------------------------------


def rents(params, data):
    """Quantile regression: an asymmetric Laplace density, columns as they are."""
    z = (data["rent"] - data["x"] @ params["beta"]) / params["sigma"]
    prior = d.normal(params["beta"], 0.0, 1000.0) + d.normal(params["sigma"], 0.0, 200.0)
    return prior - jnp.sum(jnp.where(z > 0, 0.9 * z, -0.1 * z) + jnp.log(params["sigma"]))


def _rents_data():
    rng = np.random.default_rng(1711)
    area, age = rng.uniform(20, 130, 160), rng.uniform(0, 90, 160)
    mean = 250 + 9 * area - 1.5 * age
    x = np.stack([np.ones(160), area, age, (age > 60) * 1.0], 1)
    return {"x": x, "rent": mean + (30 + area) * rng.standard_t(4, 160)}


# --- parts that pass or fail, the two kinds wholly apart in the data -----------------------------


def apart(params, data):
    """Logistic, with heavy-tailed priors that alone keep the coefficients finite."""
    eta = params["alpha"] + data["x"] @ params["beta"]
    prior = d.student_t(params["beta"], 7.0, 0.0, 2.5)
    prior += d.student_t(params["alpha"], 7.0, 0.0, 10.0)
    return prior + d.binomial_logit(data["fails"], 1.0, eta)


def _apart_data():
    rng = np.random.default_rng(1712)
    x = rng.normal(size=(60, 15))
    x[:, 1] = 0.9 * x[:, 0] + 0.4 * x[:, 1]
    x[:, 10:] = (x[:, 10:] > 0.8) * 1.0
    return {"x": x, "fails": (x[:, 0] - x[:, 2] + 0.8 * x[:, 10] > 0.3) * 1.0}


# --- strength of concrete by its mix: a prior on the share of variance explained -----------------


def concrete(params, data):
    """R2D2: the explained share is divided among the columns."""
    sigma, explained = params["sigma"], params["explained"]
    ratio = explained / (1 - explained)
    beta = sigma * jnp.sqrt(ratio * params["share"]) * params["raw"]
    prior = d.normal(params["raw"], 0.0, 1.0) + d.dirichlet(params["share"], 0.5)
    prior += d.beta(explained, 1.0, 2.0) + d.normal(params["level"], 0.0, 100.0)
    prior += d.student_t(sigma, 3.0, 0.0, 10.0)
    return prior + d.normal(data["y"], params["level"] + data["x"] @ beta, sigma)


def _concrete_data():
    rng = np.random.default_rng(1713)
    x = rng.normal(size=(70, 25)) + 0.7 * rng.normal(size=(70, 1))
    x = (x - x.mean(0)) / x.std(0)
    beta = np.zeros(25)
    beta[[0, 3, 7, 12]] = [6.0, -4.0, 3.0, 1.5]
    return {"x": x, "y": 36 + x @ beta + 5 * rng.normal(size=70)}


MODELS = {
    "assay": (
        Model(
            assay,
            of(
                bottom=(positive, ()),
                rise=(positive, ()),
                middle=(positive, ()),
                slope=(positive, ()),
                sigma=(positive, ()),
                power=(unit_interval, ()),
                sample=(positive, (10,)),
            ),
        ),
        _assay_data,
    ),
    "enzyme": (
        Model(
            enzyme,
            of(
                top=(positive, ()),
                half=(positive, ()),
                block=(positive, ()),
                sigma=(positive, ()),
            ),
        ),
        _enzyme_data,
        _enzyme_exact,
    ),
    "bearings": (
        Model(
            bearings,
            of(
                level=(real, ()),
                energy=(positive, ()),
                shape=(positive, ()),
                sd=(positive, ()),
                batch=(real, (12,)),
            ),
        ),
        _bearings_data,
    ),
    "wafer": (
        Model(
            wafer,
            of(
                beta=(real, (2,)),
                alike=(unit_interval, ()),
                precision=(positive, ()),
                effect=(real, (69,)),
            ),
        ),
        _wafer_data,
    ),
    "telescope": (
        Model(
            telescope,
            of(
                flux=(positive, ()),
                index=(real, ()),
                cut=(positive, ()),
                background=(positive, (30,)),
            ),
        ),
        _telescope_data,
    ),
    "alloys": (
        Model(
            alloys,
            of(
                lead=(positive, (2,)),
                first=(real, (5,)),
                second=(real, (4,)),
                mean=(real, (6,)),
                noise=(positive, (6,)),
                score=(real, (80, 2)),
            ),
        ),
        _alloys_data,
    ),
    "winds": (
        Model(
            winds,
            of(scale=(positive, (4,)), shape=(positive, (4,)), root=(corr_cholesky, (4, 4))),
        ),
        _winds_data,
    ),
    "river": (
        Model(
            river,
            of(constant=(real, ()), lag=(real, (3,)), sigma=(positive, ()), missing=(real, (30,))),
        ),
        _river_data,
    ),
    "airline": (
        Model(
            airline,
            of(
                mean=(real, ()),
                phi=(interval(-1.0, 1.0), ()),
                theta=(interval(-1.0, 1.0), ()),
                season=(interval(-1.0, 1.0), ()),
                sigma=(positive, ()),
            ),
        ),
        _airline_data,
    ),
    "economy_lags": (
        Model(
            economy_lags,
            of(
                level=(real, (4,)),
                lag=(real, (3, 4, 4)),
                tight=(positive, ()),
                cross=(positive, ()),
                scale=(positive, (4,)),
                root=(corr_cholesky, (4, 4)),
            ),
        ),
        _economy_lags_data,
    ),
    "rents": (Model(rents, of(beta=(real, (4,)), sigma=(positive, ()))), _rents_data),
    "apart": (Model(apart, of(alpha=(real, ()), beta=(real, (15,)))), _apart_data),
    "concrete": (
        Model(
            concrete,
            of(
                level=(real, ()),
                sigma=(positive, ()),
                explained=(unit_interval, ()),
                share=(simplex, (25,)),
                raw=(real, (25,)),
            ),
        ),
        _concrete_data,
    ),
}
