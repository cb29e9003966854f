"""Joint distributions of TFP: densities, names, refits."""

import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from real_data import SEEDS

import bbvi
from bbvi.examples import eight_schools
from bbvi.inputs import make_target
from bbvi.status import InputError


@pytest.fixture(scope="module")
def tfd():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("tensorflow_probability.substrates.jax").distributions


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


SCHOOLS, ERRORS = (eight_schools().data[name] for name in ("y", "sigma"))


def schools(tfd, dtype):
    def model():
        mu = yield tfd.Normal(dtype(0), dtype(5), name="mu")
        tau = yield tfd.HalfCauchy(dtype(0), dtype(5), name="tau")
        eta = yield tfd.Sample(tfd.Normal(dtype(0), dtype(1)), 8, name="eta")
        yield tfd.Independent(tfd.Normal(mu + tau * eta, ERRORS.astype(dtype)), 1, name="y")

    return tfd.JointDistributionCoroutineAutoBatched(model), {"y": SCHOOLS.astype(dtype)}


def cafes(tfd, dtype):
    """Correlated intercepts and slopes of waiting times by cafe."""
    rng = np.random.default_rng(1)
    cafe, afternoon = np.repeat(np.arange(5), 8), np.tile(np.array([0, 1], dtype), 20)
    wait = (4 + 0.5 * cafe - afternoon + 0.5 * rng.standard_normal(40)).astype(dtype)

    def model():
        mean = yield tfd.Sample(tfd.Normal(dtype(0), dtype(5)), 2, name="mean")
        scale = yield tfd.Sample(tfd.Exponential(dtype(1)), 2, name="scale")
        factor = yield tfd.CholeskyLKJ(2, dtype(2), name="factor")
        unit = yield tfd.Sample(tfd.Normal(dtype(0), dtype(1)), (5, 2), name="unit")
        noise = yield tfd.Uniform(dtype(0.05), dtype(3), name="noise")
        effect = mean + unit @ (scale[:, None] * factor).T
        expected = effect[cafe, 0] + effect[cafe, 1] * afternoon
        yield tfd.Independent(tfd.Normal(expected, noise), 1, name="wait")

    return tfd.JointDistributionCoroutineAutoBatched(model), {"wait": wait}


def galaxies(tfd, dtype):
    """A mixture of three clusters, with a bound that depends on another variable."""
    velocity = [9.2, 9.4, 10.1, 18.6, 19.1, 19.5, 20.2, 20.8, 22.4, 23.1, 32.1, 33.0, 34.3]

    def clusters(weight, centre, spread):
        parts = tfd.Normal(centre, spread[..., None])
        mixture = tfd.MixtureSameFamily(tfd.Categorical(probs=weight), parts)
        return tfd.Sample(mixture, 13)

    joint = tfd.JointDistributionNamedAutoBatched(
        {
            "weight": tfd.Dirichlet(np.full(3, 2, dtype)),
            "centre": tfd.Sample(tfd.Normal(dtype(20), dtype(10)), 3),
            "low": tfd.HalfNormal(dtype(1)),
            "spread": lambda low: tfd.Uniform(low, low + dtype(5)),
            "velocity": clusters,
        }
    )
    return joint, {"velocity": np.array(velocity, dtype)}


def seeds(tfd, dtype):
    """Germination on plates: a logistic regression with an effect of each plate."""
    variety, extract, number = (SEEDS[k].astype(dtype) for k in ("variety", "extract", "seeds"))

    def model():
        level = yield tfd.Normal(dtype(0), dtype(2), name="level")
        slope = yield tfd.Sample(tfd.Normal(dtype(0), dtype(2)), 3, name="slope")
        spread = yield tfd.HalfNormal(dtype(1), name="spread")
        effect = yield tfd.Sample(tfd.Normal(dtype(0), dtype(1)), 21, name="effect")
        terms = slope[0] * variety + slope[1] * extract + slope[2] * variety * extract
        chances = tfd.Binomial(number, logits=level + terms + spread * effect)
        yield tfd.Independent(chances, 1, name="germinated")

    observed = {"germinated": SEEDS["germinated"].astype(dtype)}
    return tfd.JointDistributionCoroutineAutoBatched(model), observed


