"""Animals caught again, species seen at sites, and counts by year and site."""

import jax
import jax.numpy as jnp
import numpy as np

from bbvi import interval, positive, real, unit_interval
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model, numbers

# --- captures, in a population to which animals never seen are added -----------------------------


def _augmented(omega, y, log_histories):
    """Each animal is there with probability omega; one that was caught is."""
    there = jnp.log(omega) + jnp.sum(log_histories, axis=1)
    either = jnp.logaddexp(there, jnp.log1p(-omega))
    return jnp.sum(jnp.where(jnp.any(y > 0, axis=1), there, either))


def _by_chance(params, data, p):
    y = data["y"]
    return _augmented(params["omega"], y, y * jnp.log(p) + (1 - y) * jnp.log1p(-p))


def same_chance(params, data):
    """One chance for all, or one of each occasion."""
    return _by_chance(params, data, params["p"])


def mb_model(params, data):
    """Another chance after a capture."""
    p = jnp.where(data["before"] == 1, params["c"], params["p"])
    return _by_chance(params, data, p)


def _by_animal(params, data, shift):
    """Animals differ in logits; `n` trials an occasion."""
    mean, eps, y = params["mean_p"], params["eps_raw"], data["y"]
    eta = jnp.log(mean) - jnp.log1p(-mean) + params["sigma"] * eps[:, None] + shift
    histories = y * eta - data["n"] * jnp.logaddexp(0.0, eta)
    return d.normal(eps, 0.0, 1.0) + _augmented(params["omega"], y, histories)


def own_chance(params, data):
    """Occasions as one, or apart."""
    return _by_animal(params, data, 0.0)


def mtbh_model(params, data):
    gamma = params["gamma"]
    return d.normal(gamma, 0.0, 10.0) + _by_animal(params, data, gamma * data["before"])


def _m0_parameters(data):
    return {"omega": (unit_interval, ()), "p": (unit_interval, ())}


def _mb_parameters(data):
    return _m0_parameters(data) | {"c": (unit_interval, ())}


def _mt_parameters(data):
    return {"omega": (unit_interval, ()), "p": (unit_interval, data["y"].shape[1:])}


def _own_parameters(widest, occasions, **others):
    """Of Mh, Mth and Mtbh, which differ in the bound of sigma and the shape of mean_p."""

    def parameters(data):
        animals, columns = data["y"].shape
        return {
            "omega": (unit_interval, ()),
            "mean_p": (unit_interval, (columns,) if occasions else ()),
            **others,
            "sigma": (interval(0.0, widest), ()),
            "eps_raw": (real, (animals,)),
        }

    return parameters


def _histories(raw):
    y = np.asarray(raw["y"], float)  # (animals, occasions)
    return {"y": y, "before": np.pad(y[:, :-1], ((0, 0), (1, 0))), "n": np.array(1.0)}


def _totals(raw):
    return {"y": np.asarray(raw["y"], float)[:, None], "n": np.array(float(raw["T"]))}


# --- butterflies at sites, with species never seen -----------------------------------------------


def multi_occupancy(params, data):
    """A species is at a site or not, and is seen in some of the visits if it is."""
    x, visits, available = data["X"], data["K"], params["Omega"]
    observed, sites = x.shape
    u, v, rho, sigma = params["uv1"], params["uv2"], params["rho_uv"], params["sigma_uv"]
    prior = d.cauchy(params["alpha"], 0.0, 2.5) + d.cauchy(params["beta"], 0.0, 2.5)
    prior += d.cauchy(sigma, 0.0, 2.5) + d.beta(available, 2.0, 2.0)
    prior += jnp.log1p(rho) + jnp.log1p(-rho)
    prior += d.normal(u, 0.0, sigma[0])
    left = sigma[1] * jnp.sqrt((1 - rho) * (1 + rho))
    prior += d.normal(v, rho * sigma[1] / sigma[0] * u, left)

    psi, theta = params["alpha"] + u, params["beta"] + v
    there_unseen = jax.nn.log_sigmoid(psi) - visits * jnp.logaddexp(0.0, theta)
    unseen = jnp.logaddexp(there_unseen, jax.nn.log_sigmoid(-psi))
    seen = there_unseen[:observed, None] + x * theta[:observed, None]
    known = jnp.sum(jnp.where(x > 0, seen, unseen[:observed, None]))
    known += observed * jnp.log(available)
    hidden = jnp.logaddexp(jnp.log(available) + sites * unseen[observed:], jnp.log1p(-available))
    return prior + known + jnp.sum(hidden)


