"""When the weights can be believed, and when they correct the moments."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bbvi.batch.judging import Facts, is_clear, is_plain, verdict_of
from bbvi.diagnostics.chain_checks import contradiction, sds_apart
from bbvi.diagnostics.evidence import (
    efficiency,
    falls_short,
    moment_noise,
    needs_correction,
    proven_evidence,
    weights_usable,
)
from bbvi.diagnostics.fresh_draws import diagnose
from bbvi.diagnostics.judging import is_settled, judge
from bbvi.families import FullRankGaussian
from bbvi.inputs import make_target
from bbvi.status import Status


def diagnosed(dim, sd, keys):
    target, _, _ = make_target(lambda z: -0.5 * jnp.sum(z**2), np.zeros(dim), None, None)
    family = FullRankGaussian()
    params = family.init(jnp.zeros(dim), jnp.full(dim, sd))
    return [jax.device_get(diagnose(target, family, params, jax.random.key(k), None)) for k in keys]


@pytest.mark.usefixtures("x64")
def test_sds_six_percent_short_are_corrected_though_the_weights_are_even():
    for d in diagnosed(3, 0.94, range(5)):
        assert efficiency(d) > 0.97
        assert needs_correction(d)


@pytest.mark.usefixtures("x64")
def test_sds_three_percent_short_are_corrected_by_every_key():
    # noise of the draws alone is 0.8%, of which four standard errors are as much
    for d in diagnosed(3, 0.97, range(10)):
        assert efficiency(d) > 0.99
        assert needs_correction(d)


@pytest.mark.parametrize("dim", [1, 100])
def test_an_exact_approximation_is_left_alone(dim):
    for d in diagnosed(dim, 1.0, range(20)):
        np.testing.assert_allclose(d.corrected.mean, d.raw.mean, atol=1e-3)
        assert not needs_correction(d)


def test_uneven_weights_correct_whatever_they_say():
    (d,) = diagnosed(1, 1.0, [0])
    assert needs_correction(d._replace(ess=0.8 * d.best_ess))


def test_the_tail_of_even_weights_says_nothing():
    (d,) = diagnosed(2, 1.0, [0])
    assert weights_usable(d._replace(khat=4.9))
    assert not weights_usable(d._replace(khat=4.9, ess=0.95 * d.best_ess))
    assert weights_usable(d._replace(khat=0.9, ess=0.95 * d.best_ess))
    assert not weights_usable(d._replace(khat=0.9, ess=0.5 * d.best_ess))


@pytest.mark.parametrize("sd, se", [(np.inf, np.inf), (1e19, np.nan)])
def test_a_moment_that_overflows_is_not_known(sd, se):
    (d,) = diagnosed(2, 1.0, [0])
    sds, errors = np.array([1.0, sd], np.float32), np.array([0.01, se], np.float32)
    d = d._replace(corrected=d.corrected._replace(sd=sds, sd_se=errors))
    assert moment_noise(d)[0] < 0.05 and np.isinf(moment_noise(d)[1])
    assert judge(d, Status.CONVERGED, ["a", "b"], corrected=True).level == "rejected"


@pytest.mark.parametrize("loc, sd, point", [(2.0, 1e-7, True), (2.0, 1e-3, False), (1e6, 1, False)])
def test_a_point_is_no_posterior(loc, sd, point):
    (d,) = diagnosed(2, 1.0, [0])
    assert judge(d, Status.CONVERGED, ["a", "b"]).level == "trusted"
    draws = np.stack([d.draws[:, 0], loc + sd * d.draws[:, 1]], axis=1)
    d = d._replace(draws=draws.astype(np.float32))
    found = judge(d, Status.CONVERGED, ["a", "b"])
    assert (found.level == "rejected") == point
    assert ("shrunk to a point" in str(found)) == point
    assert is_settled(d, Status.CONVERGED) == (not point)
    away = d._replace(draws=np.where(np.arange(2) < 1, d.draws, np.inf).astype(np.float32))
    assert "shrunk to a point" not in str(judge(away, Status.CONVERGED, ["a", "b"]))


@pytest.mark.usefixtures("x64")
def test_no_problem_of_a_batch_is_trusted_for_rounding():
    """Of 32 covariances by their inverses, one was trusted with 10^50 nats."""
    (d,) = diagnosed(2, 1.0, [0])
    facts = Facts(d, Status.CONVERGED, True, False, False, 0, False, 0.0, 0.0)
    assert is_clear(d, Status.CONVERGED, False)
    assert verdict_of(facts, ["a", "b"]).level == "trusted"
    for made_up in (d._replace(elbo=1e50), d._replace(raw=d.raw._replace(sd=np.zeros(2)))):
        assert not is_clear(made_up, Status.CONVERGED, False)
        found = verdict_of(facts._replace(diagnostics=made_up), ["a", "b"])
        assert found.level == "rejected" and "shrunk to a point" in str(found)


def test_what_needs_no_words_is_trusted_and_any_doubt_needs_some():
    (d,) = diagnosed(2, 1.0, [0])
    d = d._replace(khat=np.float32(0.3))
    facts = Facts(d, Status.CONVERGED, True, False, False, 1, True, 0.0, 0.0)
    assert is_plain(facts)
    assert verdict_of(facts, ["a", "b"]).level == "trusted"
    errors = np.array([0.01, 0.04])
    doubts = [
        facts._replace(status=Status.MAX_STEPS, drift=1.0),
        facts._replace(usable=False),
        facts._replace(uncovered=True),
        facts._replace(apart=True),
        facts._replace(diagnostics=d._replace(khat=1.2, ess=np.float32(0.1 * d.best_ess))),
        facts._replace(diagnostics=d._replace(bad_share=0.1)),
        facts._replace(diagnostics=d._replace(outside_share=0.1)),
        facts._replace(diagnostics=d._replace(corrected=d.corrected._replace(sd_se=errors))),
        facts._replace(diagnostics=d._replace(raw=d.raw._replace(sd=np.zeros(2)))),
    ]
    for doubted in doubts:
        assert not is_plain(doubted)
        assert verdict_of(doubted, ["a", "b"]).level != "trusted"
    together = jax.tree.map(lambda *x: np.stack(x), *[facts, *doubts])
    np.testing.assert_array_equal(is_plain(together), [True] + [False] * len(doubts))


def test_a_contradiction_stands_out_from_noise():
    rng = np.random.default_rng(0)
    draws, weights = rng.standard_normal((8192, 3)), np.full(8192, 1 / 8192)
    states = rng.standard_normal((16, 512, 3))
    assert contradiction(draws, weights, states) == (0, 0)
    shift = np.array([0.0, 0.2, 0.0])
    np.testing.assert_allclose(contradiction(draws, weights, states + shift), 0.2, atol=0.03)
    # a mean distance of 0.8 sd
    np.testing.assert_allclose(contradiction(draws, weights, 1.2 * states), 0.16, atol=0.03)
    assert contradiction(draws, weights, states + 0.2 * shift) == (0, 0)
    # of chains that stay where they are, 512 points are known
    still = np.broadcast_to(states[:1], states.shape)
    beyond_noise, at_all = contradiction(draws, weights, still + 0.6 * shift)
    assert beyond_noise == 0 and at_all > 0.05
    assert contradiction(draws * [1, 1, np.inf], weights, states) == (0, 0)
    (d,) = diagnosed(2, 1.0, [0])
    found = judge(d, Status.CONVERGED, ["a", "b"], seam=0.2)
    assert found.level == "rejected" and "0.20 sd" in str(found)


def test_sds_contradict_where_they_stand_out_from_noise():
    (d,) = diagnosed(2, 1.0, [0])
    sd, error = np.asarray(d.corrected.sd), np.array([0.0, 0.02])

    def chains_with(factor):
        moments = d.corrected._replace(sd=sd * [1, factor], sd_se=sd * error)
        return SimpleNamespace(moments=moments)

    ours = d._replace(corrected=d.corrected._replace(sd_se=sd * error))
    assert sds_apart(ours, chains_with(1.09)) == (0, 0)
    np.testing.assert_allclose(sds_apart(ours, chains_with(1.2)), np.log(1.2), rtol=1e-6)
    np.testing.assert_allclose(sds_apart(ours, chains_with(1 / 1.2)), np.log(1.2), rtol=1e-6)
    error = np.array([0.0, 0.1])
    beyond_noise, at_all = sds_apart(ours, chains_with(1.2))
    assert beyond_noise == 0 and at_all > 0.1
    still = ours._replace(raw=ours.raw._replace(sd=np.zeros(2)))
    assert sds_apart(still, chains_with(1.2)) == (0, 0)


def of_normal(log_density, loc):
    """Diagnostics of a standard normal around a point."""
    target, _, _ = make_target(log_density, 0.0, None, None)
    family = FullRankGaussian()
    params = family.init(jnp.array([loc]), jnp.ones(1))
    return jax.device_get(diagnose(target, family, params, jax.random.key(0), None))


def test_the_bound_of_one_fit_shows_what_another_misses():
    """A fifth of the mass around 0, the rest around 50, each perfectly normal."""
    shares = {0.0: 0.2, 50.0: 0.8}

    def log_density(z):
        parts = [jnp.log(share) - 0.5 * (z - loc) ** 2 for loc, share in shares.items()]
        return jax.nn.logsumexp(jnp.stack(parts)) - 0.5 * jnp.log(2 * jnp.pi)

    few, most = (of_normal(log_density, loc) for loc in shares)
    assert weights_usable(few) and few.khat < 0.5  # nothing of its own tells
    proven = proven_evidence(most)
    assert proven == pytest.approx(np.log(0.8), abs=1e-3)
    assert falls_short(few, proven) == pytest.approx(np.log(4), abs=1e-2)
    assert falls_short(most, max(proven, proven_evidence(few))) == 0
    # weights that cannot be averaged say nothing of the evidence
    assert falls_short(few._replace(khat=0.9, ess=0.5 * few.best_ess), proven) == 0
    assert falls_short(few._replace(ess=0.05 * few.best_ess), proven) == 0
    judged = judge(few, Status.CONVERGED, ["z"], 0.0, 0.0, False, short=falls_short(few, proven))
    assert judged.level == "rejected" and "at least 75%" in judged.reasons[-1]


def test_a_bound_over_the_draws_that_count_is_one_on_their_share():
    def half(z):
        return jnp.where(z > 0, -0.5 * z**2 - 0.5 * jnp.log(2 * jnp.pi), -jnp.inf)

    d = of_normal(half, 0.0)
    assert float(d.elbo) == pytest.approx(0, abs=1e-3)
    assert proven_evidence(d) == pytest.approx(np.log(0.5), abs=0.03)
    assert falls_short(d, proven_evidence(d)) == 0


def test_rounding_proves_nothing():
    target, _, _ = make_target(lambda z: -0.5 * jnp.sum(z**2), np.zeros(1), None, None)
    family = FullRankGaussian()
    params = family.init(jnp.full(1, 2.0), jnp.full(1, 1e-7))
    d = jax.device_get(diagnose(target, family, params, jax.random.key(0), None))
    assert proven_evidence(d) == -np.inf


@pytest.mark.parametrize(
    "weights, level",
    [
        ((), "trusted"),
        ((0.99, 0.01), "caution"),
        ((0.6, 0.4), "rejected"),
        # what it misses counts, however few modes make it up
        ((0.0, 1.0), "rejected"),
    ],
)
def test_modes_count_by_the_share_that_is_missed(weights, level):
    (d,) = diagnosed(2, 1.0, [0])
    verdict = judge(d, Status.CONVERGED, ["x[0]", "x[1]"], mode_weights=weights)
    assert verdict.level == level
    said = " ".join(verdict.reasons)
    assert ", ".join(f"{w:.2f}" for w in weights) in said
