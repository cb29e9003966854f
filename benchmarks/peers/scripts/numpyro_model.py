"""The two models in numpyro."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from data import LABEL, SIGMA, WHICH, X, Y


def schools(y=Y):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", 8):
        eta = numpyro.sample("eta", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(mu + tau * eta, SIGMA), obs=y)


def logistic(y=LABEL):
    beta = numpyro.sample("beta", dist.Normal(jnp.zeros(10), 1).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=X @ beta), obs=y)


model = schools if WHICH == "schools" else logistic
