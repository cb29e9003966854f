import jax
import jax.numpy as jnp
from data import LABEL, SIGMA, WHICH, X, Y, show

import bbvi


def schools(params, data):
    mu, tau, eta = params["mu"], params["tau"], params["eta"]
    prior = -0.5 * (mu / 5) ** 2 - jnp.log1p((tau / 5) ** 2) - 0.5 * jnp.sum(eta**2)
    return prior - 0.5 * jnp.sum(((data["y"] - mu - tau * eta) / data["sigma"]) ** 2)


def logistic(params, data):
    eta = data["x"] @ params["beta"]
    prior = -0.5 * jnp.sum(params["beta"] ** 2)
    return prior + jnp.sum(data["y"] * eta - jax.nn.softplus(eta))


if WHICH == "schools":
    init, data = {"mu": 0.0, "tau": 1.0, "eta": jnp.zeros(8)}, {"y": Y, "sigma": SIGMA}
    result = bbvi.fit(schools, init, data, support={"tau": bbvi.positive})
else:
    result = bbvi.fit(logistic, {"beta": jnp.zeros(10)}, {"x": X, "y": LABEL})
print(result.summary())
show(result.posterior.sample(0, 20_000))
