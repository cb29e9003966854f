"""Effects of scales: their map and density, how they are found, and the stages made of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scale_forms import FORMS
from some_keys import keys

import bbvi
from bbvi.families import BentGaussian, FullRankGaussian, GivenScales, Noncentred
from bbvi.families import given_scales as module_of_given_scales
from bbvi.families.given_scales import Given
from bbvi.families.noncentred import (
    Tails,
    apply,
    invert,
    joined,
    plain_layer,
    pull_back,
    pull_back_tails,
    stacked,
    tail,
    untail,
)
from bbvi.inputs import make_target
from bbvi.stages.coordinates import Coordinates
from bbvi.stages.hierarchy.layers import find_layers
from bbvi.stages.hierarchy.scales import PROFILE, marginal

pytestmark = pytest.mark.usefixtures("x64")
FAMILY = Noncentred()
KEY = jax.random.key(0)


def a_layer(dim, effects, scale, hubs, seed=0, dense=False, saturates=0.0, divided=0.0):
    """Some layer, of effects with a scale and hubs."""
    rng = np.random.default_rng(seed)
    layer, number = plain_layer(dim), len(effects)
    layer.scale[effects], layer.power[effects] = scale, rng.choice([-0.5, 0.5, 1.0])
    layer.saturates[effects], layer.divided[effects] = saturates, divided
    layer.rest[effects], layer.pull[effects] = rng.normal(size=(2, number))
    layer.log_omega[effects] = rng.normal(size=number)
    lead = np.zeros((dim, len(hubs)))
    lead[effects] = rng.normal(size=(number, len(hubs)))
    layer = layer._replace(hubs=np.array(hubs, np.int32), lead=lead)
    if not dense:
        diagonal = np.exp(rng.normal(size=number))
        layer.basis[effects], layer.inverse[effects] = diagonal, 1 / diagonal
        return layer._replace(log_det=np.log(diagonal).sum())
    basis = np.eye(dim)
    basis[np.ix_(effects, effects)] = rng.normal(size=(number, number))
    log_det = np.linalg.slogdet(basis)[1]
    return layer._replace(basis=basis, inverse=np.linalg.inv(basis), log_det=log_det)


def a_member(dense=False, saturates=0.0, divided=0.0):
    """Two layers in seven dimensions, and a scale with a tail."""
    layers = [
        a_layer(7, [2, 3, 4], 0, [1], 1, dense, saturates),
        a_layer(7, [1], 6, [5], 2, divided=divided),
    ]
    tails = Tails(*np.array([[0.3, *[0] * 6], [-0.5, *[1] * 6], [0.8, *[0] * 6]], float))
    rng = np.random.default_rng(3)
    factor = np.tril(0.2 * rng.normal(size=(7, 7)), -1) + np.diag(rng.uniform(0.5, 1.5, 7))
    base = FullRankGaussian().init(jnp.asarray(rng.normal(size=7)), jnp.asarray(factor))
    return layers, tails, jax.tree.map(jnp.asarray, FAMILY.join(base, tails, stacked(layers)))


@pytest.mark.parametrize("divided", [0.0, 1.0])
@pytest.mark.parametrize(("dense", "saturates"), [(False, 0.0), (True, 0.0), (False, 1.0)])
def test_its_density_is_that_of_its_draws(dense, saturates, divided):
    _, _, params = a_member(dense, saturates, divided)
    eps = np.random.default_rng(1).normal(size=(50, 7))
    z, log_q = FAMILY.reparam(params, eps)
    jacobian = jax.vmap(jax.jacfwd(lambda e: FAMILY.reparam(params, e[None])[0][0]))(eps)
    expected = -0.5 * np.sum(eps**2, 1) - np.linalg.slogdet(jacobian)[1] - 3.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(log_q, expected, rtol=1e-9)
    np.testing.assert_allclose(FAMILY.log_prob(params, z), log_q, rtol=1e-9)


def test_without_layers_it_is_its_base():
    loc, factor = jnp.array([1.0, 2.0]), jnp.array([[1.0, 0.0], [0.5, 2.0]])
    eps = np.random.default_rng(0).normal(size=(20, 2))
    base = FullRankGaussian()
    expected = base.reparam(base.init(loc, factor), eps)
    found = FAMILY.reparam(FAMILY.init(loc, factor), eps)
    jax.tree.map(np.testing.assert_allclose, found, expected)


def test_its_frame_has_its_moments():
    _, _, params = a_member()
    z = FAMILY.reparam(params, np.random.default_rng(0).normal(size=(400_000, 7)))[0]
    x = np.asarray(FAMILY.frame(params).invert(z))
    np.testing.assert_allclose(x.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(x.std(0), 1, atol=0.15)
    on_host = FAMILY.frame(jax.device_get(params))
    jax.tree.map(np.testing.assert_allclose, on_host, FAMILY.frame(params))


@pytest.mark.parametrize("divided", [0.0, 1.0])
@pytest.mark.parametrize("dense", [False, True])
def test_gradients_are_pulled_back(dense, divided):
    layers, tails, _ = a_member(dense, 1.0, divided)
    y = np.random.default_rng(4).normal(size=(5, 7))

    def log_density(y):
        x, log_slopes = tail(tails, y[None])
        log_det = jnp.sum(log_slopes)
        for layer in reversed(layers):
            x, more = apply(layer, x)
            log_det = log_det + more[0]
        return -0.5 * jnp.sum(x**2) + log_det

    expected = jax.vmap(jax.grad(log_density))(y)
    at = [np.asarray(tail(tails, y)[0])]
    for layer in reversed(layers):
        at.append(apply(layer, at[-1])[0])
    score = -at.pop()
    for layer, x in zip(layers, reversed(at), strict=True):
        score = pull_back(layer, x, score)
    np.testing.assert_allclose(pull_back_tails(tails, y, score), expected, rtol=1e-8)


def test_two_layers_that_do_not_meet_are_one():
    one, other = a_layer(7, [2, 3], 0, [1], 1), a_layer(7, [4, 5], 6, [1, 0], 2, dense=True)
    x = np.random.default_rng(0).normal(size=(9, 7))
    first, log_det = apply(one, x)
    z, more = apply(other, first)
    both = joined(one, other)
    found = apply(both, x)
    np.testing.assert_allclose(found[0], z)
    np.testing.assert_allclose(found[1], log_det + more)
    np.testing.assert_allclose(invert(both, z)[0], x)


def test_tails_have_an_inverse_far_out():
    tails = Tails(np.zeros(3), np.array([1.0, -0.3, 1.0]), np.array([1.5, 0.4, 0.0]))
    y = np.linspace(-30, 30, 61)[:, None] * np.ones(3)
    np.testing.assert_allclose(untail(tails, tail(tails, y)[0]), y, atol=1e-10)


# --- how they are found ---------------------------------------------------------------------------

GROUPS = 12
RNG = np.random.default_rng(1)
SD = RNG.uniform(0.5, 2, GROUPS)
Y = 1 + 0.5 * RNG.normal(size=GROUPS) + SD * RNG.normal(size=GROUPS)


def of_scale(to_sd):
    """Centred groups, whose exponential sd is a function of the scale."""

    def log_joint(p, data):
        sd, slope = jax.value_and_grad(to_sd)(p["scale"])
        prior = -0.5 * jnp.sum(((p["z"] - p["mu"]) / sd) ** 2) - p["z"].size * jnp.log(sd)
        prior += jnp.log(jnp.abs(slope)) - sd - 0.5 * (p["mu"] / 5) ** 2
        return prior - 0.5 * jnp.sum(((data["y"] - p["z"]) / data["sd"]) ** 2)

    return log_joint


def coordinates(log_joint, init, data=None, support=None, unit=0.4):
    target, _, data = make_target(log_joint, init, data, support)
    centre = np.zeros(target.dim)
    return target, find_layers(target, centre, np.full(target.dim, unit), KEY, data, 64)


@pytest.mark.parametrize("sd, bends", [(0.5, True), (0.05, False)])
def test_a_tail_is_not_made_of_one_point(sd, bends):
    """Of a density that falls steeply to the right, narrower than the points are apart or not."""
    log_p = np.where(PROFILE > 0, -8 * PROFILE, PROFILE) / sd
    score = np.where(PROFILE > 0, -8.0, 1.0) / sd
    found = marginal(PROFILE, log_p, score, np.ones(len(PROFILE), bool))[2]
    assert (found.bend > 0) == bends


@pytest.mark.parametrize("form", FORMS)
def test_a_scale_in_any_form_is_found(form):
    to_sd, support, power = FORMS[form]
    init = {"mu": 0.0, "scale": 1.0, "z": np.zeros(GROUPS)}
    data = {"y": Y, "sd": SD}
    target, x = coordinates(of_scale(to_sd), init, data, {"scale": support})
    (layer,) = x.layers
    effects = np.arange(2, 2 + GROUPS)
    np.testing.assert_array_equal(np.flatnonzero(layer.power), effects)
    np.testing.assert_array_equal(layer.scale[effects], 1)
    np.testing.assert_array_equal(layer.power[effects], power)
    np.testing.assert_array_equal(layer.hubs, [0])
    # normal effects with normal data are independent of all else, and standard, wherever that is
    y = np.random.default_rng(0).uniform(-2, 2, size=(50, target.dim))
    _, score, ok = x.score(y)
    assert ok.all()
    np.testing.assert_allclose(score[:, effects], -y[:, effects], atol=1e-4)
    # and the scale, given all others at the centre, is nearly a standard normal
    along = np.zeros((7, target.dim))
    along[:, 1] = np.linspace(-3, 3, 7)
    log_p = x.score(along)[0] + 0.5 * along[:, 1] ** 2
    assert np.ptp(log_p) < 3


SHAPES = {  # log densities of effects, but for constants, and where their pull is 1 / x
    "Student-t": (lambda x: -2.5 * jnp.log1p(x**2 / 4), 1.0),
    "logistic": (lambda x: -x - 2 * jax.nn.softplus(-x), 1.5434),
    "Laplace": (lambda x: -jnp.abs(x), 1.0),
}


def of_shape(shape):
    """Centred groups whose effects have a prior of some shape, and a half-Cauchy scale."""

    def log_joint(p, data):
        x = (p["z"] - p["mu"]) / p["tau"]
        prior = jnp.sum(shape(x) - jnp.log(p["tau"])) - 0.5 * (p["mu"] / data["wide"]) ** 2
        prior -= jnp.log1p((p["tau"] / 2) ** 2)
        return prior - 0.5 * jnp.sum(((data["y"] - p["z"]) / data["sd"]) ** 2)

    return log_joint


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SHAPES)
def test_effects_of_any_shape_are_found(name, dtype):
    shape, half_width = SHAPES[name]
    arrays = (
        {"mu": 0.0, "tau": 1.0, "z": np.zeros(GROUPS)},
        {"y": Y, "sd": SD, "wide": 5.0},
    )
    init, data = jax.tree.map(lambda x: np.asarray(x, dtype), arrays)
    target, x = coordinates(of_shape(shape), init, data, {"tau": bbvi.positive})
    (layer,) = x.layers
    effects = np.flatnonzero(layer.power)
    np.testing.assert_array_equal(effects, np.arange(2, 2 + GROUPS))
    np.testing.assert_array_equal(layer.scale[effects], 1)
    np.testing.assert_array_equal(layer.power[effects], 1)
    np.testing.assert_array_equal(layer.hubs, [0])
    assert not x.normal
    np.testing.assert_allclose(layer.basis[effects], half_width, rtol=0.01)
    np.testing.assert_allclose(layer.lead[effects, 0] * layer.basis[effects], 1, rtol=1e-3)
    np.testing.assert_allclose(layer.rest[effects], 0, atol=1e-3)
    # whatever a small scale is effects are the same
    y = np.random.default_rng(0).uniform(-2, 2, size=(2, target.dim))
    y[:, 0], y[:, 1] = 0.3, untail(x.tails, np.full((1, target.dim), -5.0))[0, 1]
    near = x.score(y)[1]
    y[:, 1] = untail(x.tails, np.full((1, target.dim), -7.0))[0, 1]
    far = x.score(y)[1]
    np.testing.assert_allclose(near[:, effects], far[:, effects], atol=0.05)


def groups_with(prior, written="centred"):
    """Groups whose scale has a log prior of its own, and that scale's support."""

    def divided(p, data):
        z = p["mu"] + p["tau"] * p["z"]
        effects = -0.5 * jnp.sum(p["z"] ** 2) + prior(p["tau"]) - 0.5 * (p["mu"] / 5) ** 2
        return effects - 0.5 * jnp.sum(((data["y"] - z) / data["sd"]) ** 2)

    def centred(p, data):
        effects = -0.5 * jnp.sum(((p["z"] - p["mu"]) / p["tau"]) ** 2)
        effects += prior(p["tau"]) - p["z"].size * jnp.log(p["tau"]) - 0.5 * (p["mu"] / 5) ** 2
        return effects - 0.5 * jnp.sum(((data["y"] - p["z"]) / data["sd"]) ** 2)

    return centred if written == "centred" else divided, {"tau": bbvi.positive}


