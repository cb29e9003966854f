"""Log densities of BlackJAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbvi
from bbvi.bridges.blackjax import from_logdensity
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
