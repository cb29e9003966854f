"""A fit handed on to NUTS: starts, units, and agreement with plain NUTS."""

import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbvi
from bbvi.examples import eight_schools
from bbvi.families import FullRankGaussian, MeanFieldGaussian
from bbvi.posterior import Posterior
from bbvi.status import InputError

EXAMPLE = eight_schools()
PACKAGES = ("blackjax", "numpyro", "nutpie")


@pytest.fixture(scope="module")
def result():
    solver = bbvi.BatchAndMatch()
    return bbvi.fit(*EXAMPLE[:3], support=EXAMPLE.support, solver=solver)


def test_starts_are_draws_in_both_spaces(result):
    start = result.to_mcmc(6, key=3, data=EXAMPLE.data)
    assert start.z.shape == (6, 10)
    assert jax.tree.map(np.shape, start.params) == {"mu": (6,), "tau": (6,), "eta": (6, 8)}
    back = jax.vmap(lambda p: start.target.unconstrain(p, None))(start.params)
    np.testing.assert_allclose(back, start.z, rtol=1e-4, atol=1e-5)
    other = result.to_mcmc(6, key=4, data=EXAMPLE.data)
    assert not np.array_equal(other.z, start.z)
    # with the log-Jacobian of tau = exp(z)
    params = jax.tree.map(lambda x: x[0], start.params)
    expected = EXAMPLE.log_joint(params, EXAMPLE.data) + jnp.log(params["tau"])
    np.testing.assert_allclose(start.log_density(start.z[0]), expected, rtol=1e-4)


def test_mass_matrix_is_the_covariance_of_the_fit(result):
    start = result.to_mcmc(data=EXAMPLE.data)
    assert isinstance(result.posterior.family, FullRankGaussian)
    covariance = result.posterior.family.covariance(result.posterior.params)
    np.testing.assert_allclose(start.inverse_mass_matrix, covariance, rtol=1e-4, atol=1e-5)
    diagonal = result.to_mcmc(data=EXAMPLE.data, dense=False).inverse_mass_matrix
    np.testing.assert_allclose(diagonal, jnp.diagonal(covariance), rtol=1e-5)


def test_covariance_of_a_family_without_closed_form(result):
    family = MeanFieldGaussian()
    sd = jnp.linspace(0.5, 2, 10)
    params = family.init(jnp.zeros(10), sd)
    posterior = replace(result.posterior, family=family, params=params)
    found = replace(result, posterior=posterior).to_mcmc(data=EXAMPLE.data).inverse_mass_matrix
    # from 10,000 draws
    error = np.outer(sd, sd) * np.sqrt(2 / 10_000)
    np.testing.assert_array_less(np.abs(found - np.diag(sd**2)), 5 * error)


def test_a_corrected_fit_starts_from_weighted_draws(result):
    posterior = result.posterior
    draws = result.diagnostics.draws[:1000]
    log_weights = jnp.where(jnp.arange(1000) < 8, jnp.log(1 / 8), -jnp.inf)
    corrected = Posterior(
        posterior.params, None, posterior.target, posterior.family, draws, log_weights
    )
    start = replace(result, posterior=corrected).to_mcmc(8, data=EXAMPLE.data)
    # the eight draws with any weight, each once
    found = np.sort(np.asarray(start.z)[:, 0])
    np.testing.assert_array_equal(found, np.sort(np.asarray(draws)[:8, 0]))
    # eight draws leave ten dimensions empty; with a part of the plain covariance none are
    assert np.linalg.eigvalsh(start.inverse_mass_matrix).min() > 0


def test_data_have_to_be_given(result):
    with pytest.raises(InputError, match=r"call result.to_mcmc\(data=...\)"):
        result.to_mcmc()
    with pytest.raises(InputError, match="num_chains must be a positive whole number"):
        result.to_mcmc(0, data=EXAMPLE.data)