PRIORS = {  # of tau, and whether the posterior is proper
    "1 / tau": (lambda tau: -jnp.log(tau), False),
    "half-Cauchy": (lambda tau: -jnp.log1p(tau**2), True),
    "log-normal": (lambda tau: -jnp.log(tau) - 0.5 * (jnp.log(tau) / 15) ** 2, True),
    "inverse gamma": (lambda tau: -1.002 * jnp.log(tau) - 0.001 / tau**2, True),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("written", ["centred", "non-centred"])
def test_a_neck_without_end_is_told_from_one_that_is_long(written, name, dtype):
    prior, proper = PRIORS[name]
    log_joint, support = groups_with(prior, written)
    arrays = {"mu": 0.0, "tau": 1.0, "z": np.zeros(GROUPS)}, {"y": Y, "sd": SD}
    init, data = jax.tree.map(lambda x: np.asarray(x, dtype), arrays)
    _, x = coordinates(log_joint, init, data, support)
    assert x.layers and x.endless == (() if proper else ("tau",))


@pytest.mark.parametrize("key", keys(0, 1, 2))
def test_an_improper_hierarchy_is_named_at_little_cost(key):
    """Two of three fits were trusted, after 400,000 to 900,000 gradients."""
    log_joint, support = groups_with(PRIORS["1 / tau"][0])
    y = np.array([28.0, 8, -3, 7, -1, 1, 18, 12]) / 10
    data = {"y": y, "sd": np.array([1.5, 1, 1.6, 1.1, 0.9, 1.1, 1, 1.8])}
    init = {"mu": 0.0, "tau": 1.0, "z": np.zeros(8)}
    result = bbvi.fit(log_joint, init, data, support=support, key=key, throw=False)
    assert result.verdict.level == "rejected"
    assert any("does not fall along tau" in reason for reason in result.verdict.reasons)
    assert result.num_gradients < 15_000


def test_what_has_no_effects_has_no_layers():
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(40, 3)), "y": (rng.random(40) < 0.5).astype(float)}

    def logistic(p, data):
        eta = data["x"] @ p
        return jnp.sum(data["y"] * eta - jnp.logaddexp(0, eta)) - 0.5 * jnp.sum(p**2)

    def poisson(p):
        return jnp.sum(3 * p - jnp.exp(p)) - 0.5 * jnp.sum((p - p[0]) ** 2)

    for log_joint, init, extra in (
        (logistic, np.zeros(3), (data,)),
        (poisson, np.zeros(4), ()),
        (lambda z: -0.5 * jnp.sum(z**2), np.zeros(3), ()),
    ):
        target, x = coordinates(log_joint, init, *extra)
        assert x.layers == [], log_joint.__name__
        assert 0 < x.num_gradients <= 60 * target.dim


