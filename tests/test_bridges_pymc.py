"""PyMC and Bambi models: densities, names, refits."""

import sys
import warnings

import jax
import numpy as np
import pytest
from real_data import SEEDS, STACK_LOSS

import bbvi
from bbvi.examples import eight_schools
from bbvi.status import InputError


@pytest.fixture(scope="module")
def pm():
    """PyMC; loading its JAX backend switches JAX to 64 bits, which is undone afterwards."""
    before = jax.config.jax_enable_x64
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pm = pytest.importorskip("pymc")
        pytest.importorskip("pymc.sampling.jax")
    jax.config.update("jax_enable_x64", True)
    yield pm
    jax.config.update("jax_enable_x64", before)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


SCHOOLS, ERRORS = (eight_schools().data[name] for name in ("y", "sigma"))


def schools(pm):
    with pm.Model(coords={"school": range(8)}) as model:
        y = pm.Data("effect", SCHOOLS, dims="school")
        mu, tau = pm.Normal("mu", 0, 5), pm.HalfCauchy("tau", 5)
        eta = pm.Normal("eta", 0, 1, dims="school")
        theta = pm.Deterministic("theta", mu + tau * eta)
        pm.Normal("y", theta, ERRORS, observed=y)
    return model


def cafes(pm):
    """Correlated intercepts and slopes of waiting times by cafe."""
    rng = np.random.default_rng(1)
    cafe, afternoon = np.repeat(np.arange(5), 8), np.tile([0.0, 1.0], 20)
    wait = 4 + 0.5 * cafe - afternoon + 0.5 * rng.standard_normal(40)
    with pm.Model() as model:
        cafe_data, afternoon_data = pm.Data("cafe", cafe), pm.Data("afternoon", afternoon)
        mean = pm.Normal("mean", [5, -1], [2, 0.5])
        factor, _, _ = pm.LKJCholeskyCov(
            "factor", n=2, eta=2.0, sd_dist=pm.Exponential.dist(1.0, shape=2)
        )
        unit = pm.Normal("unit", 0, 1, shape=(5, 2))
        effect = pm.Deterministic("effect", mean + pm.math.dot(unit, factor.T))
        noise = pm.TruncatedNormal("noise", 0, 1, lower=0.05)
        expected = effect[cafe_data, 0] + effect[cafe_data, 1] * afternoon_data
        pm.Normal("wait", expected, noise, observed=wait)
    return model


def galaxies(pm):
    """A mixture of three ordered clusters, and a bound that depends on another variable."""
    velocity = [9.2, 9.4, 10.1, 18.6, 19.1, 19.5, 20.2, 20.8, 22.4, 23.1, 32.1, 33.0, 34.3]
    with pm.Model() as model:
        y = pm.Data("velocity", velocity)
        weight = pm.Dirichlet("weight", np.full(3, 2.0))
        centre = pm.Normal("centre", 20, 10, shape=3, transform=pm.distributions.transforms.ordered)
        low = pm.HalfNormal("low", 1.0)
        spread = pm.Uniform("spread", low, low + 5.0, shape=3)
        pm.NormalMixture("y", weight, centre, sigma=spread, observed=y)
    return model


def seeds(pm):
    """Germination on plates: a logistic regression with an effect of each plate."""
    with pm.Model() as model:
        variety, extract = (
            pm.Data("variety", SEEDS["variety"]),
            pm.Data("extract", SEEDS["extract"]),
        )
        level, slope = pm.Normal("level", 0, 2), pm.Normal("slope", 0, 2, shape=3)
        spread, effect = pm.HalfNormal("spread", 1), pm.Normal("effect", 0, 1, shape=21)
        terms = slope[0] * variety + slope[1] * extract + slope[2] * variety * extract
        logit = pm.Deterministic("logit", level + terms + spread * effect)
        pm.Binomial("germinated", SEEDS["seeds"], logit_p=logit, observed=SEEDS["germinated"])
    return model


MODELS = {"schools": schools, "cafes": cafes, "galaxies": galaxies, "seeds": seeds}


@pytest.mark.parametrize("name", MODELS)
def test_log_joint_is_pymcs(pm, name):
    model = MODELS[name](pm)
    b = bbvi.bridges.pymc.from_model(model)
    assert set(b.init) == {v.name for v in model.value_vars}
    assert set(b.data) == {v.name for v in model.data_vars}
    rng = np.random.default_rng(0)
    points = {k: v + 0.5 * rng.standard_normal((20, *v.shape)) for k, v in b.init.items()}
    ours = jax.jit(jax.vmap(b.log_joint, in_axes=(0, None)))(points, b.data)
    # PyTensor's own compilation of the same model, not through JAX
    own = model.compile_fn(
        model.logp(), inputs=model.value_vars, point_fn=True, mode="FAST_COMPILE"
    )
    theirs = [own({k: v[i] for k, v in points.items()}) for i in range(20)]
    assert np.isfinite(theirs).all()
    # PyTensor's erfcx differs between its backends by 1e-9
    np.testing.assert_allclose(ours, theirs, rtol=1e-7)


def test_postprocess_gives_pymcs_names_and_values(pm):
    model = cafes(pm)
    b = bbvi.bridges.pymc.from_model(model)
    rng = np.random.default_rng(0)
    points = {k: v + 0.5 * rng.standard_normal((4, *v.shape)) for k, v in b.init.items()}
    draws = b.postprocess(points)
    variables = model.unobserved_RVs
    assert set(draws) == {v.name for v in variables}
    own = model.compile_fn(
        model.replace_rvs_by_values(variables), inputs=model.value_vars, mode="FAST_COMPILE"
    )
    for i in range(4):
        theirs = own({k: v[i] for k, v in points.items()})
        for variable, value in zip(variables, theirs, strict=True):
            np.testing.assert_allclose(draws[variable.name][i], value, rtol=1e-9, atol=1e-12)
    assert (draws["noise"] > 0.05).all()
    assert draws["factor_corr"].shape == (4, 2, 2)


