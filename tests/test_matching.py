"""Telling modes apart: far is not enough, there must be a valley."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbvi
from bbvi.evaluate import generator, in_blocks, paired_normals
from bbvi.families import Frame, FullRankGaussian
from bbvi.inputs import make_target
from bbvi.solvers import batch_match
from bbvi.solvers.factorised import EVALUATIONS, factorised
from bbvi.stages.gaussians.match import match_target
from bbvi.stages.gaussians.matching import Matches, match_modes
from bbvi.stages.gaussians.modes import separate_modes, valley

pytestmark = pytest.mark.usefixtures("x64")


def two_normals(params, data):
    """Equal normals of sd 1 at -a and a, up to a constant."""
    return jnp.logaddexp(-0.5 * (params + data) ** 2, -0.5 * (params - data) ** 2).sum()


def funnel(params, data):
    """Neal's: log of the scale N(0, 3), and x given it."""
    v, x = params[0], params[1:]
    return -(v**2) / 18 - 0.5 * jnp.sum(x**2) * jnp.exp(-v) - 0.5 * x.size * v


def matched(pairs, elbo=(0.0, 0.0)):
    family = FullRankGaussian()
    params = [family.init(jnp.asarray(loc), jnp.asarray(scale)) for loc, scale in pairs]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *params)
    return jax.device_get(Matches(jax.vmap(family.frame)(stacked), jnp.array(elbo)))


def test_depth_of_a_valley():
    target, _, data = make_target(two_normals, np.zeros(1), 5.0, None)
    depth = valley(target, jnp.array([-5.0]), jnp.array([5.0]), data)
    # 31 steps of the way: the nearest waypoint lies 5/31 from the middle
    middle, end = (float(two_normals(jnp.array([at]), 5.0)) for at in (5 / 31, 5.0))
    np.testing.assert_allclose(depth, end - middle, rtol=1e-6)
    assert depth > 11
    # one way only down, from a point beyond: no valley
    np.testing.assert_allclose(valley(target, jnp.array([5.0]), jnp.array([9.0]), data), 0)


def test_a_wall_is_a_valley():
    target, _, _ = make_target(
        lambda x: jnp.sum(jnp.where(jnp.abs(x) < 1, jnp.nan, -x)), np.ones(1), None, None
    )
    assert valley(target, jnp.array([-3.0]), jnp.array([3.0]), None) == np.inf


def test_two_modes_are_two():
    target, _, data = make_target(two_normals, np.zeros(1), 5.0, None)
    matches = matched([([-5.0], [1.0]), ([5.0], [1.0])])
    assert separate_modes(target, *matches[:2], data) == [0, 1]


def test_a_mode_of_no_weight_does_not_count():
    target, _, data = make_target(two_normals, np.zeros(1), 5.0, None)
    matches = matched([([-5.0], [1.0]), ([5.0], [1.0])], elbo=(0.0, -6.0))
    assert separate_modes(target, *matches[:2], data) == [0]


def test_the_neck_of_a_funnel_is_no_mode():
    target, _, data = make_target(funnel, np.zeros(3), None, None)
    # the neck lies a hundred of its own sds from the wide part, uphill all the way
    wide, neck = ([0.0, 0.0, 0.0], [2.0, 1.0, 1.0]), ([-5.0, 0.0, 0.0], [0.05, 0.08, 0.08])
    assert separate_modes(target, *matched([wide, neck])[:2], data) == [0]


@pytest.mark.parametrize("key", range(2))
def test_a_mode_without_a_near_start_is_found(key):
    """0.7 N(-4, 1) + 0.3 N(4, 1/2): starts within 2 lead to the first mode alone."""

    def log_joint(x):
        first = -0.5 * (x + 4) ** 2
        second = -0.5 * ((x - 4) / 0.5) ** 2 - jnp.log(0.5)
        return jnp.logaddexp(jnp.log(0.7) + first, jnp.log(0.3) + second)

    result = bbvi.fit(log_joint, -4.0, key=key)
    # moments of the mixture; a thousandth in the weight moves the mean by 0.002 sd
    np.testing.assert_allclose(result.posterior.mean(), -1.6, atol=0.1)
    np.testing.assert_allclose(result.posterior.sd(), np.sqrt(0.7 + 0.3 / 4 + 0.21 * 64), rtol=0.03)
    assert result.verdict.level == "trusted"