def test_effects_that_were_written_non_centred():
    """They are divided by their scale, and given it independent of it and all else but mu."""

    def noncentred(p):
        s, u = p["s"], p["u"]
        mean = p["mu"] + jnp.exp(s) * u
        prior = -0.5 * (s**2 + p["mu"] ** 2 + jnp.sum(u**2))
        return prior - 0.5 * jnp.sum(((Y - mean) / SD) ** 2)

    target, x = coordinates(noncentred, {"mu": 0.0, "s": 0.0, "u": np.zeros(GROUPS)})
    (layer,) = x.layers
    effects = layer.power != 0
    np.testing.assert_array_equal(np.flatnonzero(effects), np.arange(2, 2 + GROUPS))
    np.testing.assert_array_equal(layer.divided, layer.power)
    assert set(layer.power[effects]) == {1.0}
    y = np.random.default_rng(0).uniform(-2, 2, size=(50, target.dim))
    y[:, 0] = 0
    _, score, ok = x.score(y)
    assert ok.all()
    np.testing.assert_allclose(score[:, effects], -y[:, effects], atol=1e-3)


def test_scales_of_scales_of_effects():
    """Schools in districts: two layers, the schools' first."""
    of = np.repeat(np.arange(4), 3)
    seen = np.random.default_rng(2).normal(size=12)

    def nested(p):
        log_p = -0.5 * (p["a"] ** 2 + p["b"] ** 2 + p["mu"] ** 2)
        for effects, mean, s in ((p["d"], p["mu"], p["a"]), (p["s"], p["d"][of], p["b"])):
            log_p += -0.5 * jnp.sum(((effects - mean) / jnp.exp(s)) ** 2) - effects.size * s
        return log_p - 0.5 * jnp.sum((seen - p["s"]) ** 2)

    init = {"a": 0.0, "b": 0.0, "d": np.zeros(4), "mu": 0.0, "s": np.zeros(12)}
    target, x = coordinates(nested, init)
    schools, districts = x.layers
    np.testing.assert_array_equal(np.flatnonzero(schools.power), np.arange(7, 19))
    np.testing.assert_array_equal(schools.hubs, [2, 3, 4, 5])
    np.testing.assert_array_equal(np.flatnonzero(districts.power), [2, 3, 4, 5])
    np.testing.assert_array_equal(districts.hubs, [6])
    z = np.random.default_rng(0).normal(size=(9, target.dim))
    params = FAMILY.join(
        FullRankGaussian().init(jnp.zeros(19), jnp.ones(19)), x.tails, stacked(x.layers)
    )
    params = jax.tree.map(jnp.asarray, params)
    y, log_det = FAMILY.straighten(params, z)
    np.testing.assert_allclose(x.straighten(z), y, atol=1e-10)
    np.testing.assert_allclose(FAMILY.place(params, y)[0], z, atol=1e-10)
    log_p = jax.vmap(lambda z: target.log_density(z, None))(z)
    np.testing.assert_allclose(x.score(y)[0], log_p + log_det, rtol=1e-8)