def test_a_refit_compiles_nothing(pm, count_compiles):
    model = schools(pm)

    def refit():
        b = bbvi.bridges.pymc.from_model(model)
        result = bbvi.fit(b.log_joint, b.init, b.data, solver=bbvi.BatchAndMatch())
        return b, b.postprocess(result.posterior.sample(0, 100))

    first, draws = refit()
    assert draws["theta"].shape == (100, 8)
    expected = draws["mu"][:, None] + draws["tau"][:, None] * draws["eta"]
    np.testing.assert_allclose(draws["theta"], expected, rtol=1e-9)
    with model:
        pm.set_data({"effect": SCHOOLS + 5})
    with count_compiles() as compiles:
        second, others = refit()
    assert compiles.count == 0
    assert second.log_joint is first.log_joint
    assert others["mu"].mean() > draws["mu"].mean() + 1


def test_a_model_that_grew(pm):
    model = schools(pm)
    first = bbvi.bridges.pymc.from_model(model)
    with model:
        pm.Normal("more", 0, 1)
    second = bbvi.bridges.pymc.from_model(model)
    assert "more" in second.init
    assert "more" not in first.init
    assert second.log_joint is not first.log_joint


def test_what_cannot_be_fitted_says_so(pm):
    with pm.Model() as model:
        pm.Poisson("k", 3)
    with pytest.raises(InputError, match="k is discrete: sum it out"):
        bbvi.bridges.pymc.from_model(model)
    with pm.Model() as model:
        pm.Normal("y", 0, 1, observed=1.0)
    with pytest.raises(InputError, match="no free variable: nothing is left to fit"):
        bbvi.bridges.pymc.from_model(model)


def test_without_pymc(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymc", None)
    with pytest.raises(ImportError, match=r"from_model needs pymc: pip install 'bbvi\[pymc\]'"):
        bbvi.bridges.pymc.from_model(None)


def agrees(ours, pm, model):
    """Means of all draws within errors of those of PyMC's own NUTS."""
    with model:
        settings = {"chains": 4, "cores": 1, "random_seed": 1, "progressbar": False}
        trace = pm.sample(1000, tune=1000, nuts_sampler="pymc", target_accept=0.95, **settings)
    for name in trace.posterior:
        theirs = np.asarray(trace.posterior[name])
        theirs = theirs.reshape(-1, *theirs.shape[2:])
        error = np.sqrt((theirs.var(0) + np.asarray(ours[name]).var(0)) / 800) + 1e-6
        off = np.abs(theirs.mean(0) - np.asarray(ours[name]).mean(0))
        np.testing.assert_array_less(off, 4 * error, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["schools", "cafes", "seeds"])
def test_agrees_with_nuts(pm, name):
    model = MODELS[name](pm)
    b = bbvi.bridges.pymc.from_model(model)
    result = bbvi.fit(b.log_joint, b.init, b.data)
    ours = b.postprocess(result.posterior.sample(0, 10_000))
    agrees(ours, pm, model)


# --- Bambi -------------------------------------------------------------------------------


def test_a_bambi_formula(pm):
    bambi = pytest.importorskip("bambi")
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame({"x": rng.standard_normal(60), "group": np.repeat(list("abc"), 20)})
    frame["y"] = 1 + 2 * frame["x"] + 0.3 * rng.standard_normal(60)
    b = bbvi.bridges.pymc.from_bambi(bambi.Model("y ~ x + (1|group)", frame))
    result = bbvi.fit(b.log_joint, b.init, b.data, solver=bbvi.BatchAndMatch(), throw=False)
    draws = b.postprocess(result.posterior.sample(0, 1000))
    assert {"Intercept", "x", "1|group", "1|group_sigma", "sigma"} <= set(draws)
    assert draws["1|group"].shape == (1000, 3)
    np.testing.assert_allclose(draws["x"].mean(), 2, atol=0.2)


def formulas():
    """A regression, one with robust errors, and one with an effect of each plate."""
    pandas = pytest.importorskip("pandas")
    stack = pandas.DataFrame(STACK_LOSS, columns=["air", "water", "acid", "loss"])
    plates = pandas.DataFrame(SEEDS).assign(plate=[f"p{i}" for i in range(21)])
    chances = "p(germinated, seeds) ~ variety * extract + (1|plate)"
    return {
        "regression": ("loss ~ air + water + acid", stack, {}),
        "robust": ("loss ~ air + water", stack, {"family": "t"}),
        "seeds": (chances, plates, {"family": "binomial"}),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["regression", "robust", "seeds"])
def test_bambi_agrees_with_nuts(pm, name):
    bambi = pytest.importorskip("bambi")
    formula, frame, settings = formulas()[name]
    model = bambi.Model(formula, frame, **settings)
    b = bbvi.bridges.pymc.from_bambi(model)
    result = bbvi.fit(b.log_joint, b.init, b.data)
    assert result.verdict.level == "trusted", str(result.verdict)
    agrees(b.postprocess(result.posterior.sample(0, 10_000)), pm, model.backend.model)


def test_without_bambi(monkeypatch):
    monkeypatch.setitem(sys.modules, "bambi", None)
    with pytest.raises(ImportError, match=r"from_bambi needs bambi: pip install 'bbvi\[bambi\]'"):
        bbvi.bridges.pymc.from_bambi(None)
