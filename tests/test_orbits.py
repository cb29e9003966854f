"""Scales of effects that were written non-centred: found by what the likelihood cannot tell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scale_forms import FORMS
from some_keys import keys

import bbvi
from bbvi import make_target
from bbvi.stages.coordinates import Coordinates
from bbvi.stages.hierarchy.layers import find_layers, saturating
from bbvi.stages.hierarchy.orbits import find_orbits

GROUPS = 9
RNG = np.random.default_rng(0)
DATA = {
    "number": RNG.integers(20, 60, GROUPS) * 1.0,
    "up": RNG.integers(5, 20, GROUPS) * 1.0,
    "y": RNG.normal(size=GROUPS),
}

LIKELIHOODS = {  # of what the data see, and a level
    "binomial": lambda x, data: jnp.sum(data["up"] * x - data["number"] * jax.nn.softplus(x)),
    "Poisson": lambda x, data: jnp.sum(data["up"] * x - jnp.exp(x)),
    "Student-t": lambda x, data: -2.5 * jnp.sum(jnp.log1p((data["y"] - x) ** 2)),
    "a walk's": lambda x, data: -0.5 * jnp.sum((data["y"] - jnp.cumsum(x)) ** 2),
}


def noncentred(likelihood, to_sd=lambda v: v):
    def log_joint(p, data):
        x = p["level"] + to_sd(p["scale"]) * p["raw"]
        prior = -0.5 * jnp.sum(p["raw"] ** 2) - 0.5 * p["level"] ** 2 - 0.5 * p["scale"] ** 2
        return prior + LIKELIHOODS[likelihood](x, data)

    return log_joint


def orbits_of(log_joint, init, support, data=None, seed=0):
    target, _, data = make_target(log_joint, init, data, support)
    rng = np.random.default_rng(seed)
    centre, unit = 0.3 * rng.normal(size=target.dim), rng.uniform(0.3, 1, target.dim)
    at = Coordinates(target, data, 64)
    found = find_orbits(at, centre, unit, saturating(target), target.dtype == np.float32)
    assert at.num_gradients < target.dim + 30
    return target, found


def is_found(log_joint, support, power):
    init = {"level": 0.0, "raw": np.zeros(GROUPS), "scale": 1.0}
    target, (orbit,) = orbits_of(log_joint, init, {"scale": support}, DATA)
    assert orbit.at == target.dim - 1 and orbit.power == power
    np.testing.assert_array_equal(orbit.effects, 1 + np.arange(GROUPS))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_scale_is_found_whatever_the_data_are(likelihood, dtype, request):
    if dtype == "float64":
        request.getfixturevalue("x64")
    is_found(noncentred(likelihood), bbvi.positive, 1.0)


@pytest.mark.parametrize("form", FORMS)
def test_a_scale_in_any_form_is_found(form, x64):
    to_sd, support, power = FORMS[form]
    is_found(noncentred("binomial", to_sd), support, power)


def test_several_scales_are_found_at_once(x64):
    """Rows and columns, and a walk's steps, of counts."""

    def log_joint(p, data):
        walk = jnp.cumsum(p["sds"][2] * p["step"])
        x = (p["sds"][0] * p["row"])[:, None] + p["sds"][1] * p["column"] + walk
        prior = -0.5 * sum(jnp.sum(leaf**2) for leaf in p.values())
        return prior + jnp.sum(data * x - jnp.exp(x))

    init = {"column": np.zeros(6), "row": np.zeros(4), "sds": np.ones(3), "step": np.zeros(6)}
    counts = np.random.default_rng(1).integers(0, 9, (4, 6)) * 1.0
    _, found = orbits_of(log_joint, init, {"sds": bbvi.positive}, counts)
    expected = {10: range(6, 10), 11: range(6), 12: range(13, 19)}
    assert {o.at: tuple(o.effects) for o in found} == {k: tuple(v) for k, v in expected.items()}


def test_scales_are_found_where_scores_differ_by_ten_orders_of_magnitude(x64):
    """A mean and the log of a noise that are curves: of the largest score the prior is rounding."""

    def log_joint(p, data):
        mean, log_noise = (p["sds"][k] * data["basis"] @ p["curves"][k] for k in range(2))
        z = (data["y"] - mean) * jnp.exp(-log_noise)
        prior = -0.5 * jnp.sum(p["sds"] ** 2) - 0.5 * jnp.sum(p["curves"] ** 2)
        return prior - jnp.sum(0.5 * z**2 + log_noise)

    rng = np.random.default_rng(1)
    basis = 3 * rng.normal(size=(40, 6))
    init = {"curves": np.zeros((2, 6)), "sds": np.ones(2)}
    data = {"basis": basis, "y": rng.normal(size=40)}
    _, found = orbits_of(log_joint, init, {"sds": bbvi.positive}, data)
    assert {o.at: tuple(o.effects) for o in found} == {12: tuple(range(6)), 13: tuple(range(6, 12))}


