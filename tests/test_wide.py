"""The default in hundreds of dimensions: chains in the units of a factorised Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import digamma, polygamma

import bbvi
from bbvi.budget import Purse
from bbvi.diagnostics.chains import expected_gradients
from bbvi.diagnostics.trajectories import LONG
from bbvi.inputs import make_target
from bbvi.stages.gaussians.gaussian_stages import FirstKeys
from bbvi.stages.stage import plain_stage
from bbvi.stages.wide_stages import wide_stages

DIM = 600
SHAPES = np.linspace(3, 30, DIM)


def log_gammas(x, shapes):
    """Independent logarithms of gamma variables, which are skewed."""
    return jnp.sum(shapes * x - jnp.exp(x))


def stages(log_joint, data, dim=DIM, budget=None):
    target, _, data = make_target(log_joint, np.zeros(dim, np.float32), data, None)
    keys = jax.random.split(jax.random.key(0), 6)
    keys = FirstKeys(*keys[:5], list(keys[5:]))
    args = (target, jnp.zeros(dim), keys, data, None, Purse(budget, 0.0), plain_stage)
    return wide_stages(*args)


def test_skewed_in_hundreds_of_dimensions():
    fit = bbvi.fit(log_gammas, np.zeros(DIM, np.float32), SHAPES.astype(np.float32))
    assert fit.verdict.level == "trusted", fit.verdict.reasons
    sd = np.sqrt(polygamma(1, SHAPES))
    assert np.abs((fit.posterior.mean() - digamma(SHAPES)) / sd).max() < 0.1
    assert np.abs(fit.posterior.sd() / sd - 1).max() < 0.1
    assert "chains factorised" in [name for name, _ in fit.timings]
    again = bbvi.fit(log_gammas, fit, SHAPES.astype(np.float32))
    assert again.verdict.level == "trusted", again.verdict.reasons
    assert again.num_gradients < fit.num_gradients


@pytest.mark.slow
def test_a_scale_that_all_effects_share():
    """Of which a factorised Gaussian's sd, that given all else, is a fifth of its own."""
    rng = np.random.default_rng(3)
    noise = rng.uniform(0.5, 2, DIM)
    data = {"noise": noise, "y": 0.5 * rng.normal(size=DIM) + noise * rng.normal(size=DIM)}

    def log_joint(p, data):
        prior = -0.5 * jnp.sum((p["x"] / p["tau"]) ** 2) - DIM * jnp.log(p["tau"])
        prior -= jnp.log1p(p["tau"] ** 2)
        return prior - 0.5 * jnp.sum(((data["y"] - p["x"]) / data["noise"]) ** 2)

    # marginal density of the scale: the effects are normal given it
    tau = np.linspace(1e-3, 3, 20_000)
    total = tau[:, None] ** 2 + noise**2
    log_p = -0.5 * np.sum(data["y"] ** 2 / total + np.log(total), axis=1) - np.log1p(tau**2)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    mean = p @ tau
    sd = np.sqrt(p @ (tau - mean) ** 2)

    fit = bbvi.fit(
        log_joint,
        {"tau": np.float32(1), "x": np.zeros(DIM, np.float32)},
        jax.tree.map(np.float32, data),
        support={"tau": bbvi.positive},
    )
    assert fit.verdict.level == "trusted", fit.verdict.reasons
    assert abs(fit.posterior.mean()["tau"] - mean) < 0.1 * sd
    assert abs(fit.posterior.sd()["tau"] / sd - 1) < 0.1
    share = tau[:, None] ** 2 / total
    means, variances = data["y"] * share, noise**2 * share
    shrunk = p @ means
    spread = np.sqrt(p @ (variances + means**2) - shrunk**2)
    assert np.abs((fit.posterior.mean()["x"] - shrunk) / spread).max() < 0.1


def test_where_they_are_not_tried():
    shapes = SHAPES.astype(np.float32)
    assert stages(log_gammas, shapes[:512], 512) == ([], None)
    few = bbvi.Budget(gradients=2 * expected_gradients(DIM, LONG))
    assert stages(log_gammas, shapes, budget=few) == ([], None)

    def heavy(x, data):
        products = jnp.outer(x, x)
        return log_gammas(x, data) + 0.0 * jnp.sum(jnp.sin(products))

    assert stages(heavy, shapes) == ([], None)


def test_separate_modes_are_left_to_what_comes_next():
    def modes(x, _):
        away = jnp.zeros(DIM).at[0].set(8.0)
        return jnp.logaddexp(-0.5 * jnp.sum((x - away) ** 2), -0.5 * jnp.sum((x + away) ** 2))

    found, starts = stages(modes, np.zeros(1, np.float32))
    assert [stage.name for stage in found] == ["factorised"]
    assert found[0].left_out
    # the next ones begin where this one has ended
    np.testing.assert_array_equal(starts.loc[0], found[0].params["loc"])


@pytest.mark.slow
def test_past_what_a_dense_covariance_allows():
    size = 4000
    shapes = np.linspace(3, 30, size)
    fit = bbvi.fit(log_gammas, np.zeros(size, np.float32), shapes.astype(np.float32))
    assert fit.verdict.level == "trusted", fit.verdict.reasons
    sd = np.sqrt(polygamma(1, shapes))
    assert np.abs((fit.posterior.mean() - digamma(shapes)) / sd).max() < 0.1
    assert np.abs(fit.posterior.sd() / sd - 1).max() < 0.1
