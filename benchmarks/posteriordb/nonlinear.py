"""Gaussian processes, a mixture and differential equations."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import logsumexp

from bbvi import ordered, positive, real, unit_interval

from . import density as d
from .model import Model

# --- Gaussian processes --------------------------------------------------------------------

JITTER = 1e-10  # the Stan program's; too little for float32


def _squared_distances(x):
    return (x[:, None] - x[None, :]) ** 2


def _exp_quad(x, alpha, rho):
    return alpha**2 * jnp.exp(-0.5 * _squared_distances(x) / rho**2)


def gp_regr(params, data):
    rho, alpha, sigma = params["rho"], params["alpha"], params["sigma"]
    # sigma, and not its square, is what the Stan program adds to the diagonal
    cov = _exp_quad(data["x"], alpha, rho) + sigma * jnp.eye(len(data["x"]))
    chol = jnp.linalg.cholesky(cov)
    z = solve_triangular(chol, data["y"], lower=True)
    prior = d.gamma(rho, 25.0, 4.0) + d.normal(alpha, 0.0, 2.0) + d.normal(sigma, 0.0, 1.0)
    return prior - 0.5 * jnp.sum(z * z) - jnp.sum(jnp.log(jnp.diagonal(chol)))


def _gp_regr_parameters(data):
    return {name: (positive, ()) for name in ("rho", "alpha", "sigma")}


def gp_pois_regr(params, data):
    rho, alpha, f_tilde = params["rho"], params["alpha"], params["f_tilde"]
    cov = _exp_quad(data["x"], alpha, rho) + JITTER * jnp.eye(len(data["x"]))
    f = jnp.linalg.cholesky(cov) @ f_tilde
    prior = d.gamma(rho, 25.0, 4.0) + d.normal(alpha, 0.0, 2.0) + d.normal(f_tilde, 0.0, 1.0)
    return prior + d.poisson_log(data["k"], f)


def _gp_pois_regr_parameters(data):
    return {"rho": (positive, ()), "alpha": (positive, ()), "f_tilde": (real, data["x"].shape)}


def _whiten(draws, data):
    rho, alpha = draws["rho"], draws["alpha"]
    cov = np.exp(-0.5 * _squared_distances(data["x"]) / rho[:, None, None] ** 2)
    cov = alpha[:, None, None] ** 2 * cov + JITTER * np.eye(len(data["x"]))
    f_tilde = np.linalg.solve(np.linalg.cholesky(cov), draws["f"][..., None])[..., 0]
    return {"rho": rho, "alpha": alpha, "f_tilde": f_tilde}


# --- a mixture -----------------------------------------------------------------------------


def low_dim_gauss_mix(params, data):
    mu, sigma, theta = params["mu"], params["sigma"], params["theta"]
    z = (data["y"][:, None] - mu) / sigma
    log_weights = jnp.stack([jnp.log(theta), jnp.log1p(-theta)])
    prior = d.normal(sigma, 0.0, 2.0) + d.normal(mu, 0.0, 2.0) + d.beta(theta, 5.0, 5.0)
    return prior + jnp.sum(logsumexp(log_weights - 0.5 * z * z - jnp.log(sigma), axis=1))


def _low_dim_gauss_mix_parameters(data):
    return {"mu": (ordered, (2,)), "sigma": (positive, (2,)), "theta": (unit_interval, ())}


# --- Lotka-Volterra ------------------------------------------------------------------------

# A year in 32 steps: the path is off by less than 6e-8 of its size over the reference draws.
SUBSTEPS = 32


def _log_populations(theta, z_init, times):
    """log(prey, predator) at `times`: classical Runge-Kutta on the logarithms."""
    alpha, beta, gamma, delta = theta

    def rate(w):
        u, v = jnp.exp(w)
        return jnp.stack([alpha - beta * v, delta * u - gamma])

    def to_next(w, width):
        h = width / SUBSTEPS

        def step(w, _):
            k1 = rate(w)
            k2 = rate(w + 0.5 * h * k1)
            k3 = rate(w + 0.5 * h * k2)
            k4 = rate(w + h * k3)
            return w + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

        w, _ = jax.lax.scan(step, w, None, length=SUBSTEPS)
        return w, w

    _, path = jax.lax.scan(to_next, jnp.log(z_init), jnp.diff(times, prepend=0.0))
    return path


def lotka_volterra(params, data):
    theta, z_init, sigma = params["theta"], params["z_init"], params["sigma"]
    prior = d.normal(theta[::2], 1.0, 0.5) + d.normal(theta[1::2], 0.05, 0.05)
    prior += d.lognormal(sigma, -1.0, 1.0) + d.lognormal(z_init, jnp.log(10.0), 1.0)
    path = _log_populations(theta, z_init, data["ts"])
    first = d.lognormal(data["y_init"], jnp.log(z_init), sigma)
    return prior + first + d.lognormal(data["y"], path, sigma)


def _lotka_volterra_parameters(data):
    return {"theta": (positive, (4,)), "z_init": (positive, (2,)), "sigma": (positive, (2,))}


# --- one compartment, Michaelis-Menten elimination -----------------------------------------

# Five-stage, fourth-order, L-stable, singly diagonally implicit Runge-Kutta method with
# diagonal 1/4; the last stage is the new value.
_SDIRK = (
    (1 / 4, ()),
    (3 / 4, (1 / 2,)),
    (11 / 20, (17 / 50, -1 / 25)),
    (1 / 2, (371 / 1360, -137 / 2720, 15 / 544)),
    (1.0, (25 / 24, -49 / 48, 125 / 16, -85 / 12)),
)
_FIRST, _OTHERS = 32, 8  # steps in the first interval between observations, and in the others


def _concentrations(k_a, k_m, v_m, dose, volume, times):
    """Concentrations at `times` of first-order absorption and saturable elimination.

    y' = k_a dose / volume exp(-k_a t) - (v_m / volume) y / (k_m + y), y(0) = 0. An implicit stage
    is the positive root of a quadratic, so no iteration is needed. The steps of the first interval
    are graded towards 0, where the elimination saturates within about k_m volume / (k_a dose).
    The path is off by less than 7e-9 of its size over the reference draws.
    """
    rate_in, rate_out = dose * k_a / volume, v_m / volume

    def stage(known, source, h):
        b = known + 0.25 * h * source
        p = k_m - b + 0.25 * h * rate_out
        root = jnp.sqrt(jnp.maximum(p * p + 4 * b * k_m, jnp.finfo(p.dtype).tiny))
        # the root written without cancellation on either side of p = 0
        safe = jnp.where(p > 0, p + root, 1.0)
        return jnp.where(p > 0, 2 * b * k_m / safe, 0.5 * (root - p))

    def step(y, start_width):
        start, h = start_width
        slopes = []
        for c, row in _SDIRK:
            source = rate_in * jnp.exp(-k_a * (start + c * h))
            known = y + h * sum(a * slope for a, slope in zip(row, slopes, strict=True))
            value = stage(known, source, h)
            slopes.append(source - rate_out * value / (k_m + value))
        return value, value

    graded = times[0] * (jnp.arange(_FIRST + 1) / _FIRST) ** 4
    later = times[:-1, None] + jnp.diff(times)[:, None] * jnp.arange(1, _OTHERS + 1) / _OTHERS
    grid = jnp.concatenate([graded, later.reshape(-1)])
    _, path = jax.lax.scan(step, jnp.zeros_like(k_a * k_m), (grid[:-1], jnp.diff(grid)))
    return path[_FIRST - 1 :: _OTHERS]


def one_comp_mm_elim_abs(params, data):
    k_a, k_m, v_m, sigma = (params[name] for name in ("k_a", "K_m", "V_m", "sigma"))
    path = _concentrations(k_a, k_m, v_m, data["D"], data["V"], data["times"])
    prior = d.cauchy(jnp.stack([k_a, k_m, v_m, sigma]), 0.0, 1.0)
    return prior + d.lognormal(data["C_hat"], jnp.log(path), sigma)


def _one_comp_parameters(data):
    return {name: (positive, ()) for name in ("k_a", "K_m", "V_m", "sigma")}


MODELS = {
    "gp_regr": Model(gp_regr, _gp_regr_parameters),
    "gp_pois_regr": Model(gp_pois_regr, _gp_pois_regr_parameters, from_reference=_whiten),
    "low_dim_gauss_mix": Model(low_dim_gauss_mix, _low_dim_gauss_mix_parameters),
    "lotka_volterra": Model(lotka_volterra, _lotka_volterra_parameters),
    "one_comp_mm_elim_abs": Model(one_comp_mm_elim_abs, _one_comp_parameters),
}
