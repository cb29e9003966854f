"""Short chains: right where they hold, and at fault where they cannot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbvi
from bbvi.diagnostics.chain_checks import chain_faults, steps_too_long, would_forget
from bbvi.diagnostics.chains import (
    affordable_leaps,
    expected_gradients,
    go_on,
    pool,
    run_chains,
    share_left,
)
from bbvi.diagnostics.fresh_draws import diagnose
from bbvi.diagnostics.judging import is_settled, judge
from bbvi.diagnostics.trajectories import LONG, many
from bbvi.families import Frame, FullRankGaussian
from bbvi.stages.gaussians.matching import match_from
from bbvi.status import Status

DIM = 3
LEAPS = affordable_leaps(DIM, np.inf)


def gaussian(x, data):
    return -0.5 * jnp.sum(((x - data["mean"]) / data["sd"]) ** 2)


def funnel(x, data):
    """A scale that falls off from neck to mouth by e^6 (Neal 2003)."""
    v = data["sd"] * x[0]
    return -0.5 * x[0] ** 2 - 0.5 * jnp.sum(x[1:] ** 2) * jnp.exp(-v) - 0.5 * (len(x) - 1) * v


def far_modes(x, data):
    """Two modes that no chain crosses between, one of which the draws begin in more often."""
    apart = jnp.array([20.0] + [0.0] * (DIM - 1))
    return jnp.logaddexp(-0.5 * jnp.sum((x - apart) ** 2), -0.5 * jnp.sum((x + apart) ** 2))


def holes(x, data):
    return jnp.where(x[0] > 1, jnp.nan, -0.5 * jnp.sum(x**2))


DATA = {"mean": np.array([1.0, -2.0, 5.0], np.float32), "sd": np.float32(2.0)}


def run(log_joint, loc, scale, key=0, data=DATA):
    target, _, data = bbvi.make_target(log_joint, np.zeros(DIM, np.float32), data, None)
    family = FullRankGaussian()
    params = jax.jit(family.init)(np.asarray(loc, np.float32), np.float32(scale))
    chains = run_chains(target, family, params, jax.random.key(key), data, LEAPS)
    diagnostics = diagnose(target, family, params, jax.random.key(key + 1), data)
    return jax.device_get((chains, diagnostics))


def test_they_leave_behind_what_was_wrong():
    chains, diagnostics = run(gaussian, DATA["mean"] + 1.0, 1.5)
    moments = chains.moments
    assert (np.abs(moments.mean - DATA["mean"]) < 4.5 * moments.mean_se).all()
    assert (np.abs(moments.sd - 2) < 4.5 * moments.sd_se).all()
    # the start was half a posterior sd off, and that is told apart
    assert (moments.mean_se < 0.1).all()
    assert not chain_faults(chains, diagnostics)
    assert chains.acceptance > 0.7
    assert chains.divergent_share == 0
    # the states are those of the moments
    np.testing.assert_allclose(chains.draws.mean(0), moments.mean, rtol=1e-3)
    np.testing.assert_allclose(chains.draws.std(0), moments.sd, rtol=1e-3)
    assert many(DIM).chains * 24 < chains.num_gradients <= many(DIM).chains * (24 * LEAPS + 1)


def test_their_errors_are_what_they_say():
    z_scores = []
    for key in range(12):
        moments = run(gaussian, DATA["mean"], 2.0, key=3 * key)[0].moments
        z_scores.append((moments.mean - DATA["mean"]) / moments.mean_se)
        z_scores.append((moments.sd - 2) / moments.sd_se)
    z_scores = np.array(z_scores)
    # 72 numbers: mean within 4 errors of zero, spread near one
    assert abs(z_scores.mean()) < 4 / np.sqrt(z_scores.size)
    assert 0.7 < z_scores.std() < 1.35


@pytest.mark.parametrize(
    ("log_joint", "scale", "words"),
    [
        (funnel, 1.0, "diverge|move|remember"),
        (far_modes, 15.0, "remember|accepted|diverge"),
    ],
)
def test_faults_are_seen(log_joint, scale, words):
    data = {"mean": DATA["mean"], "sd": np.float32(3.0)}
    chains, diagnostics = run(log_joint, np.zeros(DIM), scale, data=data)
    faults = chain_faults(chains, diagnostics)
    assert faults
    assert any(word in fault for fault in faults for word in words.split("|")), faults
    assert not is_settled(diagnostics, Status.CONVERGED, chains)


def test_slow_chains_are_seen():
    """Centred groups under a scale whose approximation is much too narrow, as matches end there.

    No trajectory diverges, and a drift is lost in its noise.
    """
    groups = 50
    rng = np.random.default_rng(0)
    sd = rng.uniform(0.5, 2, groups).astype(np.float32)
    effect = 0.4 * rng.normal(size=groups)
    data = {"sd": sd, "y": (effect + sd * rng.normal(size=groups)).astype(np.float32)}

    def log_joint(p, data):
        tau, z = jnp.exp(p["log_tau"]), p["z"]
        prior = -0.5 * jnp.sum((z / tau) ** 2) - (groups - 1) * p["log_tau"] - tau
        return prior - 0.5 * jnp.sum(((data["y"] - z) / data["sd"]) ** 2)

    init = {"log_tau": np.float32(-0.5), "z": np.zeros(groups, np.float32)}
    target, _, data = bbvi.make_target(log_joint, init, data, None)
    start = Frame(target.unconstrain(init, data), np.ones(groups + 1, np.float32))
    params, _, _ = match_from(target, start, jax.random.key(0), data)
    args = (target, FullRankGaussian(), params)
    for key in map(jax.random.key, range(3)):
        chains = run_chains(*args, key, data, affordable_leaps(target.dim, np.inf))
        chains, diagnostics = jax.device_get((chains, diagnose(*args, key, data)))
        assert any("forget slowly" in fault for fault in chain_faults(chains, diagnostics))
        # ... and by nothing else
        chains = chains._replace(persistence=np.zeros(groups + 1), drift=0 * chains.drift)
        assert not chain_faults(chains, diagnostics)


def test_a_spike_within_a_slab_is_not_forgotten():
    """Means say nothing of which of the two a chain is in; distances from the mean do."""

    def log_joint(x, data):
        squares = jnp.sum(x**2)
        log_spike = -0.5 * squares / 0.1**2 - DIM * np.log(0.1)
        return jnp.logaddexp(log_spike, -0.5 * squares / 2**2 - DIM * np.log(2))

    target, _, data = bbvi.make_target(log_joint, np.zeros(DIM, np.float32), DATA, None)
    family, sd = FullRankGaussian(), np.float32(1.4)
    args = (target, family, jax.jit(family.init)(np.zeros(DIM, np.float32), sd))
    widths = np.where(np.arange(many(DIM).chains) % 2, 0.1, 2.0)[:, None] / sd
    first = jnp.asarray(
        widths * np.random.default_rng(0).normal(size=(len(widths), DIM)), "float32"
    )
    chains = run_chains(*args, jax.random.key(0), data, LEAPS, jnp.asarray(first))
    diagnostics = jax.device_get(diagnose(*args, jax.random.key(1), data))
    assert (chains.persistence > 0.4).all()
    assert (np.abs(chains.memory) < 0.25).all()
    chains = chains._replace(start_error=1.0)
    assert any("forget slowly" in fault for fault in chain_faults(chains, diagnostics))


def test_where_they_begin_may_be_given():
    target, _, data = bbvi.make_target(gaussian, np.zeros(DIM, np.float32), DATA, None)
    family = FullRankGaussian()
    params = jax.jit(family.init)(DATA["mean"], np.float32(2))
    first = jnp.full((many(DIM).chains, DIM), 3.0)
    chains = run_chains(target, family, params, jax.random.key(0), data, LEAPS, first)
    np.testing.assert_array_equal(chains.course.first, first)
    assert (np.abs(chains.moments.mean - DATA["mean"]) < 4.5 * chains.moments.mean_se).all()


def test_what_overflows():
    """Moments that are not finite; where chains forget, those of the start do not count."""
    chains, diagnostics = run(gaussian, DATA["mean"], 2.0)
    raw = diagnostics.raw._replace(sd=np.full(DIM, np.inf, np.float32))
    diagnostics = diagnostics._replace(raw=raw)
    assert not chain_faults(chains._replace(persistence=np.zeros(DIM)), diagnostics)
    assert chain_faults(chains._replace(persistence=np.full(DIM, 0.9)), diagnostics)
    lost = chains.moments._replace(mean=np.full(DIM, np.inf), sd=np.full(DIM, np.inf))
    slow = chains._replace(moments=lost, persistence=np.full(DIM, 0.9))
    assert any("forget slowly" in fault for fault in chain_faults(slow, diagnostics))


def test_what_is_missing():
    """Of chains with a fast and a slow part, no less than what is left of the slow one's error."""
    times = np.arange(1, 25)
    early, late = slice(8, 16), slice(16, 24)  # eight states settle
    for fast, slow, share in ((0.2, 0.9, 0.3), (0.5, 0.97, 0.2), (0.0, 0.95, 1.0)):
        lags = np.abs(times[:, None] - times)
        covariance = share * slow**lags + (1 - share) * fast**lags
        own = covariance[early, early].mean() * covariance[late, late].mean()
        persistence = covariance[early, late].mean() / np.sqrt(own)
        left = (slow ** times[8:]).mean()  # all of the error was in the slow part
        assert share_left(np.array(persistence)) > 0.65 * left
    np.testing.assert_allclose(share_left(np.array([0.5, -0.2])), [0.5, 0])
    np.testing.assert_allclose(share_left(np.array(0.5), 2), 0.5**4)
    np.testing.assert_allclose(share_left(np.array(0.5), 2, 1.1), 0.5**1.21)
    assert share_left(np.array(1.0)) < 1


