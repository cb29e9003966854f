"""Stan models through BridgeStan.

The first part needs a C++ compiler and BridgeStan's sources, and is skipped without them. The
second talks to a stand-in with BridgeStan's interface, so that what is ours is always tested.
"""

import os
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbvi
from bbvi.bridges.stan import from_model
from bbvi.examples import eight_schools
from bbvi.status import InputError

SCHOOLS, ERRORS = (eight_schools().data[name] for name in ("y", "sigma"))


class StandIn:
    """Eight schools with the interface of `bridgestan.StanModel`, written with NumPy."""

    def __init__(self, y):
        self.y = y
        self.calls, self.threads = 0, set()
        self.busy = threading.Lock()

    def param_unc_names(self):
        return ["mu", "tau", *(f"eta.{i}" for i in range(1, 9))]

    def param_names(self, include_tp=False, include_gq=False):
        names = self.param_unc_names()
        names += [f"theta.{i}" for i in range(1, 9)] if include_tp else []
        # a matrix in Stan's order, by columns, and a complex number
        pairs = [(1, 1), (2, 1), (1, 2), (2, 2), (1, 3), (2, 3)]
        names += [f"m.{i}.{j}" for i, j in pairs] if include_gq else []
        return [*names, "c.real", "c.imag"] if include_gq else names

    def param_constrain(self, u, *, include_tp=False, include_gq=False, rng=None):
        assert rng == "rng 7"
        mu, tau, eta = u[0], np.exp(u[1]), u[2:]
        return np.concatenate([[mu, tau], eta, mu + tau * eta, [11, 21, 12, 22, 13, 23, 5, 6]])

    def new_rng(self, seed):
        return f"rng {seed}"

    def log_density_gradient(self, u, *, propto=True, jacobian=True):
        # two calls at once would find it locked
        assert self.busy.acquire(blocking=False)
        try:
            self.calls += 1
            self.threads.add(threading.get_ident())
            if u[1] > 50:
                raise RuntimeError("normal_lpdf: scale is infinite")
            mu, tau, eta = u[0], np.exp(u[1]), u[2:]
            z = (self.y - mu - tau * eta) / ERRORS
            value = u[1] - 0.5 * ((mu / 5) ** 2 + eta @ eta + z @ z) - np.log1p((tau / 5) ** 2)
            slope = z / ERRORS
            in_tau = 1 + tau * (slope @ eta) - 2 * (tau / 5) ** 2 / (1 + (tau / 5) ** 2)
            return value, np.array([slope.sum() - mu / 25, in_tau, *(tau * slope - eta)])
        finally:
            self.busy.release()


def own(params, data):
    """The same density in JAX."""
    mu, log_tau, eta = params["mu_unc"], params["tau_unc"], params["eta_unc"]
    tau = jnp.exp(log_tau)
    z = (data - mu - tau * eta) / ERRORS
    quadratic = (mu / 5) ** 2 + jnp.sum(eta**2) + jnp.sum(z**2)
    return log_tau - 0.5 * quadratic - jnp.log1p((tau / 5) ** 2)


def points(number):
    rng = np.random.default_rng(0)
    return {
        "mu_unc": rng.standard_normal(number),
        "tau_unc": rng.standard_normal(number),
        "eta_unc": rng.standard_normal((number, 8)),
    }


def check_density(b):
    """Values and gradients, one by one, batched, and inside other transformations."""
    xs = points(20)
    expected, slopes = jax.vmap(jax.value_and_grad(own), in_axes=(0, None))(xs, SCHOOLS)
    both = jax.jit(jax.vmap(jax.value_and_grad(b.log_joint), in_axes=(0, None)))
    values, gradients = both(xs, b.data)
    shift = values - expected
    np.testing.assert_allclose(shift, shift[0], atol=1e-9)  # Stan drops constants
    for name in slopes:
        np.testing.assert_allclose(gradients[name], slopes[name], rtol=1e-9, atol=1e-9)
    mapped = jax.jit(lambda xs: jax.lax.map(lambda x: b.log_joint(x, b.data), xs))(xs)
    np.testing.assert_allclose(mapped, values, rtol=1e-12)


# --- the stand-in ------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_density_and_gradient_through_the_callback():
    b = from_model(StandIn(SCHOOLS))
    assert jax.tree.map(np.shape, b.init) == {"mu_unc": (), "tau_unc": (), "eta_unc": (8,)}
    check_density(b)


def test_one_gradient_for_each_draw():
    model = StandIn(SCHOOLS)
    b = from_model(model)
    both = jax.jit(jax.vmap(jax.value_and_grad(b.log_joint), in_axes=(0, None)))
    jax.block_until_ready(both(points(20), b.data))
    assert model.calls == 20


