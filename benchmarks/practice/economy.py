"""Markets: advertising, instruments, grades, choices, returns, spending, demand."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betaln, logsumexp

from bbvi import corr_cholesky, greater_than, interval, ordered, positive, real, unit_interval
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import of

# --- sales from advertising that lingers and saturates -------------------------------------------


def adstock(params, data):
    def step(stock, spend):
        stock = spend + params["keep"] * stock
        return stock, stock

    _, stock = jax.lax.scan(step, jnp.zeros_like(params["keep"]), data["spend"])
    gain = stock / (stock + params["half"])
    mean = params["base"] + params["slope"] * data["time"] + gain @ params["effect"]
    prior = d.beta(params["keep"], 3.0, 3.0) + d.gamma(params["half"], 3.0, 2.0)
    prior += d.normal(params["effect"], 0.0, 2.0) + d.normal(params["base"], 0.0, 5.0)
    prior += d.normal(params["slope"], 0.0, 1.0) + d.normal(params["sigma"], 0.0, 1.0)
    return prior + d.normal(data["y"], mean, params["sigma"])


def _adstock_data():
    rng = np.random.default_rng(601)
    spend = rng.gamma(1.0, 1.0, (120, 3)) * (rng.random((120, 3)) < [0.9, 0.5, 0.3])
    stock = np.zeros_like(spend)
    for t in range(120):
        stock[t] = spend[t] + np.array([0.3, 0.6, 0.8]) * (stock[t - 1] if t else 0)
    time = np.linspace(-1, 1, 120)
    mean = 3 + 0.4 * time + (stock / (stock + [1.0, 1.5, 2.5])) @ [2.0, 1.0, 0.6]
    return {"spend": spend, "time": time, "y": mean + 0.3 * rng.normal(size=120)}


# --- an instrument for a treatment that goes with the outcome ------------------------------------


def instrument(params, data):
    first = (data["x"] - params["mean_x"] - data["z"] @ params["moves"]) / params["sd_x"]
    second = (data["y"] - params["mean_y"] - params["effect"] * data["x"]) / params["sd_y"]
    rho = params["rho"]
    left = 1 - rho**2
    quadratic = (first**2 - 2 * rho * first * second + second**2) / left
    scale = jnp.log(params["sd_x"]) + jnp.log(params["sd_y"]) + 0.5 * jnp.log(left)
    prior = d.normal(params["moves"], 0.0, 1.0) + d.normal(params["effect"], 0.0, 2.0)
    prior += d.normal(params["mean_x"], 0.0, 2.0) + d.normal(params["mean_y"], 0.0, 2.0)
    prior += d.normal(params["sd_x"], 0.0, 2.0) + d.normal(params["sd_y"], 0.0, 2.0)
    return prior - jnp.sum(0.5 * quadratic + scale)


def _instrument_data():
    rng = np.random.default_rng(602)
    z, shared = rng.normal(size=(150, 2)), rng.normal(size=150)
    x = z @ [0.25, 0.1] + shared + 0.5 * rng.normal(size=150)
    return {"z": z, "x": x, "y": 1 + 0.7 * x - 0.8 * shared + 0.5 * rng.normal(size=150)}


# --- grades in order -----------------------------------------------------------------------------


def ordinal(params, data):
    cuts = params["cuts"] - (data["x"] @ params["beta"])[:, None]
    above = jnp.pad(jax.nn.sigmoid(-cuts), ((0, 0), (1, 1)), constant_values=(0.0, 0.0))
    above = above.at[:, 0].set(1.0)
    share = jnp.sum(data["y"] * (above[:, :-1] - above[:, 1:]), axis=1)
    prior = d.normal(params["cuts"], 0.0, 3.0) + d.normal(params["beta"], 0.0, 1.0)
    return prior + jnp.sum(jnp.log(share))


def _ordinal_data():
    rng = np.random.default_rng(603)
    x = rng.normal(size=(180, 4))
    hidden = x @ [0.9, -0.5, 0.2, 0.0] + rng.logistic(size=180)
    return {"x": x, "y": np.eye(5)[np.searchsorted([-2.5, -0.5, 0.8, 3.2], hidden)]}


# --- choices of people whose tastes differ -------------------------------------------------------


def choices(params, data):
    taste = params["mean"] + params["sd"] * params["raw"]  # (people, attributes)
    worth = jnp.einsum("ptak,pk->pta", data["x"], taste)
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["mean"], 0.0, 2.0)
    prior += d.normal(params["sd"], 0.0, 1.0)
    return prior + jnp.sum(data["y"] * (worth - logsumexp(worth, axis=-1, keepdims=True)))


def _choices_data():
    rng = np.random.default_rng(604)
    x = rng.normal(size=(50, 8, 3, 3))
    taste = np.array([1.0, -0.6, 0.3]) + np.array([0.5, 0.9, 0.2]) * rng.normal(size=(50, 3))
    worth = np.einsum("ptak,pk->pta", x, taste) + rng.gumbel(size=(50, 8, 3))
    return {"x": x, "y": np.eye(3)[np.argmax(worth, -1)]}


# --- shares of groups around a common one --------------------------------------------------------


def conversion(params, data):
    a, b = params["centre"] * params["strength"], (1 - params["centre"]) * params["strength"]
    share = params["share"]
    prior = d.beta(share, a, b) - share.size * betaln(a, b)
    prior += -1.5 * jnp.log1p(params["strength"]) + d.beta(params["centre"], 1.0, 3.0)
    hits, shown = data["hits"], data["shown"]
    return prior + jnp.sum(hits * jnp.log(share) + (shown - hits) * jnp.log1p(-share))


def _conversion_data():
    rng = np.random.default_rng(605)
    shown = rng.integers(15, 120, 40)
    return {"shown": shown * 1.0, "hits": rng.binomial(shown, rng.beta(3.0, 27.0, 40)) * 1.0}


# --- returns with heavy tails that move together -------------------------------------------------


def returns(params, data):
    root, df = params["scale"][:, None] * params["together"], params["df"]
    z = jax.scipy.linalg.solve_triangular(root, (data["y"] - params["mean"]).T, lower=True)
    lengths, dim = jnp.sum(z**2, axis=0), z.shape[0]
    each = -0.5 * (df + dim) * jnp.log1p(lengths / df) - 0.5 * dim * jnp.log(df)
    each += jax.scipy.special.gammaln(0.5 * (df + dim)) - jax.scipy.special.gammaln(0.5 * df)
    prior = d.gamma(df, 2.0, 0.1) + d.normal(params["mean"], 0.0, 1.0)
    prior += d.normal(params["scale"], 0.0, 2.0)
    prior += d.lkj_cholesky(params["together"], 2.0)
    return prior + jnp.sum(each) - z.shape[1] * jnp.sum(jnp.log(jnp.diag(root)))


def _returns_data():
    rng = np.random.default_rng(606)
    mix = np.array([[1.0, 0, 0, 0], [0.6, 0.8, 0, 0], [0.3, 0.2, 0.9, 0], [-0.4, 0.1, 0.3, 0.8]])
    z = rng.normal(size=(200, 4)) / np.sqrt(rng.chisquare(4, (200, 1)) / 4)
    return {"y": 0.05 + z @ mix.T * [0.8, 1.2, 0.5, 1.0]}


# --- spending that cannot go below zero ----------------------------------------------------------


def tobit(params, data):
    mean, sigma = params["alpha"] + data["x"] @ params["beta"], params["sigma"]
    seen = -0.5 * ((data["y"] - mean) / sigma) ** 2 - jnp.log(sigma)
    none = jax.scipy.stats.norm.logcdf(-mean / sigma)
    prior = d.normal(params["alpha"], 0.0, 5.0) + d.normal(params["beta"], 0.0, 2.0)
    prior += d.normal(sigma, 0.0, 2.0)
    return prior + jnp.sum(jnp.where(data["y"] > 0, seen, none))


def _tobit_data():
    rng = np.random.default_rng(607)
    x = rng.normal(size=(90, 3))
    return {"x": x, "y": np.maximum(-1.2 + x @ [1.0, 0.5, -0.3] + 1.1 * rng.normal(size=90), 0)}


# --- a demand curve in each shop, few weeks of it, its slope and size going together -------------


def demand(params, data):
    root = params["scale"][:, None] * params["together"]
    own = params["mean"] + params["raw"] @ root.T  # (shops, 2)
    shop = data["shop"].astype(int)
    eta = own[shop, 0] + own[shop, 1] * data["price"] + params["promotion"] * data["promoted"]
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["mean"], 0.0, 3.0)
    prior += d.normal(params["scale"], 0.0, 1.0) + d.normal(params["promotion"], 0.0, 1.0)
    prior += d.gamma(params["size"], 2.0, 0.2) + d.lkj_cholesky(params["together"], 2.0)
    return prior + jnp.sum(d.negative_binomial(data["y"], eta, params["size"]))


def _demand_data():
    rng = np.random.default_rng(608)
    shop = np.repeat(np.arange(25), 12)
    own = np.array([2.5, -1.0]) + rng.normal(size=(25, 2)) @ [[0.6, -0.2], [0.0, 0.3]]
    price, promoted = 0.3 * rng.normal(size=300), (rng.random(300) < 0.2) * 1.0
    mean = np.exp(own[shop, 0] + own[shop, 1] * price + 0.4 * promoted)
    y = rng.poisson(mean * rng.gamma(5.0, 0.2, 300)) * 1.0
    return {"shop": shop * 1.0, "price": price, "promoted": promoted, "y": y}


MODELS = {
    "adstock": (
        Model(
            adstock,
            of(
                keep=(unit_interval, (3,)),
                half=(positive, (3,)),
                effect=(real, (3,)),
                base=(real, ()),
                slope=(real, ()),
                sigma=(positive, ()),
            ),
        ),
        _adstock_data,
    ),
    "instrument": (
        Model(
            instrument,
            of(
                mean_x=(real, ()),
                mean_y=(real, ()),
                moves=(real, (2,)),
                effect=(real, ()),
                sd_x=(positive, ()),
                sd_y=(positive, ()),
                rho=(interval(-1.0, 1.0), ()),
            ),
        ),
        _instrument_data,
    ),
    "ordinal": (Model(ordinal, of(cuts=(ordered, (4,)), beta=(real, (4,)))), _ordinal_data),
    "choices": (
        Model(choices, of(mean=(real, (3,)), sd=(positive, (3,)), raw=(real, (50, 3)))),
        _choices_data,
    ),
    "conversion": (
        Model(
            conversion,
            of(
                centre=(unit_interval, ()),
                strength=(positive, ()),
                share=(unit_interval, (40,)),
            ),
        ),
        _conversion_data,
    ),
    "returns": (
        Model(
            returns,
            of(
                mean=(real, (4,)),
                scale=(positive, (4,)),
                together=(corr_cholesky, (4, 4)),
                df=(greater_than(2.0), ()),
            ),
        ),
        _returns_data,
    ),
    "tobit": (
        Model(tobit, of(alpha=(real, ()), beta=(real, (3,)), sigma=(positive, ()))),
        _tobit_data,
    ),
    "demand": (
        Model(
            demand,
            of(
                mean=(real, (2,)),
                scale=(positive, (2,)),
                together=(corr_cholesky, (2, 2)),
                raw=(real, (25, 2)),
                promotion=(real, ()),
                size=(positive, ()),
            ),
        ),
        _demand_data,
    ),
}