def test_steps_of_a_walk_are_effects_together():
    """Their prior has a precision that is not diagonal, and leaves out where the walk begins."""
    y = np.cumsum(np.random.default_rng(0).normal(size=20))

    def walk(p):
        s, x = p["s"], p["x"]
        steps = -0.5 * jnp.sum((jnp.diff(x) / jnp.exp(s)) ** 2) - (x.size - 1) * s
        return steps - 0.5 * s**2 - 0.5 * jnp.sum((y - x) ** 2)

    target, x = coordinates(walk, {"s": 0.0, "x": np.zeros(20)})
    (layer,) = x.layers
    assert np.sum(layer.power != 0) == 19
    assert layer.basis.ndim == 2 and len(layer.hubs) == 1
    at = 2 * np.random.default_rng(0).normal(size=(20, target.dim))
    at[:, layer.hubs] = 0
    effects = layer.power != 0
    shift = (x.score(at)[1] + at)[:, effects]
    assert np.abs(shift - shift.mean(0)).max() < 0.5


# --- the stages -----------------------------------------------------------------------------------


def moments_of_groups():
    """Of mu and the sd, by quadrature."""
    t = np.linspace(-9, 3, 4000)
    sd = np.exp(t)
    precision = 1 / (SD**2 + sd[:, None] ** 2)
    total, shift = precision.sum(1) + 1 / 25, (Y * precision).sum(1)
    log_p = 0.5 * np.log(precision).sum(1) - 0.5 * (Y**2 * precision).sum(1)
    log_p += 0.5 * shift**2 / total - 0.5 * np.log(total) - sd + t
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    mean = p @ (shift / total)
    return {
        "mu": (mean, np.sqrt(p @ (1 / total + (shift / total) ** 2) - mean**2)),
        "scale": (p @ sd, np.sqrt(p @ sd**2 - (p @ sd) ** 2)),
    }


