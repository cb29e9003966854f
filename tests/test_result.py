"""Posteriors, results, and what is left of them in a file."""

import json
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbvi
from bbvi import storage
from bbvi.bijectors import Real
from bbvi.diagnostics.verdict import Verdict
from bbvi.families import FullRankGaussian, LowRankGaussian, MeanFieldGaussian, StudentT
from bbvi.inputs import make_target
from bbvi.posterior import Posterior
from bbvi.status import InputError, Status
from bbvi.testing import jacobian_log_det

# --- a posterior whose every moment is known ---------------------------------------------

INIT = {"s": 1.0, "w": np.full(3, 1 / 3), "x": np.zeros(2)}
SUPPORT = {"s": bbvi.positive, "w": bbvi.simplex}
# z = (log s, two coordinates of w, x)
LOC = np.array([-0.5, 0.3, -0.2, 1.0, -2.0])
ROOT = np.array(
    [
        [0.5, 0.0, 0.0, 0.0, 0.0],
        [0.1, 0.8, 0.0, 0.0, 0.0],
        [0.0, 0.2, 0.6, 0.0, 0.0],
        [0.7, 0.0, 0.3, 1.5, 0.0],
        [-0.2, 0.4, 0.0, 0.5, 0.1],
    ]
)
COVARIANCE = ROOT @ ROOT.T


def nothing(params, data):
    return jnp.zeros(())


def posterior_of(init, support=None, family=None, data=None, seed=None, log_joint=nothing):
    """An approximation that nothing was fitted to."""
    target, _, data = make_target(log_joint, init, data, support)
    family = FullRankGaussian() if family is None else family
    if seed is None:
        loc, root = LOC, ROOT
    else:
        rng = np.random.default_rng(seed)
        loc, root = rng.standard_normal(target.dim), np.full(target.dim, 0.5)
    params = jax.jit(family.init)(jnp.asarray(loc, target.dtype), jnp.asarray(root, target.dtype))
    return Posterior(params, data, target, family)


@pytest.fixture(scope="module")
def posterior():
    return posterior_of(INIT, SUPPORT)


NUM_DRAWS = 1000


def test_sample_has_the_users_structure(posterior):
    draws = posterior.sample(0, NUM_DRAWS)
    assert jax.tree.structure(draws) == jax.tree.structure(INIT)
    assert jax.tree.map(jnp.shape, draws) == {
        "s": (NUM_DRAWS,),
        "w": (NUM_DRAWS, 3),
        "x": (NUM_DRAWS, 2),
    }
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(draws))
    assert (draws["s"] > 0).all()
    np.testing.assert_allclose(draws["w"].sum(1), 1, rtol=1e-5)
    x = np.asarray(draws["x"], np.float64)
    errors = np.sqrt(np.diagonal(COVARIANCE)[3:] / NUM_DRAWS)
    np.testing.assert_array_less(np.abs(x.mean(0) - LOC[3:]), 5 * errors)


def test_keys_of_every_kind(posterior):
    by_int = posterior.sample(3, NUM_DRAWS)
    for key in (np.int64(3), jax.random.key(3), jax.random.PRNGKey(3)):
        same = posterior.sample(key, NUM_DRAWS)
        np.testing.assert_array_equal(same["x"], by_int["x"])
    assert not np.array_equal(posterior.sample(4, NUM_DRAWS)["x"], by_int["x"])
    with pytest.raises(InputError, match="key must be an int or a JAX random key"):
        posterior.sample("three", NUM_DRAWS)


@pytest.mark.usefixtures("x64")
def test_log_prob_is_the_change_of_variables():
    posterior = posterior_of(INIT, SUPPORT)
    target = posterior.target

    def free(z):
        """The constrained parameters without the last weight, which the others determine."""
        params = target.constrain(z, None)
        return jnp.concatenate([params["s"][None], params["w"][:-1], params["x"]])

    draws, log_q = posterior.sample_and_log_prob(1, 5)
    # of two programs: the last bit may differ
    np.testing.assert_allclose(draws["x"], posterior.sample(1, 5)["x"], rtol=1e-12)
    zs = jax.jit(jax.vmap(lambda p: target.unconstrain(p, None)))(draws)
    log_dets = jax.jit(jax.vmap(lambda z: jacobian_log_det(free, z)))(zs)
    eps = np.linalg.solve(ROOT, (zs - LOC).T)
    log_normal = -0.5 * (eps**2).sum(0) - 0.5 * np.linalg.slogdet(2 * np.pi * COVARIANCE)[1]
    expected = log_normal - log_dets
    np.testing.assert_allclose(log_q, expected, rtol=1e-9)
    np.testing.assert_allclose(jax.vmap(posterior.log_prob)(draws), expected, rtol=1e-9)
    one = jax.tree.map(lambda x: np.asarray(x[2]), draws)
    assert posterior.log_prob(one).shape == ()
    np.testing.assert_allclose(posterior.log_prob(one), expected[2], rtol=1e-9)


