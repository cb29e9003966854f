"""Sea, weather and land: stocks of fish, floods, spots on a map, plots, species, dust."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

from bbvi import corr_cholesky, greater_than, interval, positive, real, unit_interval, zero_sum
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import groups, of

# --- a stock that grows and is fished, its size seen through an index ----------------------------


def fishery(params, data):
    size, growth, reach = (params[n] for n in ("size", "growth", "reach"))

    def step(share, year):
        noise, catch = year
        left = share + growth * share * (1 - share) - catch / size
        left = jnp.maximum(left, 0.01) * jnp.exp(params["sd_process"] * noise)
        return left, share

    _, shares = jax.lax.scan(step, params["first"], (params["raw"], data["catch"]))
    mean = jnp.log(reach) + jnp.log(size) + jnp.log(shares)
    prior = d.lognormal(size, 1.4, 1.0) + d.lognormal(growth, -1.2, 0.5)
    prior += d.lognormal(reach, 0.6, 2.0) + d.lognormal(params["first"], -0.2, 0.2)
    prior += d.normal(params["raw"], 0.0, 1.0) + d.normal(params["sd_process"], 0.0, 0.1)
    prior += d.normal(params["sigma"], 0.0, 0.3)
    return prior + d.normal(data["log_index"], mean, params["sigma"])


def _fishery_data():
    rng = np.random.default_rng(1001)
    catch = np.concatenate([np.linspace(15, 80, 12), np.full(8, 45.0), np.linspace(40, 25, 5)])
    catch = catch / 100
    share, shares = 0.9, []
    for c in catch:
        shares.append(share)
        share = max(share + 0.35 * share * (1 - share) - c / 5, 0.01)
        share *= np.exp(0.05 * rng.normal())
    index = np.log(5 * np.array(shares)) + 0.12 * rng.normal(size=25)
    return {"catch": catch, "log_index": index}


# --- the highest flood of each year, and a trend -------------------------------------------------


def floods(params, data):
    shape, scale = params["shape"], params["scale"]
    z = (data["y"] - params["level"] - params["trend"] * data["time"]) / scale
    inner = 1 + shape * z
    safe = jnp.where(inner > 0, inner, 1.0)
    log_t = -jnp.log(safe) / shape
    each = -jnp.log(scale) + (shape + 1) * log_t - jnp.exp(log_t)
    prior = d.normal(params["level"], 10.0, 10.0) + d.normal(params["trend"], 0.0, 3.0)
    prior += d.lognormal(scale, 1.0, 1.0) + d.normal(shape, 0.1, 0.15)
    return prior + jnp.sum(jnp.where(inner > 0, each, -jnp.inf))


def _floods_data():
    rng = np.random.default_rng(1002)
    time = np.linspace(-1, 1, 45)
    y = 12 + 0.8 * time + 3.0 * ((-np.log(rng.random(45))) ** -0.15 - 1) / 0.15
    return {"time": time, "y": y}


# --- counts on a grid, of a rate that is smooth --------------------------------------------------


def spots(params, data):
    gaps = jnp.sqrt(jnp.sum((data["place"][:, None] - data["place"][None]) ** 2, -1) + 1e-12)
    kernel = jnp.exp(-gaps / params["reach"]) + 1e-6 * jnp.eye(len(gaps))
    log_rate = params["mean"] + params["height"] * (jnp.linalg.cholesky(kernel) @ params["raw"])
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["mean"], 0.0, 2.0)
    prior += d.normal(params["height"], 0.0, 1.0)
    prior += -4.0 * jnp.log(params["reach"]) - 3.0 / params["reach"]
    return prior + d.poisson_log(data["y"], log_rate)


def _spots_data():
    rng = np.random.default_rng(1003)
    place = np.stack(np.meshgrid(np.arange(7.0), np.arange(7.0)), -1).reshape(-1, 2)
    gaps = np.linalg.norm(place[:, None] - place[None], axis=-1)
    f = np.linalg.cholesky(np.exp(-gaps / 2.5) + 1e-9 * np.eye(49)) @ rng.normal(size=49)
    return {"place": place, "y": rng.poisson(np.exp(0.8 + 0.8 * f)) * 1.0}


# --- plots of a field: varieties in rows and columns, all centred --------------------------------


def plots(params, data):
    row, column = params["row"], params["column"]
    kind = data["kind"].astype(int)
    mean = params["mean"] + params["variety"][kind] + row[:, None] + column[None, :]
    prior = d.normal(params["variety"], 0.0, params["sd_variety"])
    prior += d.normal(row, 0.0, params["sd_row"]) + d.normal(column, 0.0, params["sd_column"])
    prior += sum(d.normal(params[n], 0.0, 1.0) for n in ("sd_variety", "sd_row", "sd_column"))
    prior += d.normal(params["mean"], 0.0, 10.0) + d.normal(params["sigma"], 0.0, 1.0)
    return prior + d.normal(data["y"], mean, params["sigma"])


def _plots_data():
    rng = np.random.default_rng(1004)
    kind = np.stack([rng.permutation(12) for _ in range(8)])  # (rows, columns)
    mean = 5 + 0.5 * rng.normal(size=12)[kind] + 0.3 * rng.normal(size=(8, 1))
    return {
        "kind": kind * 1.0,
        "y": mean + 0.4 * rng.normal(size=12) + 0.4 * rng.normal(size=(8, 12)),
    }


# --- animals where there are any, more zeros than counts have ------------------------------------


def absences(params, data):
    site = data["site"].astype(int)
    eta = data["x"] @ params["beta"] + (params["sd"] * params["raw"])[site]
    y, size = data["y"], params["size"]
    counted = d.negative_binomial(y, eta, size)
    log_none, log_some = jnp.log(params["none"]), jnp.log1p(-params["none"])
    none = jnp.logaddexp(log_none, log_some + counted)
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["beta"], 0.0, 2.0)
    prior += d.normal(params["sd"], 0.0, 1.0) + d.gamma(size, 2.0, 0.5)
    prior += d.beta(params["none"], 1.5, 1.5)
    return prior + jnp.sum(jnp.where(y == 0, none, log_some + counted))


def _absences_data():
    rng = np.random.default_rng(1005)
    site = groups(rng, 30, (4, 8))
    x = np.stack([np.ones(len(site)), rng.normal(size=len(site))], 1)
    mean = np.exp(x @ [1.0, 0.5] + 0.5 * rng.normal(size=30)[site])
    y = rng.poisson(mean * rng.gamma(2.0, 0.5, len(site))) * (rng.random(len(site)) < 0.7)
    return {"site": site * 1.0, "x": x, "y": y * 1.0}


# --- where species live, some together -----------------------------------------------------------


def species(params, data):
    root = params["scale"][:, None] * params["together"]
    eta = data["x"] @ params["beta"] + params["raw"] @ root.T  # (sites, species)
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["beta"], 0.0, 1.5)
    prior += d.normal(params["scale"], 0.0, 0.7)
    prior += d.lkj_cholesky(params["together"], 2.0)
    return prior + d.poisson_log(data["y"], eta)


def _species_data():
    rng = np.random.default_rng(1006)
    x = np.stack([np.ones(40), rng.normal(size=40)], 1)
    root = np.array([[0.7, 0, 0, 0], [0.4, 0.5, 0, 0], [-0.3, 0.1, 0.6, 0], [0.2, -0.3, 0.1, 0.5]])
    beta = np.array([[1.0, 0.5, 1.2, 0.2], [0.4, -0.5, 0.1, 0.6]])
    return {"x": x, "y": rng.poisson(np.exp(x @ beta + rng.normal(size=(40, 4)) @ root.T)) * 1.0}


# --- dust by month and station, effects that sum to zero -----------------------------------------


def dust(params, data):
    month, station = params["month"], params["station"]
    log_sigma = params["log_sigma"] + params["by_station"]
    mean = params["mean"] + month[:, None] + station[None, :]
    z = (data["y"] - mean) * jnp.exp(-log_sigma)
    df = params["df"]
    each = gammaln((df + 1) / 2) - gammaln(df / 2) - 0.5 * jnp.log(df) - log_sigma
    each += -0.5 * (df + 1) * jnp.log1p(z**2 / df)
    prior = d.normal(month, 0.0, 1.0) + d.normal(station, 0.0, 1.0) + d.gamma(df, 2.0, 0.1)
    prior += d.normal(params["mean"], 0.0, 5.0) + d.normal(params["log_sigma"], 0.0, 1.0)
    return prior + d.normal(params["by_station"], 0.0, 0.5) + jnp.sum(each)


def _dust_data():
    rng = np.random.default_rng(1007)
    mean = 3 + 0.5 * np.sin(np.arange(12) / 2)[:, None] + 0.4 * rng.normal(size=6)
    return {"y": mean + np.exp(-0.8 + 0.3 * rng.normal(size=6)) * rng.standard_t(4, (12, 6))}


MODELS = {
    "fishery": (
        Model(
            fishery,
            of(
                size=(positive, ()),
                growth=(positive, ()),
                reach=(positive, ()),
                first=(positive, ()),
                sd_process=(positive, ()),
                sigma=(positive, ()),
                raw=(real, (25,)),
            ),
        ),
        _fishery_data,
    ),
    "floods": (
        Model(
            floods,
            of(
                level=(real, ()),
                trend=(real, ()),
                scale=(positive, ()),
                shape=(interval(-0.5, 1.0), ()),
            ),
        ),
        _floods_data,
    ),
    "spots": (
        Model(
            spots,
            of(mean=(real, ()), height=(positive, ()), reach=(positive, ()), raw=(real, (49,))),
        ),
        _spots_data,
    ),
    "plots": (
        Model(
            plots,
            of(
                mean=(real, ()),
                variety=(real, (12,)),
                row=(real, (8,)),
                column=(real, (12,)),
                sd_variety=(positive, ()),
                sd_row=(positive, ()),
                sd_column=(positive, ()),
                sigma=(positive, ()),
            ),
        ),
        _plots_data,
    ),
    "absences": (
        Model(
            absences,
            of(
                beta=(real, (2,)),
                sd=(positive, ()),
                raw=(real, (30,)),
                size=(positive, ()),
                none=(unit_interval, ()),
            ),
        ),
        _absences_data,
    ),
    "species": (
        Model(
            species,
            of(
                beta=(real, (2, 4)),
                scale=(positive, (4,)),
                together=(corr_cholesky, (4, 4)),
                raw=(real, (40, 4)),
            ),
        ),
        _species_data,
    ),
    "dust": (
        Model(
            dust,
            of(
                mean=(real, ()),
                month=(zero_sum, (12,)),
                station=(zero_sum, (6,)),
                log_sigma=(real, ()),
                by_station=(zero_sum, (6,)),
                df=(greater_than(1.0), ()),
            ),
        ),
        _dust_data,
    ),
}
