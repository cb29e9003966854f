"""What is refused before anything runs, and in which words."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bbvi
from bbvi.status import BBVIWarning, InputError


def normal(params, data):
    return -0.5 * sum(jnp.sum(x**2) for x in jax.tree.leaves(params))


def refuse(words, log_joint=normal, init=0.0, data=None, error=InputError, **settings):
    """One sentence on one line, with the given words in it."""
    with pytest.raises(error, match=words) as caught:
        bbvi.fit(log_joint, init, data, **settings)
    message = str(caught.value)
    assert type(caught.value) is error
    assert "\n" not in message
    assert message.endswith(".")


def test_input_errors_are_value_errors():
    assert issubclass(InputError, ValueError)


# --- the log joint -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log_joint", "words"),
    [
        (lambda p, d: p["x"] ** 2, r"must return a scalar, .* shape \(3,\): sum .* jnp.sum"),
        (lambda p, d: jnp.ones((1, 1)), r"must return a scalar, .* shape \(1, 1\)"),
        (lambda p, d: (1.0, 2.0), "must return one scalar, .* 2 values"),
        (lambda p, d: None, "must return one scalar, .* 0 values"),
        (lambda p, d: jnp.sum(p["x"] > 0), "must return a real number, .* int32"),
        (lambda p, d: jnp.any(p["x"] > 0), "must return a real number, .* bool"),
        (lambda p, d: jnp.sum(p["x"] * 1j), "must return a real number, .* complex64"),
        ("normal", r"must be a function of \(params, data\), not a str"),
        (None, r"must be a function of \(params, data\), not a NoneType"),
    ],
)
def test_log_joints_that_are_none(log_joint, words):
    refuse(words, log_joint, {"x": np.ones(3)})


def test_log_joint_that_cannot_be_hashed():
    @dataclass
    class Model:
        scale: float

        def __call__(self, params, data):
            return -self.scale * params

    refuse("log_joint must be hashable.* wrap it in a plain function", Model(1.0))


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf, -jnp.inf])
def test_log_joint_that_is_not_finite_at_the_start(value):
    def log_joint(params, data):
        return value - params**2 + 0 * data

    words = rf"log_joint is {value} at init: start at a point where it is finite"
    refuse(words, log_joint, 0.5, np.float32(1.0))


def test_a_nan_in_the_data_is_named():
    def log_joint(params, data):
        return -0.5 * jnp.sum((data["y"] - params) ** 2)

    words = r"data\['y'\] has a NaN, and log_joint is nan at init: leave missing values out"
    refuse(words, log_joint, 0.5, {"y": np.array([0.0, np.nan])})


class Two(NamedTuple):
    fine: float
    steep: float


def root(params, data):
    return -jnp.sqrt(params.steep) - params.fine**2


def test_gradient_that_is_not_finite_at_the_start_names_its_leaf():
    words = "gradient of log_joint with respect to steep is not finite at init: look for sqrt"
    refuse(words, root, Two(0.0, 0.0))


@pytest.mark.parametrize("make", [np.ones, jnp.ones], ids=["numpy", "jax"])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jitted"])
def test_large_arrays_inside_the_log_joint(make, wrap):
    large = make((600, 700), dtype=np.float32)

    def log_joint(params, data):
        return -0.5 * jnp.sum((large - params) ** 2)

    words = r"captures large arrays \(shape \(600, 700\), 2 MiB in all\).* pass them as data"
    with pytest.warns(BBVIWarning, match=words) as caught, stops_early():
        bbvi.fit(wrap(log_joint), 0.0, solver="none")
    (warning,) = caught
    # it points at the line that called fit
    assert warning.filename == __file__


def test_small_arrays_inside_the_log_joint_are_fine():
    small = jnp.ones(1000)

    def log_joint(params, data):
        return -0.5 * jnp.sum((small - params) ** 2)

    with stops_early():  # a warning would be an error
        bbvi.fit(log_joint, 0.0, solver="none")


def stops_early():
    """Ends a fit after its log joint was looked at and before anything is compiled."""
    return pytest.raises(InputError, match="solver must be")


# --- init --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("init", "words"),
    [
        ({"n": 3}, r"init\['n'\] has dtype int32; .* write 0.0 for 0"),
        ({"a": [0.0, np.array([True])]}, r"init\['a'\]\[1\] has dtype bool; .* floating point"),
        ({"z": 1j}, r"init\['z'\] has dtype complex64; .* floating point"),
        (0, "init has dtype int32"),
        (
            {"a": 0.0, "e": np.ones((2, 0))},
            r"init\['e'\] is empty \(shape \(2, 0\)\): leave it out",
        ),
        ({}, "init has no arrays: give one example point"),
        (None, "init has no arrays"),
        ({"a": [], "b": None}, "init has no arrays"),
        ({"a": "zero"}, r"init\['a'\] holds str, .* pass arrays of numbers only"),
        ({"a": object()}, r"init\['a'\] holds object, .* pass arrays of numbers only"),
        ({"a": 0.0, "b": np.array([0.0, np.nan])}, "init: b has a NaN or an infinity"),
        ({"a": -np.inf, "b": 0.0}, "init: a has a NaN or an infinity"),
        (Two(0.0, np.inf), "init: steep has a NaN or an infinity"),
    ],
)
def test_init(init, words):
    refuse(words, init=init)


# --- support -----------------------------------------------------------------------------

INIT = {"mu": 0.0, "sigma": [1.0, np.ones(2)]}


@pytest.mark.parametrize(
    ("support", "words"),
    [
        (
            {"sgima": bbvi.positive},
            "support names sgima, which init does not have; it has mu, sigma",
        ),
        ({"sigma": [bbvi.positive]}, r"support\['sigma'\] has 1 entries, but init has 2 there"),
        ({"sigma": []}, r"support\['sigma'\] has 0 entries, but init has 2 there"),
        ({"sigma": [None] * 3}, r"support\['sigma'\] has 3 entries, but init has 2 there"),
        ([bbvi.positive, None], "support names 0, 1, which init does not have; it has mu, sigma"),
        (
            {"mu": {"loc": bbvi.positive}},
            r"support\['mu'\] has the keys loc, but init has an array there",
        ),
        ({"mu": (0.0, 1.0)}, r"support\['mu'\] has the keys .* but init has an array there"),
        ("positive", "support must be a support such as bbvi.positive, .*not 'positive'"),
        ({"mu": "positive"}, r"support\['mu'\] must be a support such as bbvi.positive"),
        ({"mu": 0.0}, r"support\['mu'\] must be a support such as bbvi.positive"),
        ({"sigma": [1.0, None]}, r"support\['sigma'\]\[0\] must be a support"),
        ({"mu": bbvi.interval}, r"support\['mu'\] must be a support"),
        ({"mu": np.array([0.0, 1.0])}, r"support\['mu'\] must be a support"),
        ({"mu": jnp.array([0.0, 1.0])}, r"support\['mu'\] must be a support"),
    ],
)
def test_support_of_another_structure(support, words):
    refuse(words, init=INIT, support=support)


def test_support_of_a_named_tuple():
    words = r"support\.steep must be a support"
    refuse(words, init=Two(0.0, 1.0), support=Two(None, "positive"))


@pytest.mark.parametrize(
    ("value", "support", "words"),
    [
        (0.5, bbvi.simplex, r"init\['p'\]: simplex needs a vector .* not shape \(\)"),
        (np.eye(3)[:2], bbvi.covariance, r"init\['p'\]: .*\(2, 3\)"),
        (
            np.ones(3),
            bbvi.greater_than(np.zeros(2)),
            r"init\['p'\]: .* shape \(2,\) .* shape \(3,\)",
        ),
        (np.ones(1), bbvi.simplex, "init has no free parameters: every leaf is fixed"),
    ],
)
def test_support_that_the_shape_cannot_carry(value, support, words):
    refuse(words, init={"p": value}, support={"p": support})


def below_alpha(params, data):
    return params["alpha"]


@pytest.mark.parametrize(
    ("init", "support", "words"),
    [
        ({"s": -1.0}, {"s": bbvi.positive}, "init: s is outside its support, positive"),
        ({"s": 0.0}, {"s": bbvi.positive}, "init: s is outside its support, positive"),
        ({"s": 2.0}, {"s": bbvi.interval(0, 1)}, r"s is outside .*, interval\(0.0, 1.0\)"),
        (
            {"a": {"p": np.array([0.5, 0.6])}},
            {"a": {"p": bbvi.simplex}},
            r"init: a.p is outside its support, simplex",
        ),
        (
            {"alpha": 0.5, "beta": 0.7},
            {"beta": bbvi.less_than(below_alpha)},
            r"init: beta is outside its support, less_than\(below_alpha\)",
        ),
    ],
)
def test_start_outside_the_support(init, support, words):
    refuse(words, init=init, support=support)


# --- data and settings -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"y": "a name"}, r"data\['y'\] holds str, which cannot be traced: pass arrays"),
        ({"y": np.array(["a", "b"])}, r"data\['y'\] holds <U1, which cannot be traced"),
        ([1.0, {1, 2}], r"data\[1\] holds set, which cannot be traced"),
        ({"f": normal}, r"data\['f'\] holds function, which cannot be traced"),
    ],
)
def test_data_that_are_no_arrays(data, words):
    refuse(words, data=data)


@pytest.mark.parametrize("max_steps", [0, -1, 2.5, "10", np.inf])
def test_max_steps(max_steps):
    refuse("max_steps must be a positive whole number", max_steps=max_steps)


@pytest.mark.parametrize(
    "solver", ["adam", bbvi.MeanFieldGaussian(), bbvi.StochasticGradient, optax.adam(0.1), 1]
)
def test_solver(solver):
    refuse("solver must be None, bbvi.Auto.. or a solver", solver=solver)


@pytest.mark.parametrize("key", ["seed", 1.5, None, np.zeros(3, np.uint32), np.zeros(2)])
def test_key(key):
    refuse("key must be an int or a JAX random key, .*: try key=0", key=key, max_steps=1)


def test_a_batch_of_keys():
    keys = jax.random.split(jax.random.key(0), 3)
    refuse("key must be", key=keys, max_steps=1)


@pytest.mark.parametrize("optimizer", ["adam", optax.adam, 0.01])
def test_optimizer(optimizer):
    with pytest.raises(TypeError, match=r"optimizer must be an optax\.GradientTransformation"):
        bbvi.StochasticGradient(optimizer=optimizer)


def test_unknown_keywords():
    with pytest.raises(TypeError, match="num_steps"):
        bbvi.fit(normal, 0.0, num_steps=100)
    with pytest.raises(TypeError, match="learning_rate"):
        bbvi.StochasticGradient(learning_rate=0.1)
    with pytest.raises(TypeError, match="num_particles"):
        bbvi.ELBO(num_particles=1)


# --- warm starts -------------------------------------------------------------------------


def likelihood(params, data):
    return -0.5 * jnp.sum((data - params) ** 2)


def fit_quickly(init, data):
    solver = bbvi.StochasticGradient(bbvi.MeanFieldGaussian(), bbvi.ELBO(2))
    return bbvi.fit(likelihood, init, data, solver=solver, max_steps=1000)


def test_warm_start_with_data_of_another_shape():
    first = fit_quickly(0.0, np.full(4, 2.0, np.float32))
    fit_quickly(first, np.full(4, 3.0, np.float32))  # no warning, as it would be an error
    words = r"the data have shapes .*\(9,\).*, but the previous fit had .*\(4,\).*compiles again"
    with pytest.warns(BBVIWarning, match=words) as caught:
        again = fit_quickly(first, np.full(9, 5.0, np.float32))
    assert [w.filename for w in caught] == [__file__]
    # the previous posterior, from which it starts, has mean 2
    assert abs(again.posterior.mean() - 5) < 0.5