def test_log_prob_of_another_structure(posterior):
    with pytest.raises(InputError, match="params must have the structure"):
        posterior.log_prob({"s": 1.0})
    with pytest.raises(InputError, match="one point; use jax.vmap for many"):
        posterior.log_prob(posterior.sample(0, NUM_DRAWS))


def log_normal_moments(mean, sd):
    expected = math.exp(mean + sd**2 / 2)
    return expected, expected * math.sqrt(math.expm1(sd**2))


def test_moments(posterior):
    mean, sd = posterior.mean(), posterior.sd()
    assert jax.tree.map(jnp.shape, mean) == jax.tree.map(np.shape, INIT)
    # real leaves exactly; the others from ten thousand draws
    np.testing.assert_allclose(mean["x"], LOC[3:], rtol=1e-6)
    np.testing.assert_allclose(sd["x"], np.sqrt(np.diagonal(COVARIANCE))[3:], rtol=1e-6)
    expected_mean, expected_sd = log_normal_moments(LOC[0], 0.5)
    assert abs(mean["s"] - expected_mean) < 5 * expected_sd / 100
    # E[(s - m)^4] / sd^4 is 8.9 for a log-normal of sigma 0.5
    assert abs(sd["s"] - expected_sd) < 5 * expected_sd * math.sqrt(7.9) / 2 / 100
    np.testing.assert_allclose(mean["w"].sum(), 1, rtol=1e-5)


