"""Hundreds to thousands of dimensions: markets, persons and items, maps, words, households."""

import jax
import jax.numpy as jnp
import numpy as np

from bbvi import interval, positive, real, simplex
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import expit, groups, of

# --- a thousand days of a market whose volatility wanders, with heavy tails ----------------------


def turmoil(params, data):
    """Log volatilities are an AR(1), by its innovations."""
    persistence, sd = params["persistence"], params["sd"]

    def step(last, noise):
        now = persistence * last + sd * noise
        return now, now

    first = sd / jnp.sqrt(1 - persistence**2) * params["raw"][0]
    _, rest = jax.lax.scan(step, first, params["raw"][1:])
    level = params["mean"] + jnp.concatenate([first[None], rest])
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["mean"], 0.0, 2.0)
    prior += d.gamma(params["df"], 2.0, 0.1) + d.normal(sd, 0.0, 0.5)
    prior += d.beta((persistence + 1) / 2, 20.0, 1.5)
    df = params["df"]
    norm = jax.scipy.special.gammaln((df + 1) / 2) - jax.scipy.special.gammaln(df / 2)
    norm = len(data["y"]) * (norm - 0.5 * jnp.log(df))
    return prior + norm + d.student_t(data["y"], df, 0.0, jnp.exp(level / 2))


def _turmoil_data():
    rng = np.random.default_rng(1401)
    level, levels = -0.5, []
    for _ in range(1000):
        levels.append(level)
        level = -0.5 + 0.95 * (level + 0.5) + 0.25 * rng.normal()
    return {"y": np.exp(np.array(levels) / 2) * rng.standard_t(8, 1000)}


# --- intercepts and slopes of four hundred clinics, not centred ----------------------------------


def clinics(params, data):
    each = params["sd"] * params["raw"]  # (J, 2)
    one = (params["mean"] + each)[data["clinic"].astype(int)]
    eta = one[:, 0] + one[:, 1] * data["x"]
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["mean"], 0.0, 2.0)
    prior += d.normal(params["sd"], 0.0, 1.0)
    return prior + d.binomial_logit(data["y"], 1.0, eta)


def _clinics_data():
    rng = np.random.default_rng(1402)
    clinic = groups(rng, 400, (3, 25))
    own = np.array([-0.5, 0.8]) + np.array([0.7, 0.4]) * rng.normal(size=(400, 2))
    x = rng.normal(size=len(clinic))
    y = rng.random(len(clinic)) < expit(own[clinic, 0] + own[clinic, 1] * x)
    return {"clinic": clinic.astype(float), "x": x, "y": y.astype(float)}


# --- answers of five hundred pupils to forty questions with slopes of their own ------------------


def questions(params, data):
    slope, easy, skill = params["slope"], params["easy"], params["skill"]
    eta = slope * (skill[:, None] - easy)
    prior = d.normal(skill, 0.0, 1.0) + d.lognormal(slope, 0.0, 0.5)
    prior += d.normal(easy, params["centre"], params["spread"])
    prior += d.normal(params["centre"], 0.0, 2.0) + d.normal(params["spread"], 0.0, 2.0)
    return prior + d.binomial_logit(data["y"], 1.0, eta)


def _questions_data():
    rng = np.random.default_rng(1403)
    slope, easy = np.exp(0.3 * rng.normal(size=40)), 0.2 + rng.normal(size=40)
    eta = slope * (rng.normal(size=(500, 1)) - easy)
    return {"y": (rng.random(eta.shape) < expit(eta)).astype(float)}


# --- cases of a disease in nine hundred districts, each near its neighbours ----------------------


def map_of_cases(params, data):
    """An intrinsic autoregression on a torus, by its differences, and noise of each district."""
    field = params["field"]
    gaps = jnp.concatenate([field - jnp.roll(field, 1, 0), field - jnp.roll(field, 1, 1)])
    eta = params["mean"] + params["sd_near"] * field + params["sd_own"] * params["own"]
    prior = d.normal(gaps, 0.0, 1.0) + d.normal(jnp.sum(field), 0.0, 0.03 * field.size)
    prior += d.normal(params["own"], 0.0, 1.0) + d.normal(params["mean"], 0.0, 2.0)
    prior += d.normal(params["sd_near"], 0.0, 1.0) + d.normal(params["sd_own"], 0.0, 0.5)
    return prior + d.poisson_log(data["cases"], jnp.log(data["expected"]) + eta)


