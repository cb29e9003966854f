"""Hyperparameters given which all else is normal: what they are, and what is given them."""

from functools import cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbvi
from bbvi._linalg import lower_factor
from bbvi.budget import Purse
from bbvi.diagnostics.evidence import efficiency
from bbvi.diagnostics.fresh_draws import diagnose
from bbvi.diagnostics.moments import Moments
from bbvi.families import Frame, FullRankGaussian, GaussianMixture, LatentGaussian
from bbvi.families import latent_gaussian as module
from bbvi.families.latent_gaussian import Latent
from bbvi.families.proposals import FAR_DF, TAIL_DF, host_noise
from bbvi.families.splines import Spline, spline_at
from bbvi.families.triangular import quadratics
from bbvi.inputs import make_target
from bbvi.solvers import BatchAndMatch
from bbvi.solvers.base import empty_log
from bbvi.stages.coordinates import Coordinates
from bbvi.stages.gaussians.match import on_device
from bbvi.stages.judged import judged_stage
from bbvi.stages.latent import latent_stages
from bbvi.stages.latent.conditionals import Conditionals, Points
from bbvi.stages.latent.hyperparameters import MOST, hyperparameters, most_gradients
from bbvi.stages.latent.interpolation import fit_spline, interpolate
from bbvi.stages.latent.latent_stages import FAMILY, _nearer, latent_chains
from bbvi.stages.latent.nested_laplace import Tails, explore, explore_at, tails_of
from bbvi.stages.latent.round import Round
from bbvi.stages.stage import Job, plain_stage
from bbvi.stages.tempering import tempered
from bbvi.status import Status

STEPS = 20


TIMES = np.linspace(0, 3, STEPS)
GAPS = (TIMES[:, None] - TIMES) ** 2
LENGTH, HEIGHT = (-0.5, 0.6), (0.0, 0.6)  # means and sds of the priors of their logarithms
CENTRE = np.array([-0.2, -0.5])  # of both, height first


def covariance_of(length, height):
    xp = np if isinstance(length, np.floating | float) else jnp
    return xp.exp(2 * height) * (xp.exp(-0.5 * GAPS / xp.exp(2 * length)) + 1e-3 * np.eye(STEPS))


def curve(params, y):
    """A curve with a length and a height of its own, of which noise of 0.5 is seen on top."""
    length, height, x = params["length"], params["height"], params["x"]
    factor = jnp.linalg.cholesky(covariance_of(length, height))
    rest = jax.scipy.linalg.solve_triangular(factor, x, lower=True)
    prior = -0.5 * ((length - LENGTH[0]) / LENGTH[1]) ** 2
    prior += -0.5 * ((height - HEIGHT[0]) / HEIGHT[1]) ** 2
    prior += -0.5 * jnp.sum(rest**2) - jnp.sum(jnp.log(jnp.diagonal(factor)))
    return prior - 0.5 * jnp.sum(((y - x) / 0.5) ** 2)


@cache
def seen():
    return np.sin(2.5 * TIMES) + 0.5 * np.random.default_rng(4).normal(size=STEPS)


def given(height, length):
    """Mean and covariance of x given both, and the log density of these, exactly."""
    y, prior = seen(), covariance_of(length, height)
    total = prior + 0.25 * np.eye(STEPS)
    gain = np.linalg.solve(total, prior).T
    log_p = -0.5 * ((length - LENGTH[0]) / LENGTH[1]) ** 2
    log_p -= 0.5 * ((height - HEIGHT[0]) / HEIGHT[1]) ** 2
    log_p -= 0.5 * (y @ np.linalg.solve(total, y) + np.linalg.slogdet(total)[1])
    return gain @ y, prior - gain @ prior, log_p


@cache
def moments():
    """Means and sds of all scalars by quadrature, in the order of the target."""
    ts = np.linspace(-5, 5, 41)
    (length, by), (height, up) = LENGTH, HEIGHT
    places = np.array([(height + up * a, length + by * b) for a in ts for b in ts])
    found = [given(*place) for place in places]
    weights = np.exp([x[2] for x in found] - max(x[2] for x in found))
    weights /= weights.sum()
    points = np.concatenate([places, [x[0] for x in found]], axis=1)
    own = np.stack([np.concatenate([[0, 0], np.diag(x[1])]) for x in found])
    mean = weights @ points
    return mean, np.sqrt(weights @ (own + (points - mean) ** 2))


def posed():
    init = {"height": 0.0, "length": 0.0, "x": np.zeros(STEPS)}
    return make_target(curve, init, jnp.asarray(seen()), None)[0]


