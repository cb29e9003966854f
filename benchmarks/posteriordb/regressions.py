"""Linear regressions: mostly flat priors, on columns that differ in scale and collinearity."""

import numpy as np

from bbvi import positive, real

from . import density as d
from .model import Model

# --- y ~ normal(x beta, sigma) -------------------------------------------------------------


def linear(params, data):
    return d.normal(data["y"], data["x"] @ params["beta"], params["sigma"])


def linear_half_cauchy(params, data):
    return linear(params, data) + d.cauchy(params["sigma"], 0.0, 2.5)


def blr(params, data):
    prior = d.normal(params["beta"], 0.0, 10.0) + d.normal(params["sigma"], 0.0, 10.0)
    return prior + linear(params, data)


def _parameters(data):
    return {"beta": (real, data["x"].shape[1:]), "sigma": (positive, ())}


def _regression(response, columns, log_joint=linear):
    """A response and the columns behind the one of ones: functions of the data file."""

    def prepare(raw):
        raw = {name: np.asarray(value, float) for name, value in raw.items()}
        y = response(raw)
        return {"y": y, "x": np.stack([np.ones_like(y), *columns(raw)], axis=1)}

    return Model(log_joint, _parameters, prepare)


def _column(name, scale=lambda x: x):
    return lambda raw: scale(raw[name])


def _columns(*names):
    return lambda raw: [raw[name] for name in names]


# --- earnings ------------------------------------------------------------------------------


def _height_and_male(raw):
    return [raw["height"], raw["male"], raw["height"] * raw["male"]]


def _log_height_and_male(raw):
    return [np.log(raw["height"]), raw["male"]]


def _scaled_height_and_male(raw):
    z = (raw["height"] - raw["height"].mean()) / raw["height"].std(ddof=1)
    return [z, raw["male"], z * raw["male"]]


_log_earn = _column("earn", np.log)

EARNINGS = {
    "earn_height": _regression(_column("earn"), _columns("height")),
    "log10earn_height": _regression(_column("earn", np.log10), _columns("height")),
    "logearn_height": _regression(_log_earn, _columns("height")),
    "logearn_height_male": _regression(_log_earn, _columns("height", "male")),
    "logearn_logheight_male": _regression(_log_earn, _log_height_and_male),
    "logearn_interaction": _regression(_log_earn, _height_and_male),
    "logearn_interaction_z": _regression(_log_earn, _scaled_height_and_male),
}

# --- kidiq ---------------------------------------------------------------------------------


def _interaction(shift, scale=lambda x: 1.0):
    """Mother's school and IQ and their product, each shifted and scaled before."""

    def columns(raw):
        hs, iq = ((raw[k] - shift(raw[k], k)) / scale(raw[k]) for k in ("mom_hs", "mom_iq"))
        return [hs, iq, hs * iq]

    return columns


def _conventional(x, name):
    return {"mom_hs": 0.5, "mom_iq": 100.0}[name]


def _mean(x, name):
    return x.mean()


def _two_sd(x):
    return 2 * x.std(ddof=1)


def _mom_work(raw):
    return [(raw["mom_work"] == k).astype(float) for k in (2, 3, 4)]


_score = _column("kid_score")

KIDIQ = {
    "kidscore_momhs": _regression(_score, _columns("mom_hs"), linear_half_cauchy),
    "kidscore_momiq": _regression(_score, _columns("mom_iq"), linear_half_cauchy),
    "kidscore_momhsiq": _regression(_score, _columns("mom_hs", "mom_iq"), linear_half_cauchy),
    "kidscore_interaction": _regression(
        _score, _interaction(lambda x, name: 0.0), linear_half_cauchy
    ),
    "kidscore_interaction_c": _regression(_score, _interaction(_mean)),
    "kidscore_interaction_c2": _regression(_score, _interaction(_conventional)),
    "kidscore_interaction_z": _regression(_score, _interaction(_mean, _two_sd)),
    "kidscore_mom_work": _regression(_score, _mom_work),
}

# --- mesquite ------------------------------------------------------------------------------


def _volume(raw):
    return _area(raw) * raw["canopy_height"]


def _area(raw):
    return raw["diam1"] * raw["diam2"]


def _shape(raw):
    return raw["diam1"] / raw["diam2"]


def _bushes(*of_logs):
    """Logs of columns or of functions of them, and the group."""

    def columns(raw):
        values = [raw[of] if isinstance(of, str) else of(raw) for of in of_logs]
        return [*map(np.log, values), raw["group"]]

    return columns


_log_weight = _column("weight", np.log)
_names = ("diam1", "diam2", "canopy_height", "total_height", "density")

MESQUITE = {
    "mesquite": _regression(_column("weight"), _columns(*_names, "group")),
    "logmesquite": _regression(_log_weight, _bushes(*_names)),
    "logmesquite_logvolume": _regression(_log_weight, lambda raw: [np.log(_volume(raw))]),
    "logmesquite_logva": _regression(_log_weight, _bushes(_volume, _area)),
    "logmesquite_logvas": _regression(
        _log_weight, _bushes(_volume, _area, _shape, "total_height", "density")
    ),
    "logmesquite_logvash": _regression(
        _log_weight, _bushes(_volume, _area, _shape, "total_height")
    ),
}

# --- one model each ------------------------------------------------------------------------


def _nes(raw):
    ages = [(raw["age_discrete"] == k).astype(float) for k in (2, 3, 4)]
    return [
        raw["real_ideo"],
        raw["race_adj"],
        *ages,
        raw["educ1"],
        raw["gender"],
        raw["income"],
    ]


def _blr_prepare(raw):
    return {"y": np.asarray(raw["y"]), "x": np.asarray(raw["X"])}


def kilpisjarvi(params, data):
    alpha, beta, sigma = params["alpha"], params["beta"], params["sigma"]
    prior = d.normal(alpha, data["pmualpha"], data["psalpha"])
    prior += d.normal(beta, data["pmubeta"], data["psbeta"])
    return prior + d.normal(data["y"], alpha + beta * data["x"], sigma)


def _kilpisjarvi_parameters(data):
    return {"alpha": (real, ()), "beta": (real, ()), "sigma": (positive, ())}


def diamonds(params, data):
    b, intercept, sigma = params["b"], params["Intercept"], params["sigma"]
    prior = d.normal(b, 0.0, 1.0)
    prior += d.student_t(intercept, 3.0, 8.0, 10.0) + d.student_t(sigma, 3.0, 0.0, 10.0)
    return prior + d.normal(data["y"], intercept + data["x"] @ b, sigma)


def _diamonds_parameters(data):
    return {"b": (real, data["x"].shape[1:]), "Intercept": (real, ()), "sigma": (positive, ())}


def _diamonds_prepare(raw):
    x = np.asarray(raw["X"])[:, 1:]
    return {"y": np.asarray(raw["Y"]), "x": x - x.mean(0)}


MODELS = {
    **EARNINGS,
    **KIDIQ,
    **MESQUITE,
    "nes": _regression(_column("partyid7"), _nes),
    "blr": Model(blr, _parameters, _blr_prepare),
    "kilpisjarvi": Model(kilpisjarvi, _kilpisjarvi_parameters),
    "diamonds": Model(diamonds, _diamonds_parameters, _diamonds_prepare),
}
