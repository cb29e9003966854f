"""Targets: the user's structure as one unconstrained vector, supports, order, bad draws."""

import re
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbvi
from bbvi.inputs import make_target
from bbvi.status import InputError
from bbvi.testing import jacobian_log_det


class Scale(NamedTuple):
    sd: Any
    weights: Any


@partial(jax.tree_util.register_dataclass, data_fields=("first", "second"), meta_fields=("label",))
@dataclass
class Pair:
    first: Any
    second: Any
    label: str = "pair"


def nothing(params, data):
    return jnp.zeros(())


def make(init, support=None, data=None, log_joint=nothing):
    return make_target(log_joint, init, data, support)


def supports_of(target):
    return {leaf.name: leaf.bijector for leaf in target.leaves}


def flat_point(target, seed=0):
    return np.random.default_rng(seed).standard_normal(target.dim).astype(target.dtype)


@pytest.fixture(params=[32, 64])
def bits(request):
    if request.param == 64:
        request.getfixturevalue("x64")
    return request.param


# --- structure ---------------------------------------------------------------------------

NESTED_INIT = {
    "scale": Scale(1.0, [0.2, 0.3, 0.5]),
    "layers": [{"w": np.zeros((2, 3)), "b": np.zeros(3)}, (np.array([1.0, 2.0]), 0.5)],
    "pair": Pair(0.0, np.eye(2)),
}
NESTED_INIT["scale"] = NESTED_INIT["scale"]._replace(weights=np.array([0.2, 0.3, 0.5]))
NESTED_SUPPORT = {
    "scale": Scale(bbvi.positive, bbvi.simplex),
    "layers": [None, (bbvi.ordered, bbvi.interval(-1.0, 2.0))],
    "pair": Pair(None, bbvi.covariance),
}


@pytest.mark.usefixtures("bits")
def test_round_trip_of_a_nested_structure():
    target, init, _ = make(NESTED_INIT, NESTED_SUPPORT)
    # 9 in layers[0], 2 ordered, 1 interval, 1 real, 3 of a covariance, 1 scale, 2 of a simplex
    assert target.dim == 19
    assert len(target.scalar_names) == 21

    @jax.jit
    def look(z, params):
        there = target.constrain(z, None)
        back = target.unconstrain(there, None)
        return there, back, target.constrain(target.unconstrain(params, None), None)

    z = flat_point(target)
    there, back, same = look(z, init)
    assert jax.tree.structure(there) == jax.tree.structure(NESTED_INIT)
    assert isinstance(there["scale"], Scale)
    tight = 1e-5 if z.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(back, z, rtol=tight, atol=tight)
    assert back.dtype == z.dtype
    for found, given in zip(jax.tree.leaves(same), jax.tree.leaves(init), strict=True):
        assert found.shape == given.shape
        assert found.dtype == given.dtype
        np.testing.assert_allclose(found, given, rtol=tight, atol=tight)
    np.testing.assert_allclose(there["scale"].weights.sum(), 1, rtol=tight)
    assert there["scale"].sd > 0
    assert np.all(np.diff(there["layers"][1][0]) > 0)
    assert -1 < there["layers"][1][1] < 2
    assert np.linalg.eigvalsh(there["pair"].second).min() > 0
    # a real leaf is its own coordinate
    np.testing.assert_array_equal(there["layers"][0]["b"], z[:3])


def test_scalar_names_read_like_the_structure():
    target, _, _ = make(NESTED_INIT, NESTED_SUPPORT)
    assert target.scalar_names[:4] == [f"layers.0.b[{i}]" for i in range(3)] + ["layers.0.w[0,0]"]
    assert "layers.1.1" in target.scalar_names
    assert "pair.first" in target.scalar_names
    assert "scale.weights[2]" in target.scalar_names


def test_scalars_follow_their_names():
    target, init, _ = make({"b": np.arange(4.0).reshape(2, 2), "a": 9.0})
    named = dict(zip(target.scalar_names, target.scalars(init).tolist(), strict=True))
    assert named == {"a": 9.0, "b[0,0]": 0.0, "b[0,1]": 1.0, "b[1,0]": 2.0, "b[1,1]": 3.0}