def fit_groups(key=0, **settings):
    init = {"mu": 0.0, "scale": 1.0, "z": np.zeros(GROUPS)}
    data, support = {"y": Y, "sd": SD}, {"scale": bbvi.positive}
    return bbvi.fit(GROUPS_MODEL, init, data, support=support, key=key, **settings)


GROUPS_MODEL = of_scale(lambda v: v)


@pytest.mark.parametrize("key", keys(0, 1, 2))
def test_centred_groups_are_right_at_little_cost(key):
    result = fit_groups(key)
    assert result.verdict.level == "trusted"
    assert isinstance(result.posterior.family, Noncentred | GivenScales)
    assert result.num_gradients < 100_000
    stages = [stage for stage, _ in result.timings]
    assert "noncentred" in stages and "flow" not in stages
    mean, sd = result.posterior.mean(), result.posterior.sd()
    for name, (true_mean, true_sd) in moments_of_groups().items():
        assert abs(mean[name] - true_mean) < 0.05 * true_sd
        assert abs(sd[name] / true_sd - 1) < 0.05


def moments_of_logistic_groups(data):
    """Of the scale and the effects, which have mean zero, by quadrature over both."""
    log_tau, u = np.linspace(-12, 4, 321), np.linspace(-9, 9, 601)
    tau = np.exp(log_tau)
    log_p = log_tau - np.log1p((tau / 2) ** 2)
    means = np.zeros((len(data["y"]), len(tau)))
    for mean, y, sd in zip(means, data["y"], data["sd"], strict=True):
        narrow = (tau < 0.3 * sd)[:, None]
        theta = np.where(narrow, 4 * u * tau[:, None], y + sd * u)
        x = theta / tau[:, None]
        log_f = -x - 2 * np.logaddexp(0, -x) - 0.5 * ((y - theta) / sd) ** 2
        f = np.exp(log_f) * np.where(narrow, 4.0, sd / tau[:, None])
        mean[:] = np.sum(theta * f, 1) / np.sum(f, 1)
        log_p = log_p + np.log(np.sum(f, 1))
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    return p @ tau, np.sqrt(p @ tau**2 - (p @ tau) ** 2), means @ p