def _map_of_cases_data():
    rng = np.random.default_rng(1404)
    at = np.arange(30) * 2 * np.pi / 30
    smooth = 0.4 * np.sin(at)[:, None] + 0.3 * np.cos(2 * at)
    expected = rng.uniform(2, 30, (30, 30))
    eta = smooth + 0.15 * rng.normal(size=(30, 30))
    return {"expected": expected, "cases": rng.poisson(expected * np.exp(eta)).astype(float)}


# --- which of five makes is bought, by sixty features of the household ---------------------------


def makes(params, data):
    eta = params["alpha"] + data["x"] @ params["beta"]  # (N, 4)
    eta = jnp.concatenate([eta, jnp.zeros((len(eta), 1))], axis=1)
    prior = d.normal(params["alpha"], 0.0, 2.0) + d.normal(params["beta"], 0.0, params["width"])
    prior += d.normal(params["width"], 0.0, 1.0)
    chosen = jnp.sum(data["y"] * eta, axis=1)
    return prior + jnp.sum(chosen - jax.nn.logsumexp(eta, axis=1))


def _makes_data():
    rng = np.random.default_rng(1405)
    x, beta = rng.normal(size=(800, 60)), 0.4 * rng.normal(size=(60, 4))
    eta = np.concatenate([x @ beta, np.zeros((800, 1))], axis=1)
    best = np.argmax(eta + rng.gumbel(size=eta.shape), axis=1)
    return {"x": x, "y": np.eye(5)[best]}


# --- more genes than patients: a logistic regression with a ridge prior --------------------------


def genes(params, data):
    eta = params["alpha"] + data["x"] @ params["beta"]
    prior = d.normal(params["alpha"], 0.0, 2.0) + d.normal(params["beta"], 0.0, 0.1)
    return prior + d.binomial_logit(data["y"], 1.0, eta)


def _genes_data():
    rng = np.random.default_rng(1406)
    latent = rng.normal(size=(250, 10))
    x = latent @ rng.normal(size=(10, 1200)) / 3 + rng.normal(size=(250, 1200))
    beta = np.where(rng.random(1200) < 0.05, 0.3 * rng.normal(size=1200), 0)
    return {"x": x, "y": (rng.random(250) < expit(x @ beta)).astype(float)}


# --- daily sales with a trend that bends, a week, a year and days of their own -------------------


def sales(params, data):
    """Two years; slopes of the trend are a random walk, by weeks."""
    slopes = params["slope"] + params["sd_slope"] * jnp.cumsum(params["bend"])
    trend = params["level"] + jnp.cumsum(slopes)[data["week"].astype(int)]
    week = params["weekday"][data["weekday"].astype(int)]
    eta = trend + week + data["waves"] @ params["year"] + params["sd_day"] * params["day"]
    prior = d.normal(params["bend"], 0.0, 1.0) + d.normal(params["day"], 0.0, 1.0)
    prior += d.normal(params["level"], 3.0, 1.0) + d.normal(params["slope"], 0.0, 0.05)
    prior += d.normal(params["sd_slope"], 0.0, 0.02) + d.normal(params["weekday"], 0.0, 0.5)
    prior += d.normal(params["year"], 0.0, 0.3) + d.normal(params["sd_day"], 0.0, 0.3)
    return prior + d.poisson_log(data["y"], eta)


