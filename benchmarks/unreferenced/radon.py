"""Radon in houses, by floor and county: the counties as one, apart, or partly pooled."""

from bbvi import interval, positive, real
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model, numbers

# --- what the programs share ---------------------------------------------------------------------


def _by_house(effects, data):
    return effects[data["county_idx"].astype(int)]


def _houses(params, data, mean):
    sigma = params["sigma_y"]
    return d.normal(sigma, 0.0, 1.0) + d.normal(data["log_radon"], mean, sigma)


def _spread(params, name):
    """Mean and scale of the counties, and their priors."""
    mu, sigma = params["mu_" + name], params["sigma_" + name]
    return mu, sigma, d.normal(mu, 0.0, 10.0) + d.normal(sigma, 0.0, 1.0)


def _centred(params, data, name):
    """Effects of the counties, one for each house, and the log density of all behind them."""
    mu, sigma, prior = _spread(params, name)
    return _by_house(params[name], data), prior + d.normal(params[name], mu, sigma)


def _noncentred(params, data, name):
    """As `_centred`."""
    mu, sigma, prior = _spread(params, name)
    raw = params[name + "_raw"]
    return _by_house(mu + sigma * raw, data), prior + d.normal(raw, 0.0, 1.0)


def _parameters(*by_county, **others):
    """`by_county` are the names of those that have a number for each county."""

    def parameters(data):
        return {name: (real, (int(data["J"]),)) for name in by_county} | others

    return parameters


def _prepare(raw):
    data = numbers(raw)
    return data | {"county_idx": data["county_idx"] - 1}


_ONE, _SCALE = (real, ()), (positive, ())

# --- all counties as one, and each apart ---------------------------------------------------------


def radon_pooled(params, data):
    alpha, beta = params["alpha"], params["beta"]
    prior = d.normal(alpha, 0.0, 10.0) + d.normal(beta, 0.0, 10.0)
    return prior + _houses(params, data, alpha + beta * data["floor_measure"])


def radon_county_intercept(params, data):
    alpha, beta = params["alpha"], params["beta"]
    prior = d.normal(alpha, 0.0, 10.0) + d.normal(beta, 0.0, 10.0)
    return prior + _houses(params, data, _by_house(alpha, data) + beta * data["floor_measure"])


# --- levels of counties that are alike -----------------------------------------------------------


def radon_county(params, data):
    a, mu_a = params["a"], params["mu_a"]
    prior = d.normal(mu_a, 0.0, 1.0) + d.normal(a, mu_a, params["sigma_a"])
    return prior + d.normal(data["log_radon"], _by_house(a, data), params["sigma_y"])


def _county_prepare(raw):
    return _prepare({"J": raw["J"], "county_idx": raw["county"], "log_radon": raw["y"]})


def radon_partially_pooled_centered(params, data):
    alpha, prior = _centred(params, data, "alpha")
    return prior + _houses(params, data, alpha)


def radon_partially_pooled_noncentered(params, data):
    alpha, prior = _noncentred(params, data, "alpha")
    return prior + _houses(params, data, alpha)


def _variable_intercept(params, data, alpha):
    beta = params["beta"]
    mean = alpha + beta * data["floor_measure"]
    return d.normal(beta, 0.0, 10.0) + _houses(params, data, mean)


def radon_variable_intercept_centered(params, data):
    alpha, prior = _centred(params, data, "alpha")
    return prior + _variable_intercept(params, data, alpha)


def radon_variable_intercept_noncentered(params, data):
    alpha, prior = _noncentred(params, data, "alpha")
    return prior + _variable_intercept(params, data, alpha)


def _hierarchical_intercept(params, data, alpha):
    beta = params["beta"]
    mean = alpha + beta[0] * data["log_uppm"] + beta[1] * data["floor_measure"]
    return d.normal(beta, 0.0, 10.0) + _houses(params, data, mean)


def radon_hierarchical_intercept_centered(params, data):
    alpha, prior = _centred(params, data, "alpha")
    return prior + _hierarchical_intercept(params, data, alpha)


def radon_hierarchical_intercept_noncentered(params, data):
    alpha, prior = _noncentred(params, data, "alpha")
    return prior + _hierarchical_intercept(params, data, alpha)


# --- slopes of counties that are alike -----------------------------------------------------------


def _variable_slope(params, data, beta):
    alpha = params["alpha"]
    mean = alpha + beta * data["floor_measure"]
    return d.normal(alpha, 0.0, 10.0) + _houses(params, data, mean)


def radon_variable_slope_centered(params, data):
    beta, prior = _centred(params, data, "beta")
    return prior + _variable_slope(params, data, beta)


def radon_variable_slope_noncentered(params, data):
    beta, prior = _noncentred(params, data, "beta")
    return prior + _variable_slope(params, data, beta)


def radon_variable_intercept_slope_centered(params, data):
    alpha, prior = _centred(params, data, "alpha")
    beta, slopes = _centred(params, data, "beta")
    return prior + slopes + _houses(params, data, alpha + beta * data["floor_measure"])


def radon_variable_intercept_slope_noncentered(params, data):
    alpha, prior = _noncentred(params, data, "alpha")
    beta, slopes = _noncentred(params, data, "beta")
    return prior + slopes + _houses(params, data, alpha + beta * data["floor_measure"])


# --- the programs --------------------------------------------------------------------------------

_LEVELS = {"mu_alpha": _ONE, "sigma_alpha": _SCALE}
_SLOPES = {"mu_beta": _ONE, "sigma_beta": _SCALE}
_NOISE = {"sigma_y": _SCALE}
_BOUNDED = (interval(0.0, 100.0), ())


def _pair(centred, noncentred, *by_county, **others):
    """The two programs of one model, by their functions."""
    raw = [name + "_raw" for name in by_county]
    return {
        centred.__name__: Model(centred, _parameters(*by_county, **others), _prepare),
        noncentred.__name__: Model(noncentred, _parameters(*raw, **others), _prepare),
    }


MODELS = {
    "radon_pooled": Model(
        radon_pooled, _parameters(alpha=_ONE, beta=_ONE, sigma_y=_SCALE), _prepare
    ),
    "radon_county_intercept": Model(
        radon_county_intercept, _parameters("alpha", beta=_ONE, sigma_y=_SCALE), _prepare
    ),
    "radon_county": Model(
        radon_county,
        _parameters("a", mu_a=_ONE, sigma_a=_BOUNDED, sigma_y=_BOUNDED),
        _county_prepare,
    ),
    **_pair(
        radon_partially_pooled_centered,
        radon_partially_pooled_noncentered,
        "alpha",
        **_LEVELS,
        **_NOISE,
    ),
    **_pair(
        radon_variable_intercept_centered,
        radon_variable_intercept_noncentered,
        "alpha",
        beta=_ONE,
        **_LEVELS,
        **_NOISE,
    ),
    **_pair(
        radon_hierarchical_intercept_centered,
        radon_hierarchical_intercept_noncentered,
        "alpha",
        beta=(real, (2,)),
        **_LEVELS,
        **_NOISE,
    ),
    **_pair(
        radon_variable_slope_centered,
        radon_variable_slope_noncentered,
        "beta",
        alpha=_ONE,
        **_SLOPES,
        **_NOISE,
    ),
    **_pair(
        radon_variable_intercept_slope_centered,
        radon_variable_intercept_slope_noncentered,
        "alpha",
        "beta",
        **_LEVELS,
        **_SLOPES,
        **_NOISE,
    ),
}
