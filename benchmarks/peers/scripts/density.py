"""The two log densities on the unconstrained space, for tools that take a function."""

import jax
import jax.numpy as jnp
from data import LABEL, SIGMA, WHICH, X, Y


def schools(z):
    mu, log_tau, eta = z[0], z[1], z[2:]
    tau = jnp.exp(log_tau)
    prior = -0.5 * (mu / 5) ** 2 - jnp.log1p((tau / 5) ** 2) - 0.5 * jnp.sum(eta**2)
    return prior + log_tau - 0.5 * jnp.sum(((Y - mu - tau * eta) / SIGMA) ** 2)


def logistic(beta):
    eta = X @ beta
    return jnp.sum(LABEL * eta - jax.nn.softplus(eta)) - 0.5 * jnp.sum(beta**2)


log_density = schools if WHICH == "schools" else logistic
DIM = 10


def split(z):
    if WHICH == "logistic":
        return {"beta": z}
    return {"mu": z[:, 0], "tau": jnp.exp(z[:, 1]), "eta": z[:, 2:]}
