"""The other posteriors of posteriordb: each can be evaluated, and references are of its own."""

import jax
import numpy as np
import pytest

import bbvi
from benchmarks import moments
from benchmarks.posteriordb.model import problem
from benchmarks.unreferenced import UNREFERENCED
from benchmarks.unreferenced.registry import MODELS, REFERENCE


def problem_of(name):
    """Its data are in a whole clone of posteriordb alone."""
    try:
        return problem(UNREFERENCED[name])
    except FileNotFoundError as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("name", UNREFERENCED)
def test_a_posterior_and_its_reference(name, x64):
    log_joint, init, data, support = problem_of(name)
    target, _, flat = bbvi.make_target(log_joint, init, data, support)
    value, slope = jax.jit(jax.value_and_grad(target.log_density))(np.zeros(target.dim), flat)
    assert np.isfinite(value) and np.isfinite(slope).all()
    for tree in UNREFERENCED[name].moments() or ():
        assert {k: x.shape for k, x in tree.items()} == {k: x.shape for k, x in init.items()}


def test_names():
    assert {name.partition("-")[2] for name in UNREFERENCED} == set(MODELS)


def test_most_have_a_reference():
    known = moments.rows(REFERENCE)
    assert set(known) <= set(UNREFERENCED)
    assert sum(row["settled"] for row in known.values()) > 0.7 * len(known) > 0
