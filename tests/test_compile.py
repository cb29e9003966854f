"""Programs that are built beside others: once, and the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bbvi import _compile
from bbvi._compile import loop_jit, once_jit, plain_jit, quick_jit, worth_preparing
from bbvi.evaluate import scores
from bbvi.inputs import make_target


@pytest.mark.parametrize("bits", (32, 64))
def test_a_prepared_program_is_the_one_that_is_called(bits, request, count_compiles):
    if bits == 64:
        if jax.__version_info__ < (0, 8):
            pytest.skip("what jax 0.7 compiles in a thread is not found under a context's 64 bits")
        request.getfixturevalue("x64")
    target, _, _ = make_target(lambda x: -jnp.sum(x**2), np.zeros(3), None, None)
    densities = quick_jit()(lambda target, zs: {"log_p": target.log_densities(zs, None)})
    zs = jnp.arange(6, dtype=target.dtype).reshape(2, 3)
    with count_compiles() as n:
        shapes = densities.prepare(target, jax.ShapeDtypeStruct((2, 3), target.dtype))
        found = densities(target, zs)
    assert n.count == 1
    assert shapes["log_p"].shape == (2,) and shapes["log_p"].dtype == target.dtype
    np.testing.assert_allclose(found["log_p"], -(np.asarray(zs) ** 2).sum(1))


def test_programs_are_prepared_once():
    target, _, _ = make_target(lambda x: -jnp.sum(x**2), np.zeros(3), None, None)
    assert [worth_preparing(target, np.zeros(n)) for n in (2, 2, 3)] in (
        [True, False, True],
        [False] * 3,  # one core
    )


def test_programs_of_many_log_joints_are_dropped(monkeypatch, count_compiles):
    """A study with a closure for each data set ended in its 440th fit."""
    monkeypatch.setattr(_compile, "_MOST_TARGETS", 3)
    monkeypatch.setattr(_compile, "_num_targets", 0)
    zs = jnp.ones((3, 2))

    def new():
        return make_target(lambda x: -jnp.sum(x**2), np.zeros(2), None, None)[0]

    first, *others = (new() for _ in range(3))
    for target in (first, *others):
        scores(target, zs, None)
    with count_compiles() as n:
        scores(first, zs, None)
    assert n.count == 0
    new()
    with count_compiles() as n:
        log_p, _, _ = scores(first, zs, None)
    assert n.count == 1
    np.testing.assert_array_equal(log_p, -2.0)


def half_normal_sd(p):
    """A prior on a sd beside a likelihood: t is used twice, and is a constant times another."""
    sd = jnp.exp(p[1])
    t = sd / 2.5
    return jnp.log(t) - t - 0.5 * jnp.sum(((Y - p[0]) / sd) ** 2)


Y = np.random.default_rng(0).normal(size=100)
JITS = {
    "quick": quick_jit(small=0),
    "quick, small": quick_jit(),
    "once": once_jit(),
    "loop": loop_jit(),
    "plain": plain_jit((0,)),
}


@pytest.mark.parametrize("name", JITS)
def test_sums_are_right_where_a_constant_is_used_twice(name, x64):
    """Of jaxlib 0.11.1 to 0.12.0.1 they are not, unless it is told to make sums itself."""
    target, _, _ = make_target(half_normal_sd, np.zeros(2), None, None)
    zs = 0.3 * np.random.default_rng(1).normal(size=(16_384, 2))
    found = JITS[name](lambda target, zs: target.log_densities(zs, None))(target, zs)
    sd = np.exp(zs[:, 1])
    squares = np.sum(((Y - zs[:, :1]) / sd[:, None]) ** 2, axis=1)
    expected = np.log(sd / 2.5) - sd / 2.5 - 0.5 * squares
    np.testing.assert_allclose(found, expected, rtol=1e-10)
