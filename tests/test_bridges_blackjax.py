"""Log densities of BlackJAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from real_data import SEEDS, STACK_LOSS

import bbvi
from bbvi.bridges.blackjax import from_logdensity
from bbvi.examples import eight_schools
from bbvi.status import InputError

MEAN = np.array([1.0, -2.0])


def logdensity_fn(position, temperature=1.0):
    """With an argument that is not the data, as BlackJAX users write."""
    a, b = position
    return -0.5 * jnp.sum((a - MEAN) ** 2 + (b / 3) ** 2) / temperature


INIT = (np.zeros(2), np.zeros(2))


def test_fit_of_a_log_density():
    b = from_logdensity(logdensity_fn, INIT)
    assert b.log_joint == from_logdensity(logdensity_fn, INIT).log_joint
    assert b.log_joint(INIT) == logdensity_fn(INIT)
    solver = bbvi.BatchAndMatch()
    result = bbvi.fit(b.log_joint, b.init, b.data, support=b.support, solver=solver)
    np.testing.assert_allclose(result.posterior.mean()[0], MEAN, atol=0.05)
    np.testing.assert_allclose(result.posterior.sd()[1], 3, rtol=0.05)
    draws = b.postprocess(result.posterior.sample(0, 10))
    assert jax.tree.map(jnp.shape, draws) == ((10, 2), (10, 2))


def test_same_density_as_nuts_sees():
    blackjax = pytest.importorskip("blackjax")
    state = blackjax.nuts.init(INIT, logdensity_fn)
    assert state.logdensity == from_logdensity(logdensity_fn, INIT).log_joint(INIT)


def test_something_else():
    with pytest.raises(InputError, match="logdensity_fn must be a function of one position"):
        from_logdensity(3.0, INIT)


# --- three models, as BlackJAX users write them -------------------------------------------------

SCHOOLS = eight_schools().data


def schools(position):
    tau = jnp.exp(position["log_tau"])
    z = (SCHOOLS["y"] - position["mu"] - tau * position["eta"]) / SCHOOLS["sigma"]
    prior = -0.5 * (position["mu"] / 5) ** 2 - jnp.log1p((tau / 5) ** 2) + position["log_tau"]
    return prior - 0.5 * jnp.sum(position["eta"] ** 2) - 0.5 * jnp.sum(z**2)


def robust(position):
    """Stack loss (Brownlee 1965): a regression with Student-t errors."""
    mean = position["level"] + STACK[:, :3] @ position["slope"]
    z = (STACK[:, 3] - mean) / jnp.exp(position["log_scale"])
    errors = -2.5 * jnp.log1p(z**2 / 4) - position["log_scale"]
    return jnp.sum(errors) - 0.5 * jnp.sum(position["slope"] ** 2) - 0.5 * position["level"] ** 2


def seeds(position):
    level, slope, log_spread = position["level"], position["slope"], position["log_spread"]
    variety, extract = SEEDS["variety"], SEEDS["extract"]
    terms = slope[0] * variety + slope[1] * extract + slope[2] * variety * extract
    logit = level + terms + jnp.exp(log_spread) * position["effect"]
    chances = SEEDS["germinated"] * logit - SEEDS["seeds"] * jax.nn.softplus(logit)
    prior = -0.5 * ((level / 2) ** 2 + jnp.sum((slope / 2) ** 2) + jnp.exp(2 * log_spread))
    return jnp.sum(chances) + prior + log_spread - 0.5 * jnp.sum(position["effect"] ** 2)


STACK = (STACK_LOSS - STACK_LOSS.mean(0)) / STACK_LOSS.std(0)

MODELS = {
    schools: {"mu": 0.0, "log_tau": 0.0, "eta": np.zeros(8)},
    robust: {"level": 0.0, "slope": np.zeros(3), "log_scale": 0.0},
    seeds: {"level": 0.0, "slope": np.zeros(3), "log_spread": 0.0, "effect": np.zeros(21)},
}


@pytest.mark.slow
@pytest.mark.parametrize("function", MODELS, ids=lambda f: f.__name__)
def test_agrees_with_nuts(function):
    blackjax = pytest.importorskip("blackjax")
    init = jax.tree.map(jnp.asarray, MODELS[function])
    b = from_logdensity(function, init)
    result = bbvi.fit(b.log_joint, b.init, b.data, support=b.support)
    assert result.verdict.level == "trusted", str(result.verdict)
    ours = b.postprocess(result.posterior.sample(0, 10_000))

    @jax.jit
    def sample(key):
        warm_key, draw_key = jax.random.split(key)
        adaptation = blackjax.window_adaptation(
            blackjax.nuts, function, target_acceptance_rate=0.95
        )
        (state, settings), _ = adaptation.run(warm_key, init, num_steps=1000)
        step = blackjax.nuts(function, **settings).step

        def draw(state, key):
            state, _ = step(key, state)
            return state, state.position

        return jax.lax.scan(draw, state, jax.random.split(draw_key, 8000))[1]

    theirs = sample(jax.random.key(1))
    for name, found in theirs.items():
        mine, found = np.asarray(ours[name]), np.asarray(found)
        error = np.sqrt((found.var(0) + mine.var(0)) / 1000)
        np.testing.assert_array_less(np.abs(found.mean(0) - mine.mean(0)), 4 * error, err_msg=name)