def test_covariance_follows_the_scalar_names(posterior):
    names = posterior.target.scalar_names
    assert names == ["s", "w[0]", "w[1]", "w[2]", "x[0]", "x[1]"]
    cov = np.asarray(posterior.cov(), np.float64)
    assert cov.shape == (6, 6)
    np.testing.assert_allclose(cov, cov.T, rtol=1e-5, atol=1e-7)
    mean_s, sd_s = log_normal_moments(LOC[0], 0.5)
    expected = np.array(
        [
            # Cov(exp(u), x) = E[exp(u)] Cov(u, x)
            [sd_s**2, mean_s * COVARIANCE[0, 3], mean_s * COVARIANCE[0, 4]],
            [mean_s * COVARIANCE[0, 3], COVARIANCE[3, 3], COVARIANCE[3, 4]],
            [mean_s * COVARIANCE[0, 4], COVARIANCE[3, 4], COVARIANCE[4, 4]],
        ]
    )
    pick = [names.index(n) for n in ("s", "x[0]", "x[1]")]
    sds = np.sqrt(np.diagonal(expected))
    # the log-normal's fourth moment is the largest: sqrt(7.9) instead of sqrt(2)
    errors = math.sqrt(7.9) * np.outer(sds, sds) / 100
    np.testing.assert_array_less(np.abs(cov[np.ix_(pick, pick)] - expected), 5 * errors)
    # the weights sum to one, so their rows sum to zero
    np.testing.assert_allclose(cov[1:4].sum(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.sqrt(cov[0, 0]), posterior.sd()["s"], rtol=1e-3)


def test_quantiles(posterior):
    normal = pytest.importorskip("scipy.stats").norm
    levels = np.array([0.05, 0.5, 0.9])
    found = posterior.quantile(levels)
    assert jax.tree.map(jnp.shape, found) == {"s": (3,), "w": (3, 3), "x": (3, 2)}
    sd = np.sqrt(np.diagonal(COVARIANCE))
    z = normal.ppf(levels)
    errors = np.sqrt(levels * (1 - levels) / 10_000) / normal.pdf(z)
    off_x = (np.asarray(found["x"]) - LOC[3:]) / sd[3:] - z[:, None]
    off_s = (np.log(found["s"]) - LOC[0]) / sd[0] - z
    assert (np.abs(off_x) < 5 * errors[:, None]).all()
    assert (np.abs(off_s) < 5 * errors).all()
    median = posterior.quantile(0.5)
    assert jax.tree.map(jnp.shape, median) == jax.tree.map(np.shape, INIT)
    np.testing.assert_allclose(median["x"], found["x"][1], rtol=1e-6)
    for q in (1.5, [-0.1, 0.5]):
        with pytest.raises(InputError, match=r"probabilities in \[0, 1\]"):
            posterior.quantile(q)


def test_low_rank_moments_are_exact():
    family = LowRankGaussian(rank=1)
    posterior = posterior_of({"x": np.zeros(3)}, family=family, seed=1)
    np.testing.assert_allclose(posterior.mean()["x"], posterior.params["loc"], rtol=1e-6)
    np.testing.assert_allclose(posterior.sd()["x"], family.sd(posterior.params), rtol=1e-6)


def test_a_posterior_passes_through_jit(posterior):
    leaves, treedef = jax.tree.flatten(posterior)
    assert all(isinstance(x, jax.Array) for x in leaves)
    assert treedef.unflatten(leaves).target is posterior.target

    @jax.jit
    def look(posterior, key):
        draws = posterior.sample(key, NUM_DRAWS)
        return draws, posterior.mean(), posterior.sd(), posterior.log_prob(INIT)

    draws, mean, sd, log_prob = look(posterior, jax.random.key(0))
    np.testing.assert_allclose(draws["w"], posterior.sample(0, NUM_DRAWS)["w"], rtol=1e-5)
    np.testing.assert_allclose(mean["s"], posterior.mean()["s"], rtol=1e-5)
    np.testing.assert_allclose(sd["x"], posterior.sd()["x"], rtol=1e-5)
    np.testing.assert_allclose(log_prob, posterior.log_prob(INIT), rtol=1e-5)


def test_a_stack_of_posteriors(posterior):
    moved = replace(posterior, params={**posterior.params, "loc": posterior.params["loc"] + 1})
    stack = jax.tree.map(lambda a, b: jnp.stack([a, b]), posterior, moved)

    @jax.jit
    def look(stack, key):
        return jax.vmap(lambda p: (p.sample(key, NUM_DRAWS), p.mean(), p.log_prob(INIT)))(stack)

    draws, mean, log_prob = look(stack, jax.random.key(0))
    assert draws["w"].shape == (2, NUM_DRAWS, 3)
    for i, single in enumerate((posterior, moved)):
        np.testing.assert_allclose(draws["x"][i], single.sample(0, NUM_DRAWS)["x"], atol=1e-5)
        np.testing.assert_allclose(mean["s"][i], single.mean()["s"], rtol=1e-5)
        np.testing.assert_allclose(log_prob[i], single.log_prob(INIT), rtol=1e-5)


# --- corrected by importance weights -----------------------------------------------------


def test_a_posterior_of_weighted_draws(posterior):
    rng = np.random.default_rng(0)
    z = (LOC + rng.standard_normal((500, 5)) @ ROOT.T).astype(np.float32)
    log_weights = 0.8 * rng.standard_normal(500)
    log_weights = (log_weights - np.log(np.exp(log_weights).sum())).astype(np.float32)
    corrected = replace(posterior, draws=jnp.asarray(z), log_weights=jnp.asarray(log_weights))
    w, x, s = np.exp(log_weights.astype(np.float64)), z[:, 3:], np.exp(z[:, 0])
    mean = w @ x
    np.testing.assert_allclose(corrected.mean()["x"], mean, rtol=1e-4)
    np.testing.assert_allclose(corrected.sd()["x"], np.sqrt(w @ (x - mean) ** 2), rtol=1e-4)
    np.testing.assert_allclose(corrected.mean()["s"], w @ s, rtol=1e-4)
    cov = np.asarray(corrected.cov())
    np.testing.assert_allclose(cov[4, 5], w @ ((x - mean)[:, 0] * (x - mean)[:, 1]), rtol=1e-3)
    # a quantile leaves its share of the weight below, up to one draw
    for level in (0.1, 0.5, 0.8):
        below = w[s <= corrected.quantile(level)["s"]].sum()
        assert abs(below - level) <= w.max()

    draws, log_q = corrected.sample_and_log_prob(1, NUM_DRAWS)
    assert np.isin(np.asarray(draws["x"])[:, 0], x[:, 0]).all()
    error = np.sqrt(w @ (x - mean) ** 2 / NUM_DRAWS)
    np.testing.assert_array_less(np.abs(np.asarray(draws["x"]).mean(0) - mean), 5 * error)
    # densities are those of the family
    one = jax.tree.map(lambda x: x[0], draws)
    np.testing.assert_allclose(log_q[0], corrected.log_prob(one), rtol=1e-3)
    assert corrected.log_prob(one) == posterior.log_prob(one)


def test_draws_whose_squares_overflow():
    """Far out, where a proposal looks too: without weight, or with hardly any."""
    target, _, _ = bbvi.make_target(lambda p: -p["x"], {"x": 1.0}, None, {"x": bbvi.positive})
    family = bbvi.MeanFieldGaussian()
    params = family.init(jnp.zeros(1), 1.0)
    z = np.array([[0.0], [1.0], [60.0], [100.0]], np.float32)
    assert z[3] > np.log(np.finfo(np.float32).max)
    log_weights = np.array([np.log(0.5), np.log(0.5), -150.0, -np.inf], np.float32)
    draws = bbvi.Posterior(params, None, target, family, jnp.asarray(z), jnp.asarray(log_weights))
    x = np.exp(z[:2, 0].astype(float))
    for value, expected in (
        (draws.mean()["x"], x.mean()),
        (draws.sd()["x"], x.std()),
        (draws.cov()[0, 0], x.var()),
        (draws.quantile(0.25)["x"], x[0]),
    ):
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, expected, rtol=1e-6)