def test_a_bare_array_is_a_structure_too():
    target, _, _ = make(np.zeros(2), bbvi.positive)
    assert target.scalar_names == ["x[0]", "x[1]"]
    assert target.constrain(jnp.zeros(2), None).tolist() == [1.0, 1.0]


def test_python_numbers_and_weak_arrays_become_plain_arrays():
    _, init, data = make({"a": 0.0, "b": jnp.asarray(1.0), "c": np.float64(2.0)}, data={"n": 3})
    for leaf in jax.tree.leaves(init):
        assert leaf.dtype == jnp.float32
        assert not leaf.weak_type
    assert not data["n"].weak_type


def test_one_target_for_numbers_and_for_arrays():
    spelled = [{"a": 1.0}, {"a": jnp.asarray(2.0)}, {"a": np.float32(3)}, {"a": jnp.array(4.0)}]
    targets = [make(init)[0] for init in spelled]
    assert all(t is targets[0] for t in targets)


@pytest.mark.usefixtures("x64")
def test_leaves_keep_their_dtype_and_the_vector_has_the_widest():
    target, init, _ = make({"a": np.float32(1), "b": np.ones(2)}, bbvi.positive)
    assert target.dtype == jnp.float64
    there = jax.jit(lambda z: target.constrain(z, None))(np.zeros(3))
    assert there["a"].dtype == jnp.float32
    assert there["b"].dtype == jnp.float64
    assert target.unconstrain(init, None).dtype == jnp.float64
    assert target.log_density(jnp.zeros(3), None).dtype == jnp.float64


# --- log densities -----------------------------------------------------------------------


def mixed_log_joint(params, data):
    s, w, r = params["s"], params["w"], params["r"]
    return -jnp.sum(s * data["rate"]) + 2 * jnp.sum(jnp.log(w)) - 0.5 * jnp.sum((r - s[:1]) ** 2)


@pytest.mark.usefixtures("bits")
def test_log_density_is_the_log_joint_plus_the_log_volume():
    init = {"s": np.ones(2), "w": np.full(3, 1 / 3), "r": np.zeros(2)}
    support = {"s": bbvi.positive, "w": bbvi.simplex}
    data = {"rate": np.array([1.0, 2.0])}
    target, _, data = make(init, support, data, mixed_log_joint)

    def free(z):
        """The constrained parameters without the last weight, which the others determine."""
        params = target.constrain(z, data)
        return jnp.concatenate([params["r"], params["s"], params["w"][:-1]])

    @jax.jit
    def look(z):
        expected = mixed_log_joint(target.constrain(z, data), data) + jacobian_log_det(free, z)
        return target.log_density(z, data), expected

    for seed in range(3):
        found, expected = look(flat_point(target, seed))
        assert found.shape == ()
        assert found.dtype == target.dtype
        tight = 1e-5 if target.dtype == jnp.float32 else 1e-12
        np.testing.assert_allclose(found, expected, rtol=tight, atol=tight)


def test_log_joint_without_data_and_of_shape_one():
    target, _, _ = make({"x": np.zeros(2)}, log_joint=lambda p: -jnp.sum(p["x"], keepdims=True))
    assert not target.takes_data
    assert target.log_density(jnp.array([1.0, 2.0]), None) == -3.0
    with_data, _, _ = make({"x": np.zeros(2)}, log_joint=lambda p, d=None: -jnp.sum(p["x"]))
    assert with_data.takes_data
    assert with_data.log_density(jnp.array([1.0, 2.0]), None) == -3.0


def test_log_joint_of_another_dtype_is_cast():
    target, _, _ = make({"x": np.zeros(2)}, log_joint=lambda p: jnp.float16(-1) * jnp.sum(p["x"]))
    assert target.log_density(jnp.ones(2), None).dtype == jnp.float32
    target, _, _ = make({"x": np.zeros(2)}, log_joint=lambda p: 0.0)
    assert target.log_density(jnp.ones(2), None) == 0


