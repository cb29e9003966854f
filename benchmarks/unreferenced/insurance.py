"""Losses of an insurer that grow as the years pass."""

import jax
import jax.numpy as jnp
import numpy as np

from bbvi import positive, real
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model, numbers


def losscurve_sislob(params, data):
    omega, theta, loss_sd = params["omega"], params["theta"], params["loss_sd"]
    z = omega * (jnp.log(data["t_value"]) - jnp.log(theta))
    # from 10 on it is 1 in any precision, with a slope of 0 that an overflow would make nan
    weibull = -jnp.expm1(-jnp.exp(jnp.minimum(z, 10.0)))
    grown = jnp.where(data["growthmodel_id"] == 1, weibull, jax.nn.sigmoid(z))
    cohort, time = data["cohort"].astype(int), data["time"].astype(int)
    premium = data["premium"][cohort]
    prior = d.normal(params["mu_LR"], 0.0, 0.5) + d.lognormal(params["sd_LR"], 0.0, 0.5)
    prior += d.lognormal(params["LR"], params["mu_LR"], params["sd_LR"])
    prior += d.lognormal(jnp.stack([omega, theta]), 0.0, 0.5) + d.lognormal(loss_sd, 0.0, 0.7)
    mean = params["LR"][cohort] * premium * grown[time]
    return prior + d.normal(data["loss"], mean, loss_sd * premium)


def _losscurve_parameters(data):
    return {
        "omega": (positive, ()),
        "theta": (positive, ()),
        "LR": (positive, data["premium"].shape),
        "mu_LR": (real, ()),
        "sd_LR": (positive, ()),
        "loss_sd": (positive, ()),
    }


def _losscurve_prepare(raw):
    data = {name: raw[name] for name in ("growthmodel_id", "t_value", "premium", "loss")}
    cohort, time = np.asarray(raw["cohort_id"]) - 1, np.asarray(raw["t_idx"]) - 1
    return numbers({**data, "cohort": cohort, "time": time})


MODELS = {
    "losscurve_sislob": Model(losscurve_sislob, _losscurve_parameters, _losscurve_prepare),
}
