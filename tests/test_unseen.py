"""Mass that no draw of a Gaussian fit has met."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbvi
from bbvi.examples import eight_schools
from bbvi.families import CouplingFlow, Frame, FullRankGaussian
from bbvi.inputs import make_target
from bbvi.stages.unseen import (
    affine_space,
    base_space,
    log_gaussian,
    log_mixture_of,
    most_unseen_gradients,
    unseen_mass,
)

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
    space = affine_space(posterior.target, frame, log_gaussian(frame), DATA)
    return unseen_mass(posterior.target, space, fit.diagnostics, jax.random.key(key), DATA)


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


@pytest.mark.parametrize("family", [FullRankGaussian(), CouplingFlow(layers=2, width=4)])
def test_spaces_agree_on_weights(family):
    """Of log weights, in units of a frame and in a base space, up to a constant."""
    target, _, _ = make_target(lambda z: -0.5 * jnp.sum(z**4), np.zeros(3), None, None)
    params = family.init(jnp.array([0.3, 0.0, -0.2]), jnp.array([0.5, 1.0, 2.0]))
    frame = family.frame(jax.device_get(params))
    flow = isinstance(family, CouplingFlow)
    log_mixture = log_mixture_of(target, family, params) if flow else log_gaussian(dense(frame))
    one = affine_space(target, dense(frame), log_mixture, None)
    z = np.random.default_rng(0).normal(size=(64, 3))
    spaces = [one, base_space(target, family, params, None)] if flow else [one]
    weights = []
    for space in spaces:
        x = space.enter(z)
        back, log_p, slope = space.density(x)
        np.testing.assert_allclose(back, z, atol=1e-6)
        moved = x.copy()
        moved[:, 0] += 1e-4
        change = (space.density(moved)[1] - log_p) / 1e-4
        np.testing.assert_allclose(change, slope[:, 0], rtol=0.01, atol=0.01)
        weights.append(space.log_ratio(x, z, log_p))
    proposal = family.propose(params, jax.random.key(0), 64)
    exact = log_mixture(np.asarray(proposal.z))
    np.testing.assert_allclose(exact, proposal.log_mixture, rtol=1e-6)
    for other in weights[1:]:
        gap = np.asarray(weights[0] - other)
        np.testing.assert_allclose(gap, gap[0], atol=1e-6)


def dense(frame):
    scale = np.asarray(frame.scale)
    return Frame(np.asarray(frame.loc), np.diag(scale) if scale.ndim == 1 else scale)


def test_logarithms_that_go_on_for_ever_do_not_count_where_their_exponential_is_zero(monkeypatch):
    """Of the schools' scale 1 to 2% is so near zero, and moves nothing by more than 0.02 sd."""
    # draws far out would make its weights even
    monkeypatch.setattr(bbvi.stages.judged, "squares_heavy", lambda d: False)
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