def test_an_error_of_stan_is_a_point_outside():
    b = from_model(StandIn(SCHOOLS))
    far = {**jax.tree.map(np.asarray, b.init), "tau_unc": np.array(60.0)}
    value, gradient = jax.jit(jax.value_and_grad(b.log_joint))(far, b.data)
    assert value == -np.inf
    assert np.isfinite(gradient["eta_unc"]).all()


def test_postprocess_gives_stans_names_and_shapes():
    b = from_model(StandIn(SCHOOLS), seed=7)
    xs = points(5)
    draws = b.postprocess(xs)
    assert {k: v.shape for k, v in draws.items()} == {
        "mu": (5,),
        "tau": (5,),
        "eta": (5, 8),
        "theta": (5, 8),
        "m": (5, 2, 3),
        "c.real": (5,),
        "c.imag": (5,),
    }
    np.testing.assert_allclose(draws["tau"], np.exp(xs["tau_unc"]), rtol=1e-6)
    expected = draws["mu"][:, None] + draws["tau"][:, None] * draws["eta"]
    np.testing.assert_allclose(draws["theta"], expected, rtol=1e-6)
    np.testing.assert_array_equal(draws["m"][0], [[11, 12, 13], [21, 22, 23]])


def test_a_refit_with_other_data_compiles_nothing(count_compiles):
    def refit(y):
        b = from_model(StandIn(y), seed=7)
        result = bbvi.fit(b.log_joint, b.init, b.data, solver=bbvi.BatchAndMatch())
        return b, result.posterior.mean()["mu_unc"]

    first, mean = refit(SCHOOLS)
    with count_compiles() as compiles:
        second, other = refit(SCHOOLS + 5)
    assert compiles.count == 0
    assert second.log_joint == first.log_joint
    assert other > mean + 1


def test_data_are_given_once():
    with pytest.raises(InputError, match="holds its data: give data with a path only"):
        from_model(StandIn(SCHOOLS), {"y": SCHOOLS})


def test_without_bridgestan(monkeypatch):
    monkeypatch.setitem(sys.modules, "bridgestan", None)
    with pytest.raises(ImportError, match=r"from_model needs bridgestan: pip .* 'bbvi\[stan\]'"):
        from_model("schools.stan", {})


# --- the real one ------------------------------------------------------------------------

PROGRAM = """
data { int<lower=0> J; vector[J] y; vector<lower=0>[J] sigma; }
parameters { real mu; real<lower=0> tau; vector[J] eta; }
transformed parameters { vector[J] theta = mu + tau * eta; }
model {
  mu ~ normal(0, 5);
  tau ~ cauchy(0, 5);
  eta ~ std_normal();
  y ~ normal(theta, sigma);
}
generated quantities {
  matrix[2, 3] m;
  for (i in 1:2) for (j in 1:3) m[i, j] = 10 * i + j;
}
"""
DATA = {"J": 8, "y": SCHOOLS, "sigma": ERRORS}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    compiled = compiled_model(tmp_path_factory.mktemp("stan"))
    return from_model(compiled, DATA)


def compiled_model(folder):
    """The path of the compiled program; a skip where it cannot be built here."""
    given = os.environ.get("BBVI_TEST_STAN_MODEL")  # a library built from PROGRAM
    if given:
        return given
    bridgestan = pytest.importorskip("bridgestan")
    where = "a C++ compiler, and BridgeStan's sources at BRIDGESTAN or in ~/.bridgestan"
    # nothing is downloaded by a test
    if not bridgestan.compile.get_bridgestan_path(download=False):
        pytest.skip(f"compiling a Stan model needs {where}")
    path = folder / "schools.stan"
    path.write_text(PROGRAM)
    try:
        return bridgestan.compile_model(path)
    except RuntimeError as error:
        pytest.skip(f"compiling a Stan model needs {where}: {error}")


@pytest.mark.usefixtures("x64")
@pytest.mark.filterwarnings("ignore")
def test_density_and_gradient_of_stan(real):
    check_density(real)


@pytest.mark.filterwarnings("ignore")
def test_values_of_stan(real):
    xs = points(5)
    draws = real.postprocess(xs)
    assert {"mu", "tau", "eta", "theta", "m"} <= set(draws)
    np.testing.assert_allclose(draws["tau"], np.exp(xs["tau_unc"]), rtol=1e-6)
    np.testing.assert_array_equal(draws["m"][0], [[11, 12, 13], [21, 22, 23]])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_default_fit_of_a_stan_model(real):
    result = bbvi.fit(real.log_joint, real.init, real.data)
    draws = real.postprocess(result.posterior.sample(0, 4000))
    # from 200,000 draws of NUTS, see test_bridges_mcmc.py
    assert abs(draws["mu"].mean() - 4.405) < 4 * 3.33 / np.sqrt(1500)
    assert abs(draws["tau"].mean() - 3.594) < 4 * 3.22 / np.sqrt(1500)
