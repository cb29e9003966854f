"""Who in Bangladesh switched to another well: logistic regressions under flat priors."""

import numpy as np

from bbvi import real
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model, numbers


def wells_dist(params, data):
    beta = params["beta"]
    return d.binomial_logit(data["switched"], 1.0, beta[0] + beta[1] * data["dist"])


def _dist_parameters(data):
    return {"beta": (real, (2,))}


def wells(params, data):
    eta = params["alpha"] + data["x"] @ params["beta"]
    return d.binomial_logit(data["switched"], 1.0, eta)


def _parameters(data):
    return {"alpha": (real, ()), "beta": (real, data["x"].shape[1:])}


def _model(columns, centred=""):
    """The program with these columns, "a*b" a product, of which the `centred` have mean zero."""

    def prepare(raw):
        data = numbers(raw)
        known = {name: data[name] for name in ("arsenic", "assoc")}
        known |= {"dist": data["dist"] / 100, "educ": data["educ"] / 4}
        for name in centred.split():
            known[name] = known[name] - known[name].mean()
        x = [np.prod([known[part] for part in one.split("*")], axis=0) for one in columns.split()]
        return {"switched": data["switched"], "x": np.stack(x, axis=1)}

    return Model(wells, _parameters, prepare)


MODELS = {
    "wells_dist": Model(wells_dist, _dist_parameters),
    "wells_dist100_model": _model("dist"),
    "wells_dist100ars_model": _model("dist arsenic"),
    "wells_dae_model": _model("dist arsenic educ"),
    "wells_interaction_model": _model("dist arsenic dist*arsenic"),
    "wells_interaction_c_model": _model("dist arsenic dist*arsenic", "dist arsenic"),
    "wells_dae_c_model": _model("dist arsenic dist*arsenic educ", "dist arsenic"),
    "wells_daae_c_model": _model("dist arsenic dist*arsenic assoc educ", "dist arsenic"),
    "wells_dae_inter_model": _model(
        "dist arsenic educ dist*arsenic dist*educ arsenic*educ", "dist arsenic educ"
    ),
}