def _sales_data():
    rng = np.random.default_rng(1407)
    day = np.arange(730)
    angle = 2 * np.pi * day[:, None] * np.arange(1, 5) / 365.25
    waves = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    eta = 3 + 0.4 * np.sin(day / 200) + waves @ (0.1 * rng.normal(size=8))
    eta += (0.3 * rng.normal(size=7))[day % 7] + 0.15 * rng.normal(size=730)
    return {
        "week": (day // 7).astype(float),
        "weekday": (day % 7).astype(float),
        "waves": waves,
        "y": rng.poisson(np.exp(eta)).astype(float),
    }


# --- two thousand three hundred counts, each with a noise of its own -----------------------------


def tallies(params, data):
    eta = params["alpha"] + data["x"] @ params["beta"] + params["sd"] * params["noise"]
    prior = d.normal(params["noise"], 0.0, 1.0) + d.normal(params["alpha"], 0.0, 2.0)
    prior += d.normal(params["beta"], 0.0, 1.0) + d.normal(params["sd"], 0.0, 1.0)
    return prior + d.poisson_log(data["y"], eta)


def _tallies_data():
    rng = np.random.default_rng(1408)
    x = rng.normal(size=(2300, 4))
    eta = 1 + x @ np.array([0.5, -0.3, 0.2, 0.0]) + 0.6 * rng.normal(size=2300)
    return {"x": x, "y": rng.poisson(np.exp(eta)).astype(float)}


# --- the diets of birds: shares of six kinds of prey ----------------------------------------------


def diets(params, data):
    """Counts of prey, whose shares differ by bird around those of the species."""
    shares = params["species"]
    prior = d.dirichlet(shares, 2.0) + d.gamma(params["size"], 2.0, 0.1)
    alpha = params["size"] * shares
    norm = jax.scipy.special.gammaln(params["size"])
    norm -= jnp.sum(jax.scipy.special.gammaln(alpha))
    birds = params["bird"]
    return prior + len(birds) * norm + d.dirichlet(birds, alpha + data["eaten"])


def _diets_data():
    rng = np.random.default_rng(1409)
    shares = rng.dirichlet(15 * np.array([0.3, 0.25, 0.2, 0.12, 0.08, 0.05]), size=150)
    return {"eaten": np.stack([rng.multinomial(20, p) for p in shares]).astype(float)}


MODELS = {
    "turmoil": (
        Model(
            turmoil,
            of(
                mean=(real, ()),
                persistence=(interval(-1.0, 1.0), ()),
                sd=(positive, ()),
                df=(positive, ()),
                raw=(real, (1000,)),
            ),
        ),
        _turmoil_data,
    ),
    "clinics": (
        Model(clinics, of(mean=(real, (2,)), sd=(positive, (2,)), raw=(real, (400, 2)))),
        _clinics_data,
    ),
    "questions": (
        Model(
            questions,
            of(
                centre=(real, ()),
                spread=(positive, ()),
                slope=(positive, (40,)),
                easy=(real, (40,)),
                skill=(real, (500,)),
            ),
        ),
        _questions_data,
    ),
    "map_of_cases": (
        Model(
            map_of_cases,
            of(
                mean=(real, ()),
                sd_near=(positive, ()),
                sd_own=(positive, ()),
                field=(real, (30, 30)),
                own=(real, (30, 30)),
            ),
        ),
        _map_of_cases_data,
    ),
    "makes": (
        Model(makes, of(alpha=(real, (4,)), beta=(real, (60, 4)), width=(positive, ()))),
        _makes_data,
    ),
    "genes": (Model(genes, of(alpha=(real, ()), beta=(real, (1200,)))), _genes_data),
    "sales": (
        Model(
            sales,
            of(
                level=(real, ()),
                slope=(real, ()),
                sd_slope=(positive, ()),
                bend=(real, (105,)),
                weekday=(real, (7,)),
                year=(real, (8,)),
                sd_day=(positive, ()),
                day=(real, (730,)),
            ),
        ),
        _sales_data,
    ),
    "tallies": (
        Model(
            tallies,
            of(
                alpha=(real, ()),
                beta=(real, (4,)),
                sd=(positive, ()),
                noise=(real, (2300,)),
            ),
        ),
        _tallies_data,
    ),
    "diets": (
        Model(
            diets,
            of(species=(simplex, (6,)), size=(positive, ()), bird=(simplex, (150, 6))),
        ),
        _diets_data,
    ),
}