def coordinates(target, data=None):
    data = jnp.asarray(seen()) if data is None else data
    return Coordinates(target, data, 64)


def a_frame():
    """A Gaussian about as a match would find it: too narrow in the hyperparameters."""
    mean, covariance, _ = given(*CENTRE)
    whole = np.zeros((STEPS + 2, STEPS + 2))
    whole[:2, :2], whole[2:, 2:] = np.diag([0.05, 0.02]), covariance
    return Frame(np.concatenate([CENTRE, mean]), np.linalg.cholesky(whole))


def a_member(dtype=np.float64, number=2):
    """Two hyperparameters, and five coordinates that are normal given these."""
    rng = np.random.default_rng(3)
    basis = np.eye(5) + 0.2 * rng.normal(size=(5, 5))
    latent = Latent(
        hyper=np.array([1, 4], np.int32),
        latent=np.array([0, 2, 3, 5, 6], np.int32),
        centre=np.array([0.3, -0.2]),
        root=np.array([[0.8, 0.0], [0.3, 0.5]]),
        reach=np.array(2.5),
        spline=Spline(
            rng.normal(size=(4, 2)), 0.1 * rng.normal(size=(6, 3)), 0.02 * rng.normal(size=(4, 3))
        ),
        means=rng.normal(size=(4, 5)),
        log_widths=0.5 * rng.normal(size=(4, 5)),
        factors=np.triu(0.4 * rng.normal(size=(4, 5, 5)), 1),
        origin=rng.normal(size=5),
        basis=basis,
        inverse=np.linalg.inv(basis),
        log_det=np.linalg.slogdet(basis)[1],
    )

    def put(x):
        return jnp.asarray(x, dtype if np.asarray(x).dtype.kind == "f" else None)

    mixture = {
        "log_weights": np.log(np.full(number, 1 / number)),
        "loc": 0.5 * rng.normal(size=(number, 2)),
        "factor": np.stack([np.eye(2) * (1 + i / 2) for i in range(number)]),
    }
    return LatentGaussian().join(*jax.tree.map(put, (mixture, latent)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_else_is_normal_given_hyperparameters(dtype, x64):
    family, params = LatentGaussian(), a_member(dtype)
    y = jnp.asarray(np.random.default_rng(0).normal(size=(4, 7)), dtype)
    theta, others = y[:, :2], y[:, 2:]
    z, log_det = jax.jit(family.place)(params, theta, others)
    assert z.dtype == dtype
    theta_back, others_back, log_det_back = jax.jit(family.straighten)(params, z)
    tol = 1e3 * np.finfo(dtype).eps
    np.testing.assert_allclose(others_back, others, atol=tol)
    np.testing.assert_allclose(log_det_back, log_det, atol=tol)

    def placed(y):
        return family.place(params, y[None, :2], y[None, 2:])[0][0]

    jacobian = jax.jit(jax.vmap(jax.jacobian(placed)))(y)
    np.testing.assert_allclose(np.linalg.slogdet(jacobian)[1], log_det, atol=tol)
    # hyperparameters stay what they are
    np.testing.assert_array_equal(z[:, [1, 4]], theta)
    np.testing.assert_array_equal(theta_back, theta)
    log_q = family.base.log_prob(params["base"], theta) - 0.5 * (others**2).sum(axis=1)
    log_q -= 2.5 * np.log(2 * np.pi) + log_det
    np.testing.assert_allclose(jax.jit(family.log_prob)(params, z), log_q, atol=10 * tol)


def test_it_begins_as_a_gaussian(x64):
    rng = np.random.default_rng(0)
    loc, scale = jnp.asarray(rng.normal(size=4)), jnp.asarray(np.tril(rng.normal(size=(4, 4))))
    scale += 3 * jnp.eye(4)
    family, plain = LatentGaussian(), FullRankGaussian()
    z = jnp.asarray(5 * rng.normal(size=(6, 4)))
    expected = plain.log_prob(plain.init(loc, scale), z)
    found = jax.jit(family.log_prob)(family.init(loc, scale), z)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_densities_of_draws_are_those_of_the_family(x64):
    family, params = LatentGaussian(), a_member()
    log_prob = jax.jit(family.log_prob)
    z, log_q = jax.jit(family.sample_and_log_prob, static_argnums=2)(
        params, jax.random.key(0), 4096
    )
    np.testing.assert_allclose(log_prob(params, z), log_q, atol=1e-8)
    wide = GaussianMixture().init(*family.frame(params))
    wide = wide | {"factor": 2 * wide["factor"]}
    points, log_w = GaussianMixture().sample_and_log_prob(wide, jax.random.key(1), 100_000)
    ratio = np.exp(log_prob(params, points) - log_w)
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / np.sqrt(len(ratio))
    np.testing.assert_allclose(family.frame(params).loc, z.mean(axis=0), atol=0.3)


@pytest.mark.parametrize("far", [False, True])
def test_proposals_have_the_density_that_they_say(far, x64):
    family, params = LatentGaussian(), a_member()
    df = FAR_DF if far else TAIL_DF
    noise = host_noise(np.random.default_rng(0), 20_000, 7, float, df)
    propose = family.propose_far_at if far else family.propose_at
    proposal = propose(params, jax.tree.map(jnp.asarray, noise))
    # the host does so too, without a program
    for one, other in zip(propose(jax.device_get(params), noise), proposal, strict=True):
        assert isinstance(one, np.ndarray)
        np.testing.assert_allclose(one, other, atol=1e-8)
    np.testing.assert_allclose(family.log_prob(params, proposal.z), proposal.log_q, atol=1e-8)
    ratio = np.exp(proposal.log_q - proposal.log_mixture)
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / np.sqrt(len(ratio))
    if not far:
        mixed = family.log_mixture(params, proposal.z)
        np.testing.assert_allclose(mixed, proposal.log_mixture, atol=1e-8)
    assert family.directions(params).shape == (2, 2, 2)


def test_where_hyperparameters_are_normal_draws_are_a_function_of_normals(x64):
    mixed, family = LatentGaussian(), LatentGaussian(FullRankGaussian())
    params = a_member(number=1)
    base = family.base.init(params["base"]["loc"][0], params["base"]["factor"][0])
    eps = jnp.asarray(np.random.default_rng(6).normal(size=(9, 7)))
    straight = params | {"base": base}
    z, log_q = family.reparam(straight, eps)
    np.testing.assert_allclose(log_q, mixed.log_prob(params, z), rtol=1e-10)
    np.testing.assert_allclose(family.normals(straight, z), eps, rtol=1e-8, atol=1e-10)
    jacobian = jax.vmap(jax.jacfwd(lambda e: family.reparam(straight, e[None])[0][0]))(eps)
    standard = -0.5 * np.sum(eps**2, axis=1) - 3.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(log_q, standard - np.linalg.slogdet(jacobian)[1], rtol=1e-10)
    with pytest.raises(NotImplementedError, match="mixture"):
        mixed.reparam(params, eps)


def test_the_host_judges_as_the_device_does(x64):
    family, params = LatentGaussian(), a_member()
    target = make_target(lambda z, _: -0.5 * jnp.sum(z**2), np.zeros(7), None, None)[0]
    for far in (False, True):
        args = jax.random.key(0), None, 2048, far
        one = diagnose(target, family, params, *args)
        other = diagnose(target, family, jax.device_get(params), *args)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)


def test_draws_in_blocks_are_the_same(monkeypatch, x64):
    family, params = LatentGaussian(), a_member()
    y = jnp.asarray(np.random.default_rng(0).normal(size=(7, 7)))
    whole = family.place(params, y[:, :2], y[:, 2:])
    monkeypatch.setattr(module, "_ELEMENTS", 50)
    for one, other in zip(whole, family.place(params, y[:, :2], y[:, 2:]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_beyond_the_knots_nothing_changes(x64):
    family, params = LatentGaussian(), a_member()
    theta = np.array([0.3, -0.2]) + np.array([[30.0], [60.0]]) * [0.8, 0.3]
    z, log_det = family.place(params, jnp.asarray(theta), jnp.zeros((2, 5)))
    np.testing.assert_allclose(z[0, [0, 2, 3, 5, 6]], z[1, [0, 2, 3, 5, 6]], rtol=1e-9)
    np.testing.assert_allclose(log_det[0], log_det[1], rtol=1e-9)


def test_a_spline_goes_through_its_knots_and_is_exact_for_quadratics():
    rng = np.random.default_rng(0)
    t = np.stack(np.meshgrid(*2 * [np.linspace(-1.5, 1.5, 6)]), axis=-1).reshape(-1, 2)
    y = np.sin(2 * t)
    spline = fit_spline(t, y, np.ones(36))
    np.testing.assert_allclose(spline_at(spline, t), y, atol=2e-3)
    between = rng.uniform(-1, 1, size=(50, 2))
    assert np.abs(spline_at(spline, between) - np.sin(2 * between)).max() < 0.05
    exact = rng.normal(size=(6, 2))
    spline = fit_spline(t, quadratics(t) @ exact, np.ones(36))
    there = 3 * rng.normal(size=(5, 2))
    np.testing.assert_allclose(spline_at(spline, there), quadratics(there) @ exact, atol=1e-8)


def test_tempered_weights_are_worth_what_they_are_to_be():
    log_weights = 5 * np.random.default_rng(0).normal(size=500)
    weights, power = tempered(log_weights, 100.0)
    assert 0 < power < 1
    assert 1 / np.sum(weights**2) == pytest.approx(100, rel=1e-3)
    weights, power = tempered(0.1 * log_weights, 100.0)
    assert power == 1
    np.testing.assert_allclose(weights.sum(), 1)


def test_hyperparameters_are_found_and_nothing_else(x64):
    target, frame = posed(), a_frame()
    at = coordinates(target)
    for seed in range(3):
        found = hyperparameters(at, *frame, np.random.default_rng(seed))
        np.testing.assert_array_equal(found, [0, 1])
    assert at.num_gradients <= 3 * most_gradients(target.dim)


def test_a_normal_distribution_has_none(x64):
    def log_joint(p, y):
        return -0.5 * jnp.sum((p["x"] - y) ** 2)

    target, _, data = make_target(log_joint, {"x": np.zeros(6)}, jnp.arange(6.0), None)
    at = coordinates(target, data)
    found = hyperparameters(at, np.arange(6.0), np.eye(6), np.random.default_rng(0))
    assert len(found) == 0


def test_counts_that_move_their_own_curvature_are_none(x64):
    """Log rates with normal priors: each has a third derivative, by itself."""

    def log_joint(p, y):
        return jnp.sum(y * p["x"] - jnp.exp(p["x"]) - 0.5 * p["x"] ** 2)

    y = jnp.array([0.0, 1.0, 2.0, 0.0, 3.0, 1.0, 1.0, 4.0])
    target, _, data = make_target(log_joint, {"x": np.zeros(8)}, y, None)
    mode = np.zeros(8)
    for _ in range(30):
        mode += (y - np.exp(mode) - mode) / (np.exp(mode) + 1)
    factor = np.diag(1 / np.sqrt(np.exp(mode) + 1))
    found = hyperparameters(coordinates(target, data), mode, factor, np.random.default_rng(0))
    assert len(found) == 0


def test_one_that_moves_a_single_direction_is_found(x64):
    """Among eighty that move their own curvature a little, whatever directions are looked along."""
    dim = 80
    way = np.ones(dim) / np.sqrt(dim)

    def log_joint(p, y):
        own = -0.5 * jnp.sum(p["x"] ** 2) - 0.4 * jnp.sum(jnp.exp(p["x"]) - p["x"])
        more = -0.5 * (jnp.exp(p["t"]) - 1) * (way @ p["x"]) ** 2 + 0.5 * p["t"]
        return own + more - 0.5 * p["t"] ** 2

    target, _, data = make_target(log_joint, {"t": 0.0, "x": np.zeros(dim)}, None, None)
    at, scale = coordinates(target, data), np.append(1.0, np.full(dim, 1.4**-0.5))
    args = at, np.zeros(dim + 1), np.diag(scale)
    found = [hyperparameters(*args, np.random.default_rng(seed)) for seed in range(30)]
    assert sum(np.array_equal(hyper, [0]) for hyper in found) >= 28


def test_too_many_are_given_up(x64):
    """Pairs of a log scale and what it scales: each is the hyperparameter of three others."""

    def log_joint(p, y):
        scaled = p["x"] * jnp.exp(-p["s"])[:, None]
        own = -0.5 * jnp.sum(p["s"] ** 2) - 0.5 * jnp.sum(scaled**2) - 4 * jnp.sum(p["s"])
        return own - 0.5 * jnp.sum((p["x"] - y) ** 2)

    number = MOST + 2
    init = {"s": np.zeros(number), "x": np.zeros((number, 4))}
    target, _, data = make_target(log_joint, init, jnp.ones((number, 4)), None)
    dim = target.dim
    at = coordinates(target, data)
    centre = np.concatenate([np.zeros(number), np.full(4 * number, 0.5)])
    assert hyperparameters(at, centre, 0.7 * np.eye(dim), np.random.default_rng(0)) is None


def conditionals(target=None):
    target = posed() if target is None else target
    return Conditionals(coordinates(target), np.array([0, 1]), a_frame())


def in_units(conditionals, mean, covariance):
    inverse = np.linalg.inv(conditionals.units)
    return inverse @ (mean - conditionals.origin), inverse @ covariance @ inverse.T


def log_gammas(params, data):
    """Of each value the others are logarithms of gamma variates, and their mass is one."""
    shape = 0.3 + jnp.exp(params["level"])
    each = shape * params["x"] - jnp.exp(params["x"]) - jax.scipy.special.gammaln(shape)
    return -0.5 * params["level"] ** 2 + jnp.sum(each)


def test_densities_of_hyperparameters_count_what_is_not_normal(x64):
    """By Laplace's method they are off by Stirling's formula: 0.09 / shape nats for each other."""
    target = make_target(log_gammas, {"level": 0.0, "x": np.zeros(20)}, None, None)[0]
    frame = Frame(np.zeros(21), np.eye(21))
    at = Conditionals(Coordinates(target, None, 64), np.array([0]), frame)
    theta = np.linspace(0.3, 2.0, 5)[:, None]
    points = at.at(theta, *at.first(theta))
    assert len(points.log_p) == 5
    off = points.log_p + 0.5 * theta[:, 0] ** 2
    stirling = 20 * 0.09 / (0.3 + np.exp(theta[:, 0]))
    assert np.ptp(stirling) > 0.8
    assert np.ptp(off) < 0.2


def test_what_is_given_hyperparameters_is_exact_where_it_is_normal(x64):
    at = conditionals()
    theta = CENTRE + np.array([[0.0, 0.0], [0.4, -0.3], [-0.3, 0.2]])
    points = at.at(theta, *at.first(theta))
    assert len(points.log_p) == 3
    log_p = []
    for place, mean, precision in zip(theta, points.mean, points.precision, strict=True):
        exact, covariance, log_density = given(*place)
        exact, covariance = in_units(at, exact, covariance)
        np.testing.assert_allclose(mean, exact, atol=1e-6)
        np.testing.assert_allclose(precision @ covariance, np.eye(STEPS), atol=1e-6)
        log_p.append(log_density)
    np.testing.assert_allclose(
        points.log_p - points.log_p[0], np.array(log_p) - log_p[0], atol=1e-6
    )


def test_points_are_found_where_the_precision_is_another_one(x64):
    """Up to 1,800 times as precise as the Gaussian says, and elsewhere: steps are far too long."""
    slopes, rates = np.array([1.0, -0.5, 0.2, 2.0]), np.array([3.0, -2.0, 1.0, -1.0])

    def log_joint(params, data):
        t, z = params
        log_precision = rates * t
        squares = jnp.exp(log_precision) * (z - slopes * t) ** 2
        return -0.5 * (t**2 + jnp.sum(squares) - jnp.sum(log_precision))

    target, _, data = make_target(log_joint, (0.0, np.zeros(4)), None, None)
    frame = Frame(np.zeros(5), np.eye(5))
    at = Conditionals(Coordinates(target, data, 32), np.array([0]), frame)
    theta = np.linspace(-2.5, 2.5, 11)[:, None]
    points = at.at(theta, *at.first(theta))
    assert len(points.theta) == 11
    np.testing.assert_allclose(points.mean, theta * slopes, atol=1e-6)
    precision = np.exp(rates * theta)
    np.testing.assert_allclose(points.precision, precision[:, :, None] * np.eye(4), rtol=1e-6)
    np.testing.assert_allclose(points.log_p, -0.5 * theta[:, 0] ** 2, atol=1e-6)


def test_a_factor_of_a_product_that_would_be_rounded(x64):
    lower = np.array([[1e-9, 0.0], [1.0, 1e-9]])
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    np.testing.assert_allclose(
        lower_factor(np.stack([lower, lower @ turn])), [lower] * 2, atol=1e-15
    )


def test_points_where_nothing_is_finite_are_left_out(x64):
    def log_joint(p, y):
        return jnp.where(p["height"] > 0.3, jnp.nan, curve(p, y))

    init = {"height": 0.0, "length": 0.0, "x": np.zeros(STEPS)}
    at = conditionals(make_target(log_joint, init, jnp.asarray(seen()), None)[0])
    theta = CENTRE + np.array([[0.0, 0.0], [0.6, 0.0]])
    with np.errstate(all="ignore"):
        points = at.at(theta, *at.first(theta))
    np.testing.assert_array_equal(points.theta, theta[:1])


def test_in_between_points_it_is_nearly_exact(x64):
    at = conditionals()
    theta = CENTRE + 0.25 * np.random.default_rng(0).normal(size=(40, 2))
    points = at.at(theta, *at.first(theta))
    frame = Frame(CENTRE, 0.25 * np.eye(2))
    found = interpolate(at, points, np.ones(40), frame)
    there = CENTRE + np.array([[0.1, -0.1], [-0.2, 0.1]])
    means, factors = found.given(at, there)
    log_p = []
    for place, mean, factor in zip(there, means, factors, strict=True):
        exact, covariance, log_density = given(*place)
        exact, covariance = in_units(at, exact, covariance)
        off = mean - exact
        precision = factor @ factor.T
        apart = precision @ covariance
        nats = np.trace(apart) - STEPS - np.linalg.slogdet(apart)[1] + off @ precision @ off
        assert nats / 2 < 0.02
        log_p.append(log_density)
    said = found.log_density(there)
    assert abs((said[1] - said[0]) - (log_p[1] - log_p[0])) < 0.02
    assert (found.distance(there) < 1).all()
    np.testing.assert_allclose(found.distance(points.theta), 0, atol=1e-4)


def test_hyperparameters_are_explored_from_a_frame_that_is_too_narrow(x64):
    explored = explore(conditionals(), np.random.default_rng(0), np.inf)
    frame = GaussianMixture().frame(explored.mixture)
    mean, sd = moments()
    np.testing.assert_array_less(np.abs(frame.loc - mean[:2]) / sd[:2], 0.15)
    sds = np.linalg.norm(frame.scale, axis=1)
    np.testing.assert_allclose(sds, sd[:2], rtol=0.15)


def test_divergences_are_those_of_normal_distributions():
    rng = np.random.default_rng(0)
    means, others = rng.normal(size=(2, 2, 3))
    own, lower = np.tril(rng.normal(size=(2, 2, 3, 3))) + 3 * np.eye(3)
    points = Points(np.zeros((2, 1)), means, own @ np.swapaxes(own, 1, 2), np.zeros(2))
    expected = []
    for mean, precision, other, factor in zip(means, points.precision, others, lower, strict=True):
        covariance, off = np.linalg.inv(factor @ factor.T), other - mean
        ratio = np.linalg.slogdet(precision @ covariance)[1]
        expected.append((np.trace(precision @ covariance) + off @ precision @ off - 3 - ratio) / 2)
    np.testing.assert_allclose(points.divergence_from(others, lower), expected, rtol=1e-10)
    np.testing.assert_allclose(points.divergence_from(means, own), 0, atol=1e-12)


NONE = np.zeros((0, 2))


def test_what_was_not_foreseen_is_known_once_it_was_looked_at(x64):
    random = np.random.default_rng(0)
    few = explore(conditionals(), random, 0.0)
    theta = CENTRE + np.array([[0.9, -0.9], [-0.8, -0.6], [0.9, 0.5], [0.2, -1.0]])
    more, surprise = explore_at(few, np.repeat(theta, 3, axis=0), NONE, random)
    assert len(surprise) == len(theta) and surprise.max() > 1.0
    assert len(more.points.theta) == len(few.points.theta) + len(theta)
    near = theta + 0.15 * np.linalg.norm(few.conditionals.frame.scale)
    _, again = explore_at(more, near, NONE, random)
    _, without = explore_at(few, near, NONE, random)
    assert again.max() < without.max() / 4
    # there is no more to know where a point is
    same, nothing = explore_at(more, theta, NONE, random)
    assert same is more and len(nothing) == 0


def test_more_points_of_many_hyperparameters_cut_nothing_off(x64):
    """Of six most lies farther from any point than of two, and counts all the same."""

    def log_joint(params, data):
        theta, x = params
        squares = jnp.exp(-theta[0]) * x**2 + theta[0]
        return -0.5 * (theta @ theta + jnp.sum(squares))

    target, _, data = make_target(log_joint, (np.zeros(6), np.zeros(3)), None, None)
    at = Coordinates(target, data, 32)
    random = np.random.default_rng(0)
    conditionals = Conditionals(at, np.arange(6), Frame(np.zeros(9), np.eye(9)))
    explored = explore(conditionals, random, np.inf)
    for _ in range(2):
        theta = explored.mixture["loc"][0] + random.standard_normal((64, 6))
        explored, _ = explore_at(explored, theta, np.zeros((0, 6)), random)
    sds = np.linalg.norm(GaussianMixture().frame(explored.mixture).scale, axis=1)
    np.testing.assert_allclose(sds, 1, rtol=0.1)


def test_sds_of_hyperparameters_are_known_without_weights(x64):
    """Between points their density is known, whatever draws of all else weigh."""
    random = np.random.default_rng(0)
    explored = explore(conditionals(), random, np.inf)

    def natural(z):  # with what depends on all else, and what cannot vary
        return np.column_stack([z, np.exp(2 * z[:, 1]), z[:, 0] + z[:, 5], np.ones(len(z))])

    tails = tails_of(explored, natural, 20_000, random)
    np.testing.assert_array_equal(np.flatnonzero(tails.alone), [0, 1, STEPS + 2])
    np.testing.assert_allclose(tails.sd[:2], moments()[1][:2], rtol=0.05)
    # those first that count most: exp(2 length) is large
    first, rest = tails.theta[:500], tails.theta[500:5000]
    assert np.abs(first - CENTRE).mean() > np.abs(rest - CENTRE).mean()
    # values beside others are fewer
    more, _ = explore_at(explored, NONE, tails.theta[:32], random)
    assert len(more.points.theta) == len(explored.points.theta) + 2


def test_draws_that_know_less_of_a_tail_are_seen():
    """Even weights, and an sd that is a fifth below what the density between points says."""
    tails = Tails(np.array([True, False, True]), np.array([1.25, 2.0]), NONE)

    def short(*sd):
        corrected = Moments(*(np.array(sd),) * 4)
        stage = SimpleNamespace(diagnostics=SimpleNamespace(corrected=corrected))
        return Round(0, stage, tails).short

    assert short(1.0, 9.0, 2.0) == 0.25
    assert short(1.25, 9.0, 2.5) == 0  # more is no fault of theirs


def stage_of(params, target):
    """A fit that was found without a run."""
    log = empty_log(np.float64, np)._replace(status=np.int32(Status.COMPLETED))
    family = LatentGaussian() if "latent" in params else FullRankGaussian()
    run = lambda: (on_device(target, params), log)  # noqa: E731
    key, data = jax.random.key(1), jnp.asarray(seen())
    return judged_stage("found", BatchAndMatch(), family, target, run, key, data)


def a_job(target, look=lambda stage: stage):
    budget = bbvi.Budget(gradients=10**6)
    return Job(target, jnp.asarray(seen()), Purse(budget, 0.0), plain_stage, look, 1, 0)


def test_points_where_nothing_surprises_are_kept(x64, monkeypatch):
    """Where weights tell, what they say of hyperparameters themselves may be what is lacking."""

    def calm(*args):
        found, surprise = explore_at(*args)
        return found, 0 * surprise

    monkeypatch.setattr(latent_stages, "explore_at", calm)
    target, random = posed(), np.random.default_rng(0)
    explored = explore(conditionals(target), random, np.inf)
    params = LatentGaussian().join(explored.mixture, explored.interpolated.latent)
    this = Round(0, stage_of(params, target), Tails(np.zeros(0, bool), np.zeros(0), NONE))
    assert efficiency(this.stage.diagnostics) > 0.5
    args = a_job(target), coordinates(target)
    found = _nearer(*args, explored, this, random)
    assert len(found.points.theta) > len(explored.points.theta)
    few = this.stage.diagnostics._replace(ess=0.1 * this.stage.diagnostics.ess)
    assert _nearer(*args, explored, this.but(diagnostics=few), random) is None


def test_what_is_only_a_little_noisy_is_judged_on_more_draws(x64, monkeypatch):
    """Rounds of more points bring no less noise: of animals that were caught ten were made."""

    rounds, calls = [], []

    def noisy(*args):
        rounds.append(args)
        stage = judged_stage(*args)
        d = stage.diagnostics
        corrected = d.corrected._replace(mean_se=np.full_like(d.corrected.sd, 0.04) * d.raw.sd)
        return stage._replace(diagnostics=d._replace(corrected=corrected))

    def closer(*args, **settings):
        calls.append(args)
        return judged_stage("found", BatchAndMatch(), FAMILY, *of_closer(args))

    def of_closer(args):
        target, key, data, stage = args[:4]
        return target, lambda: (on_device(target, stage.params), stage.log), key, data

    target = posed()
    monkeypatch.setattr(latent_stages, "judged_stage", noisy)
    monkeypatch.setattr(latent_stages, "judged_closer", closer)
    gaussian = stage_of(FullRankGaussian().init(*a_frame()), target)
    random, key = np.random.default_rng(0), jax.random.key(3)
    explored = explore(conditionals(target), random, np.inf)
    at = coordinates(target)
    found, _ = latent_stages._rounds(gaussian, a_job(target), at, explored, key, random)
    assert found.settled
    assert (len(rounds), len(calls)) == (2, 1)

    params = LatentGaussian().join(explored.mixture, explored.interpolated.latent)
    tails = Tails(np.zeros(22, bool), np.zeros(0), NONE)

    def nearly(share):
        stage = stage_of(params, target)
        error = share * np.asarray(stage.diagnostics.corrected.sd)
        corrected = stage.diagnostics.corrected._replace(mean_se=error)
        return (
            Round(1, stage, tails)
            .but(diagnostics=stage.diagnostics._replace(corrected=corrected))
            .nearly
        )

    assert [nearly(x) for x in (0.01, 0.04, 0.06)] == [False, True, False]


def test_chains_in_coordinates_in_which_all_else_is_standard(x64):
    target, random = posed(), np.random.default_rng(0)
    explored = explore(conditionals(target), random, 1e6)
    params = LatentGaussian().join(explored.mixture, explored.interpolated.latent)
    stage = stage_of(params, target)._replace(unseen=0.3)  # by its own draws
    job, key = a_job(target), jax.random.key(2)
    (found,) = latent_chains([stage], job, key)
    assert found.settled
    assert found.num_gradients == 10**6 - job.purse.gradients
    mean, sd = moments()
    corrected = found.diagnostics.corrected
    assert np.all(np.abs(corrected.mean - mean) < 5 * corrected.mean_se)
    assert np.all(np.abs(corrected.sd - sd) < 5 * corrected.sd_se)
    few = stage.diagnostics._replace(ess=1e-3 * stage.diagnostics.ess)
    assert latent_chains([stage._replace(diagnostics=few)], job, key) == []
    assert latent_chains([], job, key) == []


def test_a_fit_that_does_not_settle_is_told_what_others_have_seen_too(x64, monkeypatch):
    """Of rotations of seven points it described a third, and was the answer, with caution."""

    def look(stage):
        return stage._replace(mode_weights=(0.3, 0.7), unseen=0.0, num_gradients=5)

    def unsettled(*args):
        stage = judged_stage(*args)
        return stage._replace(diagnostics=stage.diagnostics._replace(bad_share=np.array(0.1)))

    target = posed()
    monkeypatch.setattr(latent_stages, "judged_stage", unsettled)
    monkeypatch.setattr(latent_stages, "_ROUNDS", 1)
    gaussian = stage_of(FullRankGaussian().init(*a_frame()), target)
    (found,), _ = latent_stages.latent_stages(gaussian, a_job(target, look), jax.random.key(3))
    assert not found.settled
    assert found.mode_weights == (0.3, 0.7)

    tails = Tails(np.zeros(22, bool), np.zeros(0), NONE)
    before = Round(0, found._replace(mode_weights=(), unseen=0.3), tails)
    after, spent = before.looked_at(a_job(target, look))
    assert (after.stage.mode_weights, after.stage.unseen, spent) == ((0.3, 0.7), 0.3, 5)
    assert after.looked_at(a_job(target, look)) == (after, 0)


@pytest.mark.parametrize("bits", [pytest.param(32, marks=pytest.mark.slow), 64])
def test_a_curve_with_a_length_of_its_own_is_right_and_trusted(bits, request, tmp_path):
    if bits == 64:
        request.getfixturevalue("x64")
    dtype = np.float64 if bits == 64 else np.float32
    init = {"height": dtype(0), "length": dtype(0), "x": np.zeros(STEPS, dtype)}
    fit = bbvi.fit(curve, init, jnp.asarray(seen(), dtype))
    assert fit.verdict.level == "trusted"
    assert isinstance(fit.posterior.family, LatentGaussian)
    mean, sd = moments()
    off = np.concatenate([np.ravel(x) for x in jax.tree.leaves(fit.posterior.mean())]) - mean
    sds = np.concatenate([np.ravel(x) for x in jax.tree.leaves(fit.posterior.sd())])
    assert np.abs(off / sd).max() < 0.1
    assert np.abs(np.log(sds / sd)).max() < 0.1
    fit.save(tmp_path / "fit.npz")
    loaded = bbvi.load(tmp_path / "fit.npz", curve)
    point = {"height": dtype(0.1), "length": dtype(-0.4), "x": np.full(STEPS, 0.1, dtype)}
    expected = fit.posterior.log_prob(point)
    np.testing.assert_allclose(loaded.posterior.log_prob(point), expected, rtol=1e-5)