def test_a_resample_holds_no_table_of_draws_by_draws(posterior):
    rows, asked, dim = 4096, 4096, posterior.target.dim
    draws, log_weights = jnp.zeros((rows, dim)), jnp.full(rows, -math.log(rows))
    corrected = replace(posterior, draws=draws, log_weights=log_weights)
    program = jax.jit(lambda p, key: p.sample(key, asked)).lower(corrected, jax.random.key(0))
    memory = program.compile().memory_analysis()
    assert memory.temp_size_in_bytes < rows * asked


# --- results -----------------------------------------------------------------------------


def regression(params, data):
    noise = (data["y"] - params["a"] - params["b"][0] * data["x"]) / params["sigma"]
    prior = -0.5 * (params["a"] ** 2 + jnp.sum(params["b"] ** 2)) - params["sigma"]
    return prior - 0.5 * jnp.sum(noise**2) - data["y"].size * jnp.log(params["sigma"])


def regression_data():
    x = np.linspace(-1, 1, 40, dtype=np.float32)
    noise = np.random.default_rng(0).standard_normal(40).astype(np.float32)
    return {"x": x, "y": 1 + 2 * x + 0.5 * noise}


REGRESSION_INIT = {"a": 0.0, "b": np.zeros(2, np.float32), "sigma": 1.0}


@pytest.fixture(scope="module")
def fitted():
    # a solver that is quick to compile: what it finds does not matter here
    solver = bbvi.BatchAndMatch()
    support = {"sigma": bbvi.positive}
    data = regression_data()
    return bbvi.fit(regression, REGRESSION_INIT, data, support=support, solver=solver, key=1)


def test_result_says_what_its_parts_say(fitted):
    assert fitted.elbo == float(fitted.diagnostics.elbo)
    assert fitted.elbo_se == float(fitted.diagnostics.elbo_se)
    assert fitted.khat == float(fitted.diagnostics.khat)
    assert fitted.ess == float(fitted.diagnostics.ess)
    # a higher elbo is better, and the bound is below the evidence
    assert fitted.elbo <= float(fitted.diagnostics.log_evidence)
    assert fitted.verdict.level in repr(fitted)
    assert f"k-hat {fitted.khat:.2f}" in repr(fitted)