MODELS = {"schools": schools, "cafes": cafes, "galaxies": galaxies, "seeds": seeds}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", MODELS)
def test_log_density_is_tfps(tfd, name):
    joint, observed = MODELS[name](tfd, np.float64)
    b = bbvi.bridges.tfp.from_joint_distribution(joint, **observed)
    target, init, data = make_target(b.log_joint, b.init, b.data, b.support)
    pinned = joint.experimental_pin(**observed)
    bijector = pinned.experimental_default_event_space_bijector()
    like = jax.eval_shape(lambda: pinned.sample_unpinned(seed=jax.random.PRNGKey(0)))
    zs = np.random.default_rng(0).standard_normal((20, target.dim))

    @jax.jit
    @jax.vmap
    def compare(z):
        """Both log densities on the unconstrained space, Jacobians included, and a round trip."""
        free = {x.name: x.take(z) for x in target.leaves}
        free = free if isinstance(like, dict) else type(like)(**free)
        params = bijector.forward(free)
        theirs = pinned.unnormalized_log_prob(params) + bijector.forward_log_det_jacobian(free)
        ours = target.constrain(z, data)
        theirs_by_name = params if isinstance(like, dict) else params._asdict()
        off = [jnp.max(jnp.abs(ours[k] - theirs_by_name[k])) for k in ours]
        return target.log_density(z, data), theirs, jnp.stack(off), target.unconstrain(ours, data)

    ours, theirs, off, back = compare(zs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    np.testing.assert_allclose(off, 0, atol=1e-12)
    np.testing.assert_allclose(back, zs, atol=1e-8)


def test_a_refit_compiles_nothing(tfd, count_compiles):
    joint, observed = schools(tfd, np.float32)

    def refit(y):
        b = bbvi.bridges.tfp.from_joint_distribution(joint, y=y)
        solver = bbvi.BatchAndMatch()
        result = bbvi.fit(b.log_joint, b.init, b.data, support=b.support, solver=solver)
        return b, b.postprocess(result.posterior.sample(0, 100))

    first, draws = refit(observed["y"])
    assert jax.tree.map(np.shape, draws) == {"mu": (100,), "tau": (100,), "eta": (100, 8)}
    assert (draws["tau"] > 0).all()
    assert set(first.support) == {"tau"}
    with count_compiles() as compiles:
        second, others = refit(observed["y"] + np.float32(5))
    assert compiles.count == 0
    assert second.log_joint is first.log_joint
    assert others["mu"].mean() > draws["mu"].mean() + 1


def test_a_function_of_covariates(tfd):
    def make(x):
        return tfd.JointDistributionNamedAutoBatched(
            {
                "slope": tfd.Normal(np.float32(0), np.float32(1)),
                "y": lambda slope: tfd.Independent(tfd.Normal(slope * x, np.float32(1)), 1),
            }
        )

    x, y = np.arange(3, dtype=np.float32), np.ones(3, np.float32)
    first = bbvi.bridges.tfp.from_joint_distribution(make, x, y=y)
    second = bbvi.bridges.tfp.from_joint_distribution(make, 2 * x, y=y)
    assert second.log_joint is first.log_joint
    at = {"slope": np.float32(0.5)}
    for b, scale in ((first, 1), (second, 2)):
        expected = tfd.Normal(scale * 0.5 * x, 1.0).log_prob(y).sum()
        expected += tfd.Normal(0.0, 1.0).log_prob(0.5)
        np.testing.assert_allclose(b.log_joint(at, b.data), expected, rtol=1e-5)


def test_what_cannot_be_fitted_says_so(tfd):
    bridge = bbvi.bridges.tfp.from_joint_distribution
    joint = tfd.JointDistributionNamed({"k": tfd.Poisson(3.0)})
    with pytest.raises(InputError, match="args are for a function that makes a joint"):
        bridge(joint, np.ones(2))
    named = tfd.JointDistributionNamed(
        {"k": tfd.Bernoulli(probs=0.5), "y": lambda k: tfd.Normal(jnp.float32(k), 1.0)}
    )
    with pytest.raises(InputError, match="k is discrete: sum it out"):
        bridge(named, y=np.float32(1))


def test_without_tfp(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_probability.substrates.jax", None)
    with pytest.raises(ImportError, match=r"needs tensorflow_probability: pip .* 'bbvi\[tfp\]'"):
        bbvi.bridges.tfp.from_joint_distribution(None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["schools", "cafes", "seeds"])
def test_agrees_with_nuts(tfd, name):
    """TFP's own sampler on its own density; the fit sees the same model through the bridge."""
    tfm = pytest.importorskip("tensorflow_probability.substrates.jax").mcmc
    joint, observed = MODELS[name](tfd, np.float32)
    b = bbvi.bridges.tfp.from_joint_distribution(joint, **observed)
    result = bbvi.fit(b.log_joint, b.init, b.data, support=b.support)
    ours = b.postprocess(result.posterior.sample(0, 10_000))
    pinned = joint.experimental_pin(**observed)
    bijector = pinned.experimental_default_event_space_bijector()

    like = jax.eval_shape(lambda: pinned.sample_unpinned(seed=jax.random.PRNGKey(0)))

    def density(*free):
        z = type(like)(*free)
        log_det = bijector.forward_log_det_jacobian(z)
        return pinned.unnormalized_log_prob(bijector.forward(z)) + log_det

    @jax.jit
    def sample(key):
        kernel = tfm.DualAveragingStepSizeAdaptation(
            tfm.NoUTurnSampler(density, step_size=0.3), 800, target_accept_prob=0.9
        )
        free = jax.eval_shape(bijector.inverse, like)
        start = [jnp.zeros((8, *x.shape)) for x in free]
        return tfm.sample_chain(
            1000, start, kernel=kernel, num_burnin_steps=1000, trace_fn=None, seed=key
        )

    free = [x.reshape(-1, *x.shape[2:]) for x in sample(jax.random.PRNGKey(0))]
    constrained = jax.vmap(lambda *z: bijector.forward(type(like)(*z)))(*free)
    for name, theirs in constrained._asdict().items():
        theirs, mine = np.asarray(theirs), np.asarray(ours[name])
        # entries that are fixed, as in a Cholesky factor, are equal
        error = np.sqrt((theirs.var(0) + mine.var(0)) / 1000) + 1e-6
        np.testing.assert_array_less(np.abs(theirs.mean(0) - mine.mean(0)), 4 * error, err_msg=name)