def test_draws_that_are_lost_settle_nothing():
    chains, diagnostics = run(holes, np.zeros(DIM), 1.0)
    assert np.isfinite(chains.draws).all()
    # every state that was accepted has a density
    assert (chains.draws[-many(DIM).chains :, 0] <= 1).mean() > 0.9
    assert not is_settled(diagnostics, Status.CONVERGED, chains)


def test_pooled():
    (one, diagnostics), (other, _) = (run(gaussian, DATA["mean"], 2.0, key=k) for k in (0, 5))
    both = pool(one, other)
    assert both.draws.shape == (2 * len(one.draws), DIM)
    np.testing.assert_allclose(both.moments.mean, both.draws.mean(0), rtol=1e-4)
    np.testing.assert_allclose(both.moments.sd, both.draws.std(0), rtol=1e-4)
    np.testing.assert_allclose(
        both.moments.mean_se, np.hypot(one.moments.mean_se, other.moments.mean_se) / 2, rtol=1e-6
    )
    assert both.num_gradients == one.num_gradients + other.num_gradients
    assert not chain_faults(both, diagnostics)


def test_they_go_on():
    """A start that is a sixth as wide as the target, where chains crawl."""
    long = {"mean": np.zeros(DIM, np.float32), "sd": np.array([9.0, 1.0, 1.0], np.float32)}
    target, _, data = bbvi.make_target(gaussian, np.zeros(DIM, np.float32), long, None)
    family = FullRankGaussian()
    params = jax.jit(family.init)(np.zeros(DIM, np.float32), np.array([1.5, 1, 1], np.float32))
    where = (target, family, params)
    diagnostics = jax.device_get(diagnose(*where, jax.random.key(1), data))
    chains = run_chains(*where, jax.random.key(0), data, LEAPS)
    assert chain_faults(chains, diagnostics)
    assert would_forget(chains, diagnostics, 3)
    spent = [int(chains.num_gradients)]
    for i in range(4):
        shape = (many(DIM).chains, DIM)
        assert chains.course.path.shape == (24, *shape)
        longer = go_on(*where, chains, jax.random.key(i), data, LEAPS)
        # every other state of before is still there
        np.testing.assert_array_equal(longer.course.path[:12], chains.course.path[1::2])
        assert longer.course.apart == 2 * chains.course.apart
        assert max(longer.paces) > 1.9  # there is one time scale
        chains = longer
        spent.append(int(chains.num_gradients))
    assert not chain_faults(chains, diagnostics)
    assert (
        np.abs(chains.moments.sd / long["sd"] - 1) < 4.5 * chains.moments.sd_se / long["sd"]
    ).all()
    # each time as long again; the stride stays what it was
    assert np.allclose(np.diff(np.log2(spent)), 1, atol=0.3)


