"""Programs that are built beside others: once, and the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bbvi import _compile
from bbvi._compile import quick_jit, worth_preparing
from bbvi.evaluate import scores
from bbvi.target import make_target


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
