"""Diagnostics: Pareto smoothing, and what fresh draws say of an approximation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbvi.diagnostics.fresh_draws
from bbvi._tree import split
from bbvi.bijectors import correlation, positive
from bbvi.diagnostics.fresh_draws import default_draws, diagnose, reaches_far
from bbvi.diagnostics.moments import Moments, with_tail_errors
from bbvi.diagnostics.pareto import (
    growth_lost,
    growth_shape,
    largest_terms,
    psis,
    rate_lost,
    tail_shape,
    tail_size,
)
from bbvi.evaluate import generator
from bbvi.families import FullRankGaussian, LowRankGaussian, MeanFieldGaussian
from bbvi.families.proposals import draw_noise, host_noise
from bbvi.inputs import make_target

smooth = jax.jit(psis)
smooth_many = jax.jit(jax.vmap(psis))

# --- Pareto smoothing --------------------------------------------------------------------


def narrow_normal(rng, size, s):
    """log p/q for p standard normal, q normal with a smaller sd s: the weights have k = 1 - s^2.

    P(|z| > c) falls like exp(-c^2 / 2 s^2) and the weight grows like exp(c^2/2 (1/s^2 - 1)).
    """
    z = s * rng.standard_normal(size)
    return -0.5 * z**2 + 0.5 * (z / s) ** 2


RATIOS = {
    "pareto-0.1": lambda rng, n: 0.1 * rng.exponential(size=n),
    "pareto-0.6": lambda rng, n: 0.6 * rng.exponential(size=n),
    "pareto-1.5": lambda rng, n: 1.5 * rng.exponential(size=n) - 50,
    "narrow": lambda rng, n: narrow_normal(rng, n, 0.5),
    "wide": lambda rng, n: narrow_normal(rng, (8, n), 2.0).sum(0),
    "student": lambda rng, n: np.log(np.abs(rng.standard_t(3, size=n))),
    "uniform": lambda rng, n: np.log(rng.uniform(size=n)),
}


@pytest.mark.parametrize("name", RATIOS)
@pytest.mark.usefixtures("x64")
def test_agrees_with_arviz(name):
    stats = pytest.importorskip("arviz_stats.base").array_stats
    for size in (1000, 100) if name == "narrow" else (1000,):
        log_ratio = RATIOS[name](np.random.default_rng(1), size)
        log_weights, khat = smooth(log_ratio)
        # ArviZ asks for the log likelihood of leave-one-out: minus the log ratio
        expected, expected_khat = stats.psislw(-log_ratio)
        np.testing.assert_allclose(khat, expected_khat, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(log_weights, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_agrees_with_arviz_where_weights_are_zero():
    stats = pytest.importorskip("arviz_stats.base").array_stats
    log_ratio = RATIOS["narrow"](np.random.default_rng(1), 1000)
    log_ratio[::2] = -np.inf
    log_weights, khat = smooth(log_ratio)
    expected, expected_khat = stats.psislw(-log_ratio)
    np.testing.assert_allclose(khat, expected_khat, rtol=1e-9)
    np.testing.assert_allclose(log_weights, expected, rtol=1e-9)
    assert np.isneginf(log_weights[::2]).all()


def shrunk(k, size):
    """The estimator draws k towards 1/2 with the weight of ten observations."""
    tail = int(min(size / 5, 3 * size**0.5))
    return (tail * k + 5) / (tail + 10)


@pytest.mark.parametrize("k", [0.2, 0.5, 0.8, 1.2])
def test_khat_of_pareto_weights(k):
    size, seeds = 2500, 200
    rng = np.random.default_rng(0)
    log_ratio = (k * rng.exponential(size=(seeds, size))).astype(np.float32)
    khats = np.asarray(smooth_many(log_ratio)[1])
    error = khats.std() / seeds**0.5
    assert abs(khats.mean() - shrunk(k, size)) < 5 * error + 0.01
    # one estimate scatters by about (1 + k) / sqrt(150)
    assert khats.std() < 1.5 * (1 + k) / 150**0.5


@pytest.mark.parametrize("s", [0.3, 0.5, 0.7])
def test_khat_of_a_normal_that_is_too_narrow(s):
    size, seeds = 2500, 200
    rng = np.random.default_rng(0)
    log_ratio = narrow_normal(rng, (seeds, size), s).astype(np.float32)
    khat = np.asarray(smooth_many(log_ratio)[1]).mean()
    # The limit is 1 - s^2. Where the tail begins, at 6% of the draws, the slope of log P(w > t) in
    # log t is steeper, by 1 / (c^2 (1/s^2 - 1)), as the normal's tail has a factor 1/c.
    limit = 1 - s**2
    c = 1.88 * s
    at_the_cut = 1 / (1 / limit + 1 / (c**2 * (1 / s**2 - 1)))
    assert shrunk(at_the_cut, size) - 0.02 < khat < shrunk(limit, size) + 0.02


def test_sign_of_the_log_ratio():
    # A target of sd 2 under draws of sd 1 is hard; draws of sd 2 for a target of sd 1 are easy.
    z = np.random.default_rng(0).standard_normal(1000)
    narrow = -0.5 * (z / 2) ** 2 + 0.5 * z**2
    assert smooth(narrow)[1] > 0.5
    assert smooth(-narrow)[1] < 0.1


def test_weights_are_normalised_and_only_the_tail_is_changed():
    log_ratio = RATIOS["student"](np.random.default_rng(2), 1000).astype(np.float32)
    log_weights = np.asarray(smooth(log_ratio)[0], np.float64)
    np.testing.assert_allclose(np.exp(log_weights).sum(), 1, rtol=1e-5)
    order = np.argsort(log_ratio)
    body = order[: 1000 - 94]
    shift = log_weights[body] - log_ratio[body]
    np.testing.assert_allclose(shift, shift[0], atol=1e-5)
    # order is kept, and nothing exceeds the largest ratio
    assert (np.diff(log_weights[order]) >= 0).all()
    assert log_weights.max() <= log_ratio.max() + shift[0] + 1e-5


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4])
def test_equal_weights(offset):
    log_weights, khat = smooth(np.full(1000, offset, np.float32))
    np.testing.assert_allclose(log_weights, -np.log(1000), rtol=1e-6)
    assert np.isfinite(khat)
    assert khat < 0.5


def test_weights_equal_up_to_rounding():
    # what float32 makes of log p - log q where q is p
    noise = 1e-6 * np.random.default_rng(0).standard_normal(1000)
    log_weights, khat = smooth(noise.astype(np.float32))
    np.testing.assert_allclose(log_weights, -np.log(1000), rtol=1e-5)
    assert np.isfinite(khat)
    assert khat < 0.5


def test_zero_weights_stay_zero():
    log_ratio = np.log(np.random.default_rng(0).uniform(size=1000)).astype(np.float32)
    log_ratio[::4] = -np.inf
    log_weights, khat = smooth(log_ratio)
    assert np.isneginf(log_weights[::4]).all()
    np.testing.assert_allclose(np.exp(log_weights).sum(), 1, rtol=1e-5)
    assert np.isfinite(khat)


@pytest.mark.parametrize(("finite", "size"), [(20, 1000), (8, 16_384)])
def test_few_draws_with_any_weight(finite, size):
    # fewer than the tail is long: the rest of it are zeros, which smoothing must not lift
    log_ratio = np.full(size, -np.inf, np.float32)
    log_ratio[:finite] = 0.1 * np.random.default_rng(0).standard_normal(finite)
    log_weights, khat = smooth(log_ratio)
    assert khat > 0.7
    assert np.isneginf(log_weights[finite:]).all()
    np.testing.assert_allclose(np.exp(log_weights[:finite]).sum(), 1, rtol=1e-5)


@pytest.mark.parametrize("finite", [0, 1, 4])
@pytest.mark.parametrize("size", [4, 1000])
def test_fewer_than_five_finite_ratios(finite, size):
    log_ratio = np.full(size, -np.inf, np.float32)
    log_ratio[:finite] = np.arange(finite)
    log_weights, khat = smooth(log_ratio)
    assert khat == np.inf
    if finite:
        np.testing.assert_allclose(np.exp(log_weights).sum(), 1, rtol=1e-5)


@pytest.mark.parametrize("name", ["pareto-0.6", "narrow", "student"])
def test_float32_agrees_with_float64(name, request):
    log_ratio = RATIOS[name](np.random.default_rng(3), 1000)
    # large log densities lose digits before they get here; a common offset must not matter
    weights_32, khat_32 = smooth(log_ratio.astype(np.float32))
    assert khat_32.dtype == weights_32.dtype == jnp.float32
    request.getfixturevalue("x64")
    weights, khat = smooth(log_ratio)
    assert khat.dtype == jnp.float64
    np.testing.assert_allclose(khat_32, khat, atol=1e-3)
    np.testing.assert_allclose(weights_32, weights, atol=1e-3)


def test_the_shapes_of_tails_and_the_rate_that_their_sums_lose():
    size, rng = 16_384, np.random.default_rng(2)
    shapes = np.array([0.1, 0.4, 0.8, 1.2])
    terms = np.exp(shapes[:, None] * rng.exponential(size=(4, size))).astype(np.float32)
    fitted = jax.jit(tail_shape, static_argnums=1)
    found = fitted(jax.jit(largest_terms, static_argnums=1)(terms, size)[None], size)
    # a shape is known to (1 + k) / sqrt(384), which is a tenth
    np.testing.assert_allclose(found, shapes, atol=0.3)
    lost = rate_lost(found, size)
    assert (lost[:2] == 1).all()
    np.testing.assert_allclose(np.log(lost[2:]) / np.log(tail_size(size)), found[2:] - 0.5, 1e-5)
    # the largest of all are among the largest of each chunk
    chunks = [largest_terms(jnp.asarray(c), size) for c in np.split(terms, 16, axis=1)]
    np.testing.assert_allclose(fitted(jnp.stack(chunks), size), found, rtol=1e-6)


def test_the_shape_by_the_growth_of_the_largest():
    size, rng = 7680, np.random.default_rng(3)
    shapes = np.repeat([0.2, 0.8, 1.2], 50)
    terms = np.exp(shapes[:, None] * rng.exponential(size=(150, size))).astype(np.float32)
    growth = jax.jit(growth_shape)(terms)
    found = np.log(growth_lost(growth, size)).reshape(3, 50) / np.log(size / 32)
    assert (found[0] == 0).mean() > 0.9
    # in most samples the largest terms are smaller than in the mean of all samples
    np.testing.assert_allclose(np.median(found, axis=1), [0, 0.6 * 0.3, 0.6 * 0.7], atol=0.1)
    assert (found[1:].std(axis=1) < 0.3).all()
    # draws in the order of their size count the same, and a few say nothing
    ordered = growth_shape(jnp.sort(terms, axis=1)).reshape(3, 50)
    assert (np.median(ordered, axis=1)[1:] > 0.6).all()
    assert (growth_shape(jnp.asarray(terms[:, :64])) == 0).all()
    assert (growth_shape(jnp.zeros((2, size))) == 0).all()


def test_shapes_of_terms_that_are_too_many_or_do_not_vary():
    many = largest_terms(jnp.ones((5000, 6000)), 1 << 20)
    assert many.size == 0
    assert (tail_shape(many[None], 1 << 20) == 0).all()
    same = np.array([np.zeros(1000), np.ones(1000)], np.float32)
    assert (tail_shape(largest_terms(same, 1000)[None], 1000) == 0).all()
    overflow = np.where(np.arange(1000) == 3, np.inf, 1.0).astype(np.float32)[None]
    shape = tail_shape(largest_terms(overflow, 1000)[None], 1000)
    assert np.isinf(rate_lost(shape, 1000)).all()
    # and not a word where nothing varies either (warnings are errors here)
    still = Moments(*np.zeros((4, 1), np.float32))
    assert np.isnan(with_tail_errors(still, shape, 1000).sd_se).all()


def students(x):
    """Two Student-t of three degrees of freedom: variances of 3, fourth moments of none."""
    return -2 * jnp.sum(jnp.log1p(x**2 / 3))


@pytest.mark.usefixtures("x64")
def test_draws_far_out_know_the_squares_of_heavy_tails():
    target = make_target(students, np.zeros(2), None, None)[0]
    family = FullRankGaussian()
    params = family.init(np.zeros(2), np.full(2, 1.2))
    for key in range(3):
        args = (target, family, params, jax.random.key(key), None)
        near, far = diagnose(*args), diagnose(*args, far=True)
        assert near.square_shape.max() > 0.5
        assert far.square_shape.max() < near.square_shape.max()
        np.testing.assert_allclose(far.corrected.sd, np.sqrt(3), rtol=0.05)
        np.testing.assert_allclose(far.raw.sd, 1.2, rtol=0.05)
        assert far.own.sum() == far.num_draws // 2
        # of the others those that count, whose weights are nearly all of the weight
        weighs = np.isfinite(far.log_weights)
        assert far.own.sum() < weighs.sum() < len(far.draws) == far.num_draws
        farthest = np.linalg.norm(far.draws[weighs], axis=1).max()
        assert np.linalg.norm(far.draws[~weighs], axis=1).max() <= farthest
        np.testing.assert_allclose(np.exp(far.log_weights).sum(), 1, rtol=1e-6)
        assert (np.abs(far.corrected.sd - np.sqrt(3)) < 5 * far.corrected.sd_se).all()


def test_draws_far_out_are_not_made_of_all_families_and_not_in_many_dimensions():
    for dim, family in ((2, LowRankGaussian(rank=1)), (300, MeanFieldGaussian())):
        target = make_target(students, np.zeros(dim), None, None)[0]
        params = family.init(jnp.zeros(dim), jnp.ones(dim))
        assert not reaches_far(target, family, params, default_draws(target)[0])


def test_vmap_over_problems():
    rng = np.random.default_rng(4)
    log_ratios = np.stack([make(rng, 1000) for make in RATIOS.values()]).astype(np.float32)
    many = smooth_many(log_ratios)
    for i, log_ratio in enumerate(log_ratios):
        for found, alone in zip(many, smooth(log_ratio), strict=True):
            np.testing.assert_allclose(found[i], alone, rtol=1e-5, atol=1e-5)


# --- diagnose ----------------------------------------------------------------------------

MEAN = np.array([0.3, 1.0, -2.0])
ROOT = np.array([[0.5, 0.0, 0.0], [0.2, 1.0, 0.0], [-0.4, 0.3, 2.0]])
LOG_Z = -7.5


def gaussian(params, data):
    """log Z + a Gaussian of (log s, x), written for s itself, hence the last term."""
    z = jnp.concatenate([jnp.log(params["s"])[None], params["x"]])
    eps = jnp.linalg.solve(data["root"], z - data["mean"])
    log_det = jnp.linalg.slogdet(2 * jnp.pi * data["root"] @ data["root"].T)[1]
    return LOG_Z - 0.5 * eps @ eps - 0.5 * log_det - jnp.log(params["s"])


def the_target():
    init = {"s": np.ones(()), "x": np.zeros(2)}
    data = {"mean": MEAN, "root": ROOT}
    return make_target(gaussian, init, data, {"s": positive})


def moments_of(mean, root):
    """Means and sds of (s, x) for log s, x jointly Gaussian."""
    sd = np.sqrt(np.sum(root**2, 1))
    log_normal = np.exp(mean[0] + 0.5 * sd[0] ** 2)
    sds = [log_normal * np.sqrt(np.expm1(sd[0] ** 2)), *sd[1:]]
    return np.array([log_normal, *mean[1:]]), np.array(sds)


def closed_form_elbo(mean, root):
    eps_root = np.linalg.solve(ROOT, root)
    shift = np.linalg.solve(ROOT, mean - MEAN)
    log_det = np.linalg.slogdet(eps_root)[1]
    return LOG_Z - 0.5 * (np.sum(eps_root**2) + shift @ shift - 3 - 2 * log_det)


def within(found, expected, error, k=5):
    np.testing.assert_array_less(np.abs(found - expected), k * error + 1e-12)


@pytest.mark.usefixtures("x64")
def test_an_approximation_that_is_slightly_off():
    target, _, data = the_target()
    mean, root = MEAN + np.array([0.1, -0.2, 0.4]), 1.25 * ROOT
    family = FullRankGaussian()
    params = jax.jit(family.init)(mean, root)
    d = jax.device_get(diagnose(target, family, params, jax.random.key(1), data, 4096))
    assert d.num_draws == 4096
    assert d.bad_share == d.outside_share == 0

    raw_mean, raw_sd = moments_of(mean, root)
    within(d.raw.mean, raw_mean, d.raw.mean_se)
    within(d.raw.sd, raw_sd, d.raw.sd_se)
    # most of the wider draws count for the approximation too
    np.testing.assert_allclose(d.raw.mean_se, raw_sd / np.sqrt(d.best_ess), rtol=0.1)
    # of a Gaussian, to five times the 4% that eighth moments give; the log-normal's is larger
    np.testing.assert_allclose(d.raw.sd_se[1:], raw_sd[1:] / np.sqrt(2 * d.best_ess), rtol=0.2)

    true_mean, true_sd = moments_of(MEAN, ROOT)
    within(d.corrected.mean, true_mean, d.corrected.mean_se)
    within(d.corrected.sd, true_sd, d.corrected.sd_se)
    # the errors are small enough to tell the two apart
    assert (np.abs(raw_mean - true_mean) > 5 * d.corrected.mean_se).all()
    assert (np.abs(raw_sd - true_sd) > 5 * d.corrected.sd_se).all()

    within(d.elbo, closed_form_elbo(mean, root), d.elbo_se)
    assert 0 < d.elbo_se < 0.05
    within(d.log_evidence, LOG_Z, np.sqrt(1 / d.ess - 1 / 4096))
    assert d.elbo < d.log_evidence
    assert d.khat < 0.5
    assert 1000 < d.ess < d.best_ess < 4096

    # the same program at the truth: nothing left to correct
    params = jax.jit(family.init)(MEAN, ROOT)
    d = jax.device_get(diagnose(target, family, params, jax.random.key(1), data, 4096))
    np.testing.assert_allclose(d.elbo, LOG_Z, rtol=1e-12)
    assert d.elbo_se < 1e-12
    # the weights are then those of the approximation over its mixture with heavier tails
    within(d.log_evidence, LOG_Z, np.sqrt(1 / d.ess - 1 / 4096))
    assert d.khat <= 0
    np.testing.assert_allclose(d.ess, d.best_ess, rtol=1e-3)  # but for the smoothing
    assert d.ess > 0.9 * 4096
    within(d.corrected.mean, true_mean, d.corrected.mean_se)
    within(d.corrected.sd, true_sd, d.corrected.sd_se)


def test_the_standard_errors_are_what_they_say():
    target, _, data = the_target()
    mean, root = (MEAN + 0.1).astype(np.float32), (1.2 * ROOT).astype(np.float32)
    family = FullRankGaussian()

    @jax.jit
    def many(keys):
        params = family.init(jnp.asarray(mean), jnp.asarray(root))
        return jax.vmap(lambda key: diagnose(target, family, params, key, data, 500))(keys)

    d = jax.device_get(many(jax.random.split(jax.random.key(0), 400)))
    true_mean, true_sd = moments_of(MEAN, ROOT)
    raw_mean, raw_sd = moments_of(mean, root)
    z_scores = [
        (d.raw.mean - raw_mean) / d.raw.mean_se,
        (d.raw.sd - raw_sd) / d.raw.sd_se,
        (d.corrected.mean - true_mean) / d.corrected.mean_se,
        (d.corrected.sd - true_sd) / d.corrected.sd_se,
        ((d.elbo - closed_form_elbo(mean, root)) / d.elbo_se)[:, None],
    ]
    for z in z_scores:
        # unbiased to a fifth of a standard error; the spread is one to a quarter
        assert (np.abs(z.mean(0)) < 0.2 + 5 / np.sqrt(400)).all()
        assert (z.std(0) > 0.8).all()
        assert (z.std(0) < 1.3).all()


@pytest.mark.usefixtures("x64")
def test_numpy_and_a_compiled_program_give_the_same_figures(monkeypatch):
    target, _, data = the_target()
    family = FullRankGaussian()
    params = jax.jit(family.init)(MEAN + 0.1, 1.25 * ROOT)
    key = jax.random.key(5)
    host = diagnose(target, family, params, key, data, 4096)
    assert all(isinstance(x, np.ndarray | np.generic) for x in jax.tree.leaves(host))
    # the same noise for both
    noise = host_noise(generator(key), 4096, 3, float)
    monkeypatch.setattr(bbvi.diagnostics.fresh_draws, "draw_noise", lambda *_: noise)
    compiled = jax.jit(lambda key: diagnose(target, family, params, key, data, 4096))(key)
    # tails are fitted in single precision
    np.testing.assert_allclose(host.square_shape, compiled.square_shape, rtol=1e-5)
    compiled = compiled._replace(square_shape=host.square_shape)
    for one, other in zip(host, compiled, strict=True):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), one, other)


def gumbel_log_joint(z):
    # the logarithm of an exponential variable: to the left its density falls like exp(z)
    return jnp.sum(z - jnp.exp(z))


def test_a_tail_that_draws_do_not_reach_widens_the_error():
    target, _, _ = make_target(gumbel_log_joint, np.zeros(3, np.float32), None, None)
    family = FullRankGaussian()
    # a narrow Gaussian around the mode: it sees the tail in its few widest draws
    params = jax.jit(family.init)(np.zeros(3, np.float32), np.float32(0.8))
    truth = np.pi / np.sqrt(6)
    keys = jax.random.split(jax.random.key(3), 100)
    many = jax.jit(jax.vmap(lambda key: diagnose(target, family, params, key, None, 4096)))
    found = jax.device_get(many(keys).corrected)
    plain = jax.jit(jax.vmap(lambda key: _plain_error(target, family, params, key)))(keys)
    # by the plain standard error one answer in twenty is more than three errors off
    far, said = np.abs(found.sd - truth) / plain, np.abs(found.sd - truth) / found.sd_se
    assert (far > 3).mean() > 0.03
    assert (said > 3).mean() < 0.02
    assert (found.sd_se > 0.99 * plain).all()


def _plain_error(target, family, params, key):
    drawn = family.propose(params, key, 4096)
    log_weights, _ = psis(target.log_densities(drawn.z, None) - drawn.log_mixture)
    w = jnp.exp(log_weights)[:, None]
    mean = jnp.sum(w * drawn.z, axis=0)
    squares = (drawn.z - mean) ** 2
    variance = jnp.sum(w * squares, axis=0)
    return jnp.sqrt(jnp.sum((w * (squares - variance)) ** 2, axis=0) / (4 * variance))


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.usefixtures("x64")
def test_chunks_against_numpy_on_the_same_draws(on_host, monkeypatch):
    # 300 draws of three numbers at once: four chunks of 250, on the host or in one program
    num_draws = 999
    monkeypatch.setattr(bbvi.diagnostics.fresh_draws, "_CHUNK_ELEMENTS", 900)
    monkeypatch.setattr(bbvi.diagnostics.fresh_draws, "_HOST_ELEMENTS", 3000 if on_host else 2999)
    target, _, data = the_target()
    mean, root = MEAN + np.array([0.1, -0.2, 0.4]), 1.25 * ROOT
    family = FullRankGaussian()
    params = jax.jit(family.init)(mean, root)
    key = jax.random.key(5)
    d = jax.device_get(diagnose(target, family, params, key, data, num_draws))
    assert d.num_draws == 1000

    if on_host:
        chunks = [host_noise(generator(k), 250, 3, np.float64) for k in split(key, 4)]
        noise = jax.tree.map(lambda *x: np.stack(x), *chunks)
    else:
        draw = jax.vmap(lambda k: draw_noise(k, 250, 3, np.float64))
        noise = jax.jit(draw)(jax.random.split(key, 4))

    @jax.jit
    def redraw(noise):
        drawn = jax.vmap(lambda noise: family.propose_at(params, noise))(noise)
        return jax.tree.map(lambda x: x.reshape(1000, *x.shape[2:]), drawn)

    z, log_q, log_mixture, own = jax.device_get(redraw(noise))
    assert own.sum() == 500
    x = np.concatenate([np.exp(z[:, :1]), z[:, 1:]], 1)
    eps = np.linalg.solve(ROOT, (z - MEAN).T)
    log_det = np.linalg.slogdet(2 * np.pi * ROOT @ ROOT.T)[1]
    log_ratio = LOG_Z - 0.5 * (eps**2).sum(0) - 0.5 * log_det - log_q
    np.testing.assert_allclose(d.elbo, log_ratio[own].mean(), rtol=1e-10)
    np.testing.assert_allclose(d.elbo_se, log_ratio[own].std() / np.sqrt(500), rtol=1e-8)
    exact = np.exp(log_q - log_mixture)
    np.testing.assert_allclose(d.best_ess, exact.sum() ** 2 / (exact**2).sum(), rtol=1e-8)
    log_ratio = log_ratio + log_q - log_mixture
    np.testing.assert_allclose(d.log_evidence, np.log(np.mean(np.exp(log_ratio))), rtol=1e-10)
    log_weights, khat = smooth(log_ratio)
    weights = np.exp(log_weights)
    np.testing.assert_allclose(d.khat, khat, rtol=1e-6)
    np.testing.assert_allclose(d.ess, 1 / np.sum(weights**2), rtol=1e-8)
    for found, w in ((d.raw, exact / exact.sum()), (d.corrected, weights)):
        mean = w @ x
        variance = w @ (x - mean) ** 2
        np.testing.assert_allclose(found.mean, mean, rtol=1e-9)
        np.testing.assert_allclose(found.sd, np.sqrt(variance), rtol=1e-9)
        np.testing.assert_allclose(found.mean_se, np.sqrt(w**2 @ (x - mean) ** 2), rtol=1e-9)
        spread = np.sqrt(w**2 @ ((x - mean) ** 2 - variance) ** 2)
        np.testing.assert_allclose(found.sd_se, spread / (2 * np.sqrt(variance)), rtol=1e-7)


def holes(params, data):
    """NaN beyond x[0] = 1, +inf beyond x[1] = 1.5, -inf beyond x[2] = 0.5."""
    x = params["x"]
    log_p = -0.5 * jnp.sum(x**2) + jnp.log(1 - x[0])
    log_p = jnp.where(x[1] > 1.5, jnp.inf, log_p)
    return jnp.where(x[2] > 0.5, -jnp.inf, log_p)


def test_lost_draws_are_counted_and_left_out():
    init = {"c": np.eye(2), "x": np.zeros(3)}
    target, _, _ = make_target(holes, init, None, {"c": correlation})
    family = MeanFieldGaussian()
    params = {"loc": np.zeros(4, np.float32), "log_scale": np.zeros(4, np.float32)}
    key = jax.random.key(2)
    d = jax.device_get(diagnose(target, family, params, key, None, 2000))

    noise = host_noise(generator(key), 2000, 4, np.float32)

    @jax.jit
    def redraw(noise):
        drawn = family.propose_at(params, noise)
        return drawn, target.log_densities(drawn.z, None)

    (z, log_q, log_mixture, own), log_p = jax.device_get(redraw(noise))
    outside = z[:, 3] > 0.5
    bad = ~outside & ((z[:, 2] > 1.5) | (z[:, 1] > 1))
    good = ~outside & ~bad
    assert outside.any()
    assert (~outside & (z[:, 2] > 1.5)).any()
    np.testing.assert_allclose(d.outside_share, outside[own].mean(), rtol=1e-6)
    np.testing.assert_allclose(d.bad_share, bad[own].mean(), rtol=1e-6)

    log_ratio = (log_p - log_q)[good & own].astype(np.float64)
    assert np.isfinite(log_ratio).all()
    np.testing.assert_allclose(d.elbo, log_ratio.mean(), rtol=1e-4)
    np.testing.assert_allclose(d.elbo_se, log_ratio.std() / np.sqrt(len(log_ratio)), rtol=1e-4)
    # the evidence counts the lost draws as zeros
    log_ratio = (log_p - log_mixture)[good].astype(np.float64)
    expected = np.log(np.exp(log_ratio).sum() / 2000)
    np.testing.assert_allclose(d.log_evidence, expected, rtol=1e-4)
    # The diagonal of a correlation matrix cannot vary: no NaN, no spread.
    for moments in (d.raw, d.corrected):
        np.testing.assert_allclose(moments.mean[[0, 3]], 1, rtol=1e-6)
        assert (moments.sd[[0, 3]] < 1e-6).all()
        for values in moments:
            assert np.isfinite(values).all()
    # weights vanish outside, so the corrected means stay inside
    assert d.raw.mean[-1] > -0.1 > d.corrected.mean[-1]


def far_away(params, data):
    return -0.5 * jnp.sum((params["x"] - data) ** 2)


@pytest.mark.parametrize(("bits", "offset"), [(32, 1e6), (64, -1e12)])
def test_a_large_offset_keeps_the_sd(bits, offset, request):
    if bits == 64:
        request.getfixturevalue("x64")
    loc = np.full(2, offset, f"float{bits}")
    target, _, data = make_target(far_away, {"x": loc}, loc, None)
    params = {"loc": loc, "log_scale": np.zeros_like(loc)}
    family = MeanFieldGaussian()
    d = jax.device_get(diagnose(target, family, params, jax.random.key(3), data, 3000))
    # Floats near 1e6 are 1/16 apart, so log p and log q differ by rounding: little weight noise
    assert d.khat < 0.7
    for moments in (d.raw, d.corrected):
        rounding = np.finfo(loc.dtype).eps * abs(offset)
        within(moments.mean.astype(np.float64), offset, moments.mean_se + rounding)
        within(moments.sd, 1, moments.sd_se)
    np.testing.assert_allclose(d.raw.sd_se, 1 / np.sqrt(2 * d.best_ess), rtol=0.2)
    np.testing.assert_allclose(d.corrected.sd_se, 1 / np.sqrt(2 * d.ess), rtol=0.3)