def test_what_time_does_not_mend():
    chains, diagnostics = run(gaussian, DATA["mean"], 2.0)
    slow = chains._replace(memory=np.full(DIM, 0.6))
    assert would_forget(slow, diagnostics, 2)
    assert not would_forget(slow, diagnostics, 1)
    assert not would_forget(slow._replace(divergent_share=np.float32(0.1)), diagnostics, 2)
    # but for shorter steps
    unstable = slow._replace(divergent_share=np.float32(0.005))
    broad = diagnostics._replace(ess=0.1 * diagnostics.best_ess)
    assert steps_too_long(unstable, broad, 2)
    assert not steps_too_long(unstable._replace(divergent_share=np.float32(0.05)), broad, 2)
    assert not steps_too_long(unstable, broad, 1)
    assert not steps_too_long(slow, broad, 2)
    far = diagnostics._replace(raw=diagnostics.raw._replace(mean=chains.moments.mean + 20.0))
    late = chains._replace(persistence=np.full(DIM, 0.6))
    assert would_forget(late, far, 4)
    assert not would_forget(late, far, 1)
    # the last two times that they went on brought little
    assert not would_forget(late._replace(paces=(1.2, 1.1)), far, 4)
    assert would_forget(late._replace(paces=(2.0, 1.1)), far, 4)


