"""The two models in PyMC."""

import pymc as pm
from data import LABEL, SIGMA, WHICH, X, Y


def schools():
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 5)
        tau = pm.HalfCauchy("tau", 5)
        eta = pm.Normal("eta", 0, 1, shape=8)
        pm.Normal("y", mu + tau * eta, SIGMA, observed=Y)
    return model


def logistic():
    with pm.Model() as model:
        beta = pm.Normal("beta", 0, 1, shape=10)
        pm.Bernoulli("y", logit_p=X @ beta, observed=LABEL)
    return model


model = schools() if WHICH == "schools" else logistic()


def draws_of(tree):
    names = ("mu", "tau", "eta") if WHICH == "schools" else ("beta",)
    posterior = tree.posterior
    return {n: posterior[n].values.reshape(-1, *posterior[n].shape[2:]) for n in names}
