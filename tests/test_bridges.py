"""What all bridges share: supports made of another system's maps, settings, missing packages."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbvi
from bbvi.bridges.base import HomeSupport, Maps, Setting, depends, is_array, require
from bbvi.inputs import make_target
from bbvi.status import InputError
from bbvi.testing import jacobian_log_det


def above_other(params, data):
    """Numbers above `low` times a number of the data."""
    bound = params["low"] * data["factor"]
    return Maps(
        lambda x: bound + jnp.exp(x),
        jnp.sum,
        lambda y: jnp.log(y - bound),
        lambda y: jnp.all(y > bound),
    )


HIGH = HomeSupport("above low", above_other, (3,), (3,))
# "high" comes before "low" in the structure, and after it in the order of computation
INIT = {"high": np.full(3, 5.0), "low": 1.0}
DATA = {"factor": 2.0}


def log_joint(params, data):
    inside = jnp.all(params["high"] > data["factor"] * params["low"])
    quadratic = jnp.sum((params["high"] - 6) ** 2) + (params["low"] - 1) ** 2
    return jnp.where(inside, -0.5 * quadratic, -jnp.inf)


@pytest.mark.usefixtures("x64")
def test_a_support_that_depends_on_a_variable_and_on_the_data():
    target, init, data = make_target(log_joint, INIT, DATA, {"high": HIGH})
    assert target.order == (1, 0)
    z = np.random.default_rng(0).standard_normal(4)

    def flat(z):
        params = target.constrain(z, data)
        return jnp.concatenate([params["high"], params["low"][None]])

    params, log_det = target.constrain_and_log_det(z, data)
    np.testing.assert_allclose(params["high"], 2 * z[3] + np.exp(z[:3]), rtol=1e-12)
    np.testing.assert_allclose(log_det, jacobian_log_det(flat, z), rtol=1e-9)
    np.testing.assert_allclose(target.unconstrain(params, data), z, rtol=1e-9)


def test_a_fit_with_it_saves_and_loads(tmp_path):
    support = {"high": HIGH}
    solver = bbvi.BatchAndMatch()
    result = bbvi.fit(log_joint, INIT, DATA, support=support, solver=solver)
    result.save(tmp_path / "fit")
    with pytest.raises(InputError, match="support of high is a function or your own class"):
        bbvi.load(tmp_path / "fit")
    loaded = bbvi.load(tmp_path / "fit", support=support)
    draws = loaded.posterior.sample(0, 50)
    np.testing.assert_array_equal(draws["high"], result.posterior.sample(0, 50)["high"])
    assert (draws["high"] > 2 * draws["low"][:, None]).all()


def test_a_start_outside_of_it():
    with pytest.raises(InputError, match="init: high is outside its support, above low"):
        bbvi.fit(log_joint, {**INIT, "low": 3.0}, DATA, support={"high": HIGH})


def test_another_shape():
    with pytest.raises(InputError, match=r"above low is for shape \(3,\), not \(2,\)"):
        make_target(log_joint, {**INIT, "high": np.ones(2)}, DATA, {"high": HIGH})


def test_unbound():
    with pytest.raises(TypeError, match=r"call bind\(params, data\) first"):
        HIGH.inverse(np.ones(3))


def test_settings_are_equal_by_value():
    assert Setting(3) == Setting(3)
    assert Setting(1) != Setting(1.0)
    assert Setting(True) != Setting(1)
    assert Setting(np.arange(3)) == Setting(np.arange(3))
    assert Setting(np.arange(3)) != Setting(np.arange(3.0))
    assert hash(Setting(np.arange(3))) == hash(Setting(np.arange(3)))
    unhashable = [1]
    assert Setting(unhashable) == Setting(unhashable) != Setting([1])


def test_what_is_data():
    assert is_array(np.ones(2)) and is_array(np.float32(1)) and is_array(jnp.ones(()))
    assert not is_array(1.0) and not is_array("a") and not is_array(None)
    assert not is_array(np.array(["a"]))


def test_depends():
    def function(x, data):
        return [[jnp.ones(2)], [x + 1, 2.0], [], [jnp.sum(data["y"])], [jnp.sin(3.0)]]

    found = depends(function, (jnp.ones(()), {"y": jnp.ones(3)}))
    assert found == [False, True, False, True, False]
    assert depends(jax.jit(function), (1.0, {"y": jnp.ones(3)}))[1]


def test_require_names_the_extra():
    with pytest.raises(ImportError, match=r"f\(\) needs no_such: pip install 'bbvi\[some\]'"):
        require("no_such.package", "some", "f()")


def test_without_numpyro(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpyro", None)
    with pytest.raises(ImportError, match=r"from_model needs numpyro: pip install 'bbvi\[numpyro"):
        bbvi.bridges.numpyro.from_model(lambda: None)