def test_what_has_moved_far_is_asked_more_sharply():
    """Of many scalars some are correlated by chance, but hardly those that moved the most."""
    chains, diagnostics = run(gaussian, DATA["mean"], 2.0)
    start = np.array(chains.moments.mean)
    start[0] += 20 * chains.moments.sd[0]
    far = diagnostics._replace(raw=diagnostics.raw._replace(mean=start))
    faults = [
        chain_faults(chains._replace(persistence=np.where(np.arange(DIM) == i, 0.09, 0.0)), far)
        for i in range(DIM)
    ]
    assert "forget slowly" in faults[0][0] and not any(faults[1:])


def test_shorter_steps_diverge_less():
    """A valley that gets narrower with y, and a step that is right where it is wide."""

    def valley(z, data):
        x, y, _ = z
        return -0.5 * (x * jnp.exp(0.7 * y)) ** 2 + 0.7 * y - 0.5 * jnp.sum(z[1:] ** 2)

    target, _, data = bbvi.make_target(valley, np.zeros(DIM, np.float32), DATA, None)
    family = FullRankGaussian()
    params = jax.jit(family.init)(np.zeros(DIM, np.float32), np.float32(1.0))
    where = (target, family, params)
    chains = run_chains(*where, jax.random.key(0), data, LEAPS)
    same, shorter = (
        go_on(*where, chains, jax.random.key(1), data, 4 * LEAPS, shorter=s) for s in (False, True)
    )
    assert float(shorter.course.stride) == 0.5 * float(chains.course.stride)
    assert float(same.course.stride) == float(chains.course.stride)
    assert shorter.divergent_share < 0.5 * same.divergent_share
    assert same.divergent_share > 1e-3


def test_divergences_are_excused_where_the_weights_know_the_moments():
    chains, diagnostics = run(gaussian, DATA["mean"], 2.0)
    some = chains._replace(divergent_share=np.float32(0.005), weighted_noise=0.01)
    heavy = diagnostics._replace(khat=np.float32(0.9))
    assert not chain_faults(some, heavy)
    assert any("diverge" in f for f in chain_faults(some._replace(weighted_noise=0.1), heavy))
    assert not chain_faults(some._replace(weighted_noise=0.1), diagnostics)
    uneven = heavy._replace(ess=0.1 * heavy.best_ess)
    assert any("diverge" in f for f in chain_faults(some, uneven))
    assert any("diverge" in f for f in chain_faults(some._replace(divergent_share=0.02), heavy))


@pytest.mark.parametrize(("df", "known"), [(2.2, False), (9.0, True)])
def test_sds_of_heavy_tails_are_uncertain(df, known):
    """Squares of a Student t have the tail shape 2 / df: from 0.7 on their sums say little."""

    def student_t(x, data):
        return -(df + 1) / 2 * jnp.sum(jnp.log1p(x**2 / df))

    target, _, data = bbvi.make_target(student_t, np.zeros(DIM, np.float32), DATA, None)
    family = FullRankGaussian()
    params = jax.jit(family.init)(np.zeros(DIM, np.float32), np.float32(2.0))
    chains = run_chains(target, family, params, jax.random.key(0), data, LEAPS)
    assert (chains.moments.sd_se / chains.moments.sd < 0.05).all() == known


@pytest.mark.parametrize(("dim", "long"), [(1, False), (10, False), (1000, False), (1000, True)])
def test_what_they_may_spend(dim, long):
    extent = LONG if long else many(dim)
    whole = expected_gradients(dim, extent)
    for limit in (whole, 2 * whole):
        leaps = int(affordable_leaps(dim, limit, extent))
        assert extent.chains * (extent.states * leaps + 1) <= limit
    assert affordable_leaps(dim, np.inf, extent) > affordable_leaps(dim, whole, extent)


def test_words():
    chains, diagnostics = run(gaussian, DATA["mean"], 2.0)
    names = ["a", "b", "c"]
    fine = judge(diagnostics, Status.CONVERGED, names, chains=chains)
    assert fine.level == "trusted"
    assert any("chains" in reason for reason in fine.reasons)
    stuck = chains._replace(memory=np.array([0.1, 0.9, 0.0]))
    broken = diagnostics._replace(khat=np.float32(0.9), ess=np.float32(10))
    verdict = judge(broken, Status.CONVERGED, names, chains=stuck)
    assert verdict.level == "rejected"
    assert any("remember where they began (correlation 0.90)" in r for r in verdict.reasons)
    assert verdict.actions
    assert judge(broken, Status.CONVERGED, names).level == "caution"
    assert judge(broken, Status.CONVERGED, names, doubted_by=stuck) == verdict
    # sound by themselves, and yet they did not settle a fit
    verdict = judge(broken, Status.CONVERGED, names, doubted_by=chains)
    assert verdict.level == "rejected" and verdict.reasons[-1].endswith("answer for it either.")
    # weights that can be averaged need no chains
    assert judge(diagnostics, Status.CONVERGED, names, doubted_by=stuck).level == "trusted"