def test_more_modes_than_are_matched_at_once():
    """Five equal normals of sd 1/2, nine sds apart: three are matched first."""
    centres = jnp.linspace(-9, 9, 5)

    def log_joint(x):
        return jax.scipy.special.logsumexp(-0.5 * ((x - centres) / 0.5) ** 2)

    result = bbvi.fit(log_joint, 0.0, key=0)
    np.testing.assert_allclose(result.posterior.mean(), 0, atol=0.1)
    np.testing.assert_allclose(result.posterior.sd(), np.sqrt(0.25 + 81 / 2), rtol=0.03)
    assert result.verdict.level == "trusted"


@pytest.mark.parametrize("centred", [False, True])
def test_the_users_point_is_matched_too(centred):
    """300 groups whose scale is known to 9%: paths uphill end where it is zero."""
    groups, rng = 300, np.random.default_rng(0)
    sd = rng.uniform(0.5, 2, groups)
    data = {"sd": sd, "y": 0.7 * rng.normal(size=groups) + sd * rng.normal(size=groups)}

    def log_joint(p, data):
        tau, z = p["tau"], p["z"]
        effect, prior = (z, z / tau) if centred else (tau * z, z)
        log_p = -0.5 * jnp.sum(prior**2) - (groups * jnp.log(tau) if centred else 0) - tau
        return log_p - 0.5 * jnp.sum(((data["y"] - effect) / data["sd"]) ** 2)

    init = {"tau": 1.0, "z": np.zeros(groups)}
    target, _, data = make_target(log_joint, init, data, {"tau": bbvi.positive})
    loc = target.unconstrain(init, data)
    params, log, _ = match_modes(target, loc, *map(jax.random.key, (0, 1)), data)
    assert log.status == bbvi.Status.CONVERGED
    # its log, from the likelihood with the effects integrated out
    grid = np.exp(np.linspace(-3, 1, 2000))
    variance = np.asarray(data["sd"]) ** 2 + grid[:, None] ** 2
    log_p = -0.5 * np.sum(np.log(variance) + data["y"] ** 2 / variance, 1) - grid + np.log(grid)
    weights = np.exp(log_p - log_p.max())
    mean = weights @ np.log(grid) / weights.sum()
    assert abs(float(params["loc"][0]) - mean) < 0.1


@pytest.mark.slow
def test_topics_that_swap_are_modes_in_many_dimensions_too():
    """Two topics of 130 words: whichever comes first, the posterior is the same."""
    rng, documents, words = np.random.default_rng(0), 20, 130
    topics, mix = rng.dirichlet(np.full(words, 0.2), 2), rng.dirichlet(np.ones(2), documents)
    counts = rng.multinomial(100, mix @ topics)

    def log_joint(p, counts):
        return jnp.sum(counts * jnp.log(p["mix"] @ p["topics"]))

    init = {"mix": np.full((documents, 2), 1 / 2), "topics": np.full((2, words), 1 / words)}
    target, _, counts = make_target(log_joint, init, counts, bbvi.simplex)
    loc = target.unconstrain(init, counts)
    _, _, matches = match_modes(target, loc, *map(jax.random.key, (0, 1)), counts)
    assert separate_modes(target, *matches[:2], counts) == [0, 1]
    mixes = [target.constrain(z, counts)["mix"] for z in matches.frame.loc]
    np.testing.assert_allclose(mixes[0], mixes[1][:, ::-1], atol=0.05)


def effects(params, y):
    """Normal effects whose log scale is the first parameter, each seen once with error one."""
    log_scale, z = params[0], params[1:]
    prior = -0.5 * jnp.sum(z**2) * jnp.exp(-2 * log_scale) - z.size * log_scale
    return prior - 2 * log_scale**2 - 0.5 * jnp.sum((y - z) ** 2)


def test_no_match_is_won_by_rounding(x64):
    """A covariance matrix by its inverse: singular ones have up to 10^87 nats."""

    def log_joint(p):
        inverse = jnp.linalg.inv(p["x"])
        return -8.0 * jnp.linalg.slogdet(p["x"])[1] - 0.5 * jnp.trace(inverse)

    args = (log_joint, {"x": np.eye(3)}, None, {"x": bbvi.covariance})
    target, _, data = make_target(*args)

    def bound(loc, high):
        at = Frame(np.array(loc), np.ones(6))
        return match_target(target, at, jax.random.key(0), data, 30, high).elbo

    plain = [0.0] * 6
    assert 20 < bound(plain, np.inf) == bound(plain, 1e3) < 26.2  # not looked at nearer
    singular = [-10.0, 1e4, -10.0, 1e4, 1e4, -10.0]
    assert bound(singular, np.inf) > 1e6
    assert bound(singular, 1e3) == -np.inf