def test_summary_holds_and_prints_the_figures(fitted):
    table = fitted.summary()
    assert table.names == ["a", "b[0]", "b[1]", "sigma"]
    assert len(table) == 4
    posterior = fitted.posterior
    for column, values in (
        ("mean", posterior.mean()),
        ("sd", posterior.sd()),
        ("5%", posterior.quantile(0.05)),
        ("50%", posterior.quantile(0.5)),
        ("95%", posterior.quantile(0.95)),
    ):
        flat = [values["a"], *values["b"], values["sigma"]]
        np.testing.assert_allclose(table[column], np.array(flat), rtol=1e-5, err_msg=column)
    np.testing.assert_allclose(table["mean*"], fitted.diagnostics.corrected.mean)
    np.testing.assert_allclose(table["sd*"], fitted.diagnostics.corrected.sd)
    assert (np.diff([table["5%"], table["50%"], table["95%"]], axis=0) > 0).all()
    assert table.row("sigma")["mean"] == table["mean"][3]

    text = str(table)
    lines = text.splitlines()
    assert lines[0].split() == ["mean", "sd", "5%", "50%", "95%", "mean*", "sd*", "flag"]
    for name, line, mean in zip(table.names, lines[1:5], table["mean"], strict=True):
        assert line.split()[0] == name
        assert float(line.split()[1]) == pytest.approx(mean, rel=0.01)
    assert f"verdict: {fitted.verdict.level}" in text
    assert f"elbo {fitted.elbo:.2f}" in text
    assert repr(table) == text


def test_summary_shows_flags_and_leaves_rows_out(fitted):
    verdict = Verdict("caution", ("some <b>reason</b>.",), ("do that.",), ("b[1]",))
    table = replace(fitted, verdict=verdict).summary(max_rows=3)
    assert table.names == ["a", "b[0]", "b[1]"]
    assert table["flag"].tolist() == ["", "", "!"]
    assert "... and 1 more" in str(table)
    page = table._repr_html_()
    assert page.count("<tr>") == 4
    assert "&lt;b&gt;reason" in page
    assert "<b>" not in page


def test_draws_behind_the_diagnostics(fitted):
    draws, log_weights = fitted.draws()
    number = log_weights.shape[0]
    assert jax.tree.map(np.shape, draws) == {
        "a": (number,),
        "b": (number, 2),
        "sigma": (number,),
    }
    weights = np.exp(log_weights.astype(np.float64))
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-4)
    corrected = fitted.diagnostics.corrected.mean
    np.testing.assert_allclose(weights @ draws["sigma"], corrected[3], rtol=1e-3)


def test_a_result_is_a_pytree(fitted):
    same = jax.tree.map(lambda x: x, fitted)
    assert same.verdict == fitted.verdict
    assert same.elbo == fitted.elbo
    assert all(hasattr(x, "shape") for x in jax.tree.leaves(fitted))


# --- files -------------------------------------------------------------------------------

# Every support there is; two of each kind of container, one in another.
EVERYTHING = {
    "chol": (
        (np.eye(2), bbvi.corr_cholesky),
        (np.eye(2), bbvi.correlation),
        (np.eye(2), bbvi.cov_cholesky),
        (np.eye(2), bbvi.covariance),
    ),
    "numbers": [
        (-1.0, bbvi.negative),
        (1.0, bbvi.positive),
        (0.5, bbvi.unit_interval),
        (0.0, bbvi.less_than(1.5)),
        (np.ones((2, 2)), bbvi.greater_than(np.array([0.1, -1 / 3]))),
        (np.zeros(2), bbvi.interval(np.array([-1.0, -np.pi]), 2)),
        (0.0, bbvi.real),
        None,
    ],
    "vectors": {
        "ordered": (np.arange(2.0), bbvi.ordered),
        "positive": (np.arange(1.0, 3.0), bbvi.positive_ordered),
        "simplex": (np.full((2, 3), 1 / 3), bbvi.simplex),
        "sum": (np.zeros(2), bbvi.zero_sum),
        "unit": (np.array([1.0, 0.0]), bbvi.unit_vector),
        "chain": (np.arange(1.0, 3.0) / 3, bbvi.Chain((bbvi.ordered, bbvi.unit_interval))),
    },
}


def half(tree, i):
    def is_pair(x):
        return isinstance(x, tuple) and len(x) == 2 and isinstance(x[1], bbvi.Bijector)

    return jax.tree.map(lambda pair: pair[i], tree, is_leaf=is_pair)


def saved(fitted, posterior, path):
    result = replace(fitted, posterior=posterior)
    result.save(path)
    return result


