"""The evidence lower bound and its base noise: exact values, unbiased gradients, bad draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bbvi.families import FullRankGaussian, LowRankGaussian, MeanFieldGaussian
from bbvi.inputs import make_target
from bbvi.objectives import ELBO
from bbvi.objectives.draws import normals, shifted_lattice
from bbvi.solvers import StochasticGradient

ENTROPIES = ("closed_form", "stl", "monte_carlo")
FAMILIES = [MeanFieldGaussian(), FullRankGaussian(), LowRankGaussian(rank=1)]
over_families = pytest.mark.parametrize("family", FAMILIES, ids=repr)
LOG_Z = 1.75
DIM = 3


def a_member(family, seed=0):
    rng = np.random.default_rng(seed)
    factor = np.tril(0.5 * rng.standard_normal((DIM, DIM)), -1) + np.diag(rng.uniform(0.5, 2, DIM))
    params = jax.jit(family.init)(rng.standard_normal(DIM), factor)
    return jax.tree.map(lambda x: np.asarray(x) * (1 + 0.3 * rng.uniform(size=x.shape)), params)


def covariance_of(family, params):
    if isinstance(family, MeanFieldGaussian):
        return np.diag(np.exp(2 * params["log_scale"]))
    return np.asarray(family.covariance(params))


def quadratic(mean, covariance, log_z):
    """log Z + the log density of a Gaussian, and a mask; by its precision matrix."""
    precision = np.linalg.inv(covariance)
    constant = log_z - 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]

    def log_density(z):
        r = z - mean
        log_p = constant - 0.5 * jnp.einsum("si,ij,sj->s", r, precision, r)
        return log_p, jnp.ones(z.shape[0], bool)

    return log_density


def three_ways(family, log_density, num_draws, antithetic=True):
    """params, noise -> loss, info and gradient for each entropy, in one program."""
    specs = {e: ELBO(num_draws, e, antithetic=antithetic) for e in ENTROPIES}

    @jax.jit
    def look(params, eps):
        return {
            entropy: jax.value_and_grad(
                lambda p, spec=spec: spec.loss(family, p, eps, log_density), has_aux=True
            )(params)
            for entropy, spec in specs.items()
        }

    return look


@functools.cache
def at_the_optimum(family):
    params = a_member(family)
    target = quadratic(params["loc"], covariance_of(family, params), LOG_Z)
    eps = np.random.default_rng(1).standard_normal((5, 8, family.noise_size(DIM)))
    look = three_ways(family, target, 8)
    return [look(params, e) for e in eps]


@over_families
@pytest.mark.usefixtures("x64")
def test_no_spread_where_q_is_p(family):
    for found in at_the_optimum(family):
        for entropy in ("stl", "monte_carlo"):
            (loss, info), _ = found[entropy]
            # any draws: each one alone gives log Z
            np.testing.assert_allclose(loss, -LOG_Z, rtol=0, atol=1e-12)
            np.testing.assert_allclose(info.elbo, LOG_Z, rtol=0, atol=1e-12)
            assert info.num_skipped == 0
            assert info.usable


@over_families
@pytest.mark.usefixtures("x64")
def test_stl_gradient_is_zero_where_q_is_p(family):
    for found in at_the_optimum(family):
        for gradient in jax.tree.leaves(found["stl"][1]):
            np.testing.assert_allclose(gradient, 0, rtol=0, atol=1e-12)
        # The other two are zero on average only.
        for entropy in ("closed_form", "monte_carlo"):
            assert np.abs(found[entropy][1]["loc"]).max() > 1e-3


@over_families
def test_no_spread_in_float32(family):
    params = a_member(family)
    target = quadratic(params["loc"], covariance_of(family, params), LOG_Z)
    eps = np.random.default_rng(1).standard_normal((8, family.noise_size(DIM)))
    spec = ELBO(8, "stl")
    evaluate = jax.jit(jax.value_and_grad(lambda p, e: spec.loss(family, p, e, target)[0]))
    loss, gradient = evaluate(jax.tree.map(np.float32, params), np.float32(eps))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, -LOG_Z, rtol=0, atol=2e-5)
    for leaf in jax.tree.leaves(gradient):
        assert leaf.dtype == jnp.float32
        np.testing.assert_allclose(leaf, 0, rtol=0, atol=2e-5)


# --- away from the optimum ---------------------------------------------------------------


def closed_form_loss(family, params, mean, covariance, log_z):
    """-E_q[log p] - H(q) for a Gaussian p, with nothing sampled."""
    precision = np.linalg.inv(covariance)
    if isinstance(family, MeanFieldGaussian):
        own = jnp.diag(jnp.exp(2 * params["log_scale"]))
    elif isinstance(family, FullRankGaussian):
        factor = jnp.tril(params["lower"], -1) + jnp.diag(jnp.exp(params["log_diag"]))
        own = factor @ factor.T
    else:
        own = params["factor"] @ params["factor"].T + jnp.diag(jnp.exp(2 * params["log_diag"]))
    r = params["loc"] - mean
    energy = 0.5 * r @ precision @ r + 0.5 * jnp.trace(precision @ own)
    energy = energy + 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1] - log_z
    return energy - 0.5 * jnp.linalg.slogdet(2 * jnp.pi * jnp.e * own)[1]


def far_target():
    rng = np.random.default_rng(9)
    root = rng.standard_normal((DIM, DIM)) + 1.5 * np.eye(DIM)
    return rng.standard_normal(DIM), root @ root.T, LOG_Z


def assert_means(samples, expected, k=5, atol=1e-10):
    """Averages over the leading axis are `expected` within k standard errors, entry by entry."""
    samples = np.asarray(samples, np.float64)
    error = samples.std(0, ddof=1) / len(samples) ** 0.5
    np.testing.assert_array_less(np.abs(samples.mean(0) - expected), k * error + atol)


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        (MeanFieldGaussian(), "quasi"),
        (FullRankGaussian(), "antithetic"),
        (LowRankGaussian(rank=1), "independent"),
    ],
)
@pytest.mark.usefixtures("x64")
def test_gradients_are_unbiased(family, kind):
    target = far_target()
    params = a_member(family)
    antithetic = kind != "independent"
    look = three_ways(family, quadratic(*target), 32, antithetic)
    noise = ELBO(32, antithetic=antithetic, quasi=kind == "quasi").noise

    @jax.jit
    def sample(key):
        keys = jax.random.split(key, 2000)
        return jax.vmap(lambda k: look(params, noise(k, family, DIM, jnp.float64)))(keys)

    expected_loss, expected = jax.value_and_grad(closed_form_loss, argnums=1)(
        family, params, *target
    )
    found = sample(jax.random.key(2))
    for entropy in ENTROPIES:
        (loss, _), gradient = found[entropy]
        assert_means(loss, expected_loss)
        for name, value in expected.items():
            assert_means(gradient[name], value)


@pytest.mark.usefixtures("x64")
def test_elbo_is_minus_the_loss_and_higher_is_better():
    family = FullRankGaussian()
    best = a_member(family)
    target = quadratic(best["loc"], covariance_of(family, best), LOG_Z)
    look = three_ways(family, target, 8)
    eps = np.random.default_rng(4).standard_normal((8, DIM))
    off = {**best, "loc": best["loc"] + 5}
    for entropy in ENTROPIES:
        (loss, info), _ = look(best, eps)[entropy]
        (loss_off, info_off), _ = look(off, eps)[entropy]
        assert info.elbo == -loss
        assert info_off.elbo == -loss_off
        assert info.elbo > info_off.elbo + 1


@pytest.mark.usefixtures("x64")
def test_loss_follows_its_gradient():
    # what is minimised is the loss: a step against the STL gradient lowers the bound's gap
    family = MeanFieldGaussian()
    target = far_target()
    params = a_member(family)
    look = three_ways(family, quadratic(*target), 64)
    eps = np.random.default_rng(4).standard_normal((64, DIM))
    _, gradient = look(params, eps)["stl"]
    moved = jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient)
    before, after = (closed_form_loss(family, p, *target) for p in (params, moved))
    assert after < before


# --- base noise --------------------------------------------------------------------------


def draw_many(num_keys, num_draws, size, antithetic, quasi):
    @jax.jit
    def many(keys):
        flags = {"antithetic": antithetic, "quasi": quasi}
        return jax.vmap(lambda k: normals(k, num_draws, size, jnp.float64, **flags))(keys)

    eps = np.asarray(many(jax.random.split(jax.random.key(7), num_keys)))
    assert eps.shape == (num_keys, num_draws, size)
    return eps


@pytest.mark.parametrize(
    ("num_draws", "size", "antithetic", "quasi"),
    [
        (4, 2, True, False),
        (16, 3, False, True),  # a lattice alone
        (16, 6, True, True),  # half of 16 points carry 2 lattice coordinates; the rest a hypercube
        (2, 3, True, True),  # one point: no lattice
    ],
)
@pytest.mark.usefixtures("x64")
def test_noise_is_standard_normal(num_draws, size, antithetic, quasi):
    eps = draw_many(4000, num_draws, size, antithetic, quasi)
    if antithetic:
        half = num_draws // 2
        np.testing.assert_array_equal(eps[:, half:], -eps[:, :half])
        # exact, so odd functions average to zero whatever the key
        np.testing.assert_allclose(eps.mean(1), 0, atol=1e-15)
    assert_means(eps.mean(1), 0)
    assert_means(np.einsum("ksi,ksj->kij", eps, eps) / num_draws, np.eye(size))
    # each draw alone, too: a row that were always at the centre would pass the averages
    for row in (0, num_draws - 1):
        assert_means(eps[:, row], 0)
        assert_means(eps[:, row] ** 2, 1)
        assert_means(eps[:, row] ** 4, 3)
        assert_means(eps[:, row, :1] * eps[:, row, 1:], 0)


def some_points(num_points, size):
    make = jax.jit(lambda key: shifted_lattice(key, num_points, size, jnp.float64))
    return np.asarray(make(jax.random.key(3)))


@pytest.mark.parametrize(("num_points", "size"), [(16, 3), (16, 6), (24, 2), (1500, 2)])
@pytest.mark.usefixtures("x64")
def test_quasi_points_fill_every_cell_once(num_points, size):
    points = some_points(num_points, size)
    assert points.shape == (num_points, size)
    assert ((points > 0) & (points < 1)).all()
    cells = np.sort(np.floor(points * num_points).astype(int), axis=0)
    np.testing.assert_array_equal(cells, np.tile(np.arange(num_points)[:, None], size))


def test_quasi_normals_are_finite_in_float32():
    # ndtri(0) and ndtri(1) are infinite, and in float32 points come close
    flags = {"antithetic": False, "quasi": True}
    eps = jax.jit(lambda k: normals(k, 1 << 16, 1, jnp.float32, **flags))(jax.random.key(0))
    assert eps.dtype == jnp.float32
    assert np.isfinite(eps).all()


@pytest.mark.parametrize(("num_points", "size"), [(12, 3), (64, 16), (210, 52)])
@pytest.mark.usefixtures("x64")
def test_no_two_quasi_coordinates_are_tied(num_points, size):
    # A generator used twice, or z beside n - z, makes one coordinate a function of another:
    # their difference or their sum is then constant modulo one.
    points = some_points(num_points, size)
    a, b = points[:, :, None], points[:, None, :]
    apart = ~np.eye(size, dtype=bool)
    for combined in (a - b, a + b):
        # the length of the resultant on the circle is 1 exactly if all angles agree
        resultant = np.abs(np.exp(2j * np.pi * combined).mean(0))
        assert resultant[apart].max() < 0.99


@pytest.mark.usefixtures("x64")
def test_quasi_draws_lower_the_variance_of_smooth_averages():
    def average(eps):
        return (
            np.exp(0.5 * eps[..., 0]) + eps[..., 1] ** 2 + np.sin(eps[..., 0] + eps[..., 2])
        ).mean(1)

    independent, quasi = (draw_many(200, 64, 3, False, q) for q in (False, True))
    assert average(quasi).var() < average(independent).var() / 10


@pytest.mark.usefixtures("x64")
def test_quasi_draws_never_hurt_much_in_many_dimensions():
    eps = draw_many(1000, 64, 16, False, True)
    cross = np.einsum("ksi,ksj->kij", eps, eps) / 64
    # of independent draws the products have mean zero and this variance
    ratio = cross.var(0) / (1 / 64)
    assert ratio[np.triu_indices(16, 1)].max() < 3


def test_noise_takes_the_size_the_family_needs():
    for family in FAMILIES:
        eps = ELBO(6).noise(jax.random.key(0), family, DIM, jnp.float32)
        assert eps.shape == (6, family.noise_size(DIM))
        assert eps.dtype == jnp.float32


# --- bad draws ---------------------------------------------------------------------------


def three_traps(params):
    """A normal that is NaN for x[0] > 0.6, -inf for x[1] > 0.8, and has no slope for x[2] > 1."""
    x = params["x"]
    log_p = -0.5 * jnp.sum(x**2) + jnp.log(0.6 - x[0])
    # at and beyond one the derivative of the root is infinite, though the value is 0
    log_p = log_p - jnp.sqrt(jnp.maximum(1.0 - x[2], 0.0))
    return jnp.where(x[1] < 0.8, log_p, -jnp.inf)


@pytest.mark.usefixtures("x64")
def test_bad_draws_are_left_out_and_counted():
    log_joint = three_traps
    family = FullRankGaussian()
    params = {**a_member(family), "loc": np.zeros(DIM)}
    eps = np.random.default_rng(4).standard_normal((32, DIM))
    z = np.asarray(family.reparam(params, eps)[0])
    traps = z > [0.6, 0.8, 1.0]
    good = ~traps.any(1)
    # each trap alone catches a draw, and enough are left
    assert (traps & (traps.sum(1, keepdims=True) == 1)).any(0).all()
    assert good.sum() >= 4
    target, _, _ = make_target(log_joint, {"x": np.zeros(DIM)}, None, None)

    def masked(z):
        log_p = jax.vmap(lambda z: log_joint({"x": z}))(z)
        return log_p, jnp.ones(z.shape[0], bool)

    frame = family.frame(params)
    standard = family.to_frame(params, frame)
    all_draws = {e: StochasticGradient(family, ELBO(32, e)) for e in ENTROPIES}
    few_draws = {e: ELBO(32, e) for e in ENTROPIES}

    @jax.jit
    def look(eps, good_eps):
        found = {}
        for entropy in ENTROPIES:
            found[entropy] = (
                jax.value_and_grad(
                    lambda p, s=all_draws[entropy]: s.objective.loss(
                        family, p, eps, s.log_density(target, frame, None)
                    ),
                    has_aux=True,
                )(standard),
                jax.value_and_grad(
                    lambda p, s=few_draws[entropy]: s.loss(
                        family, family.from_frame(p, frame), good_eps, masked
                    ),
                    has_aux=True,
                )(standard),
            )
        return found

    found = look(eps, eps[good])
    for entropy in ENTROPIES:
        ((loss, info), gradient), ((loss_good, _), gradient_good) = found[entropy]
        np.testing.assert_allclose(loss, loss_good, rtol=1e-12)
        assert info.num_skipped == (~good).sum()
        assert info.usable
        for name, value in gradient_good.items():
            np.testing.assert_allclose(gradient[name], value, rtol=1e-10, atol=1e-12)


def test_all_draws_bad():
    spec = ELBO(4)
    family = MeanFieldGaussian()

    def nowhere(z):
        return jnp.zeros(z.shape[0]), jnp.zeros(z.shape[0], bool)

    @jax.jit
    def look(params, eps):
        loss = jax.value_and_grad(lambda p: spec.loss(family, p, eps, nowhere), has_aux=True)
        return loss(params)

    params = {"loc": np.zeros(2, np.float32), "log_scale": np.zeros(2, np.float32)}
    (loss, info), gradient = look(params, np.ones((4, 2), np.float32))
    assert np.isfinite(loss)
    assert info.num_skipped == 4
    assert not info.usable
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all()


# --- the objective at a target -----------------------------------------------------------


def correlated(params, data):
    x = params["x"]
    return -0.5 * x @ data @ x + jnp.sum(jnp.sin(x))


@pytest.mark.usefixtures("x64")
def test_chunks_and_frames_change_no_number():
    family = FullRankGaussian()
    params = a_member(family)
    precision = np.linalg.inv(far_target()[1])
    target, _, data = make_target(correlated, {"x": np.zeros(DIM)}, precision, None)
    other = family.frame(a_member(family, seed=5))
    eps = np.random.default_rng(6).standard_normal((10, DIM))

    @jax.jit
    def look(params, eps, data):
        def direct(params):
            def log_density(z):
                log_p = jax.vmap(lambda z: correlated({"x": z}, data))(z)
                return log_p, jnp.ones(z.shape[0], bool)

            return ELBO(10).loss(family, params, eps, log_density)[0]

        def framed(params, chunk_size):
            solver = StochasticGradient(family, ELBO(10, chunk_size=chunk_size))
            log_density = solver.log_density(target, other, data)
            moved = family.to_frame(params, other)
            return solver.objective.loss(family, moved, eps, log_density)[0]

        chunked = [jax.value_and_grad(framed)(params, size) for size in (None, 1, 3, 10, 64)]
        return jax.value_and_grad(direct)(params), chunked

    (loss, gradient), chunked = look(params, eps, data)
    for found_loss, found in chunked:
        np.testing.assert_allclose(found_loss, loss, rtol=1e-12)
        for name, value in gradient.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-10, atol=1e-12)


# --- settings ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_draws": 3}, "positive even number of draws"),
        ({"num_draws": 0}, "positive even number of draws"),
        ({"num_draws": -2, "antithetic": False}, "num_draws must be >= 1"),
        ({"entropy": "exact"}, "entropy must be one of .*'closed_form', 'stl', 'monte_carlo'"),
        ({"chunk_size": 0}, "chunk_size must be positive"),
    ],
)
def test_settings_are_checked(settings, words):
    with pytest.raises(ValueError, match=words):
        ELBO(**settings)


def test_odd_numbers_of_independent_draws_are_fine():
    assert ELBO(num_draws=3, antithetic=False).draws == 3


def test_equal_settings_are_one_spec():
    assert ELBO(8, "stl") == ELBO(8)
    assert hash(ELBO(8, "stl")) == hash(ELBO(8))
    assert ELBO(8) != ELBO(8, quasi=True)


def test_entropy_without_a_closed_form_says_so():
    class NoEntropy(MeanFieldGaussian):
        entropy = MeanFieldGaussian.__mro__[1].entropy

    params = {"loc": np.zeros(2), "log_scale": np.zeros(2)}
    with pytest.raises(NotImplementedError, match="NoEntropy has no closed-form entropy"):
        ELBO(4, "closed_form").loss(
            NoEntropy(), params, np.ones((4, 2)), quadratic(np.zeros(2), np.eye(2), 0.0)
        )