def centred(p, data):
    prior = -0.5 * jnp.sum((p["raw"] - p["level"]) ** 2) / p["scale"] ** 2 - 0.5 * p["level"] ** 2
    prior -= GROUPS * jnp.log(p["scale"]) + 0.5 * p["scale"] ** 2
    return prior + LIKELIHOODS["binomial"](p["raw"], data)


def by_another_prior(p, data):
    x = p["level"] + p["scale"] * p["raw"]
    prior = -jnp.sum(jnp.log1p(p["raw"] ** 2)) - 0.5 * p["level"] ** 2 - 0.5 * p["scale"] ** 2
    return prior + LIKELIHOODS["binomial"](x, data)


def banana(p, data):
    others = jnp.sum(p["raw"] ** 2) + p["scale"] ** 2
    return -0.5 * (others + ((p["level"] - p["raw"][0] ** 2) / 0.3) ** 2)


@pytest.mark.parametrize("log_joint", [centred, by_another_prior, banana])
@pytest.mark.parametrize("seed", range(3))
def test_none_is_found_where_there_is_none(log_joint, seed, x64):
    init = {"level": 0.0, "raw": np.zeros(GROUPS), "scale": 1.0}
    assert orbits_of(log_joint, init, {"scale": bbvi.positive}, DATA, seed)[1] == []


def test_none_is_found_in_the_neck_of_a_funnel():
    """There effects grow with their scale, as far as single precision tells."""
    target, _, data = make_target(
        centred,
        {"level": 0.0, "raw": np.zeros(GROUPS), "scale": 1.0},
        DATA,
        {"scale": bbvi.positive},
    )
    centre, unit = np.zeros(target.dim), np.full(target.dim, 0.5)
    centre[-1] = -12
    assert find_orbits(Coordinates(target, data, 64), centre, unit, 0 * unit, True) == []


@pytest.mark.parametrize("rate", [100, 1000])
def test_points_where_squares_are_past_all_floats_are_left_out(rate, x64):
    """Half of all; what is left tells nothing."""

    def log_joint(p, data):
        return noncentred("binomial")(p, data) - jnp.exp(rate * p["level"])

    init = {"level": 0.0, "raw": np.zeros(GROUPS), "scale": 1.0}
    with np.errstate(all="ignore"):
        found = orbits_of(log_joint, init, {"scale": bbvi.positive}, DATA)[1]
    assert len(found) == (rate == 100)


def test_effects_are_standard_where_they_are_known_well(x64):
    """Of many data the likelihood is normal, and effects given all else are too."""
    data = {**DATA, "number": 1e5 * DATA["number"], "up": 1e5 * DATA["up"]}
    init = {"level": 0.0, "raw": np.zeros(GROUPS), "scale": 1.0}
    target, _, data = make_target(noncentred("binomial"), init, data, {"scale": bbvi.positive})
    logits = np.log(data["up"] / (data["number"] - data["up"]))
    centre = np.array([0.0, *logits, 0.0])
    unit = np.array([1e-3, *np.full(GROUPS, 1e-3), 0.3])
    x = find_layers(target, centre, unit, jax.random.key(0), data, 64)
    effects = x.layers[-1].power != 0
    np.testing.assert_array_equal(np.flatnonzero(effects), 1 + np.arange(GROUPS))
    y = 0.5 * np.random.default_rng(0).normal(size=(20, target.dim))
    y[:, 0] = 0
    _, score, ok = x.score(y)
    assert ok.all()
    np.testing.assert_allclose(score[:, effects], -y[:, effects], atol=0.03)


@pytest.mark.parametrize("key", keys(0, 1, 2))
def test_well_known_groups_are_settled_at_little_cost(key):
    """Of thousands of rows each: without this it took 29,000."""
    rng = np.random.default_rng(404)
    number = rng.integers(100, 2000, 25)
    up = rng.binomial(number, 1 / (1 + np.exp(1 - 0.6 * rng.normal(size=25))))
    data = {"number": number * 1.0, "up": up * 1.0}
    init = {"level": 0.0, "raw": np.zeros(25), "scale": 1.0}
    support = {"scale": bbvi.positive}
    result = bbvi.fit(noncentred("binomial"), init, data, support=support, key=key)
    assert result.verdict.level == "trusted"
    assert result.num_gradients < 12_000
