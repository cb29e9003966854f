"""What is not seen: numbers of animals, kinds of people, guesses, places of those who vote."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, logsumexp

from bbvi import ordered, positive, real, simplex, unit_interval
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import expit, of

# --- animals counted several times, how many there are summed out --------------------------------


def abundance(params, data):
    log_mean, seen = data["x"] @ params["mean"], jax.nn.sigmoid(params["seen"])
    n = jnp.arange(60.0)
    log_n = n * log_mean[:, None] - jnp.exp(log_mean)[:, None] - gammaln(n + 1)
    y = data["y"][:, :, None]
    safe = jnp.maximum(n - y, 0.0)
    each = gammaln(n + 1) - gammaln(safe + 1) - gammaln(y + 1)
    each += y * jnp.log(seen) + safe * jnp.log1p(-seen)
    each = jnp.where(n >= y, each, -jnp.inf)
    prior = d.normal(params["mean"], 0.0, 2.0) + d.normal(params["seen"], 0.0, 1.5)
    return prior + jnp.sum(logsumexp(log_n + jnp.sum(each, axis=1), axis=1))


def _abundance_data():
    rng = np.random.default_rng(809)
    x = np.stack([np.ones(50), rng.normal(size=50)], 1)
    n = rng.poisson(np.exp(x @ [1.6, 0.5]))
    return {"x": x, "y": rng.binomial(n[:, None], 0.35, (50, 3)) * 1.0}


# --- answers of two hidden kinds of people -------------------------------------------------------


def kinds(params, data):
    # the second kind says yes to the first question more often
    logits = jnp.concatenate([params["first"][:, None], params["others"]], axis=1)  # (2, items)
    each = data["y"] @ logits.T - jnp.sum(jnp.logaddexp(0.0, logits), axis=1)
    prior = d.dirichlet(params["share"], 2.0)
    prior += d.normal(params["first"], 0.0, 1.5) + d.normal(params["others"], 0.0, 1.5)
    return prior + jnp.sum(logsumexp(each + jnp.log(params["share"]), axis=1))


def _kinds_data():
    rng = np.random.default_rng(810)
    logits = np.array([[-1.5, -1.0, 0.5, -2.0, 0.0, -1.0], [1.5, 1.2, 1.5, 0.5, 1.0, 2.0]])
    kind = rng.choice(2, 120, p=[0.6, 0.4])
    return {"y": (rng.random((120, 6)) < expit(logits[kind])) * 1.0}


# --- tests whose answers can be guessed ----------------------------------------------------------


def guesses(params, data):
    knows = params["sharp"] * (params["ability"][:, None] - params["hard"])
    share = params["guess"] + (1 - params["guess"]) * jax.nn.sigmoid(knows)
    prior = d.normal(params["ability"], 0.0, 1.0) + d.normal(params["hard"], 0.0, 1.5)
    prior += d.lognormal(params["sharp"], 0.0, 0.5) + d.beta(params["guess"], 5.0, 17.0)
    right = data["y"] * jnp.log(share) + (1 - data["y"]) * jnp.log1p(-share)
    return prior + jnp.sum(right)


def _guesses_data():
    rng = np.random.default_rng(811)
    sharp, hard, guess = rng.lognormal(0.2, 0.3, 15), rng.normal(0, 1, 15), rng.beta(5, 17, 15)
    knows = expit(sharp * (rng.normal(size=(80, 1)) - hard))
    return {"y": (rng.random((80, 15)) < guess + (1 - guess) * knows) * 1.0}


# --- votes of a house along a line ---------------------------------------------------------------


def votes(params, data):
    place = jnp.concatenate([params["ends"], params["place"]])
    eta = place[:, None] * params["slope"] - params["bar"]
    prior = d.normal(params["ends"], jnp.array([-1.5, 1.5]), 0.3)
    prior += d.normal(params["place"], 0.0, 1.0) + d.normal(params["slope"], 0.0, 1.5)
    prior += d.normal(params["bar"], 0.0, 1.5)
    return prior + jnp.sum(data["cast"] * (data["y"] * eta - jnp.logaddexp(0.0, eta)))


def _votes_data():
    rng = np.random.default_rng(812)
    place = np.concatenate([[-1.5, 1.5], rng.normal(size=28)])
    eta = place[:, None] * rng.normal(0, 1.5, 35) - rng.normal(0, 1, 35)
    y, cast = rng.random((30, 35)) < expit(eta), rng.random((30, 35)) < 0.85
    return {"y": y * cast * 1.0, "cast": cast * 1.0}


MODELS = {
    "abundance": (
        Model(abundance, of(mean=(real, (2,)), seen=(real, ()))),
        _abundance_data,
    ),
    "kinds": (
        Model(kinds, of(share=(simplex, (2,)), first=(ordered, (2,)), others=(real, (2, 5)))),
        _kinds_data,
    ),
    "guesses": (
        Model(
            guesses,
            of(
                ability=(real, (80,)),
                hard=(real, (15,)),
                sharp=(positive, (15,)),
                guess=(unit_interval, (15,)),
            ),
        ),
        _guesses_data,
    ),
    "votes": (
        Model(
            votes,
            of(ends=(real, (2,)), place=(real, (28,)), slope=(real, (35,)), bar=(real, (35,))),
        ),
        _votes_data,
    ),
}
