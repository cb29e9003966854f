"""Polls, genes, digits, accidents, and smooth curves and grids."""

import jax
import jax.numpy as jnp
import numpy as np

from bbvi import corr_cholesky, greater_than, interval, positive, real, simplex, unit_interval
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model, numbers


def _inverse_gamma(x, shape, scale):
    return jnp.sum(-(shape + 1) * jnp.log(x) - scale / x)


# --- votes of 1988 by age, education, state and region -------------------------------------------

# what each group of effects is indexed by, and the data file's name of its size
_GROUPS = {"a": "age", "b": "edu", "c": "age_edu", "d": "state", "e": "region_full"}


def election88_full(params, data):
    beta, black, female = params["beta"], data["black"], data["female"]
    eta = beta[0] + beta[1] * black + beta[2] * female + beta[3] * data["v_prev_full"]
    eta += beta[4] * female * black
    prior = d.normal(beta, 0.0, 100.0)
    for name, group in _GROUPS.items():
        eta += params[name][data[group].astype(int)]
        prior += d.normal(params[name], 0.0, params["sigma_" + name])
    return prior + d.binomial_logit(data["y"], 1.0, eta)


def _election88_parameters(data):
    effects = {name: (real, (int(data["n_" + group]),)) for name, group in _GROUPS.items()}
    scales = {"sigma_" + name: (interval(0.0, 100.0), ()) for name in _GROUPS}
    return effects | {"beta": (real, (5,))} | scales


def _election88_prepare(raw):
    data = numbers(raw)
    return data | {group: data[group] - 1 for group in _GROUPS.values()}


# --- tumours by thousands of genes, few of which matter ------------------------------------------


def logistic_regression_rhs(params, data):
    z, tau, lam, caux = (params[name] for name in ("z", "tau", "lambda", "caux"))
    free = tau * lam  # scales before the slab bounds them
    beta = z * free / jnp.sqrt(1 + (free / data["slab_scale"]) ** 2 / caux)
    half_df = 0.5 * data["slab_df"]
    prior = d.normal(z, 0.0, 1.0) + d.student_t(lam, data["nu_local"], 0.0, 1.0)
    prior += d.student_t(tau, data["nu_global"], 0.0, 2 * data["scale_global"])
    prior += _inverse_gamma(caux, half_df, half_df)
    prior += d.normal(params["beta0"], 0.0, data["scale_icept"])
    return prior + d.binomial_logit(data["y"], 1.0, params["beta0"] + data["x"] @ beta)


def _rhs_parameters(data):
    columns = data["x"].shape[1:]
    return {
        "beta0": (real, ()),
        "z": (real, columns),
        "tau": (positive, ()),
        "lambda": (positive, columns),
        "caux": (positive, ()),
    }


# --- written digits, by a network with one hidden layer ------------------------------------------

HIDDEN = 10


def _layer(scale2, weights, bias):
    """The prior of one layer: the more inputs, the smaller their weights."""
    squared = (0.05 / len(weights) ** 2) ** 2
    prior = _inverse_gamma(scale2, 0.25, 0.25 * squared) + d.normal(bias, 0.0, 1.0)
    return prior + d.normal(weights, 0.0, jnp.sqrt(scale2))


def nn_rbm1bj10(params, data):
    alpha, alpha1, beta, beta1 = (params[name] for name in ("alpha", "alpha1", "beta", "beta1"))
    hidden = jnp.tanh(alpha1 + data["x"] @ alpha)
    # the logit of the first digit is 1
    logits = jnp.pad(beta1 + hidden @ beta, ((0, 0), (1, 0)), constant_values=1.0)
    log_p = jax.nn.log_softmax(logits)
    prior = _layer(params["sigma2_alpha"], alpha, alpha1)
    prior += _layer(params["sigma2_beta"], beta, beta1)
    return prior + jnp.sum(jnp.take_along_axis(log_p, data["y"][:, None].astype(int), axis=1))


def _nn_rbm1bj10_parameters(data):
    inputs, others = data["x"].shape[1], int(data["K"]) - 1
    return {
        "sigma2_alpha": (positive, ()),
        "sigma2_beta": (positive, ()),
        "alpha": (real, (inputs, HIDDEN)),
        "beta": (real, (HIDDEN, others)),
        "alpha1": (real, (HIDDEN,)),
        "beta1": (real, (others,)),
    }


def _nn_rbm1bj10_prepare(raw):
    data = numbers({name: raw[name] for name in ("x", "y", "K")})
    return data | {"y": data["y"] - 1}


# --- accidents in the tracts of New York, by what their neighbours have --------------------------


