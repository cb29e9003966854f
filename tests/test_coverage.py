"""What no draw of a fit shows: posteriors without end, and mass that only the starts have seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbvi
from bbvi.diagnostics.fresh_draws import diagnose
from bbvi.diagnostics.propriety import unbounded
from bbvi.families import Frame, FullRankGaussian
from bbvi.inputs import make_target
from bbvi.solvers.starts import Starts
from bbvi.stages.coverage import aside, leaves_out, missed_modes, visits
from bbvi.stages.gaussians.matching import Matches


def test_a_funnel_without_end_is_not_trusted():
    """Effects with the prior 1/t on their scale: the neck has the same mass at every log t.

    The fit of all but the neck's end looks perfect to its own draws.
    """

    def log_joint(params, y):
        theta, t = params["theta"], params["t"]
        likelihood = -0.5 * jnp.sum((y - theta) ** 2)
        return likelihood - 0.5 * jnp.sum((theta / t) ** 2) - (3 + 1) * jnp.log(t)

    init = {"theta": np.zeros(3, np.float32), "t": np.float32(1)}
    y = np.array([1.0, 2.0, -1.0], np.float32)
    result = bbvi.fit(log_joint, init, y, support={"t": bbvi.positive}, throw=False)
    assert result.verdict.level != "trusted"


def test_modes_are_missed_however_loose_the_bounds_of_their_gaussians_are():
    """0.5 N(-9, 1) + 0.5 N(9, 1): a fit of one, and Gaussians of both that are too narrow."""

    def two(x):
        return jnp.logaddexp(-0.5 * (x + 9) ** 2, -0.5 * (x - 9) ** 2)

    target, _, _ = make_target(two, np.float32(0), None, None)
    family = FullRankGaussian()
    units = Frame(jnp.array([[-9.0], [9.0]]), jnp.full((2, 1, 1), 1e-4))

    def missed(at, bounds):
        params = family.init(jnp.array([at]), jnp.ones(1))
        matches = Matches(units, jnp.array(bounds), None)
        return missed_modes(target, family, params, matches, [0, 1], 0.9, None)

    assert missed(-9.0, [-8.0, -8.0]) == ([0, 1], [1])
    assert missed(9.0, [-8.0, -8.0]) == ([0, 1], [0])
    assert missed(-9.0, [0.9, -8.0]) == ([0], [])
    # one that is elsewhere is above them all
    assert missed(50.0, [-8.0, -8.0]) == ([], [])


def test_mass_that_only_a_start_has_seen():
    """0.5 N(-9, 1) + 0.5 N(9, 1): a fit of one, and starts in one or in both."""

    def two(x):
        return jnp.logaddexp(-0.5 * (x + 9) ** 2, -0.5 * (x - 9) ** 2)

    target, _, _ = make_target(two, np.float32(0), None, None)
    family = FullRankGaussian()
    params = family.init(jnp.array([-9.0]), jnp.ones(1))
    log_evidence = np.log(np.sqrt(2 * np.pi))  # of what the fit sees

    def missing(locs, draws=None):
        locs = jnp.array(locs)[:, None]
        count = jnp.zeros((), jnp.int32)
        starts = Starts(locs, jnp.ones_like(locs), jnp.full(len(locs), 0.9), count, count)
        units = Frame(jnp.array([[-9.0]]), jnp.ones((1, 1, 1)))
        matches = Matches(units, jnp.full(1, 0.9), starts)
        key = jax.random.key(0)
        return leaves_out(target, family, params, matches, log_evidence, draws, key, None)

    assert not missing([-9.0, -8.0])
    assert missing([-9.0, 9.0])
    assert not missing([-9.0, 30.0])  # far, and no mass there
    # states of chains that have been there stand for it
    states = np.array([[-9.0], [9.3]])
    assert not missing([-9.0, 9.0], states)
    assert missing([-9.0, 9.0], states[:1])


def t_errors(p):
    """Nine residuals around `a`, of Student-t with `b` degrees of freedom."""
    half, y = (p["b"] + 1) / 2, jnp.linspace(-1.5, 1.5, 9) - p["a"]
    log_norm = jax.lax.lgamma(half) - jax.lax.lgamma(p["b"] / 2) - 0.5 * jnp.log(p["b"])
    return 9 * log_norm - half * jnp.sum(jnp.log1p(y**2 / p["b"]))


UNIT = jnp.eye(2)
RIDGE = jnp.linalg.cholesky(1e4 * jnp.array([[1.0, -1.0], [-1.0, 1.0]]) + 0.5 * UNIT)


@pytest.mark.parametrize(
    ("log_joint", "support", "scale", "expected"),
    [
        (lambda p: -0.5 * p["a"] ** 2, None, UNIT, {"b"}),
        (lambda p: -0.5 * p["a"] ** 2 - jax.nn.softplus(-p["b"]), None, UNIT, {"b"}),
        (lambda p: -0.5 * p["a"] ** 2 - 0.4 * jnp.log1p(p["b"] ** 2), None, UNIT, {"b"}),
        # along a + b = 0, as a fit sees it that has begun to spread there; either names it
        (lambda p: -0.5 * (p["a"] + p["b"]) ** 2, None, RIDGE, {"a", "b"}),
        # 1/b is flat in log b
        (lambda p: -0.5 * p["a"] ** 2 - jnp.log(p["b"]), {"b": bbvi.positive}, UNIT, {"b"}),
        # the likelihood of degrees of freedom is level towards infinity, where it is rounding
        (lambda p: t_errors(p) - jnp.log(p["b"]), {"b": bbvi.positive}, UNIT, {"b"}),
        (lambda p: t_errors(p) - 1.5 * jnp.log(p["b"]), {"b": bbvi.positive}, UNIT, set()),
        # a gamma density of shape 0.1, seen from far to the left of where it ends
        (
            lambda p: -0.5 * p["a"] ** 2 - 0.9 * jnp.log(p["b"]) - 1e-6 * p["b"],
            {"b": bbvi.positive},
            UNIT,
            set(),
        ),
        # a wide prior on a log scale
        (
            lambda p: -0.5 * p["a"] ** 2 - jnp.log(p["b"]) - 0.5 * (jnp.log(p["b"]) / 15) ** 2,
            {"b": bbvi.positive},
            UNIT,
            set(),
        ),
        # proper, with tails from light to Cauchy, and a fit that is far too narrow
        (lambda p: -0.5 * p["a"] ** 2 - p["b"] ** 4, None, UNIT, set()),
        (lambda p: -jnp.log1p(p["a"] ** 2) - jnp.log1p(p["b"] ** 2), None, UNIT, set()),
        (lambda p: -0.5 * p["a"] ** 2 - p["b"], {"b": bbvi.positive}, UNIT, set()),
        (lambda p: -0.5 * (p["a"] / 1e3) ** 2 - 0.5 * p["b"] ** 2, None, UNIT, set()),
    ],
)
def test_what_nothing_bounds_is_named(log_joint, support, scale, expected):
    target, _, data = make_target(log_joint, {"a": 0.3, "b": 0.5}, None, support)
    found = set(unbounded(target, jnp.array([0.3, -0.3]), Frame(jnp.zeros(2), scale), data))
    assert found <= expected and bool(found) == bool(expected)


def test_from_a_tail_the_bulk_is_ahead():
    """A gamma density of shape 0.06: from a draw near zero it rises for a hundred nats."""

    def log_joint(b):
        return -0.94 * jnp.log(b) - 1e-20 * b

    target, _, data = make_target(log_joint, np.float32(1), None, bbvi.positive)
    frame = Frame(jnp.full(1, 35.0), jnp.full((1, 1), 15.0))
    assert unbounded(target, jnp.array([-60.0]), frame, data) == ()


def test_a_small_mode_far_away_is_told():
    """0.998 N(0, 1) + 0.002 N(at, 1): it makes the sd of all about root(1 + 0.002 at^2)."""

    def told(at, share=0.002, draws=None):
        def two(x):
            log_p = jnp.log1p(-share) - 0.5 * x**2
            return jnp.logaddexp(log_p, jnp.log(share) - 0.5 * (x - at) ** 2)

        target, _, _ = make_target(two, np.float32(0), None, None)
        family = FullRankGaussian()
        params = family.init(jnp.zeros(1), jnp.ones(1))
        one = Frame(jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
        log_evidence = 0.5 * np.log(2 * np.pi)
        count = jnp.zeros((), jnp.int32)
        locs, bounds = jnp.array([[0.0], [at]]), log_evidence + np.log([1 - share, share])
        starts = Starts(locs, jnp.ones((2, 1)), jnp.array(bounds, jnp.float32), count, count)
        matches = Matches(one, jnp.array([log_evidence], jnp.float32), starts)
        d = diagnose(target, family, params, jax.random.key(0), None, 4096)
        return aside(target, family, params, matches, d, d.raw, draws, None)

    found = told(30.0)
    assert found is not None
    assert found.distance == pytest.approx(30, rel=0.02)
    assert found.share == pytest.approx(0.002, rel=0.02) and found.scalar == "x"
    assert found.times == pytest.approx(np.sqrt(1 + 0.002 * 900), rel=0.03)
    assert told(8.0) is None  # moves the sd by 6%
    assert told(1e3, share=1e-5) is None  # that no draws would tell
    # chains have been there, or not
    rng = np.random.default_rng(0)
    inside = rng.normal(size=(100, 1)).astype(np.float32)
    assert told(30.0, draws=inside) is not None
    assert told(30.0, draws=np.append(inside, [[30.5]], axis=0)) is None


def test_a_fit_that_leaves_out_a_small_mode_far_away_is_not_trusted():
    """0.997 N(0, 0.1^2) + 0.003 N(6, 0.1^2): the sd of all is 3.4 times that of the first."""

    def two(x):
        return jnp.logaddexp(-50 * x**2, jnp.log(0.003) - 50 * (x - 6) ** 2)

    result = bbvi.fit(two, 1.0)
    right = abs(float(result.posterior.sd()) - 0.343) < 0.034
    assert right or result.verdict.level != "trusted"


def test_a_fit_goes_on_from_one_of_several_modes():
    """A mixture has no start of its own to offer: the race finds its modes again."""

    def two(x):
        return jnp.logaddexp(-0.5 * (x + 5) ** 2, -0.5 * (x - 5) ** 2)

    first = bbvi.fit(two, 1.0)
    again = bbvi.fit(two, first)
    assert first.verdict.level == again.verdict.level == "trusted"
    np.testing.assert_allclose(again.posterior.sd(), np.sqrt(26), rtol=0.03)


def test_whether_chains_have_been_in_every_mode():
    rng = np.random.default_rng(0)
    locs = np.array([[0.0, 0.0], [10.0, 0.0]], np.float32)
    frames = Frame(locs, np.stack([np.eye(2, dtype=np.float32), 0.1 * np.eye(2, dtype=np.float32)]))
    one = rng.standard_normal((100, 2)).astype(np.float32)
    assert not visits(one, frames)
    assert not visits(np.concatenate([one, one + locs[1] + np.float32(3)]), frames)
    assert visits(np.concatenate([one, 0.1 * one + locs[1]]), frames)
