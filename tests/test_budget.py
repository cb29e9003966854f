"""Budgets: what they leave out, and that the best so far always comes back."""

import time

import jax.numpy as jnp
import numpy as np
import pytest

import bbvi


def banana(x, data):
    """A Gaussian bent so far that no Gaussian answers for it."""
    return -0.5 * (x[0] / 2) ** 2 - 0.5 * ((x[1] - data * (x[0] ** 2 - 4)) / 0.3) ** 2


def fit(**settings):
    return bbvi.fit(banana, np.zeros(2), np.float32(0.5), throw=False, **settings)


def test_gradients():
    whole = fit()
    assert whole.num_gradients == sum(gradients for _, gradients in whole.spent)
    assert [stage for stage, _ in whole.spent][0] == "gaussian"
    assert "triangular" in dict(whole.spent), whole
    for limit in (400, 10_000):
        result = fit(budget=bbvi.Budget(gradients=limit))
        assert result.num_gradients <= limit
        assert np.isfinite(result.elbo)
        assert result.verdict.level != "trusted"
        assert any("budget" in reason for reason in result.verdict.reasons), result.verdict
        assert any("larger budget" in action for action in result.verdict.actions)


def test_seconds():
    fit()  # compile
    began = time.perf_counter()
    result = fit(budget=bbvi.Budget(seconds=1e-3))
    assert "triangular" not in dict(result.spent)
    assert np.isfinite(result.elbo)
    assert any("budget" in reason for reason in result.verdict.reasons)
    assert time.perf_counter() - began < 60  # it did not wait for what it left out


def test_a_solver_is_cut_short():
    solver = bbvi.StochasticGradient(bbvi.MeanFieldGaussian(), tolerance=1e-9)
    result = fit(solver=solver, budget=bbvi.Budget(gradients=5_000))
    assert result.num_steps <= 5_000 // solver.objective.draws
    assert result.status in (bbvi.Status.BUDGET, bbvi.Status.MAX_STEPS)
    assert result.verdict.level != "trusted"


def test_a_budget_that_is_not_reached_changes_nothing():
    def gaussian(x, data):
        return -0.5 * jnp.sum((x - data) ** 2)

    data = np.arange(3, dtype=np.float32)
    one, other = (
        bbvi.fit(gaussian, np.zeros(3), data, budget=budget)
        for budget in (None, bbvi.Budget(gradients=10**6, seconds=3600))
    )
    assert one.verdict == other.verdict
    np.testing.assert_array_equal(one.posterior.mean(), other.posterior.mean())


@pytest.mark.parametrize("settings", [{"gradients": 0}, {"seconds": -1.0}, {"seconds": "1"}])
def test_budgets_that_make_no_sense(settings):
    with pytest.raises(bbvi.InputError, match="must be a positive number"):
        bbvi.Budget(**settings)


def test_a_budget_that_is_none():
    with pytest.raises(bbvi.InputError, match=r"bbvi\.Budget"):
        fit(budget=1000)