# --- precision ---------------------------------------------------------------------------


def regression(beta, data):
    return -0.5 * jnp.sum((data["x"] @ beta) ** 2)


@jax.custom_vjp
def by_hand(beta, data):
    return regression(beta, data)


def slope_by_hand(data, g):
    return -g * ((data["x"] @ jnp.ones(3)) @ data["x"]), None


by_hand.defvjp(lambda beta, data: (by_hand(beta, data), data), slope_by_hand)


def precisions(log_joint):
    """Of all matrix products in the density and the score of a target."""
    data = {"x": np.ones((5, 3), np.float32)}
    target, beta, data = make(np.zeros(3), None, data, log_joint)
    look = lambda z: (target.log_density(z, data), target.score(z[None], data))  # noqa: E731
    return set(re.findall(r"precision=(.*)", str(jax.make_jaxpr(look)(jnp.zeros(3)))))


@pytest.mark.parametrize("log_joint", [regression, by_hand])
def test_products_of_the_users_matrices_are_not_rounded(log_joint):
    """On a GPU the default rounds float32 factors to 10 bits: less than a posterior has."""
    assert precisions(log_joint) == {"(Precision.HIGHEST, Precision.HIGHEST)"}
    with jax.default_matmul_precision("high"):
        assert precisions(log_joint) == {"(Precision.HIGH, Precision.HIGH)"}
    chosen = lambda beta, data: -jnp.sum(jnp.dot(data["x"], beta, precision="high") ** 2)  # noqa: E731
    assert precisions(chosen) == {"(Precision.HIGH, Precision.HIGH)"}


# --- supports ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("support", "expected"),
    [
        (None, {"a": None, "b.0": None, "b.1": None}),
        ({}, {"a": None, "b.0": None, "b.1": None}),
        (bbvi.positive, {"a": bbvi.positive, "b.0": bbvi.positive, "b.1": bbvi.positive}),
        ({"b": bbvi.positive}, {"a": None, "b.0": bbvi.positive, "b.1": bbvi.positive}),
        ({"a": bbvi.negative, "b": None}, {"a": bbvi.negative, "b.0": None, "b.1": None}),
        ({"b": [None, bbvi.positive]}, {"a": None, "b.0": None, "b.1": bbvi.positive}),
    ],
)
def test_supports_may_stop_early_or_leave_things_out(support, expected):
    target, _, _ = make({"a": 1.0, "b": [1.0, np.ones(2)]}, support)
    assert supports_of(target) == {k: v or bbvi.real for k, v in expected.items()}


def test_supports_of_tuples_and_dataclasses():
    init = {"s": Scale(1.0, np.array([0.5, 0.5])), "p": Pair(1.0, -1.0), "t": (1.0, 2.0)}
    target, _, _ = make(
        init,
        {
            "s": Scale(None, bbvi.simplex),
            "p": Pair(bbvi.positive, bbvi.negative),
            "t": (bbvi.positive, None),
        },
    )
    assert supports_of(target) == {
        "p.first": bbvi.positive,
        "p.second": bbvi.negative,
        "s.sd": bbvi.real,
        "s.weights": bbvi.simplex,
        "t.0": bbvi.positive,
        "t.1": bbvi.real,
    }


def test_nones_in_init_are_no_parameters():
    target, _, _ = make({"a": 1.0, "b": None}, {"a": bbvi.positive, "b": None})
    assert target.scalar_names == ["a"]


# --- bounds that depend on other parameters ----------------------------------------------


def below_one_minus_alpha(params, data):
    return 1 - params["z_alpha"]


def garch_target(log_joint=nothing):
    # the dependent leaf sorts before the one it needs
    return make(
        {"a_beta": 0.2, "z_alpha": 0.5, "mu": 0.0},
        {
            "a_beta": bbvi.interval(0.0, below_one_minus_alpha),
            "z_alpha": bbvi.unit_interval,
        },
        log_joint=log_joint,
    )


