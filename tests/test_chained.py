"""Chains of regressions: coordinates around quadratics of those before them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from some_keys import keys

import bbvi
from bbvi.families import FullRankGaussian, TriangularGaussian
from bbvi.families.triangular import before
from bbvi.stages.bent.chained import FAMILY, chain

pytestmark = pytest.mark.usefixtures("x64")


def a_member(dim, seed=0):
    rng = np.random.default_rng(seed)
    used = before(dim)
    means = np.where(used, 0.2 * rng.normal(size=used.shape), 0)
    order = rng.permutation(dim).astype(np.int32)
    loc, log_widths = rng.normal(size=(2, dim))
    params = FAMILY.join(order, loc, rng.uniform(0.5, 2, dim), means, 0.3 * log_widths)
    return jax.tree.map(jnp.asarray, params)


@pytest.mark.parametrize("dim", [1, 2, 6])
def test_its_density_is_that_of_its_draws(dim):
    params = a_member(dim)
    eps = np.random.default_rng(1).normal(size=(50, dim))
    z, log_q = jax.jit(FAMILY.reparam)(params, eps)
    jacobian = jax.vmap(jax.jacfwd(lambda e: FAMILY.reparam(params, e[None])[0][0]))(eps)
    expected = -0.5 * np.sum(eps**2, 1) - np.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(log_q, expected - 0.5 * dim * np.log(2 * np.pi), rtol=1e-9)
    np.testing.assert_allclose(FAMILY.log_prob(params, z), log_q, rtol=1e-7)
    np.testing.assert_allclose(FAMILY.normals(params, z), eps, rtol=1e-6, atol=1e-8)
    on_host = FAMILY.reparam(jax.device_get(params), eps)[0]
    np.testing.assert_allclose(on_host, z, rtol=1e-9, atol=1e-12)


def test_at_first_it_is_a_gaussian():
    factor = np.array([[1.0, 0.0, 0.0], [0.5, 2.0, 0.0], [-1.0, 0.3, 0.7]])
    loc = np.array([1.0, 2.0, 3.0])
    eps = np.random.default_rng(0).normal(size=(20, 3))
    gaussian = FullRankGaussian()
    found = FAMILY.reparam(FAMILY.init(jnp.asarray(loc), jnp.asarray(factor)), eps)
    expected = gaussian.reparam(gaussian.init(jnp.asarray(loc), jnp.asarray(factor)), eps)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), found, expected)


def test_its_frame_has_its_mean_and_nearly_its_covariance():
    params = a_member(3)
    z = FAMILY.reparam(params, np.random.default_rng(0).normal(size=(400_000, 3)))[0]
    x = np.asarray(FAMILY.frame(params).invert(z))
    np.testing.assert_allclose(x.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(np.cov(x.T), np.eye(3), atol=0.15)
    on_host = FAMILY.frame(jax.device_get(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b), on_host, FAMILY.frame(params))


def rosenbrock_draws(rng, number):
    """Columns: the square of column 2, the square of column 0, the root, and an offspring."""
    root = 1 + rng.normal(size=number)
    first = root**2 + 0.3 * rng.normal(size=number)
    second = first**2 + 0.3 * rng.normal(size=number)
    return np.column_stack([first, second, root, root * first + 0.1 * rng.normal(size=number)])


def test_a_fit_finds_the_order_and_the_squares_and_goes_on_as_they_do():
    rng = np.random.default_rng(0)
    params = chain(rosenbrock_draws(rng, 4000))
    order = params["order"].tolist()
    assert order.index(2) < order.index(0) < order.index(1)
    widths = np.exp(params["log_widths"]) * params["units"]
    np.testing.assert_allclose(widths[[order.index(j) for j in (0, 1, 3)]], [0.3, 0.3, 0.1], 0.05)
    # three times as far out as most draws: the root at 5, all others where it leads them
    on_the_curve = np.array([[25.0, 625.0, 5.0, 125.0]])
    eps = FAMILY.normals(params, on_the_curve)
    assert np.abs(eps[0, 1:]).max() < 8, eps
    assert not params["means"][~before(4)].any()


def test_what_does_not_bend_or_vary_has_no_fit():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4000, 5)) @ rng.normal(size=(5, 5))
    assert chain(draws) is None
    assert chain(rosenbrock_draws(rng, 4000), 4000.0) is not None
    # as many as there are coefficients: a bend that they cannot tell from chance
    some = rosenbrock_draws(rng, 4000)[:, [2, 3]] + 5 * rng.normal(size=(4000, 2))
    assert chain(some, 10.0) is None
    for wrong in (0.0, np.nan):
        with pytest.raises(np.linalg.LinAlgError, match="do not vary"):
            chain(draws * [1, 1, wrong, 1, 1])


def test_it_is_not_fitted_step_by_step():
    params = a_member(3)
    with pytest.raises(NotImplementedError, match="fitted to draws"):
        FAMILY.to_frame(params, FAMILY.frame(params))


def rosenbrock(p):
    root, first, second = p["root"], p["first"], p["second"]
    ends = jnp.stack([(first - root**2), (second - first**2)])
    return -0.5 * (root - 1) ** 2 - 0.5 * jnp.sum((ends / 0.3) ** 2)


@pytest.mark.parametrize("key", keys(0, 1))
def test_squares_of_squares(key, tmp_path):
    """Sds were a tenth of what they are, and rejected, after up to a million gradients."""
    init = {"root": 0.0, "first": np.zeros(2), "second": np.zeros(2)}
    result = bbvi.fit(rosenbrock, init, key=key)
    assert result.verdict.level == "trusted", result.verdict
    assert isinstance(result.posterior.family, TriangularGaussian)
    assert result.num_gradients < 80_000
    # moments of a normal around one: E x^2 = 2, E x^4 = 10, E x^8 = 764
    mean, sd = result.posterior.mean(), result.posterior.sd()
    of_first = np.sqrt(10 + 0.09 - 2**2)
    of_second = np.sqrt(764 + 6 * 0.09 * 10 + 3 * 0.09**2 + 0.09 - 10.09**2)
    for name, expected, width in (
        ("root", 1, 1),
        ("first", 2, of_first),
        ("second", 10.09, of_second),
    ):
        np.testing.assert_allclose(mean[name], expected, atol=0.1 * width)
        np.testing.assert_allclose(sd[name], width, rtol=0.1)
    result.save(tmp_path / "fit.npz")
    loaded = bbvi.load(tmp_path / "fit.npz", rosenbrock)
    point = {"root": 0.5, "first": np.full(2, 0.3), "second": np.full(2, 0.1)}
    np.testing.assert_allclose(loaded.posterior.log_prob(point), result.posterior.log_prob(point))
