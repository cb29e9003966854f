"""Which stage of the default is kept, and when its weights correct it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bbvi.budget import Purse
from bbvi.families import FullRankGaussian
from bbvi.fit import open_ended
from bbvi.inputs import make_target
from bbvi.solvers import BatchAndMatch
from bbvi.solvers.base import empty_log
from bbvi.stages.chain_stages import chain_stage
from bbvi.stages.hierarchy.hierarchy_stages import first_hierarchy_chains
from bbvi.stages.judged import judged_closer, judged_stage
from bbvi.stages.ranking import better
from bbvi.stages.stage import Job, plain_stage
from bbvi.status import Status


@pytest.fixture(scope="module")
def target():
    return make_target(lambda z: -0.5 * jnp.sum(z**2), np.zeros(2), None, None)[0]


def normal(target, sd):
    """A stage whose approximation is a normal distribution."""
    family = FullRankGaussian()
    log = empty_log(target.dtype)._replace(status=jnp.int32(Status.CONVERGED))

    def run():
        return family.init(jnp.zeros(2), jnp.full(2, sd)), log

    return judged_stage("run", BatchAndMatch(), family, target, run, jax.random.key(0), None)


@pytest.fixture(scope="module")
def exact(target):
    """A stage whose approximation is the target."""
    return normal(target, 1.0)


def seen(stage, elbo=0.0, mean_se=1e-3, sd_se=1e-3, **figures):
    """The stage as if its fresh draws had said this, for all parameters."""
    d = stage.diagnostics
    errors = {"mean_se": np.full(2, mean_se), "sd_se": np.full(2, sd_se)}
    corrected = d.corrected._replace(**errors)
    return stage._replace(diagnostics=d._replace(elbo=elbo, corrected=corrected, **figures))


def test_weights_that_rest_on_a_few_draws_are_not_kept_for_their_tail(exact):
    few = dict(ess=0.02 * exact.diagnostics.best_ess, khat=0.69)
    many = dict(ess=0.8 * exact.diagnostics.best_ess, khat=1.04)
    noisy, close = seen(exact, -2.0, sd_se=12.0, **few), seen(exact, -1.0, **many)
    assert noisy.sound and not noisy.answers and not close.sound
    assert better(noisy, close) is close and better(close, noisy) is close
    known = seen(exact, -2.0, mean_se=0.02, sd_se=0.02, **few)
    assert better(known, close) is known and better(close, known) is known


def test_weights_in_doubt_correct_where_the_means_are_known(exact):
    doubt = dict(ess=0.3 * exact.diagnostics.best_ess, khat=0.8)
    assert not seen(exact, **doubt).sound
    assert seen(exact, mean_se=0.02, sd_se=1.0, **doubt).corrects
    assert not seen(exact, mean_se=0.2, **doubt).corrects
    assert not seen(exact, **(doubt | {"khat": 1.1})).corrects


def test_an_exact_fit_is_not_corrected(exact):
    assert exact.answers and exact.settled and not exact.corrects


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Status.MAX_STEPS, Status.COMPLETED),
        (Status.CONVERGED, Status.CONVERGED),
        (Status.NONFINITE, Status.NONFINITE),
    ],
)
def test_chains_may_begin_where_a_match_has_not_ended(exact, target, before, after):
    """52 coefficients were right, and doubted because the match before the chains was cut short."""
    job = Job(target, None, Purse(None, 0.0), plain_stage, lambda stage: stage, 1, 0)
    stage = chain_stage(exact._replace(status=before), job, jax.random.key(0))
    assert stage.sound and stage.status is after


def test_chains_that_were_ended_early_go_on(target):
    """From an approximation a fifth as wide they have not forgotten at once."""
    narrow, key = normal(target, 0.2), jax.random.key(0)
    job = Job(target, None, Purse(None, 0.0), plain_stage, lambda stage: stage, 1, 0)
    begun = chain_stage(narrow, job, key)
    assert not begun.settled
    ended = chain_stage(narrow, job._replace(doublings=4), key, begun=begun.chains)
    assert ended.settled
    assert ended.chains.num_gradients == begun.num_gradients + ended.num_gradients


def test_chains_of_hierarchies_come_first_where_enough_draws_count(target, exact):
    job = Job(target, None, Purse(None, 0.0), plain_stage, lambda stage: stage, 1, 0)

    def first(share, of_gaussian=0.01):
        stages = (seen(exact, ess=x * exact.diagnostics.best_ess) for x in (share, of_gaussian))
        stage, gaussian = stages
        return len(first_hierarchy_chains([stage], gaussian, job, jax.random.key(0)))

    assert first(0.05) == 0 and first(0.1) == 1 and first(0.1, 0.2) == 0


def test_units_past_all_floats_are_told_without_a_word(target):
    assert np.isinf(normal(target, np.inf).frame.scale).any()


def test_a_fit_that_ran_away_past_all_floats_is_seen_from_the_start():
    flat = make_target(lambda z: -0.5 * z[0] ** 2 + 0.0 * z[1], np.zeros(2, np.float32), None, None)
    away = normal(flat[0], 1e39)
    assert not np.isfinite(away.diagnostics.log_weights).any()
    assert open_ended(flat[0], away, np.zeros(2, np.float32), None) == ("x",)


def test_of_one_approximation_what_is_less_noisy_is_kept(exact):
    """Weights and chains that both can be averaged, and that both do not say enough."""
    loud, quiet = seen(exact, sd_se=1.0), seen(exact, sd_se=0.06)
    assert loud.sound and quiet.sound and not loud.answers and not quiet.answers
    assert better(loud, quiet) is quiet and better(quiet, loud) is quiet


def test_a_quarter_of_the_draws_may_do(target, exact):
    """Of what needs no correction, or is costly; the others are all draws, the first among them."""
    usual = replace(target, work=1 << 13)
    fine, wide = normal(usual, 1.0), normal(usual, 1.1)
    assert fine.settled and wide.settled and wide.corrects
    assert fine.diagnostics.num_draws == 4096 and wide.diagnostics.num_draws == 16_384
    assert exact.diagnostics.num_draws == 16_384  # where a draw costs next to nothing
    costly = normal(replace(target, work=1 << 20), 1.1)
    assert costly.settled and costly.diagnostics.num_draws == 4096
    np.testing.assert_array_equal(costly.diagnostics.draws, wide.diagnostics.draws[:4096])


def test_what_needs_no_correction_is_kept_though_its_draws_are_fewer(target):
    usual = replace(target, work=1 << 13)
    fine, wide = normal(usual, 1.0), normal(usual, 1.1)
    assert wide.diagnostics.ess > fine.diagnostics.ess
    assert better(fine, wide) is fine and better(wide, fine) is fine


def test_what_is_only_noisy_is_judged_on_more_draws(target, exact):
    noisy = seen(exact, mean_se=0.04)
    assert not noisy.settled
    closer = judged_closer(target, jax.random.key(1), None, noisy)
    assert closer.settled and closer.diagnostics.num_draws == 4 * 16_384
    # nothing that is settled already, or hopeless, or has another fault
    for stage in (exact, seen(exact, mean_se=1.0), seen(exact, mean_se=0.04, khat=0.9, ess=9.0)):
        assert judged_closer(target, jax.random.key(1), None, stage) is stage
    sure = judged_closer(target, jax.random.key(1), None, exact, surely=True)
    assert sure.settled and len(sure.diagnostics.draws) > len(exact.diagnostics.draws)
    heavy = replace(target, work=1 << 20)
    assert judged_closer(heavy, jax.random.key(1), None, noisy) is noisy