def test_matches_are_extrapolated(monkeypatch):
    """Effects and their scale inform each other: one match after the other is a slow series."""
    rng = np.random.default_rng(1)
    y = rng.normal(size=40) + rng.normal(size=40)
    target, init, y = make_target(effects, np.zeros(41), y, None)
    args = (target, Frame(np.asarray(init), np.ones(41)), jax.random.key(0), y, 50)
    fast = match_target(*args)
    monkeypatch.setattr(batch_match, "_NEARBY", 0.0)
    slow = match_target(*args)
    assert fast.log.step <= slow.log.step - 4
    assert fast.elbo > slow.elbo - bbvi.BatchAndMatch().tolerance


def test_factorised_gaussians_of_several_starts():
    """Of a Gaussian: its mean, and the sds of each coordinate given all others."""
    rng, dim = np.random.default_rng(0), 6
    root = rng.normal(size=(dim, dim)) / 2 + 2 * np.eye(dim)
    mean, precision = 20 * rng.normal(size=dim), root.T @ root

    def log_joint(x, data):
        return -0.5 * jnp.sum((data["root"] @ (x - data["mean"])) ** 2)

    data = {"root": root, "mean": mean}
    target, _, data = make_target(log_joint, np.zeros(dim), data, None)
    starts = Frame(np.stack([np.zeros(dim), mean + 1]), np.stack([np.ones(dim), np.full(dim, 9.0)]))
    eps = paired_normals(np.random.default_rng(1), 512, dim)
    frame, bounds, spent = factorised(target, starts, eps, data)
    sd = np.diag(precision) ** -0.5
    # 512 draws know the products of different coordinates to 4%, and a tenth of a nat is left
    np.testing.assert_allclose(frame.scale, np.stack([sd, sd]), rtol=0.1)
    assert np.max(np.abs(frame.loc - mean) / sd) < 0.2  # a tenth of a nat
    exact = 0.5 * dim * np.log(2 * np.pi) + np.sum(np.log(sd))
    np.testing.assert_allclose(bounds, exact, atol=0.15)
    assert 0 < spent <= 2 * 512 * EVALUATIONS

    none, bounds, spent = factorised(target, starts, eps, data, 0)
    assert np.isneginf(bounds).all()
    assert spent == 0
    jax.tree.map(np.testing.assert_array_equal, none, starts)


def test_factorised_gaussians_stay_inside_a_wall():
    """Draws that cannot be used are none to win by: the bound never gains from losing one."""

    def log_joint(x, data):
        return jnp.where(jnp.all(x < 3), -0.5 * jnp.sum((x - 2.5) ** 2), -jnp.inf)

    target, _, _ = make_target(log_joint, np.zeros(2), None, None)
    starts = Frame(np.zeros((2, 2)), np.array([[0.5, 0.5], [50.0, 50.0]]))
    eps = paired_normals(np.random.default_rng(1), 32, 2)
    frame, bounds, _ = factorised(target, starts, eps, None)
    assert np.isfinite(bounds[0])
    # as many draws outside as at the start, none
    assert (frame.loc[0] + frame.scale[0] * eps / np.sqrt(np.mean(eps**2, 0)) < 3).all()
    assert np.isneginf(bounds[1])  # more than half of the draws are outside


def test_the_host_matches_as_a_compiled_loop_does():
    target, init, data = make_target(funnel, np.full(4, 0.5), None, None)
    start, key, solver = Frame(init, jnp.full(4, 0.7)), jax.random.key(3), bbvi.BatchAndMatch()
    host = match_target(target, start, key, data, 12)
    eps = paired_normals(generator(key), solver.draws(4), 4)

    @jax.jit
    def compiled(loc, scale, eps):
        state = solver.begin(loc, scale, eps)
        state = solver.advance(target, state, data, 12)
        return solver.output(state), state.best.elbo, state.log

    params, elbo, log = compiled(*start, eps)
    assert 1 < log.step == host.log.step
    np.testing.assert_allclose(host.elbo, elbo, rtol=1e-10)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-7, atol=1e-9), host.params, params)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9), host.log, log)


def test_blocks_of_one_shape():
    seen = []

    def function(x, y):
        seen.append(x.shape)
        return x[:, 0] + y

    x, y = np.arange(14.0).reshape(7, 2), np.arange(7.0)
    size = -(-(1 << 24) // 3)  # three rows a block
    np.testing.assert_array_equal(in_blocks(function, size, x, y), x[:, 0] + y)
    assert seen == [(2, 2)] * 4
    np.testing.assert_array_equal(in_blocks(function, 1, x, y), x[:, 0] + y)
    assert seen[4:] == [(7, 2)]