@pytest.mark.parametrize("key", keys(0, 1))
def test_logistic_effects_are_right_at_little_cost(key):
    """In plain coordinates both fits were rejected, one after a million gradients."""
    rng = np.random.default_rng([0, 8])
    sd = rng.uniform(0.5, 1.5, 8)
    y = 0.3 * rng.logistic(size=8) + sd * rng.normal(size=8)
    data = {"y": y, "sd": sd, "wide": 1e-3}
    init = {"mu": 0.0, "tau": 1.0, "z": np.zeros(8)}
    result = bbvi.fit(LOGISTIC_MODEL, init, data, support={"tau": bbvi.positive}, key=key)
    assert result.verdict.level == "trusted"
    assert result.num_gradients < 100_000
    mean, sd, effects = moments_of_logistic_groups(data)
    assert abs(result.posterior.mean()["tau"] - mean) < 0.05 * sd
    assert abs(result.posterior.sd()["tau"] / sd - 1) < 0.05
    np.testing.assert_allclose(result.posterior.mean()["z"], effects, atol=0.05)


LOGISTIC_MODEL = of_shape(SHAPES["logistic"][0])


@pytest.mark.parametrize("key", keys(0, 1))
def test_a_funnel_of_fifty_needs_no_chains(key):
    """v ~ N(0, 1), 50 effects N(0, exp(v/2)): bent Gaussians and chains took 120,000 gradients."""

    def funnel(p):
        v, x = p["v"], p["x"]
        return -0.5 * v**2 - 0.5 * jnp.sum(x**2) * jnp.exp(-v) - 0.5 * x.size * v

    result = bbvi.fit(funnel, {"v": 0.0, "x": np.zeros(50)}, key=key)
    assert result.verdict.level == "trusted"
    assert not any("chains" in stage for stage, _ in result.timings)
    assert abs(result.posterior.mean()["v"]) < 0.05
    assert abs(result.posterior.sd()["v"] - 1) < 0.05
    np.testing.assert_allclose(result.posterior.sd()["x"], np.exp(0.25), rtol=0.1)


def test_it_is_saved_and_gone_on_from(tmp_path):
    result = fit_groups()
    result.save(tmp_path / "fit.npz")
    loaded = bbvi.load(tmp_path / "fit.npz", GROUPS_MODEL)
    point = {"mu": 1.0, "scale": 0.5, "z": np.full(GROUPS, 0.9)}
    expected = result.posterior.log_prob(point)
    np.testing.assert_allclose(loaded.posterior.log_prob(point), expected)
    data = {"y": Y, "sd": SD}
    start = loaded.to_mcmc(num_chains=2, data=data)  # where the funnel is straight
    assert start.base is not None
    assert np.isfinite(start.log_density(start.z[0]))
    again = bbvi.fit(GROUPS_MODEL, loaded, data)
    assert again.verdict.level == "trusted"


