"""Families: one table of all of them, then what is special to one."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbvi.families
from bbvi.families import (
    CouplingFlow,
    Family,
    Frame,
    FullRankGaussian,
    GaussianMixture,
    LowRankGaussian,
    MeanFieldGaussian,
    SinhArcsinhGaussian,
    StudentT,
)
from bbvi.families.proposals import FAR_DF, host_noise, log_far_ratio, log_tail_ratio
from bbvi.testing import check_family

# A family and how far from its start the members are that it is checked at.
TABLE = [
    (MeanFieldGaussian(), 0.3),
    (FullRankGaussian(), 0.3),
    (LowRankGaussian(rank=1), 0.3),
    (LowRankGaussian(), 0.3),
    (SinhArcsinhGaussian(), 0.3),
    (StudentT(df=8.0), 0.3),
    (CouplingFlow(layers=2, width=4), 0.1),
]
GAUSSIANS = [family for family, _ in TABLE[:4]]
over_gaussians = pytest.mark.parametrize("family", GAUSSIANS, ids=repr)


@pytest.fixture
def bits(request):
    if request.param == 64:
        request.getfixturevalue("x64")
    return request.param


def a_factor(dim, seed=0):
    """A lower triangular factor with a positive diagonal."""
    rng = np.random.default_rng(seed)
    return np.tril(0.4 * rng.standard_normal((dim, dim)), -1) + np.diag(rng.uniform(0.5, 2, dim))


@functools.cache
def jitted(family, method):
    """One program instead of one for each operation: compilation is most of the time here."""
    return jax.jit(getattr(family, method))


def a_member(family, dim=3, seed=0):
    rng = np.random.default_rng(seed)
    params = jitted(family, "init")(rng.standard_normal(dim), a_factor(dim, seed))
    # what a family ignores stays zero, so that parameters can be compared
    return jax.tree.map(lambda x: x * (1 + 0.3 * rng.uniform(size=x.shape)), params)


def dense_log_prob(mean, covariance, z):
    """The multivariate normal in float64, by a dense Cholesky factor."""
    mean, covariance, z = (np.asarray(x, np.float64) for x in (mean, covariance, z))
    root = np.linalg.cholesky(covariance)
    eps = np.linalg.solve(root, (z - mean).T)
    log_det = np.log(np.diagonal(root)).sum()
    return -0.5 * (eps**2).sum(0) - log_det - 0.5 * len(mean) * np.log(2 * np.pi)


@pytest.mark.parametrize(
    ("family", "spread", "bits"),
    # a flow is slow to compile: once is enough
    [(f, s, b) for f, s in TABLE for b in (32, 64) if b == 64 or not isinstance(f, CouplingFlow)],
    indirect=["bits"],
    ids=repr,
)
def test_conforms(family, spread, bits):
    check_family(family, dim=3, key=1, spread=spread)


def test_every_public_family_is_in_the_table():
    public = {getattr(bbvi.families, name) for name in bbvi.families.__all__}
    # one has no reparameterised draws, the others whole numbers: none is for a member at random
    families = {x for x in public if issubclass(x, Family)} - {
        Family,
        bbvi.families.BentGaussian,
        bbvi.families.GaussianMixture,
        bbvi.families.GivenScales,
        bbvi.families.LatentGaussian,
        bbvi.families.Noncentred,
        bbvi.families.TriangularGaussian,
    }
    assert families == {type(family) for family, _ in TABLE}


@dataclass(frozen=True)
class CommonTails(Family):
    """Independent coordinates over one common chi-squared variable of four normals."""

    def init(self, loc, scale):
        scale = jnp.asarray(scale, loc.dtype)
        if scale.ndim == 2:
            scale = jnp.linalg.norm(scale, axis=1)
        # the variance of a t of 4 degrees of freedom is 2
        return {"loc": loc, "log_scale": jnp.log(jnp.broadcast_to(scale, loc.shape)) - 0.3466}

    def noise_size(self, dim):
        return dim + 4

    def reparam(self, params, eps):
        dim = params["loc"].shape[0]
        length = jnp.sqrt(jnp.mean(eps[:, dim:] ** 2, axis=-1, keepdims=True))
        z = params["loc"] + jnp.exp(params["log_scale"]) * eps[:, :dim] / length
        return z, self.log_prob(params, z)

    def log_prob(self, params, z):
        dim = z.shape[-1]
        x = (z - params["loc"]) * jnp.exp(-params["log_scale"])
        log_volume = 0.5 * dim * np.log(4 * np.pi).item() + jnp.sum(params["log_scale"])
        gammas = jax.lax.lgamma(jnp.array([(4 + dim) / 2, 2.0], z.dtype))
        tail = -0.5 * (4 + dim) * jnp.log1p(jnp.sum(x**2, axis=-1) / 4)
        return tail + gammas[0] - gammas[1] - log_volume


@dataclass(frozen=True)
class Cubed(Family):
    """Square but not affine: z = loc + sinh(eps) exp(log_scale), all with default frames."""

    def init(self, loc, scale):
        scale = jnp.asarray(scale, loc.dtype)
        if scale.ndim == 2:
            scale = jnp.linalg.norm(scale, axis=1)
        sd = float(np.sqrt(np.sinh(1.0) * np.exp(1.0)))
        return {"loc": loc, "log_scale": jnp.log(jnp.broadcast_to(scale, loc.shape) / sd)}

    def reparam(self, params, eps):
        z = params["loc"] + jnp.exp(params["log_scale"]) * jnp.sinh(eps)
        return z, self._log_q(params, eps)

    def log_prob(self, params, z):
        return self._log_q(params, jnp.arcsinh((z - params["loc"]) * jnp.exp(-params["log_scale"])))

    def _log_q(self, params, eps):
        terms = 0.5 * eps**2 + jnp.log(jnp.cosh(eps)) + params["log_scale"]
        return -jnp.sum(terms, axis=-1) - 0.5 * eps.shape[-1] * np.log(2 * np.pi).item()


@pytest.mark.parametrize("family", [CommonTails(), Cubed()], ids=repr)
def test_families_of_other_kinds_conform(family):
    check_family(family, dim=2)


@dataclass(frozen=True)
class LightTails(CommonTails):
    """The draws of a t, and the density of the Gaussian of the same variance."""

    def log_prob(self, params, z):
        x = (z - params["loc"]) * jnp.exp(-params["log_scale"])
        terms = 0.25 * x**2 + params["log_scale"] + 0.5 * np.log(4 * np.pi).item()
        return -jnp.sum(terms, axis=-1)


@dataclass(frozen=True)
class Unnormalised(MeanFieldGaussian):
    def reparam(self, params, eps):
        z, log_q = super().reparam(params, eps)
        return z, log_q + 0.1

    def log_prob(self, params, z):
        return super().log_prob(params, z) + 0.1


@dataclass(frozen=True)
class TwoDensities(MeanFieldGaussian):
    def log_prob(self, params, z):
        return super().log_prob(params, z) + 0.1


@dataclass(frozen=True)
class HeldIsNot(MeanFieldGaussian):
    def reparam_held(self, params, eps):
        return self.reparam(params, eps)


@dataclass(frozen=True)
class WrongEntropy(MeanFieldGaussian):
    def entropy(self, params):
        return super().entropy(params) + 0.3


@dataclass(frozen=True)
class WrongSd(MeanFieldGaussian):
    def sd(self, params):
        return jnp.exp(2 * params["log_scale"])


@dataclass(frozen=True)
class IgnoresLoc(MeanFieldGaussian):
    def init(self, loc, scale):
        return super().init(jnp.zeros_like(loc), scale)


@dataclass(frozen=True)
class IgnoresScale(MeanFieldGaussian):
    def init(self, loc, scale):
        return super().init(loc, jnp.ones_like(loc))


@dataclass(frozen=True)
class OneWayFrame(MeanFieldGaussian):
    def from_frame(self, params, frame):
        return params


@dataclass(frozen=True)
class FrameWithoutLogDet(MeanFieldGaussian):
    def frame(self, params):
        return WithoutLogDet(*super().frame(params))


class WithoutLogDet(Frame):
    log_det = 0.0


@dataclass(frozen=True)
class NotStandard(MeanFieldGaussian):
    def frame(self, params):
        frame = super().frame(params)
        return frame._replace(scale=10 * frame.scale)


@dataclass(frozen=True)
class HalfPrecision(MeanFieldGaussian):
    def init(self, loc, scale):
        return jax.tree.map(lambda x: x.astype(jnp.float16), super().init(loc, scale))


@dataclass(frozen=True)
class SumsOverDraws(MeanFieldGaussian):
    def log_prob(self, params, z):
        return jnp.sum(super().log_prob(params, z))


class NotADataclass(MeanFieldGaussian):
    pass


@pytest.mark.parametrize(
    ("family", "words"),
    [
        (LightTails(), "not that of the draws"),
        (Unnormalised(), "not that of the draws"),
        (TwoDensities(), "log_prob and reparam differ"),
        (HeldIsNot(), "reparam_held is not"),
        (WrongEntropy(), "entropy is off"),
        (WrongSd(), "sd is off"),
        (IgnoresLoc(), "not centred at loc"),
        (IgnoresScale(), "scale asked for"),
        (OneWayFrame(), "another member"),
        (FrameWithoutLogDet(), "log_det"),
        (NotStandard(), "far from standard"),
        (HalfPrecision(), "float16"),
        (SumsOverDraws(), r"log_prob gives float32\(\)"),
        (NotADataclass(), "dataclass"),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Family) else "",
)
def test_check_family_finds(family, words):
    with pytest.raises(AssertionError, match=words):
        check_family(family, dim=2)


@over_gaussians
@pytest.mark.usefixtures("x64")
def test_frames_keep_the_parameters(family):
    member, other = a_member(family, seed=1), a_member(family, seed=2)

    @jax.jit
    def there_and_back(member, other):
        frame = family.frame(other)
        return family.from_frame(family.to_frame(member, frame), frame)

    back = there_and_back(member, other)
    assert jax.tree.structure(back) == jax.tree.structure(member)
    for key, value in member.items():
        np.testing.assert_allclose(back[key], value, rtol=1e-12, atol=1e-12, err_msg=key)


@over_gaussians
@pytest.mark.usefixtures("x64")
def test_standard_in_its_own_frame(family):
    member = a_member(family)
    own = jax.jit(lambda p: family.to_frame(p, family.frame(p)))(member)
    np.testing.assert_allclose(family.mean(own), np.zeros(3), atol=1e-12)
    np.testing.assert_allclose(jitted(family, "sd")(own), np.ones(3), rtol=1e-12)
    if isinstance(family, FullRankGaussian):
        np.testing.assert_allclose(family.covariance(own), np.eye(3), atol=1e-12)


@pytest.mark.parametrize("scale", [np.array([0.5, 3.0]), np.array([[0.5, 0.0], [2.0, 3.0]])])
@pytest.mark.usefixtures("x64")
def test_frame_is_the_affine_map_it_says(scale):
    frame = Frame(jnp.array([1.0, -2.0]), jnp.asarray(scale))
    matrix = np.diag(scale) if scale.ndim == 1 else scale
    w = np.random.default_rng(0).standard_normal((4, 2))
    np.testing.assert_allclose(frame.apply(w), frame.loc + w @ matrix.T, rtol=1e-12)
    np.testing.assert_allclose(frame.invert(frame.apply(w)), w, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(frame.rescale(w.T), matrix @ w.T, rtol=1e-12)
    np.testing.assert_allclose(frame.rescale(w[0]), matrix @ w[0], rtol=1e-12)
    np.testing.assert_allclose(frame.unscale(matrix @ w.T), w.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(frame.log_det, np.linalg.slogdet(matrix)[1], rtol=1e-12)


@pytest.mark.parametrize("df", [1.0, 5.0])
@pytest.mark.usefixtures("x64")
def test_student_t_agrees_with_scipy(df):
    stats = pytest.importorskip("scipy.stats")
    family = StudentT(df=df)
    params = a_member(family)
    factor = np.asarray(jitted(FullRankGaussian(), "factor")(params))
    reference = stats.multivariate_t(np.asarray(params["loc"]), factor @ factor.T, df=df)
    z = np.random.default_rng(3).standard_normal((6, 3))
    np.testing.assert_allclose(
        jitted(family, "log_prob")(params, z), reference.logpdf(z), rtol=1e-11
    )
    np.testing.assert_allclose(jitted(family, "entropy")(params), reference.entropy(), rtol=1e-9)
    if df > 2:
        covariance = factor @ factor.T * df / (df - 2)
        np.testing.assert_allclose(family.covariance(params), covariance, rtol=1e-12)
        np.testing.assert_allclose(family.sd(params), np.diag(covariance) ** 0.5, rtol=1e-12)


def test_student_t_takes_the_scale_it_is_given():
    factor = a_factor(4)
    params = jitted(StudentT(), "init")(jnp.arange(4.0), jnp.asarray(factor, jnp.float32))
    np.testing.assert_allclose(
        StudentT().covariance(params), factor @ factor.T, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(StudentT().frame(params).scale, factor, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("df", [0.0, -1.0, 2.5, np.inf, np.nan])
def test_student_t_refuses_what_it_cannot_draw(df):
    with pytest.raises(ValueError, match="df must be a whole number of at least 1"):
        StudentT(df=df)


def test_student_t_without_moments():
    params = jitted(StudentT(df=1), "init")(jnp.zeros(2), 1.0)
    with pytest.raises(NotImplementedError, match="no mean"):
        StudentT(df=1).mean(params)
    for method in (StudentT(df=2).sd, StudentT(df=2).covariance):
        with pytest.raises(NotImplementedError, match="no finite variance"):
            method(params)


@pytest.mark.usefixtures("x64")
def test_full_rank_takes_the_factor_it_is_given():
    factor = a_factor(4)
    params = FullRankGaussian().init(jnp.arange(4.0), jnp.asarray(factor))
    np.testing.assert_allclose(FullRankGaussian().covariance(params), factor @ factor.T, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_mean_field_starts_at_the_closest_factorised_gaussian():
    # reverse KL asks for the diagonal of the precision (Bishop 2006, section 10.1.2)
    factor = a_factor(4)
    params = MeanFieldGaussian().init(jnp.zeros(4), jnp.asarray(factor))
    precision = np.linalg.inv(factor @ factor.T)
    np.testing.assert_allclose(
        MeanFieldGaussian().sd(params), 1 / np.sqrt(np.diagonal(precision)), rtol=1e-12
    )


@over_gaussians
@pytest.mark.usefixtures("x64")
def test_agrees_with_the_dense_normal(family):
    stats = pytest.importorskip("scipy.stats")
    params = a_member(family, dim=5)
    z = np.random.default_rng(3).standard_normal((6, 5))
    if isinstance(family, MeanFieldGaussian):
        covariance = np.diag(np.exp(2 * params["log_scale"]))
    else:
        covariance = np.asarray(family.covariance(params))
    reference = stats.multivariate_normal(np.asarray(params["loc"]), covariance)
    np.testing.assert_allclose(
        jitted(family, "log_prob")(params, z), reference.logpdf(z), rtol=1e-11
    )
    np.testing.assert_allclose(jitted(family, "entropy")(params), reference.entropy(), rtol=1e-12)
    np.testing.assert_allclose(
        jitted(family, "sd")(params), np.sqrt(np.diagonal(covariance)), rtol=1e-12
    )


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.usefixtures("x64")
def test_low_rank_draws_have_its_covariance(rank):
    family = LowRankGaussian(rank=rank)
    params = a_member(family, dim=4)
    # reparam is affine in the noise: its rows at unit noise are the factor's columns
    size = family.noise_size(4)
    assert size == 4 + rank
    columns = jitted(family, "reparam")(params, np.eye(size))[0] - params["loc"]
    np.testing.assert_allclose(columns.T @ columns, family.covariance(params), rtol=1e-12)


@pytest.mark.parametrize("size", [1.0, 1e2, 1e4])
def test_low_rank_with_a_large_factor_in_float32(size):
    # The textbook form of the quadratic term is a difference of numbers near size^2.
    rng = np.random.default_rng(5)
    dim = 20
    family = LowRankGaussian(rank=1)
    params = {
        "loc": np.zeros(dim, np.float32),
        "log_diag": np.log(rng.uniform(0.5e-2, 2e-2, dim)).astype(np.float32),
        "factor": (1e-2 * size * rng.standard_normal((dim, 1))).astype(np.float32),
    }
    noise = rng.standard_normal((200, dim + 1)).astype(np.float32)
    z = np.asarray(jitted(family, "reparam")(params, noise)[0])
    found = jitted(family, "log_prob")(params, z)
    assert found.dtype == jnp.float32
    exact = jax.tree.map(lambda x: x.astype(np.float64), params)
    covariance = exact["factor"] @ exact["factor"].T + np.diag(np.exp(2 * exact["log_diag"]))
    expected = dense_log_prob(exact["loc"], covariance, z)
    # x = r/d is rounded to eps |x| and |x| is of order `size`; its square then is off by that
    # much a coordinate. The difference of squares would be off by eps size^2.
    allowed = 20 * np.finfo(np.float32).eps * (size + np.abs(expected))
    np.testing.assert_array_less(np.abs(found - expected), allowed)


def test_low_rank_chooses_its_rank():
    assert [LowRankGaussian().columns(d) for d in (1, 2, 9, 100, 10**6)] == [1, 1, 3, 10, 32]
    assert LowRankGaussian(rank=5).columns(3) == 3
    with pytest.raises(ValueError, match="rank must be at least 1"):
        LowRankGaussian(rank=0)


def test_low_rank_starts_nearly_as_asked_and_can_move():
    family = LowRankGaussian(rank=2)
    params = jitted(family, "init")(np.zeros(4, np.float32), 2.0)
    np.testing.assert_allclose(jitted(family, "sd")(params), np.full(4, 2.0), rtol=1e-3)
    noise = np.random.default_rng(0).standard_normal((64, 6)).astype(np.float32)

    # At a factor of exactly zero this gradient would vanish and the factor would stay there.
    def bound(params):
        z, _ = family.reparam(params, noise)
        return jnp.mean(jnp.sum(z, axis=1) ** 2)

    assert np.abs(jax.jit(jax.grad(bound))(params)["factor"]).min() > 0


@pytest.mark.parametrize("family", [MeanFieldGaussian(), LowRankGaussian(rank=4)], ids=repr)
def test_a_million_dimensions(family):
    dim = 1_000_000

    @jax.jit
    def look(key):
        params = family.init(jnp.zeros(dim), 0.5)
        z, log_q = family.sample_and_log_prob(params, key, 2)
        return jnp.std(z), log_q, family.log_prob(params, z), family.entropy(params)

    sd, log_q, log_prob, entropy = jax.tree.map(np.asarray, look(jax.random.key(0)))
    assert abs(sd - 0.5) < 5 * 0.5 / np.sqrt(4e6) + 1e-3
    # -log q is the entropy give or take sqrt(D/2)
    assert np.abs(-log_q - entropy).max() < 5 * np.sqrt(dim / 2)
    np.testing.assert_allclose(log_prob, log_q, rtol=1e-5)


# --- draws with heavier tails --------------------------------------------------------------------

PROPOSERS = [family for family, _ in TABLE if not isinstance(family, CouplingFlow)]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("family", [*PROPOSERS, GaussianMixture()], ids=repr)
def test_a_proposal_is_what_it_says(family):
    number = 20_000
    params = a_member(family)
    drawn = jax.jit(family.propose, static_argnums=2)(params, jax.random.key(0), number)
    z, log_q, log_mixture, own = map(np.asarray, drawn)
    np.testing.assert_allclose(log_q, jitted(family, "log_prob")(params, z), rtol=1e-8, atol=1e-8)
    # A density over that of its draws averages to one; so does the mixture's other half.
    weight = np.exp(log_q - log_mixture)
    assert abs(weight.mean() - 1) < 5 * weight.std() / np.sqrt(number) + 1e-12
    assert np.isfinite(log_mixture).all()
    if own.all():
        np.testing.assert_array_equal(log_q, log_mixture)
        return
    assert own.sum() == number // 2
    assert own[: number // 2].all()
    # bounded by two, however far out the draws are
    assert weight.max() <= 2 + 1e-9
    # The other half reaches further: in a normal, 4.5 sds have one draw in 10^5.
    distance = np.abs(z - np.mean(z[own], 0)) / np.std(z[own], 0)
    assert (distance[~own] > 5).sum() > 3 * (distance[own] > 5).sum() + 5


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "family", [MeanFieldGaussian(), FullRankGaussian(), GaussianMixture()], ids=repr
)
def test_a_proposal_far_out_is_what_it_says(family):
    number = 20_000
    params = a_member(family)
    size, dtype = family.event(params)
    noise = host_noise(np.random.default_rng(0), number, size, dtype, FAR_DF)
    z, log_q, log_mixture, own = map(np.asarray, jitted(family, "propose_far_at")(params, noise))
    np.testing.assert_allclose(log_q, jitted(family, "log_prob")(params, z), rtol=1e-8, atol=1e-8)
    weight = np.exp(log_q - log_mixture)
    assert abs(weight.mean() - 1) < 5 * weight.std() / np.sqrt(number)
    assert own.sum() == number // 2
    assert weight.max() <= 2 + 1e-9
    # Moments by the weights are those of the own draws.
    centre, sd = z[own].mean(0), z[own].std(0)
    unit = np.where((weight > 1e-9)[:, None], (z - centre) / sd, 0)
    assert (np.abs((weight[:, None] * unit).mean(0)) < 0.06).all()
    np.testing.assert_allclose((weight[:, None] * unit**2).mean(0), 1, atol=0.1)
    # Beyond twenty sds lies one draw in sixteen of the spherical, and as much of all the others.
    distance = np.abs((z - centre) / sd).max(1)
    for some in (~own[:15_000] * np.ones(15_000, bool), ~own & (np.arange(number) >= 15_000)):
        far = distance[: len(some)][some] > 20
        assert far.mean() > 0.01


def test_the_ratio_far_out_is_that_of_densities(x64):
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((3, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    eps = 5 * rng.standard_normal((20, 3))
    normal = stats.multivariate_normal(np.zeros(3), np.eye(3)).logpdf(eps)
    spherical = stats.multivariate_t(np.zeros(3), np.eye(3), df=1).logpdf(eps) - normal
    y = eps @ directions.T
    singly = np.exp(stats.cauchy.logpdf(y) - stats.norm.logpdf(y)).mean(1)
    expected = np.log(0.5 + 0.25 * np.exp(spherical) + 0.25 * singly)
    for array in (np.asarray, jnp.asarray):
        found = log_far_ratio(array(eps), array(directions))
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_gaussian_is_left_along_the_means_of_all_given_one():
    factor = a_factor(3)
    family = FullRankGaussian()
    directions = family.directions(family.init(np.zeros(3), factor))
    # where scalar j is at y sds the others are, in the mean, at y times their correlation with it
    covariance = factor @ factor.T
    sds = np.sqrt(np.diagonal(covariance))
    np.testing.assert_allclose(factor @ directions.T, covariance / sds, rtol=1e-6)


def test_the_tail_ratio_is_that_of_densities(x64):
    stats = pytest.importorskip("scipy.stats")
    x = np.linspace(-8, 8, 7)[:, None] * np.ones(3)
    expected = stats.multivariate_t(np.zeros(3), np.eye(3), df=5).logpdf(x)
    expected -= stats.multivariate_normal(np.zeros(3), np.eye(3)).logpdf(x)
    found = jax.jit(log_tail_ratio, static_argnums=1)((x**2).sum(1), 3)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_mixture_in_its_own_frame_is_standard(x64):
    family = GaussianMixture()
    loc = jnp.array([[-4.0, 0.0], [4.0, 1.0], [0.0, 9.0]])
    factor = jnp.array([[[1.0, 0.0], [0.5, 2.0]]] * 3) * jnp.array([1.0, 0.5, 2.0])[:, None, None]
    params = family.join(jnp.log(jnp.array([0.2, 0.5, 0.3])), loc, factor)
    frame = family.frame(params)
    inside = family.to_frame(params, frame)
    np.testing.assert_allclose(family.mean(inside), 0, atol=1e-12)
    np.testing.assert_allclose(family.sd(inside), 1, rtol=1e-12)
    # the same member, seen in other units
    z = jax.random.normal(jax.random.key(0), (5, 2), float)
    log_q = family.log_prob(inside, frame.invert(z)) - frame.log_det
    np.testing.assert_allclose(log_q, family.log_prob(params, z), rtol=1e-10)
    back = family.from_frame(inside, frame)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-10), back, params)
