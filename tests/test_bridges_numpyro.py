"""NumPyro models: densities, names, supports, refits."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from real_data import SEEDS

import bbvi
from bbvi.bridges.base import HomeSupport
from bbvi.examples import eight_schools
from bbvi.inputs import make_target
from bbvi.status import BBVIWarning, InputError

numpyro = pytest.importorskip("numpyro")
dist = pytest.importorskip("numpyro.distributions")
handlers = pytest.importorskip("numpyro.handlers")

from bbvi.bridges.numpyro import from_model  # noqa: E402

# --- four models ------------------------------------------------------------------------

SCHOOLS, ERRORS = (eight_schools().data[name] for name in ("y", "sigma"))


def schools(num_schools, sigma, y=None):
    """Effects of coaching in schools, non-centred by a reparametrisation of NumPyro."""
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    effect = dist.TransformedDistribution(
        dist.Normal(0, 1), dist.transforms.AffineTransform(mu, tau)
    )
    reparam = {"theta": numpyro.infer.reparam.TransformReparam()}
    with numpyro.plate("school", num_schools), handlers.reparam(config=reparam):
        theta = numpyro.sample("theta", effect)
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def cafes(cafe, afternoon, wait=None, num_cafes=5):
    """Waiting times with correlated intercepts and slopes by cafe."""
    a = numpyro.sample("a", dist.Normal(5, 2))
    b = numpyro.sample("b", dist.Normal(-1, 0.5))
    scale = numpyro.sample("scale", dist.Exponential(1).expand([2]).to_event(1))
    noise = numpyro.sample("noise", dist.TruncatedNormal(0, 1, low=0.05))
    factor = numpyro.sample("factor", dist.LKJCholesky(2, concentration=2.0))
    with numpyro.plate("cafe", num_cafes):
        effect = numpyro.sample("effect", dist.Normal(0, 1).expand([2]).to_event(1))
    shift = numpyro.deterministic("shift", effect @ (scale[:, None] * factor).T)
    mean = a + shift[cafe, 0] + (b + shift[cafe, 1]) * afternoon
    numpyro.sample("wait", dist.Normal(mean, noise), obs=wait)


def galaxies(velocity):
    """Velocities of galaxies: a mixture of three clusters, ordered by their centres."""
    weight = numpyro.sample("weight", dist.Dirichlet(jnp.full(3, 2.0)))
    ordered = dist.TransformedDistribution(
        dist.Normal(20, 10).expand([3]).to_event(1), dist.transforms.OrderedTransform()
    )
    centre = numpyro.sample("centre", ordered)
    spread = numpyro.sample("spread", dist.LogNormal(0, 1).expand([3]).to_event(1))
    low = numpyro.sample("low", dist.Uniform(0.0, jnp.min(velocity)))
    shape = numpyro.sample("shape", dist.Uniform(low, low + 10.0))
    parts = dist.Normal(centre + shape - low, spread)
    mixture = dist.MixtureSameFamily(dist.Categorical(probs=weight), parts)
    numpyro.sample("velocity", mixture, obs=velocity)


def seeds(seeds, variety, extract, germinated=None):
    """Germination on plates: a logistic regression with an effect of each plate."""
    level = numpyro.sample("level", dist.Normal(0, 2))
    slope = numpyro.sample("slope", dist.Normal(0, 2).expand([3]).to_event(1))
    spread = numpyro.sample("spread", dist.HalfNormal(1))
    with numpyro.plate("plate", 21):
        effect = numpyro.sample("effect", dist.Normal(0, 1))
        terms = slope[0] * variety + slope[1] * extract + slope[2] * variety * extract
        logit = numpyro.deterministic("logit", level + terms + spread * effect)
        numpyro.sample("germinated", dist.Binomial(seeds, logits=logit), obs=germinated)


def cafe_data():
    rng = np.random.default_rng(1)
    cafe = np.repeat(np.arange(5), 8)
    afternoon = np.tile([0.0, 1.0], 20)
    wait = 4 + 0.5 * cafe - afternoon + 0.5 * rng.standard_normal(40)
    return {"cafe": cafe, "afternoon": afternoon, "wait": wait}


VELOCITY = np.array([9.2, 9.4, 10.1, 18.6, 19.1, 19.5, 20.2, 20.8, 22.4, 23.1, 32.1, 33.0, 34.3])

MODELS = {
    "schools": (schools, (8, ERRORS), {"y": SCHOOLS}),
    "cafes": (cafes, (), cafe_data()),
    "galaxies": (galaxies, (VELOCITY,), {}),
    "seeds": (seeds, (), SEEDS),
}


@pytest.fixture(params=list(MODELS), scope="module")
def case(request):
    return MODELS[request.param]


# --- the density -------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_log_joint_is_numpyros(case):
    model, args, kwargs = case
    b = from_model(model, *args, **kwargs)
    seeded = handlers.seed(model, 0)

    def free_shapes():
        sites = handlers.trace(seeded).get_trace(*args, **kwargs).values()
        latent = [s for s in sites if s["type"] == "sample" and not s["is_observed"]]
        return {
            s["name"]: jnp.zeros(dist.biject_to(s["fn"].support).inverse_shape(s["value"].shape))
            for s in latent
        }

    shapes = jax.eval_shape(free_shapes)
    assert set(b.init) == set(shapes)
    rng = np.random.default_rng(0)
    zs = {k: rng.standard_normal((20, *x.shape)) for k, x in shapes.items()}

    @jax.jit
    @jax.vmap
    def compare(z):
        """Both log densities of the constrained values; theirs from their potential."""
        params = numpyro.infer.util.constrain_fn(seeded, args, kwargs, z)
        potential = numpyro.infer.util.potential_energy(seeded, args, kwargs, z)
        sites = handlers.trace(handlers.substitute(seeded, params)).get_trace(*args, **kwargs)
        log_det = 0.0
        for name, value in z.items():
            transform = dist.biject_to(sites[name]["fn"].support)
            log_det += jnp.sum(transform.log_abs_det_jacobian(value, transform(value)))
        return b.log_joint(params, b.data), -potential - log_det

    ours, theirs = compare(zs)
    assert ours.shape == (20,)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_supports_hold_numpyros_values(case):
    model, args, kwargs = case
    b = from_model(model, *args, **kwargs)
    target, init, data = make_target(b.log_joint, b.init, b.data, b.support)
    zs = np.random.default_rng(1).standard_normal((20, target.dim))

    @jax.jit
    @jax.vmap
    def look(z):
        params = target.constrain(z, data)
        bound = [x.bijector.bind(params, data) for x in target.leaves]
        inside = [f.contains(params[x.name]) for f, x in zip(bound, target.leaves, strict=True)]
        return target.unconstrain(params, data), jnp.stack(inside), b.log_joint(params, data)

    back, inside, log_joint = look(zs)
    np.testing.assert_allclose(back, zs, atol=1e-8)
    assert inside.all()
    assert np.isfinite(log_joint).all()


def test_supports_of_the_models():
    b = from_model(cafes, **MODELS["cafes"][2])
    assert b.support == {
        "factor": bbvi.corr_cholesky,
        "noise": bbvi.greater_than(np.float32(0.05)),
        "scale": bbvi.positive,
    }
    b = from_model(galaxies, VELOCITY)
    # bounds that depend on data or on other sites are NumPyro's
    kinds = {name: type(x) for name, x in b.support.items()}
    assert kinds["low"] is kinds["shape"] is HomeSupport
    assert b.support["weight"] is bbvi.simplex
    assert b.support["centre"] is bbvi.ordered


# --- the fit -----------------------------------------------------------------------------


def test_a_refit_compiles_nothing(count_compiles):
    def refit(y):
        b = from_model(schools, 8, ERRORS, y=y)
        solver = bbvi.BatchAndMatch()
        result = bbvi.fit(b.log_joint, b.init, b.data, support=b.support, solver=solver)
        return b, result, b.postprocess(result.posterior.sample(0, 100))

    first, result, draws = refit(SCHOOLS)
    # names and values are NumPyro's, deterministic sites with them
    assert set(result.posterior.mean()) == {"mu", "tau", "theta_base"}
    assert jax.tree.map(np.shape, draws) == {
        "mu": (100,),
        "tau": (100,),
        "theta": (100, 8),
        "theta_base": (100, 8),
    }
    expected = draws["mu"][:, None] + draws["tau"][:, None] * draws["theta_base"]
    np.testing.assert_allclose(draws["theta"], expected, rtol=1e-4, atol=1e-4)
    assert (draws["tau"] > 0).all()
    with count_compiles() as compiles:
        second, other, _ = refit(SCHOOLS + 5)
    assert compiles.count == 0
    assert second.log_joint is first.log_joint
    # and the data are the new ones
    assert other.posterior.mean()["mu"] > result.posterior.mean()["mu"] + 1


def test_bounds_follow_the_data():
    first, second = from_model(galaxies, VELOCITY), from_model(galaxies, VELOCITY / 100)
    assert second.log_joint is first.log_joint
    assert second.support == first.support
    assert first.init["low"] > VELOCITY.min() / 100 > second.init["low"]
    target, init, data = make_target(second.log_joint, second.init, second.data, second.support)
    low = jax.jit(target.constrain)(jnp.full(target.dim, 1.0), data)["low"]
    np.testing.assert_allclose(low, jax.nn.sigmoid(1.0) * VELOCITY.min() / 100, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["schools", "cafes", "seeds"])
def test_agrees_with_nuts(name):
    model, args, kwargs = MODELS[name]
    b = from_model(model, *args, **kwargs)
    result = bbvi.fit(b.log_joint, b.init, b.data, support=b.support)
    assert result.verdict.level == "trusted"
    ours = b.postprocess(result.posterior.sample(0, 10_000))
    mcmc = numpyro.infer.MCMC(
        numpyro.infer.NUTS(model, target_accept_prob=0.95),
        num_warmup=1000,
        num_samples=2000,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.PRNGKey(1), *args, **kwargs)
    theirs = mcmc.get_samples()
    assert set(theirs) == set(ours)
    for name in theirs:
        a, n = np.asarray(ours[name]), np.asarray(theirs[name])
        # at least 1,000 effective draws on either side; entries that are fixed are equal
        error = np.sqrt((a.var(0) + n.var(0)) / 1000) + 1e-6
        np.testing.assert_array_less(np.abs(a.mean(0) - n.mean(0)), 4 * error, err_msg=name)


# --- arguments ---------------------------------------------------------------------------


def test_settings_and_data():
    b = from_model(schools, 8, ERRORS, y=SCHOOLS)
    assert set(b.data) == {"sigma", "y"}
    assert from_model(schools, 4, ERRORS[:4], y=SCHOOLS[:4]).log_joint is not b.log_joint
    # without observations: the prior
    assert "y" in from_model(schools, 8, ERRORS).init


def by_group(group, y):
    with numpyro.plate("groups", len(np.unique(group))):
        mean = numpyro.sample("mean", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(mean[group], 1), obs=y)


def test_a_model_that_needs_concrete_arguments():
    group, y = np.array([0, 1, 1]), np.array([1.0, 2.0, 3.0])
    with pytest.warns(BBVIWarning, match="uses its arguments outside of JAX"):
        b = from_model(by_group, group, y)
    assert b.data is None
    assert b.init["mean"].shape == (2,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BBVIWarning)
        assert from_model(by_group, group, y).log_joint is b.log_joint
        assert from_model(by_group, group, y + 1).log_joint is not b.log_joint


def discrete():
    numpyro.sample("k", dist.Poisson(3.0))


def unpriored():
    numpyro.param("w", 0.0)


def subsampled(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("rows", 10, subsample_size=5) as rows:
        numpyro.sample("y", dist.Normal(mu, 1), obs=y[rows])


def nothing_latent(y):
    numpyro.sample("y", dist.Normal(0, 1), obs=y)


@pytest.mark.parametrize(
    ("model", "args", "words"),
    [
        (discrete, (), "latent site k is discrete: sum it out"),
        (unpriored, (), "param site w, which has no prior: make it a"),
        (subsampled, (np.zeros(10),), "plate rows draws a subsample: .*leave out"),
        (nothing_latent, (np.zeros(3),), "no latent site: nothing is left to fit"),
    ],
)
def test_what_cannot_be_fitted_says_so(model, args, words):
    with pytest.raises(InputError, match=words):
        from_model(model, *args)