def assert_same_draws(found, expected, key=3):
    a, b = found.sample(key, 20), expected.sample(key, 20)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_every_support_survives_a_file(fitted, tmp_path):
    posterior = posterior_of(half(EVERYTHING, 0), half(EVERYTHING, 1), MeanFieldGaussian(), seed=2)
    saved(fitted, posterior, tmp_path / "fit")
    loaded = bbvi.load(tmp_path / "fit").posterior
    assert loaded.target.leaves == posterior.target.leaves
    assert loaded.target.treedef == posterior.target.treedef
    assert loaded.target.order == posterior.target.order
    assert_same_draws(loaded, posterior)


@pytest.mark.parametrize(
    ("init", "support"),
    [
        (np.ones(2), bbvi.positive),
        ([np.ones(2), (0.0, {"a": 1.0})], [bbvi.positive, (None, {"a": bbvi.positive})]),
        ((0.0,), None),
        ({"b": {"c": 0.0}, "a": [0.0]}, None),
    ],
)
def test_every_structure_survives_a_file(init, support, fitted, tmp_path):
    posterior = posterior_of(init, support, MeanFieldGaussian(), seed=2)
    path = tmp_path / "fit.of.mine"
    saved(fitted, posterior, str(path))
    # the name is used as it is given
    assert [p.name for p in tmp_path.iterdir()] == ["fit.of.mine"]
    loaded = bbvi.load(path, log_joint=nothing).posterior
    # The very same target: a refit from the file compiles nothing that is compiled already.
    assert loaded.target == posterior.target
    assert hash(loaded.target) == hash(posterior.target)
    assert loaded.family == posterior.family
    assert jax.tree.structure(loaded.params) == jax.tree.structure(posterior.params)
    for x, y in zip(jax.tree.leaves(loaded.params), jax.tree.leaves(posterior.params), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(
    "family", [FullRankGaussian(), LowRankGaussian(rank=2), StudentT(df=4)], ids=repr
)
def test_families_survive_a_file(family, fitted, tmp_path):
    posterior = posterior_of({"x": np.zeros(3)}, None, family, seed=4)
    saved(fitted, posterior, tmp_path / "fit")
    assert bbvi.load(tmp_path / "fit").posterior.family == family


def test_a_whole_result_survives_a_file(fitted, tmp_path):
    fitted.save(tmp_path / "fit.npz")
    loaded = bbvi.load(tmp_path / "fit.npz")
    assert_same_draws(loaded.posterior, fitted.posterior)
    for name in ("status", "verdict", "num_steps", "num_gradients", "num_skipped", "timings"):
        assert getattr(loaded, name) == getattr(fitted, name), name
    assert loaded.data_spec == fitted.data_spec
    assert loaded.drift == fitted.drift or np.isnan(fitted.drift)
    for part in ("diagnostics", "history"):
        for name, value in getattr(fitted, part)._asdict().items():
            for x, y in zip(
                jax.tree.leaves(getattr(getattr(loaded, part), name)),
                jax.tree.leaves(value),
                strict=True,
            ):
                np.testing.assert_array_equal(x, y, err_msg=name)
    assert str(loaded.summary()) == str(fitted.summary())
    draws, log_weights = loaded.draws()
    np.testing.assert_array_equal(draws["b"], fitted.draws()[0]["b"])
    np.testing.assert_array_equal(log_weights, fitted.draws()[1])
    assert loaded.state is None
    # a loaded result can be saved again
    loaded.save(tmp_path / "again.npz")
    assert str(bbvi.load(tmp_path / "again.npz").summary()) == str(fitted.summary())


def test_a_corrected_posterior_survives_a_file(fitted, tmp_path):
    d = fitted.diagnostics
    corrected = replace(fitted.posterior, draws=d.draws, log_weights=d.log_weights)
    saved(fitted, corrected, tmp_path / "fit")
    assert_same_draws(bbvi.load(tmp_path / "fit").posterior, corrected)
    plain = replace(fitted.posterior, draws=None, log_weights=None)
    saved(fitted, plain, tmp_path / "fit")
    assert_same_draws(bbvi.load(tmp_path / "fit").posterior, plain)


def test_failures_and_infinities_survive_a_file(fitted, tmp_path):
    verdict = Verdict("rejected", ("all is lost.", "more is lost."), (), ("a",))
    failed = replace(fitted, status=Status.NONFINITE, verdict=verdict, drift=math.inf)
    failed.save(tmp_path / "fit")
    loaded = bbvi.load(tmp_path / "fit")
    assert loaded.status is Status.NONFINITE
    assert loaded.verdict == verdict
    assert loaded.drift == math.inf


def test_float64_survives_a_file(fitted, tmp_path, request):
    def load():
        return bbvi.load(tmp_path / "fit").posterior

    request.getfixturevalue("x64")
    posterior = posterior_of({"s": np.ones(2)}, bbvi.positive, MeanFieldGaussian(), seed=5)
    assert posterior.params["loc"].dtype == jnp.float64
    saved(fitted, posterior, tmp_path / "fit")
    assert load().params["loc"].dtype == jnp.float64
    assert_same_draws(load(), posterior)


def test_a_float64_file_can_be_read_in_float32(fitted, tmp_path, x64):
    posterior = posterior_of({"s": np.ones(2)}, bbvi.positive, MeanFieldGaussian(), seed=5)
    saved(fitted, posterior, tmp_path / "fit")
    mean = np.asarray(posterior.mean()["s"])
    # the thread's own setting, as someone without 64-bit types would have it
    context = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    with context(False):
        loaded = bbvi.load(tmp_path / "fit").posterior.mean()["s"]
        assert loaded.dtype == jnp.float32
        np.testing.assert_allclose(loaded, mean, rtol=0.05)


# --- what a file cannot hold -------------------------------------------------------------


def below(params, data):
    return data["top"] - params["alpha"]


DEPENDENT_INIT = {"alpha": 0.5, "beta": 0.2, "gamma": 1.0}
DEPENDENT = {
    "alpha": bbvi.unit_interval,
    "beta": bbvi.interval(0.0, below),
    "gamma": bbvi.positive,
}


@pytest.fixture
def dependent(fitted, tmp_path):
    data = {"top": np.float32(1.25)}
    posterior = posterior_of(DEPENDENT_INIT, DEPENDENT, MeanFieldGaussian(), data, seed=6)
    saved(fitted, posterior, tmp_path / "fit")
    return posterior, tmp_path / "fit"


def test_bounds_that_are_functions_have_to_be_given_again(dependent):
    posterior, path = dependent
    with pytest.raises(InputError, match=r"support of beta is a function.*load\(path, support="):
        bbvi.load(path)
    loaded = bbvi.load(path, support=DEPENDENT).posterior
    # with the data that the bound needs
    assert_same_draws(loaded, posterior)
    draws = loaded.sample(0, 20)
    assert (draws["beta"] < 1.25 - draws["alpha"]).all()


def test_supports_that_are_left_out_stay_as_saved(dependent):
    # to give the one that is missing must not turn the others into real ones
    posterior, path = dependent
    loaded = bbvi.load(path, support={"beta": DEPENDENT["beta"]}).posterior
    assert loaded.target.leaves == posterior.target.leaves


@dataclass(frozen=True)
class Doubled(Real):
    """A support of the user's own."""

    name = "doubled"

    def forward_and_log_det(self, x):
        return 2 * x, jnp.asarray(x.size * math.log(2), x.dtype)

    def inverse(self, y):
        return y / 2


def test_supports_of_ones_own_have_to_be_given_again(fitted, tmp_path):
    posterior = posterior_of({"x": np.zeros(2)}, Doubled(), MeanFieldGaussian(), seed=7)
    saved(fitted, posterior, tmp_path / "fit")
    with pytest.raises(InputError, match="support of x is a function or your own class"):
        bbvi.load(tmp_path / "fit")
    loaded = bbvi.load(tmp_path / "fit", support=Doubled()).posterior
    assert loaded.target.leaves == posterior.target.leaves


def test_a_log_joint_has_to_be_given_again(fitted, tmp_path):
    fitted.save(tmp_path / "fit")
    target = bbvi.load(tmp_path / "fit").posterior.target
    with pytest.raises(InputError, match=r"has no log joint: call bbvi.load\(path, log_joint="):
        target.log_density(jnp.zeros(4), regression_data())
    target = bbvi.load(tmp_path / "fit", log_joint=regression).posterior.target
    assert target == fitted.posterior.target


class Point(NamedTuple):
    x: float


@dataclass(frozen=True)
class OwnFamily(MeanFieldGaussian):
    pass


@pytest.mark.parametrize(
    ("init", "family", "words"),
    [
        (Point(0.0), MeanFieldGaussian(), "parameters hold a Point, and only dicts"),
        ({1: 0.0}, MeanFieldGaussian(), "parameters hold a dict, and only dicts with string keys"),
        ({"x": 0.0}, OwnFamily(), "OwnFamily is not a family of bbvi"),
    ],
)
def test_what_cannot_be_saved_says_so(init, family, words, fitted, tmp_path):
    with pytest.raises(InputError, match=words):
        saved(fitted, posterior_of(init, None, family, seed=8), tmp_path / "fit")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file(fitted, tmp_path, monkeypatch):
    fitted.save(tmp_path / "fit")
    before = (tmp_path / "fit").read_bytes()

    def full(file, *args, **kwargs):
        file.write(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space left"):
        fitted.save(tmp_path / "fit")
    assert [p.name for p in tmp_path.iterdir()] == ["fit"]
    assert (tmp_path / "fit").read_bytes() == before


# --- files of strangers ------------------------------------------------------------------


def rewrite(path, header=None, **changes):
    """Change the header, or arrays, of a saved file; None takes one out."""
    with np.load(path) as content:
        arrays = dict(content)
    own = json.loads(str(arrays.pop(storage._HEADER)))
    header = {**own, **header} if isinstance(header, dict) else header or own
    arrays = {k: v for k, v in {**arrays, **changes}.items() if v is not None}
    text = header if isinstance(header, str) else json.dumps(header)
    with open(path, "wb") as file:
        np.savez(file, **{storage._HEADER: np.array(text)}, **arrays)


@pytest.fixture
def path(fitted, tmp_path):
    fitted.save(tmp_path / "fit.npz")
    return tmp_path / "fit.npz"


def test_a_rewritten_file_loads(path, fitted):
    rewrite(path)
    assert bbvi.load(path).elbo == fitted.elbo


def test_a_random_npz(path):
    np.savez(path, x=np.ones(3))
    with pytest.raises(InputError, match="fit.npz is .*not a file of bbvi"):
        bbvi.load(path)


def test_a_random_npy(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(3))
    with pytest.raises(InputError, match="x.npy is .*not a file of bbvi"):
        bbvi.load(tmp_path / "x.npy")


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04", b"some words", b"\x80\x04K\x01."])
def test_a_random_file(content, tmp_path):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError, match="x is .*not a file of bbvi"):
        bbvi.load(tmp_path / "x")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_file(share, path):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="fit.npz is .*not a file of bbvi"):
        bbvi.load(path)