def bym2_offset_only(params, data):
    sigma, rho, theta, phi = (params[name] for name in ("sigma", "rho", "theta", "phi"))
    mixed = jnp.sqrt(1 - rho) * theta + jnp.sqrt(rho / data["scaling_factor"]) * phi
    steps = phi[data["node1"].astype(int)] - phi[data["node2"].astype(int)]
    prior = -0.5 * jnp.sum(steps**2) + d.normal(jnp.sum(phi), 0.0, 0.001 * len(phi))
    prior += d.normal(params["beta0"], 0.0, 1.0) + d.normal(theta, 0.0, 1.0)
    prior += d.normal(sigma, 0.0, 1.0) + d.beta(rho, 0.5, 0.5)
    return prior + d.poisson_log(data["y"], data["log_E"] + params["beta0"] + sigma * mixed)


def _bym2_parameters(data):
    tracts = data["y"].shape
    return {
        "beta0": (real, ()),
        "sigma": (positive, ()),
        "rho": (unit_interval, ()),
        "theta": (real, tracts),
        "phi": (real, tracts),
    }


def _bym2_prepare(raw):
    data = numbers(raw)
    nodes = {name: data[name] - 1 for name in ("node1", "node2")}
    kept = {name: data[name] for name in ("y", "scaling_factor")}
    return nodes | kept | {"log_E": np.log(data["E"])}


# --- shares of votes by state and year, with smooth paths of states and regions ------------------

# where parts of the variance end: years, regions, states of each of ten regions, paths; then noise
_ENDS = (1, 2, 12, 16)
_INDICES = ("year_ind", "region_ind", "state_ind", "state_region_ind")


def _weibull(x, shape, scale):
    z = x / scale
    return jnp.sum((shape - 1) * jnp.log(z) - z**shape - jnp.log(scale))


def _paths(std, variances, lengths):
    """Sums of a slow path and a fast one, of standard normals (years, paths)."""
    year = jnp.arange(len(std))
    squared = (year[:, None] - year) ** 2
    cov = jnp.sum(variances * jnp.exp(-0.5 * squared[..., None] / lengths**2), axis=-1)
    return jnp.linalg.cholesky(cov + 1e-6 * jnp.eye(len(std))) @ std


def hierarchical_gp(params, data):
    prop, mu = params["prop_var"], params["mu"]
    parts = jnp.split(len(prop) * prop * params["tot_var"], _ENDS)
    of_year, of_region, of_state, of_paths, noise = parts
    year, region, state, region_of_state = (data[name].astype(int) for name in _INDICES)
    mean = mu + jnp.sqrt(of_year) * params["year_std"][year]
    mean += jnp.sqrt(of_region) * params["region_std"][region]
    mean += (jnp.sqrt(of_state)[region_of_state] * params["state_std"])[state]
    prior = d.normal(mu, 0.5, 0.5) + d.gamma(params["tot_var"], 3.0, 3.0) + d.dirichlet(prop, 2.0)
    # the parts of the paths are those of regions and states in turn, first of the slow ones
    for name, place, part in ("region", region, of_paths[::2]), ("state", state, of_paths[1::2]):
        std = params[f"GP_{name}_std"]
        lengths = jnp.stack([params[f"length_GP_{name}_{pace}"] for pace in ("long", "short")])
        mean += _paths(std, part, lengths)[year, place]
        prior += d.normal(std, 0.0, 1.0) + _weibull(lengths, 30, jnp.array([8.0, 3.0]))
    prior += sum(d.normal(params[name + "_std"], 0.0, 1.0) for name in ("year", "region", "state"))
    return prior + d.normal(data["y"], mean, jnp.sqrt(noise))


def _hierarchical_gp_parameters(data):
    def size(name):
        return int(data["N_" + name])

    lengths = ("region_long", "region_short", "state_long", "state_short")
    return {
        "GP_region_std": (real, (size("years"), size("regions"))),
        "GP_state_std": (real, (size("years"), size("states"))),
        "year_std": (real, (size("years_obs"),)),
        "state_std": (real, (size("states"),)),
        "region_std": (real, (size("regions"),)),
        "tot_var": (positive, ()),
        "prop_var": (simplex, (17,)),
        "mu": (real, ()),
        **{"length_GP_" + name: (positive, ()) for name in lengths},
    }


def _hierarchical_gp_prepare(raw):
    data = numbers(raw)
    return data | {name: data[name] - 1 for name in _INDICES}


# --- a grid of responses whose covariance is a Kronecker product ---------------------------------


def _kronecker_normal(y, two, one, noise):
    """Log density of y (n2, n1), normal with covariance one x two + noise, by both spectra.

    Derivatives of eigenvectors grow without bound where eigenvalues meet, so none are taken: with
    the solution and the eigenvectors held still, first derivatives are right, and only they are.
    """
    (b, p), (a, q) = (jnp.linalg.eigh(jax.lax.stop_gradient(cov)) for cov in (two, one))
    scale = b[:, None] * a + jax.lax.stop_gradient(noise)
    solved = p @ ((p.T @ y @ q) / scale) @ q.T
    quadratic = jnp.sum(solved * (2 * y - two @ solved @ one - noise * solved))
    b, a = (jnp.sum(v * (cov @ v), axis=0) for cov, v in ((two, p), (one, q)))
    return -0.5 * quadratic - 0.5 * jnp.sum(jnp.log(b[:, None] * a + noise))


