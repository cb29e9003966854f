"""Tests: how able persons are, and how hard the items that they answered."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from bbvi import corr_cholesky, positive, real
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model, numbers


def _table(raw):
    """Answers as (persons, items): everybody answered everything, once."""
    y = np.full((raw["J"], raw["I"]), np.nan)
    y[np.asarray(raw["jj"]) - 1, np.asarray(raw["ii"]) - 1] = raw["y"]
    return y


# --- right or wrong, with items alike ------------------------------------------------------------


def irt_2pl(params, data):
    theta, a, b = params["theta"], params["a"][:, None], params["b"][:, None]
    scales = jnp.stack([params["sigma_" + name] for name in ("theta", "a", "b")])
    prior = d.cauchy(scales, 0.0, 2.0) + d.normal(params["mu_b"], 0.0, 5.0)
    prior += d.normal(theta, 0.0, scales[0]) + d.lognormal(a, 0.0, scales[1])
    prior += d.normal(b, params["mu_b"], scales[2])
    return prior + d.binomial_logit(data["y"], 1.0, a * (theta - b))


def _irt_2pl_parameters(data):
    items, persons = data["y"].shape
    return {
        "sigma_theta": (positive, ()),
        "theta": (real, (persons,)),
        "sigma_a": (positive, ()),
        "a": (positive, (items,)),
        "mu_b": (real, ()),
        "sigma_b": (positive, ()),
        "b": (real, (items,)),
    }


def hier_2pl(params, data):
    """Logs of slopes and difficulties go together over the items."""
    theta, tau, mu = params["theta"], params["tau"], params["mu"]
    xi = jnp.stack([params["xi1"], params["xi2"]])
    z = solve_triangular(tau[:, None] * params["L_Omega"], xi - mu[:, None], lower=True)
    log_det = jnp.sum(jnp.log(tau)) + jnp.sum(jnp.log(jnp.diagonal(params["L_Omega"])))
    prior = d.normal(z, 0.0, 1.0) - xi.shape[1] * log_det + d.normal(theta, 0.0, 1.0)
    prior += d.lkj_cholesky(params["L_Omega"], 4.0) - 0.1 * jnp.sum(tau)
    prior += d.normal(mu, 0.0, jnp.array([1.0, 5.0]))
    return prior + d.binomial_logit(data["y"], 1.0, jnp.exp(xi[0]) * (theta[:, None] - xi[1]))


def _hier_2pl_parameters(data):
    persons, items = data["y"].shape
    return {
        "theta": (real, (persons,)),
        "xi1": (real, (items,)),
        "xi2": (real, (items,)),
        "mu": (real, (2,)),
        "tau": (positive, (2,)),
        "L_Omega": (corr_cholesky, (2, 2)),
    }


def _hier_2pl_prepare(raw):
    return {"y": _table(raw)}


# --- answers in steps, and abilities by what persons are -----------------------------------------


def _centred(free):
    return jnp.append(free, -jnp.sum(free))


def _stepwise(params, data, steps):
    """Of (items, steps); a step that costs infinity is one that the item has not."""
    alpha, theta, slopes = params["alpha"], params["theta"], params["lambda_adj"]
    prior = d.lognormal(alpha, 1.0, 1.0) + d.student_t(slopes, 3.0, 0.0, 1.0)
    prior += d.normal(theta, data["W"] @ slopes, 1.0)
    costs = jnp.pad(jnp.cumsum(steps, axis=1), ((0, 0), (1, 0)))
    level = jnp.arange(costs.shape[1])
    eta = theta[:, None] * alpha
    log_p = jax.nn.log_softmax(level * eta[..., None] - costs)
    return prior + jnp.sum(jnp.where(data["y"][..., None] == level, log_p, 0.0))


def two_pl_latent_reg_irt(params, data):
    beta = _centred(params["beta_free"])
    return d.normal(beta, 0.0, 3.0) + _stepwise(params, data, beta[:, None])


def grsm_latent_reg_irt(params, data):
    """Steps are the same for all items but for a shift."""
    beta, kappa = _centred(params["beta_free"]), _centred(params["kappa_free"])
    prior = d.normal(beta, 0.0, 3.0) + d.normal(kappa, 0.0, 3.0)
    return prior + _stepwise(params, data, beta[:, None] + kappa)


def gpcm_latent_reg_irt(params, data):
    """Each item has its own steps, and its own number of them."""
    beta = _centred(params["beta_free"])
    steps = jnp.append(beta, jnp.inf)[data["step"].astype(int)]
    return d.normal(beta, 0.0, 3.0) + _stepwise(params, data, steps)


def _latent_reg_parameters(free):
    """`free(data)` has the sizes of what is free of the steps."""

    def parameters(data):
        (persons, items), covariates = data["y"].shape, data["W"].shape[1]
        return {
            "alpha": (positive, (items,)),
            **{name: (real, (size,)) for name, size in free(data).items()},
            "theta": (real, (persons,)),
            "lambda_adj": (real, (covariates,)),
        }

    return parameters


def _two_pl_free(data):
    return {"beta_free": data["y"].shape[1] - 1}


def _grsm_free(data):
    return _two_pl_free(data) | {"kappa_free": int(data["y"].max()) - 1}


def _gpcm_free(data):
    return {"beta_free": int(data["step"].max())}


def _latent_reg_prepare(raw):
    w = np.array(raw["W"], float)
    # Two sds for columns of two values as well: the count by which the Stan program would tell
    # them is never above 1, for its comparison comes after its sum.
    w[:, 1:] = (w[:, 1:] - w[:, 1:].mean(0)) / (2 * w[:, 1:].std(0, ddof=1))
    return {"y": _table(raw), "W": w}


def _gpcm_prepare(raw):
    """Places of the steps among all of beta, and -1 where the item has no such step."""
    data = _latent_reg_prepare(raw)
    top = data["y"].max(0)
    there = np.arange(top.max()) < top[:, None]
    step = np.where(there, np.cumsum(there).reshape(there.shape) - 1, -1)
    return data | numbers({"step": step})


MODELS = {
    "irt_2pl": Model(irt_2pl, _irt_2pl_parameters),
    "2pl_latent_reg_irt": Model(
        two_pl_latent_reg_irt, _latent_reg_parameters(_two_pl_free), _latent_reg_prepare
    ),
    "grsm_latent_reg_irt": Model(
        grsm_latent_reg_irt, _latent_reg_parameters(_grsm_free), _latent_reg_prepare
    ),
    "gpcm_latent_reg_irt": Model(
        gpcm_latent_reg_irt, _latent_reg_parameters(_gpcm_free), _gpcm_prepare
    ),
    "hier_2pl": Model(hier_2pl, _hier_2pl_parameters, _hier_2pl_prepare),
}
