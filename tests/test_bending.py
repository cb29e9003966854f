"""Bent Gaussians: their map and density, their fit to draws, and the stages made of them."""

from functools import cache, reduce

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbvi
from bbvi.budget import Purse
from bbvi.diagnostics.chain_checks import moved_on
from bbvi.diagnostics.fresh_draws import diagnose
from bbvi.families import BentGaussian, FullRankGaussian, TriangularGaussian
from bbvi.families.bent import CURVED, KNOTS, feature_sizes
from bbvi.inputs import make_target
from bbvi.stages.bent.bending import bend
from bbvi.stages.bent.bent_stages import bends
from bbvi.stages.bent.following import follow
from bbvi.stages.gaussians.gaussian_stages import FirstKeys, first_stages
from bbvi.stages.ranking import better
from bbvi.stages.stage import plain_stage
from bbvi.stages.unseen import base_space

pytestmark = pytest.mark.usefixtures("x64")
FAMILY = BentGaussian()


def a_member(dim, drivers, roundness=1.0, rate=0.0, curved=False, seed=0):
    """A member whose drivers are the last coordinates."""
    rng = np.random.default_rng(seed)
    order = np.roll(np.arange(dim), drivers).astype(np.int32)
    factor = np.tril(0.3 * rng.normal(size=(dim, dim)), -1) + np.diag(rng.uniform(0.5, 2, dim))
    factor[drivers:, :drivers] = 0
    means, widths = (0.2 * rng.normal(size=(size, dim)) for size in feature_sizes(dim))
    most = len(widths) // 2
    widths[most:] *= 0.5
    alone = np.arange(most) < drivers
    one, other = np.triu_indices(most, 1)
    pairs = (one < drivers) & (other < drivers)
    curves = np.repeat((alone & curved)[:CURVED], len(KNOTS))
    means[~np.concatenate([np.tile(alone, 3), np.tile(pairs, 5), curves])] = 0
    widths[~np.tile(alone, 2)] = 0
    means[:, :drivers] = widths[:, :drivers] = 0
    shape = np.stack([np.full(most, roundness), np.full(most, rate)])
    params = FAMILY.join(shape, order, rng.normal(size=dim), factor, means, widths)
    return jax.tree.map(jnp.asarray, params)


@pytest.mark.parametrize(
    ("roundness", "rate", "curved"),
    [(1.0, 0.0, False), (0.25, 0.0, False), (1.0, 1.5, False), (0.25, 0.0, True)],
)
@pytest.mark.parametrize(("dim", "drivers"), [(2, 1), (5, 1), (7, 3), (8, 5)])
def test_its_density_is_that_of_its_draws(dim, drivers, roundness, rate, curved):
    params = a_member(dim, drivers, roundness, rate, curved)
    eps = np.random.default_rng(1).normal(size=(50, dim))
    z, log_q = FAMILY.reparam(params, eps)
    jacobian = jax.vmap(jax.jacfwd(lambda e: FAMILY.reparam(params, e[None])[0][0]))(eps)
    log_det = np.linalg.slogdet(jacobian)[1]
    expected = -0.5 * np.sum(eps**2, 1) - log_det - 0.5 * dim * np.log(2 * np.pi)
    np.testing.assert_allclose(log_q, expected, rtol=1e-9)
    np.testing.assert_allclose(FAMILY.log_prob(params, z), log_q, rtol=1e-9)
    np.testing.assert_allclose(FAMILY.normals(params, z), eps, rtol=1e-7, atol=1e-9)


def test_unbent_it_is_a_gaussian():
    factor = np.array([[1.0, 0.0, 0.0], [0.5, 2.0, 0.0], [-1.0, 0.3, 0.7]])
    loc = np.array([1.0, 2.0, 3.0])
    eps = np.random.default_rng(0).normal(size=(20, 3))
    gaussian = FullRankGaussian()
    found = FAMILY.reparam(FAMILY.init(jnp.asarray(loc), jnp.asarray(factor)), eps)
    expected = gaussian.reparam(gaussian.init(jnp.asarray(loc), jnp.asarray(factor)), eps)
    jax.tree.map(np.testing.assert_allclose, found, expected)