def kronecker_gp(params, data):
    var1, bw1, root, sigma1 = (params[name] for name in ("var1", "bw1", "L", "sigma1"))
    x = data["x1"]
    cov = var1 * jnp.exp(-bw1 * (x[:, None] - x) ** 2) + 1e-5 * jnp.eye(len(x))
    prior = d.lognormal(jnp.stack([var1, sigma1]), 0.0, 1.0) + d.cauchy(bw1, 0.0, 2.5)
    prior += d.lkj_cholesky(root, 2.0)
    return prior + _kronecker_normal(data["y"], root @ root.T, cov, sigma1)


def _kronecker_gp_parameters(data):
    responses, points = data["y"].shape
    return {
        "var1": (positive, ()),
        "bw1": (positive, ()),
        "L": (corr_cholesky, (responses, responses)),
        "sigma1": (greater_than(1e-5), ()),
    }


# --- a head in a crash: mean and noise are smooth in time ----------------------------------------


def _crash(params, data, mean, log_sd):
    """The two curves without their intercepts."""
    log_sd = log_sd + params["Intercept_sigma"]
    z = (data["Y"] - params["Intercept"] - mean) * jnp.exp(-log_sd)
    prior = d.student_t(params["Intercept"], 3.0, -13.0, 36.0)
    prior += d.student_t(params["Intercept_sigma"], 3.0, 0.0, 10.0)
    return prior + d.normal(z, 0.0, 1.0) - jnp.sum(log_sd)


def _gp_curve(params, data, name):
    """A Gaussian process by its first eigenfunctions, and its prior."""
    z, sd, length = (params[part + name] for part in ("zgp_", "sdgp_", "lscale_"))
    frequency = data["slambda_" + name][:, 0]
    # roots of the spectral density, but for the sd
    weights = (2 * jnp.pi) ** 0.25 * jnp.sqrt(length) * jnp.exp(-0.25 * (length * frequency) ** 2)
    prior = d.normal(z, 0.0, 1.0) + d.student_t(sd, 3.0, 0.0, 36.0)
    prior += _inverse_gamma(length, 1.124909, 0.0177)
    return data["Xgp_" + name] @ (sd * weights * z), prior


def accel_gp(params, data):
    mean, prior = _gp_curve(params, data, "1")
    log_sd, prior_sigma = _gp_curve(params, data, "sigma_1")
    return prior + prior_sigma + _crash(params, data, mean, log_sd)


def _accel_gp_parameters(data):
    shapes = {"Intercept": (real, ()), "Intercept_sigma": (real, ())}
    for name in ("1", "sigma_1"):
        shapes |= {part + name: (positive, ()) for part in ("sdgp_", "lscale_")}
        shapes["zgp_" + name] = (real, data["slambda_" + name].shape[:1])
    return shapes


def _spline_curve(params, data, of=""):
    """A straight line under a flat prior and a spline, and the prior of the spline."""
    z, sd = params[f"zs{of}_1_1"], params[f"sds{of}_1_1"]
    curve = data["Xs" + of] @ params["bs" + of] + data[f"Zs{of}_1_1"] @ (sd * z)
    return curve, d.normal(z, 0.0, 1.0) + d.student_t(sd, 3.0, 0.0, 36.0)


def accel_splines(params, data):
    mean, prior = _spline_curve(params, data)
    log_sd, prior_sigma = _spline_curve(params, data, "_sigma")
    return prior + prior_sigma + _crash(params, data, mean, log_sd)


def _accel_splines_parameters(data):
    shapes = {"Intercept": (real, ()), "Intercept_sigma": (real, ())}
    for of in ("", "_sigma"):
        shapes["bs" + of] = (real, data["Xs" + of].shape[1:])
        shapes[f"zs{of}_1_1"] = (real, data[f"Zs{of}_1_1"].shape[1:])
        shapes[f"sds{of}_1_1"] = (positive, ())
    return shapes


MODELS = {
    "election88_full": Model(election88_full, _election88_parameters, _election88_prepare),
    "logistic_regression_rhs": Model(logistic_regression_rhs, _rhs_parameters),
    "nn_rbm1bJ10": Model(nn_rbm1bj10, _nn_rbm1bj10_parameters, _nn_rbm1bj10_prepare),
    "bym2_offset_only": Model(bym2_offset_only, _bym2_parameters, _bym2_prepare),
    "hierarchical_gp": Model(
        hierarchical_gp, _hierarchical_gp_parameters, _hierarchical_gp_prepare
    ),
    "kronecker_gp": Model(kronecker_gp, _kronecker_gp_parameters),
    "accel_gp": Model(accel_gp, _accel_gp_parameters),
    "accel_splines": Model(accel_splines, _accel_splines_parameters),
}
