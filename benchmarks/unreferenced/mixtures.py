"""Mixtures of normals, and topics of words in documents; all of them have labels that swap."""

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from bbvi import interval, positive, real, simplex, unit_interval
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model, numbers
from benchmarks.posteriordb.nonlinear import low_dim_gauss_mix

# --- normals -------------------------------------------------------------------------------------


def _mixture(log_weights, params, data, sigma):
    mu = params["mu"]
    z = (data["y"][:, None] - mu) / sigma
    log_parts = log_weights - 0.5 * z * z - jnp.log(sigma)
    return d.normal(mu, 0.0, 10.0) + jnp.sum(logsumexp(log_parts, axis=1))


def normal_mixture(params, data):
    theta = params["theta"]
    return _mixture(jnp.stack([jnp.log(theta), jnp.log1p(-theta)]), params, data, 1.0)


def normal_mixture_k(params, data):
    return _mixture(jnp.log(params["theta"]), params, data, params["sigma"])


def _normal_mixture_parameters(data):
    return {"theta": (unit_interval, ()), "mu": (real, (2,))}


def _normal_mixture_k_parameters(data):
    shape = (int(data["K"]),)
    return {"theta": (simplex, shape), "mu": (real, shape), "sigma": (interval(0.0, 10.0), shape)}


def _collapse_parameters(data):
    return {"mu": (real, (2,)), "sigma": (positive, (2,)), "theta": (unit_interval, ())}


def _only(*names):
    """Of files that hold what the data were drawn from, too."""

    def prepare(raw):
        return numbers({name: raw[name] for name in names})

    return prepare


# --- topics --------------------------------------------------------------------------------------


def lda(params, data):
    log_theta, log_phi = jnp.log(params["theta"]), jnp.log(params["phi"])
    prior = jnp.sum((data["alpha"] - 1) * log_theta) + jnp.sum((data["beta"] - 1) * log_phi)
    log_parts = log_theta.T[:, data["doc"].astype(int)] + log_phi[:, data["word"].astype(int)]
    return prior + jnp.sum(data["times"] * logsumexp(log_parts, axis=0))


def _lda_parameters(data):
    topics, words = len(data["alpha"]), len(data["beta"])
    return {"theta": (simplex, (int(data["M"]), topics)), "phi": (simplex, (topics, words))}


def _lda_prepare(raw):
    """Each word of a document once, with how many times it is there; priors flat if not given."""
    (doc, word), times = np.unique([raw["doc"], raw["w"]], axis=1, return_counts=True)
    priors = {"alpha": np.ones(2), "beta": np.ones(raw["V"])}
    priors |= {name: raw[name] for name in priors if name in raw}
    return numbers({"M": raw["M"], "doc": doc - 1, "word": word - 1, "times": times, **priors})


MODELS = {
    "normal_mixture": Model(normal_mixture, _normal_mixture_parameters, _only("y")),
    "normal_mixture_k": Model(normal_mixture_k, _normal_mixture_k_parameters, _only("K", "y")),
    "low_dim_gauss_mix_collapse": Model(low_dim_gauss_mix, _collapse_parameters),
    "ldaK2": Model(lda, _lda_parameters, _lda_prepare),
    "ldaK5": Model(lda, _lda_parameters, _lda_prepare),
}