@pytest.mark.usefixtures("x64")
def test_dependent_bound_of_a_leaf_that_sorts_first():
    target, init, _ = garch_target(lambda p, d: jnp.log(p["z_alpha"]) + 3 * p["a_beta"])
    names = [target.leaves[i].name for i in target.order]
    assert names.index("z_alpha") < names.index("a_beta")

    @jax.jit
    def look(z):
        params, log_det = target.constrain_and_log_det(z, None)
        jacobian = jacobian_log_det(lambda z: target.scalars(target.constrain(z, None)), z)
        back = target.unconstrain(params, None)
        return params, log_det, jacobian, back, target.log_density(z, None)

    for seed in range(3):
        z = flat_point(target, seed)
        params, log_det, jacobian, back, log_p = look(z)
        assert 0 < params["a_beta"] < 1 - params["z_alpha"]
        np.testing.assert_allclose(log_det, jacobian, rtol=1e-12)
        np.testing.assert_allclose(back, z, rtol=1e-10)
        expected = np.log(params["z_alpha"]) + 3 * params["a_beta"] + log_det
        np.testing.assert_allclose(log_p, expected, rtol=1e-12)
    # beta = 0.2 in (0, 0.5): logit(0.4); alpha = 0.5: 0
    z = target.unconstrain(init, None)
    np.testing.assert_allclose(z, [np.log(0.4 / 0.6), 0.0, 0.0], atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_gradient_flows_through_a_dependent_bound():
    target, _, _ = garch_target(lambda p, d: p["a_beta"])
    z = np.array([0.3, 0.0, -0.4])
    alpha = 1 / (1 + np.exp(0.4))
    share = 1 / (1 + np.exp(-0.3))
    gradient = jax.jit(jax.grad(lambda z: target.constrain(z, None)["a_beta"]))(z)
    np.testing.assert_allclose(gradient[2], -share * alpha * (1 - alpha), rtol=1e-12)


def test_chains_of_dependent_bounds_are_put_in_order():
    target, _, _ = make(
        {"a": 3.0, "b": 2.0, "c": 1.0},
        {
            "a": bbvi.greater_than(lambda p, d: p["b"]),
            "b": bbvi.greater_than(lambda p, d: p["c"]),
        },
    )
    assert [target.leaves[i].name for i in target.order] == ["c", "b", "a"]
    there = target.constrain(jnp.zeros(3), None)
    assert [there[k].item() for k in "abc"] == [2.0, 1.0, 0.0]


@pytest.mark.usefixtures("x64")
def test_bounds_from_the_data():
    target, _, data = make(
        {"x": np.full(2, 5.0)},
        {"x": bbvi.greater_than(lambda p, d: d["floor"])},
        {"floor": np.array([1.0, 2.0])},
    )
    np.testing.assert_allclose(target.constrain(jnp.zeros(2), data)["x"], [2.0, 3.0])
    # the bound follows the data that are given, not those of the first call
    np.testing.assert_allclose(
        target.constrain(jnp.zeros(2), {"floor": np.array([7.0, 8.0])})["x"], [8.0, 9.0]
    )


def test_a_bound_may_read_a_leaf_without_depending_on_it():
    # the shape of "x" is all it uses
    target, _, _ = make(
        {"x": np.ones(2)}, {"x": bbvi.greater_than(lambda p, d: jnp.zeros_like(p["x"]) - 1.0)}
    )
    assert target.constrain(jnp.zeros(2), None)["x"].tolist() == [0.0, 0.0]


def test_bounds_in_a_circle_are_refused():
    with pytest.raises(InputError, match="the bounds of a, b depend on each other in a circle"):
        make(
            {"a": 1.0, "b": 1.0, "c": 1.0},
            {
                "a": bbvi.greater_than(lambda p, d: p["b"]),
                "b": bbvi.greater_than(lambda p, d: p["a"]),
            },
        )


def test_a_bound_on_itself_is_refused():
    with pytest.raises(InputError, match="the bounds of a depend on a itself"):
        make({"a": 1.0}, {"a": bbvi.greater_than(lambda p, d: p["a"] - 1)})


def test_a_bound_of_another_shape_is_refused():
    with pytest.raises(InputError, match=r"a bound of a has shape \(3,\).* shape \(2,\)"):
        make({"a": np.ones(2)}, {"a": bbvi.greater_than(lambda p, d: jnp.zeros(3))})


# --- scores ------------------------------------------------------------------------------


def traps(params):
    """NaN for x[0] > 1, -inf for x[1] > 1, an infinite slope for x[2] > 1."""
    x = params["x"]
    log_p = -0.5 * jnp.sum(x**2) + jnp.log(1.0 - x[0])
    log_p = log_p - jnp.sqrt(jnp.maximum(1.0 - x[2], 0.0))
    return jnp.where(x[1] < 1, log_p, -jnp.inf)


def test_score_masks_exactly_the_bad_draws():
    target, _, _ = make({"x": np.zeros(3)}, log_joint=traps)
    fine = np.array([0.5, -0.5, 0.25], np.float32)
    zs = np.stack([fine, fine, fine, fine, -fine])
    zs[0, 0] = zs[1, 1] = zs[2, 2] = 2.0
    score = jax.jit(target.score, static_argnums=2)
    for chunk_size in (None, 2):
        log_p, gradient, ok = jax.tree.map(np.asarray, score(zs, None, chunk_size))
        assert ok.tolist() == [False, False, False, True, True]
        assert log_p[:3].tolist() == [0, 0, 0]
        assert not gradient[:3].any()
        x = zs[3:].astype(np.float64)
        expected = -0.5 * (x**2).sum(1) + np.log(1 - x[:, 0]) - np.sqrt(1 - x[:, 2])
        np.testing.assert_allclose(log_p[3:], expected, rtol=1e-5)
        slope = -x
        slope[:, 0] -= 1 / (1 - x[:, 0])
        slope[:, 2] += 0.5 / np.sqrt(1 - x[:, 2])
        np.testing.assert_allclose(gradient[3:], slope, rtol=1e-5)


def test_log_densities_are_left_as_they_are():
    target, _, _ = make({"x": np.zeros(3)}, log_joint=traps)
    zs = np.array([[2.0, 0, 0], [0, 2, 0], [0, 0, 0]], np.float32)
    assert np.asarray(jax.jit(target.log_densities)(zs, None)).tolist()[1:] == [-np.inf, -1.0]
    assert np.isnan(target.log_densities(zs, None)[0])


def gaussian_process(length, data):
    covariance = jnp.exp(-0.5 * ((data[:, None] - data) / length) ** 2) + jnp.eye(len(data))
    root = jnp.linalg.cholesky(covariance)
    return -jnp.sum(jnp.log(jnp.diag(root))) - 0.5 * jnp.sum(jnp.log(length) ** 2)


def test_many_draws_of_a_heavy_log_joint_have_a_bound_in_memory():
    target, _, data = make(np.ones(1), None, np.linspace(0, 10, 300), gaussian_process)
    zs = jax.ShapeDtypeStruct((16_384, 1), target.dtype)
    all_draws = jax.jit(target.log_densities).lower(zs, data).compile().memory_analysis()
    scores = jax.jit(target.score).lower(zs, data).compile().memory_analysis()
    assert all_draws.temp_size_in_bytes < 1 << 28
    assert scores.temp_size_in_bytes < 1 << 29


def test_chunks_change_no_number(monkeypatch):
    target, _, data = make(np.ones(1), None, np.linspace(0, 10, 20), gaussian_process)
    zs = np.exp(np.random.default_rng(0).standard_normal((50, 1))).astype(np.float32)
    whole = jax.jit(target.log_densities)(zs, data), jax.jit(target.score)(zs, data)
    monkeypatch.setattr(bbvi.target, "_AT_ONCE", 10 * target.work)
    monkeypatch.setattr(bbvi.target, "_CHUNK", 9 * target.work)
    jax.clear_caches()
    chunked = jax.jit(target.log_densities)(zs, data), jax.jit(target.score)(zs, data)
    for found, expected in zip(jax.tree.leaves(chunked), jax.tree.leaves(whole), strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


# --- log joints behind a callback --------------------------------------------------------


def outside_jax(**settings):
    """-sum(x^2) and its gradient, both computed by NumPy; reverse mode only."""

    @jax.custom_vjp
    def log_joint(params):
        x = params["x"]
        like = jax.ShapeDtypeStruct((), x.dtype)
        return jax.pure_callback(lambda x: -np.sum(np.asarray(x) ** 2), like, x, **settings)

    def forward(params):
        return log_joint(params), params["x"]

    def backward(x, g):
        like = jax.ShapeDtypeStruct(x.shape, x.dtype)
        slope = jax.pure_callback(lambda x: -2 * np.asarray(x), like, x, **settings)
        return ({"x": g * slope},)

    log_joint.defvjp(forward, backward)
    return log_joint


@pytest.mark.parametrize(
    ("settings", "sequential"), [({"vmap_method": "sequential"}, False), ({}, True)]
)
def test_log_joint_behind_a_callback(settings, sequential):
    target, _, _ = make({"x": np.ones(2)}, {"x": bbvi.positive}, log_joint=outside_jax(**settings))
    assert target.sequential is sequential
    zs = np.random.default_rng(0).standard_normal((5, 2)).astype(np.float32)

    @jax.jit
    def look(zs):
        return target.score(zs, None), target.score(zs, None, 2), target.log_densities(zs, None)

    (log_p, score, ok), chunked, densities = look(zs)
    x = np.exp(zs.astype(np.float64))
    expected = -np.sum(x**2, 1) + zs.sum(1)
    np.testing.assert_allclose(log_p, expected, rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(score, 1 - 2 * x**2, rtol=2e-5, atol=1e-5)
    assert ok.all()
    np.testing.assert_allclose(densities, log_p, rtol=1e-6)
    np.testing.assert_allclose(chunked[1], score, rtol=1e-6)


def test_a_gradient_behind_a_callback_that_cannot_be_batched():
    # Only the backward pass is outside JAX: values can be batched, scores cannot.
    @jax.custom_vjp
    def log_joint(params):
        return -jnp.sum(params["x"] ** 2)

    def backward(x, g):
        like = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return ({"x": g * jax.pure_callback(lambda x: -2 * np.asarray(x), like, x)},)

    log_joint.defvjp(lambda p: (log_joint(p), p["x"]), backward)
    target, _, _ = make({"x": np.ones(2)}, log_joint=log_joint)
    zs = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)
    _, score, ok = jax.jit(target.score)(zs, None)
    np.testing.assert_allclose(score, -2 * zs, rtol=1e-6)
    assert ok.all()


# --- caching -----------------------------------------------------------------------------


def test_the_same_input_gives_the_same_target(count_compiles):
    def log_joint(params, data):
        return -jnp.sum(params["x"]) + jnp.sum(data["y"])

    def ask(x, y, lower=0.0):
        return make({"x": x}, {"x": bbvi.greater_than(lower)}, {"y": y}, log_joint)[0]

    first = ask(np.ones(2), np.ones(3))
    # equal by shape and support, whatever the values
    assert ask(np.full(2, 5.0), np.zeros(3)) is first
    # through the target as a static argument, a second call compiles nothing
    density = jax.jit(lambda target, z, data: target.log_density(z, data), static_argnums=0)
    density(first, np.zeros(2, np.float32), {"y": np.ones(3, np.float32)})
    with count_compiles() as compiles:
        again = ask(np.full(2, 7.0), np.ones(3))
        density(again, np.ones(2, np.float32), {"y": np.zeros(3, np.float32)})
    assert compiles.count == 0
    others = [ask(np.ones(3), np.ones(3)), ask(np.ones(2), np.ones(4)), ask(np.ones(2), 1.0, -1.0)]
    assert all(other is not first for other in others)
    assert others[0] != first
    assert others[2] != first


def test_targets_are_hashed_by_the_log_joint_itself():
    one, other = (make({"x": 1.0}, log_joint=lambda p, d: -p["x"])[0] for _ in range(2))
    assert one != other
    assert hash(one) != hash(other)
