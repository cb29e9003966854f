"""Eight schools, centred and not."""

from bbvi import positive, real

from . import density as d
from .model import Model


def eight_schools_centered(params, data):
    theta, mu, tau = params["theta"], params["mu"], params["tau"]
    prior = d.normal(mu, 0.0, 5.0) + d.cauchy(tau, 0.0, 5.0) + d.normal(theta, mu, tau)
    return prior + d.normal(data["y"], theta, data["sigma"])


def eight_schools_noncentered(params, data):
    mu, tau = params["mu"], params["tau"]
    theta = params["theta_trans"] * tau + mu
    prior = d.normal(mu, 0.0, 5.0) + d.cauchy(tau, 0.0, 5.0)
    prior += d.normal(params["theta_trans"], 0.0, 1.0)
    return prior + d.normal(data["y"], theta, data["sigma"])


def _parameters(name):
    def parameters(data):
        return {name: (real, data["y"].shape), "mu": (real, ()), "tau": (positive, ())}

    return parameters


def _standardise(draws, data):
    mu, tau = draws["mu"], draws["tau"]
    theta_trans = (draws["theta"] - mu[:, None]) / tau[:, None]
    return {"theta_trans": theta_trans, "mu": mu, "tau": tau}


MODELS = {
    "eight_schools_centered": Model(eight_schools_centered, _parameters("theta")),
    "eight_schools_noncentered": Model(
        eight_schools_noncentered, _parameters("theta_trans"), from_reference=_standardise
    ),
}
