"""Mass that no draw of a Gaussian fit has met."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbvi
from bbvi.examples import eight_schools
from bbvi.unseen import log_gaussian, most_unseen_gradients, unseen_mass

pytestmark = pytest.mark.usefixtures("x64")
EFFECTS, NOISE = 20, 0.2
DATA = {"y": np.random.default_rng(EFFECTS).normal(size=EFFECTS)}


def product(params, data):
    """Effects that are known by their product with a scale: where it is large they are narrow."""
    miss = (params["sd"] * params["raw"] - data["y"]) / NOISE
    return -0.5 * (jnp.sum(params["raw"] ** 2) + params["sd"] ** 2 + jnp.sum(miss**2))


def normal(params, data):
    return -0.5 * (jnp.sum((params["raw"] - data["y"]) ** 2) + (params["sd"] - 1) ** 2)


def found_by(log_joint, key):
    """What trajectories find beyond the draws of a matched Gaussian."""
    init = {"raw": np.zeros(EFFECTS), "sd": 1.0}
    support = {"sd": bbvi.positive} if log_joint is product else None
    fit = bbvi.fit(
        log_joint, init, DATA, support=support, solver=bbvi.BatchAndMatch(), key=key, throw=False
    )
    assert fit.diagnostics.khat < 0.5  # weights say nothing against it
    posterior = fit.posterior
    frame = posterior.family.frame(jax.device_get(posterior.params))
    args = (frame, log_gaussian(frame), fit.diagnostics, jax.random.key(key), DATA)
    return unseen_mass(posterior.target, *args)


@pytest.mark.parametrize("key", [0, 2, 7])
def test_a_posterior_that_narrows_has_mass_that_no_draw_of_a_gaussian_meets(key):
    moved, spent, points = found_by(product, key)
    assert len(points) > 0
    assert 0.025 < moved < 0.3
    assert 0 < spent <= most_unseen_gradients(EFFECTS + 1)


@pytest.mark.parametrize("key", range(3))
def test_beyond_the_draws_of_an_exact_fit_there_is_nothing(key):
    moved, spent, _ = found_by(normal, key)
    assert moved == 0
    assert spent > 0


def test_logarithms_that_go_on_for_ever_do_not_count_where_their_exponential_is_zero():
    """Of the schools' scale 1 to 2% is so near zero, and moves nothing by more than 0.02 sd."""
    example = eight_schools()
    args = (example.log_joint, example.init, example.data)
    result = bbvi.fit(*args, support=example.support, key=0)
    assert 0.4 < result.diagnostics.khat < 0.5  # so uneven that it was looked for
    assert result.verdict.level == "trusted"
    assert result.num_gradients < 30_000  # chains cost more


@pytest.mark.parametrize("key", range(2))
def test_the_default_finds_it(key):
    """The effects can be integrated out: y has the variance sd^2 + noise^2."""
    init = {"raw": np.zeros(EFFECTS), "sd": 1.0}
    result = bbvi.fit(product, init, DATA, support={"sd": bbvi.positive}, key=key)
    sd = np.linspace(0.01, 6, 4000)
    variance = sd**2 + NOISE**2
    log_p = -0.5 * sd**2 - 0.5 * EFFECTS * np.log(variance)
    log_p = log_p - 0.5 * np.sum(DATA["y"] ** 2) / variance
    weights = np.exp(log_p - log_p.max())
    weights /= weights.sum()
    mean = weights @ sd
    spread = np.sqrt(weights @ (sd - mean) ** 2)
    assert result.verdict.level == "trusted"
    assert abs(result.posterior.mean()["sd"] - mean) < 0.1 * spread
    assert abs(result.posterior.sd()["sd"] / spread - 1) < 0.1