@pytest.mark.parametrize(("drivers", "rate"), [(1, 0.0), (2, 0.0), (2, 1.0)])
def test_its_frame_has_its_mean_and_nearly_its_covariance(drivers, rate):
    params = a_member(6, drivers, rate=rate)
    z = FAMILY.reparam(params, np.random.default_rng(0).normal(size=(400_000, 6)))[0]
    x = np.asarray(FAMILY.frame(params).invert(z))
    np.testing.assert_allclose(x.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(np.cov(x.T), np.eye(6), atol=0.1)
    on_host = FAMILY.frame(jax.device_get(params))
    jax.tree.map(np.testing.assert_allclose, on_host, FAMILY.frame(params))


@pytest.mark.parametrize("roundness", [1.0, 0.25])
def test_a_fit_finds_a_ridge(roundness):
    """What bends and does not narrow."""
    params = a_member(7, 1, roundness)
    params["widths"] = 0 * params["widths"]
    fitted = fit_to(params)
    assert fitted["shape"][0, 0] == roundness
    assert not fitted["shape"][1].any()


def test_a_fit_finds_a_curve():
    params = a_member(7, 1, curved=True)
    params["widths"] = 0 * params["widths"]
    fitted = fit_to(params)
    assert fitted["means"][-CURVED * len(KNOTS) :].any()


def test_a_curve_follows_a_ridge_to_where_no_draws_are():
    """x_j ~ N(b_j v^2, 0.1), of which all draws have v in (-1, 1)."""
    rng, slopes = np.random.default_rng(0), np.linspace(0.3, 1, 10)

    def ridge(z):
        return -0.5 * z[0] ** 2 - 0.5 * jnp.sum(((z[1:] - slopes * z[0] ** 2) / 0.1) ** 2)

    v = rng.uniform(-1, 1, size=4000)
    params = bend(
        np.column_stack([v, slopes * v[:, None] ** 2 + 0.1 * rng.normal(size=(4000, 10))])
    )
    target, _, _ = make_target(ridge, np.zeros(11), None, None)
    space = base_space(target, FAMILY, params, None)
    followed, spent = follow(space, params, 64, rng)
    assert 0 < spent <= 4000
    # on the ridge, nearly twice as far out as any draw: at normals of zero but for v
    eps = np.zeros((2, 11))
    eps[:, 0] = 1.8 / v.std() * np.array([-1, 1])
    for member, near in ((params, False), (followed, True)):
        z = np.asarray(FAMILY.reparam(jax.tree.map(jnp.asarray, member), eps)[0])
        miss = np.abs(z[:, 1:] - slopes * z[:, :1] ** 2).max() / 0.1
        assert (miss < 1) == near


@pytest.mark.parametrize("side", [-1, 1])
def test_a_fit_finds_effects_of_a_scale(side):
    """Normal given their log scale and data: means and widths come to rest as both get small."""
    rng, number = np.random.default_rng(0), 6
    y, sd = rng.normal(size=number), rng.uniform(0.5, 2, number)
    s = 0.5 * rng.normal(size=20_000)
    variance = 1 / (1 / sd**2 + np.exp(-2 * s)[:, None])
    x = variance * y / sd**2 + np.sqrt(variance) * rng.normal(size=(len(s), number))
    params = bend(np.column_stack([x, side * s]))
    assert params["order"][0] == number
    assert params["shape"][1, 0] > 0 and not params["shape"][1, 1:].any()
    # far out, where there were no draws: four sds
    where = np.full(1000, -2.0)
    narrow = np.exp(where)[:, None] * rng.normal(size=(len(where), number))
    log_q = FAMILY.log_prob(
        jax.tree.map(jnp.asarray, params), np.column_stack([narrow, side * where])
    )
    log_p = -0.5 * (4**2 + np.log(2 * np.pi)) - np.log(0.5)
    log_p = log_p - 0.5 * np.sum(narrow**2, 1) * np.exp(4) - number * (-2 + 0.919)
    assert abs(np.mean(log_p - np.asarray(log_q))) < 2


def fit_to(params):
    """A fit to draws of a member, which is as good as it is."""
    eps = np.random.default_rng(2).normal(size=(20_000, len(params["loc"])))
    z, log_q = FAMILY.reparam(params, eps)
    fitted = bend(np.asarray(z))
    gap = np.asarray(log_q - FAMILY.log_prob(jax.tree.map(jnp.asarray, fitted), z))
    # twice the divergence is near the number of parameters over that of draws
    assert abs(np.mean(gap)) < 0.01
    return fitted


def test_drivers_are_as_many_as_there_are():
    params = a_member(9, 2)
    z = FAMILY.reparam(params, np.random.default_rng(2).normal(size=(8_000, 9)))[0]
    fitted = bend(np.asarray(z))
    assert set(fitted["order"][:2]) == {7, 8}


@pytest.mark.parametrize("dim", [1, 2, 30])
def test_draws_of_a_gaussian_do_not_bend(dim):
    rng = np.random.default_rng(dim)
    assert bend(rng.normal(size=(8_000, dim)) @ rng.normal(size=(dim, dim))) is None


def matched(log_joint, dim):
    """A Gaussian, moved to the moments of its weighted draws, as a stage has it."""
    target, _, _ = make_target(log_joint, jnp.zeros(dim), None, None)
    keys = jax.random.split(jax.random.key(0), 8)
    keys = FirstKeys(*keys[:4], keys[0], list(keys[4:]))
    purse = Purse(None, 0.0)
    return reduce(
        better, first_stages(target, jnp.zeros(dim), keys, None, None, purse, plain_stage).stages
    )


def banana(x):
    return -0.5 * (x[0] ** 2 + ((x[1] - x[0] ** 2) / 0.5) ** 2 + jnp.sum(x[2:] ** 2))


@pytest.mark.parametrize(
    ("log_joint", "dim", "bent"),
    [
        (banana, 2, True),
        (banana, 12, True),
        # skewed, heavy-tailed, on a wall: none of them bends
        (lambda x: jnp.sum(x - jnp.exp(x)), 20, False),
        (lambda x: -4.5 * jnp.log1p(jnp.sum(x**2) / 4), 5, False),
        (lambda x: -jnp.sum(jnp.abs(x)), 6, False),
    ],
)
def test_weighted_draws_show_bends_or_none(log_joint, dim, bent):
    assert bends(matched(log_joint, dim), jax.random.key(1)) == bent


@pytest.mark.parametrize("key", range(3))
def test_a_banana_needs_no_chains(key):
    """It took 106,000 to 246,000 gradients; with ten more coordinates an sd was 10% short."""
    result = bbvi.fit(banana, jnp.zeros(10), key=key)
    assert result.verdict.level == "trusted"
    assert isinstance(result.posterior.family, BentGaussian | TriangularGaussian)
    assert result.num_gradients < 30_000
    sd = np.sqrt(np.array([1, 2.25] + [1.0] * 8))
    assert np.all(np.abs(result.posterior.mean() - np.eye(10)[1]) < 0.05 * sd)
    np.testing.assert_allclose(result.posterior.sd(), sd, rtol=0.05)


def test_draws_that_do_not_vary_have_no_fit():
    draws = np.random.default_rng(0).normal(size=(100, 3))
    with pytest.raises(np.linalg.LinAlgError, match="do not vary"):
        bend(draws * [1, 0, 1])
    with pytest.raises(np.linalg.LinAlgError, match="do not vary"):
        bend(draws * [1, np.nan, 1])


def test_it_is_not_fitted_step_by_step():
    params = a_member(3, 1)
    with pytest.raises(NotImplementedError, match="fitted to draws"):
        FAMILY.to_frame(params, FAMILY.frame(params))


def test_moments_that_move_are_told_from_noise():
    target, _, _ = make_target(lambda z: -0.5 * jnp.sum(z**2), np.zeros(2), None, None)
    gaussian = FullRankGaussian()
    params = gaussian.init(jnp.zeros(2), jnp.ones(2))
    d = jax.device_get(diagnose(target, gaussian, params, jax.random.key(0), None))
    still = d.corrected._replace(mean_se=np.full(2, 0.005), sd_se=np.full(2, 0.005))
    sd = np.asarray(still.sd)
    assert not moved_on(d, still, still._replace(mean=still.mean + 0.04 * sd, sd=1.04 * sd))
    assert moved_on(d, still, still._replace(mean=still.mean + 0.06 * sd))
    assert moved_on(d, still, still._replace(sd=0.94 * sd))
    loud = still._replace(mean_se=0.05 * sd, sd_se=0.05 * sd)
    assert not moved_on(d, loud, loud._replace(mean=still.mean + 0.1 * sd, sd=1.1 * sd))


FUNNEL = {"v": 0.0, "x": np.zeros(50)}
RATES = np.linspace(0.3, 0.5, 50)


def funnel(p):
    """v ~ N(0, 1), and fifty effects that narrow with it at rates of their own, and are not normal.

    Of one rate they would be told from their scale by gradients.
    """
    v, x = p["v"], p["x"] * jnp.exp(-RATES * p["v"])
    return -0.5 * v**2 - jnp.sum(0.5 * x**2 + 0.1 * x**4) - RATES.sum() * v


@pytest.fixture
def by_itself(monkeypatch):
    """Without the stage before, to which v is a hyperparameter."""
    monkeypatch.setattr(bbvi.auto, "latent_stages", lambda *_: ([], 0))


@cache
def fitted(key):
    """A fit, made once where it is `by_itself`."""
    return bbvi.fit(funnel, FUNNEL, key=key)


@pytest.mark.slow
@pytest.mark.parametrize("key", (0, 1))
def test_a_funnel_of_fifty_needs_no_flow(key, by_itself):
    result = fitted(key)
    assert result.verdict.level == "trusted"
    stages = [stage for stage, _ in result.timings]
    assert "chains bent" in stages
    assert "flow" not in stages
    assert isinstance(result.posterior.family, BentGaussian)
    assert abs(result.posterior.mean()["v"]) < 0.1
    assert abs(result.posterior.sd()["v"] - 1) < 0.1
    x = np.linspace(-5, 5, 1001)
    density = np.exp(-0.5 * x**2 - 0.1 * x**4)
    sd = np.sqrt(x**2 @ density / density.sum()) * np.exp(RATES**2)
    np.testing.assert_allclose(result.posterior.sd()["x"], sd, rtol=0.1)


def test_a_bent_fit_is_saved_and_gone_on_from(tmp_path, by_itself):
    result = fitted(0)
    assert isinstance(result.posterior.family, BentGaussian)
    result.save(tmp_path / "fit.npz")
    loaded = bbvi.load(tmp_path / "fit.npz", funnel)
    point = {"v": 0.3, "x": np.full(50, 0.1)}
    expected = result.posterior.log_prob(point)
    np.testing.assert_allclose(loaded.posterior.log_prob(point), expected)
    start = loaded.to_mcmc(num_chains=2)  # where a funnel is straight
    assert start.base is not None
    assert np.isfinite(start.log_density(start.z[0]))
    again = bbvi.fit(funnel, loaded)
    assert again.verdict.level == "trusted"