def test_a_file_with_flipped_bits(path):
    content = bytearray(path.read_bytes())
    middle = len(content) // 2  # inside the draws, which are most of the file
    content[middle] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="fit.npz is .*not a file of bbvi"):
        bbvi.load(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        bbvi.load(tmp_path / "nowhere")


def test_a_file_of_a_newer_version(path):
    rewrite(path, {"version": storage.VERSION + 1})
    with pytest.raises(InputError, match=r"written by a newer bbvi \(format 2, .* upgrade bbvi"):
        bbvi.load(path)


def test_a_file_of_another_kind(path):
    rewrite(path, {"kind": "checkpoint"})
    with pytest.raises(InputError, match="holds a checkpoint, not a result"):
        bbvi.load(path)


@pytest.mark.parametrize("header", ["[1, 2]", "not json", '"text"', '{"kind": "result"}'])
def test_a_header_that_is_none(header, path):
    rewrite(path, header)
    with pytest.raises(InputError):
        bbvi.load(path)


def test_a_file_that_lacks_an_array(path):
    rewrite(path, **{"params/0": None})
    with pytest.raises(InputError, match="lacks params/0"):
        bbvi.load(path)


def test_a_family_that_this_version_lacks(path):
    for name in ("BestGaussian", "LOG_2PI", "Family.init"):
        rewrite(path, {"family": [name, {}]})
        with pytest.raises(InputError, match=f"names the family {name}"):
            bbvi.load(path)


class Trap:
    sprung = False

    def __reduce__(self):
        return (setattr, (Trap, "sprung", True))


def test_nothing_is_ever_unpickled(path):
    trap = np.empty(1, object)
    trap[0] = Trap()
    rewrite(path, **{"params/0": trap})
    with pytest.raises(InputError, match="not a file of bbvi"):
        bbvi.load(path)
    assert not Trap.sprung
    # the trap is a real one
    with np.load(path, allow_pickle=True) as content:
        content["params/0"]
    assert Trap.sprung