def _occupancy_parameters(data):
    species = int(data["S"])
    return {
        "alpha": (real, ()),
        "beta": (real, ()),
        "Omega": (unit_interval, ()),
        "rho_uv": (interval(-1.0, 1.0), ()),
        "sigma_uv": (positive, (2,)),
        "uv1": (real, (species,)),
        "uv2": (real, (species,)),
    }


# --- counts of falcons by year, and of tits by site ----------------------------------------------


def _curve(params, data):
    names = ("beta3", "beta2", "beta1", "alpha")
    return jnp.polyval(jnp.stack([params[n] for n in names if n in params]), data["year"])


def glm_poisson_model(params, data):
    return d.poisson_log(data["C"], _curve(params, data))


def glm_binomial_model(params, data):
    prior = sum(d.normal(params[name], 0.0, 100.0) for name in ("alpha", "beta1", "beta2"))
    return prior + d.binomial_logit(data["C"], data["N"], _curve(params, data))


def glmm_poisson_model(params, data):
    eps = params["eps"]
    prior = d.normal(eps, 0.0, params["sigma"])
    return prior + d.poisson_log(data["C"], _curve(params, data) + eps)


def glmm1_model(params, data):
    alpha, mu = params["alpha"], params["mu_alpha"]
    prior = d.normal(mu, 0.0, 10.0) + d.normal(alpha, mu, params["sd_alpha"])
    return prior + d.poisson_log(data["obs"], alpha[data["obssite"].astype(int)])


def _glm_poisson_parameters(data):
    betas = {name: (interval(-10.0, 10.0), ()) for name in ("beta1", "beta2", "beta3")}
    return {"alpha": (interval(-20.0, 20.0), ()), **betas}


def _glm_binomial_parameters(data):
    return {name: (real, ()) for name in ("alpha", "beta1", "beta2")}


def _glmm_poisson_parameters(data):
    # the Stan program declares beta2 up to 20, where its uniform prior has ended at 10
    curve = _glm_poisson_parameters(data)
    return curve | {"eps": (real, data["C"].shape), "sigma": (interval(0.0, 5.0), ())}


def _glmm1_parameters(data):
    sites = (int(data["nsite"]),)
    return {"alpha": (real, sites), "mu_alpha": (real, ()), "sd_alpha": (interval(0.0, 5.0), ())}


def _glmm1_prepare(raw):
    data = numbers({name: raw[name] for name in ("obs", "obssite", "nsite")})
    return data | {"obssite": data["obssite"] - 1}


MODELS = {
    "M0_model": Model(same_chance, _m0_parameters, _histories),
    "Mb_model": Model(mb_model, _mb_parameters, _histories),
    "Mh_model": Model(own_chance, _own_parameters(5.0, occasions=False), _totals),
    "Mt_model": Model(same_chance, _mt_parameters, _histories),
    "Mtbh_model": Model(
        mtbh_model, _own_parameters(3.0, occasions=True, gamma=(real, ())), _histories
    ),
    "Mth_model": Model(own_chance, _own_parameters(5.0, occasions=True), _histories),
    "multi_occupancy": Model(multi_occupancy, _occupancy_parameters),
    "GLM_Poisson_model": Model(glm_poisson_model, _glm_poisson_parameters),
    "GLM_Binomial_model": Model(glm_binomial_model, _glm_binomial_parameters),
    "GLMM_Poisson_model": Model(glmm_poisson_model, _glmm_poisson_parameters),
    "GLMM1_model": Model(glmm1_model, _glmm1_parameters, _glmm1_prepare),
}