def test_its_gradients_are_accounted_for():
    result = fit_groups()
    assert sum(spent for _, spent in result.spent) == result.num_gradients
    assert dict(result.spent)["noncentred"] > 0


def test_it_is_not_fitted_step_by_step():
    _, _, params = a_member()
    with pytest.raises(NotImplementedError, match="from gradients"):
        FAMILY.to_frame(params, FAMILY.frame(params))


def test_a_base_may_bend():
    family = Noncentred(BentGaussian())
    params = family.init(jnp.zeros(3), jnp.ones(3))
    z = np.random.default_rng(0).normal(size=(5, 3))
    expected = -0.5 * np.sum(z**2, 1) - 1.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(family.log_prob(params, z), expected)


def given_scales(dtype=np.float64):
    """A member of `GivenScales`: two scales, and five coordinates that are normal given these."""
    rng = np.random.default_rng(3)

    def precision(rank):
        root = rng.normal(size=(5, rank))
        return root @ root.T

    given = Given(
        scales=np.array([1, 4], np.int32),
        others=np.array([0, 2, 3, 5, 6], np.int32),
        power=np.array([1.0, -0.5]),
        saturates=np.array([0.0, 1.0]),
        centre=rng.normal(size=5),
        rest=precision(5),
        pull=rng.normal(size=5),
        precisions=np.stack([precision(2), precision(3)]),
        pulls=rng.normal(size=(2, 5)),
    )
    tails = Tails(np.zeros(7), np.ones(7), np.zeros(7))
    tails.at[1], tails.unit[4], tails.bend[4] = 0.3, -0.5, 0.2

    def put(x):
        return jnp.asarray(x, dtype if x.dtype.kind == "f" else x.dtype)

    base = FullRankGaussian().init(jnp.zeros(7, dtype), jnp.ones(7, dtype))
    return GivenScales().join(base, *jax.tree.map(put, (tails, given)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_else_is_normal_given_the_scales(dtype):
    family, params = GivenScales(), given_scales(dtype)
    y = jnp.asarray(np.random.default_rng(0).normal(size=(4, 7)), dtype)
    place = jax.jit(family.place)
    z, log_det = place(params, y)
    assert z.dtype == dtype
    back, log_det_back = jax.jit(family.straighten)(params, z)
    tol = 1e3 * np.finfo(dtype).eps
    np.testing.assert_allclose(back, y, atol=tol)
    np.testing.assert_allclose(log_det_back, log_det, atol=tol)
    placed = jax.vmap(jax.jacobian(lambda y: family.place(params, y[None])[0][0]))
    jacobian = jax.jit(placed)(y)
    np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_det, atol=tol)
    _, log_q = jax.jit(family.reparam)(params, y)
    np.testing.assert_allclose(jax.jit(family.log_prob)(params, z), log_q, atol=10 * tol)
    # given the scales, precisions add up
    given = Given(**params["given"])
    s = z[0, given.scales]
    times = np.exp(-2 * given.power * (s - given.saturates * np.logaddexp(0, s)))
    precision = given.rest + np.tensordot(times, given.precisions, 1)
    own = np.asarray(jacobian[0])[np.ix_(given.others, given.others)]
    np.testing.assert_allclose(own @ own.T @ precision, np.eye(5), atol=10 * tol)
    mean = given.centre + np.linalg.solve(precision, given.pull + times @ given.pulls)
    middle = place(params, y.at[:, given.others].set(0))[0]
    np.testing.assert_allclose(middle[0, given.others], mean, atol=10 * tol)


def test_draws_in_blocks_are_the_same(monkeypatch):
    family, params = GivenScales(), given_scales()
    y = jnp.asarray(np.random.default_rng(0).normal(size=(7, 7)))
    whole = family.place(params, y)
    monkeypatch.setattr(module_of_given_scales, "_ELEMENTS", 50)
    for one, other in zip(whole, family.place(params, y), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_scales_cut_at_the_ends_of_floats_are_finite():
    family, params = GivenScales(), given_scales(np.float32)
    z, log_det = family.place(params, jnp.array([[0, 80, 0, 0, -80, 0, 0]], np.float32))
    assert np.isfinite(z).all() and np.isfinite(log_det).all()


CREWS, TASKS = 5, 8


def crossed(p, y):
    """Crews and tasks with means and scales of their own: of both means the sum alone is known."""

    def effects(name):
        mu, sd, x = p["mu_" + name], p["sd_" + name], p[name]
        return -0.5 * mu**2 - 0.5 * jnp.sum(((x - 10 * mu) / sd) ** 2) - x.size * jnp.log(sd)

    miss = (y - p["crew"][:, None] - p["task"]) / p["noise"]
    return effects("crew") + effects("task") - 0.5 * jnp.sum(miss**2) - y.size * jnp.log(p["noise"])


@pytest.mark.parametrize("key", keys(0, 1))
def test_crossed_effects_whose_means_are_not_told_apart(key):
    """Chains and a flow took a million gradients, and an sd was 9% short."""
    rng = np.random.default_rng(5)
    y = 0.1 * rng.normal(size=(CREWS, 1)) + 0.4 * rng.normal(size=TASKS)
    y = y + 0.2 * rng.normal(size=(CREWS, TASKS))
    init = {"crew": np.zeros(CREWS), "task": np.zeros(TASKS)}
    init |= {name: 0.0 for name in ("mu_crew", "mu_task")}
    init |= {name: 1.0 for name in ("sd_crew", "sd_task", "noise")}
    support = {name: bbvi.interval(0.0, 100.0) for name in ("sd_crew", "sd_task", "noise")}
    result = bbvi.fit(crossed, init, y, support=support, key=key)
    assert result.verdict.level == "trusted"
    assert isinstance(result.posterior.family, GivenScales)
    assert result.num_gradients < 30_000
    # given the scales the effects can be integrated out: the rest is a density of three
    sds = np.asarray(result.posterior.mean()["sd_crew"]), result.posterior.sd()["sd_crew"]
    for found, true in zip(sds, moments_of_crews(y), strict=True):
        np.testing.assert_allclose(found, true, rtol=0.05)


def moments_of_crews(y):
    """Mean and sd of the crews' scale, the effects and their means integrated out, on a grid."""
    sums = np.kron(np.eye(CREWS), np.ones((TASKS, 1))), np.kron(np.ones((CREWS, 1)), np.eye(TASKS))
    blocks = [root @ root.T for root in sums]
    crews = np.geomspace(1e-3, 100, 60)
    tasks, noises = np.geomspace(0.05, 20, 30), np.geomspace(0.1, 0.5, 20)
    level = 200 * np.ones((y.size, y.size))  # of both means
    log_p = np.empty((len(crews), len(tasks), len(noises)))
    for i, j, k in np.ndindex(log_p.shape):
        cov = crews[i] ** 2 * blocks[0] + tasks[j] ** 2 * blocks[1]
        cov = cov + level + noises[k] ** 2 * np.eye(y.size)
        root = np.linalg.cholesky(cov)
        miss = np.linalg.solve(root, y.ravel())
        log_p[i, j, k] = -0.5 * miss @ miss - np.log(np.diagonal(root)).sum()
        log_p[i, j, k] += np.log(crews[i] * tasks[j] * noises[k])  # of the grid
    p = np.exp(log_p - log_p.max()).sum((1, 2))
    mean = p @ crews / p.sum()
    return mean, np.sqrt(p @ (crews - mean) ** 2 / p.sum())


def test_looks_at_few_points_take_few_rows_where_scores_are_costly(monkeypatch):
    rows = []

    def scores(target, z, data):
        rows.append(len(z))
        return target.score(z, data)

    monkeypatch.setattr("bbvi.stages.coordinates.scores", scores)

    def turned(z, turn):
        return -0.5 * jnp.sum((turn @ z) ** 2)

    turn = np.eye(300, dtype=np.float32)
    costly = make_target(turned, np.zeros(300), turn, None)[0]
    cheap = make_target(lambda z, _: -0.5 * jnp.sum(z**2), np.zeros(300), None, None)[0]
    cases = (costly, 602, [1, 18, 32, 33, 700]), (costly, 64, [1, 32]), (cheap, 602, [1])
    for target, many, numbers in cases:
        at = Coordinates(target, turn, many)
        for number in numbers:
            z = np.random.default_rng(0).normal(size=(number, 300))
            log_p, score, ok = at.score(z)
            np.testing.assert_allclose(log_p, -0.5 * (z**2).sum(axis=1), rtol=1e-4)
            np.testing.assert_allclose(score, -z, rtol=1e-5)
            assert ok.all()
        assert at.num_gradients == sum(numbers)
    assert rows == [32, 32, 32, 602, 602, 602, 64, 64, 602]