@pytest.mark.parametrize("package", PACKAGES)
def test_without_the_sampler(result, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    start = result.to_mcmc(data=EXAMPLE.data)
    with pytest.raises(ImportError, match=rf"needs {package}: pip install 'bbvi\[{package}\]'"):
        getattr(start, f"{package}_nuts")()


def means_and_errors(draws, effective):
    flat = np.concatenate([np.asarray(draws[k]).reshape(-1, s) for k, s in SIZES], axis=1)
    return flat.mean(0), flat.std(0) / np.sqrt(effective)


SIZES = [("mu", 1), ("tau", 1), ("eta", 8)]

# Means from 4 chains of 50,000 draws of NUTS after a plain warm-up, target acceptance 0.95; the
# standard errors are at most 0.01 for mu and tau, 0.002 for eta.
REFERENCE = np.array([4.405, 3.594, 0.316, 0.095, -0.085, 0.061, -0.161, -0.073, 0.356, 0.076])


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_nuts_from_a_fit_agrees_with_plain_nuts(result, package):
    pytest.importorskip(package)
    start = result.to_mcmc(4, key=1, data=EXAMPLE.data)
    chains = getattr(start, f"{package}_nuts")(1000, 100)
    assert jax.tree.map(np.shape, chains.draws) == {
        "mu": (4, 1000),
        "tau": (4, 1000),
        "eta": (4, 1000, 8),
    }
    mean, error = means_and_errors(chains.draws, 1000)
    np.testing.assert_array_less(np.abs(mean - REFERENCE), 4 * error + 0.02)
    assert chains.step_size.shape == (4,)
    assert chains.num_divergent < 40
    # 100 steps of some 7 gradients in each chain
    assert 4 * 100 <= chains.warmup_gradients < 4 * 100 * 20


@pytest.mark.slow
@pytest.mark.parametrize("package", ["blackjax", "numpyro"])
def test_no_start_is_lost(result, package):
    pytest.importorskip(package)
    # a first step too long for single precision sends a chain in a hundred to 1e16
    start = result.to_mcmc(200, key=2, data=EXAMPLE.data)
    chains = getattr(start, f"{package}_nuts")(10, 50)
    assert np.abs(chains.draws["mu"]).max() < 50
    assert (chains.step_size > 0.1).all()


def test_a_log_joint_that_cannot_be_batched(result):
    pytest.importorskip("blackjax")
    target = replace(result.posterior.target, sequential=True)
    posterior = replace(result.posterior, target=target)
    start = replace(result, posterior=posterior).to_mcmc(2, data=EXAMPLE.data)
    chains = start.blackjax_nuts(20, 20)
    assert chains.draws["eta"].shape == (2, 20, 8)
    assert np.isfinite(chains.draws["eta"]).all()


def test_the_same_start_in_other_units(result):
    for dense in (True, False):
        start = result.to_mcmc(6, data=EXAMPLE.data, dense=dense)
        white = start.whitened()
        np.testing.assert_array_equal(white.inverse_mass_matrix, np.ones(10))
        matrix = start.inverse_mass_matrix
        log_det = 0.5 * np.linalg.slogdet(matrix if dense else np.diag(matrix))[1]
        expected = start.log_density(start.z[2]) + log_det
        np.testing.assert_allclose(white.log_density(white.z[2]), expected, rtol=1e-4, atol=1e-4)
        for there, here in zip(
            jax.tree.leaves(white.constrain(white.z)), start.params.values(), strict=True
        ):
            np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-4)
        assert white.whitened() is white


# --- in the base space ----------------------------------------------------------------------


def in_a_flow(result):
    """The result with a flow that bends space in place of its Gaussian."""
    family, dim = bbvi.CouplingFlow(layers=2, width=8), 10
    params = family.init(jnp.arange(10.0) / 10, jnp.linspace(0.5, 1, dim))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    moved = [x + 0.2 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    params = jax.tree.unflatten(structure, moved)
    return replace(result, posterior=replace(result.posterior, family=family, params=params))


def test_the_base_space_of_a_flow(result):
    flow = in_a_flow(result)
    start = flow.to_mcmc(3, data=EXAMPLE.data)  # a flow is what the base space is for
    target, family, params = start.target, flow.posterior.family, flow.posterior.params
    np.testing.assert_array_equal(start.inverse_mass_matrix, np.ones(10))

    def leave(eps):
        return family.reparam(params, eps[None])[0][0]

    for eps, at in zip(start.z, range(3), strict=True):
        sign, log_det = np.linalg.slogdet(np.float64(jax.jacfwd(leave)(eps)))
        assert sign > 0 and abs(log_det) > 0.1
        expected = target.log_density(leave(eps), EXAMPLE.data) + log_det
        np.testing.assert_allclose(start.log_density(eps), expected, rtol=1e-5, atol=1e-4)
        params_there = target.constrain(leave(eps), EXAMPLE.data)
        np.testing.assert_allclose(start.params["tau"][at], params_there["tau"], rtol=1e-5)
    plain = flow.to_mcmc(3, data=EXAMPLE.data, neutra=False)
    assert plain.base is None and plain.inverse_mass_matrix.shape == (10, 10)


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_nuts_in_the_base_space_gives_the_same_posterior(result, package):
    pytest.importorskip(package)
    start = in_a_flow(result).to_mcmc(4, key=1, data=EXAMPLE.data)
    mean, error = means_and_errors(getattr(start, f"{package}_nuts")(1000, 300).draws, 500)
    np.testing.assert_array_less(np.abs(mean - REFERENCE), 4 * error + 0.02)


def test_a_family_without_a_base_space(result):
    family = bbvi.LowRankGaussian(rank=2)
    params = family.init(jnp.zeros(10), 1.0)
    low = replace(result, posterior=replace(result.posterior, family=family, params=params))
    with pytest.raises(InputError, match="one-to-one function of 10 normals.*LowRankGaussian"):
        low.to_mcmc(data=EXAMPLE.data, neutra=True)
