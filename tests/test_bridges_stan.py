"""Stan models through BridgeStan.

The first part needs a C++ compiler and BridgeStan's sources, and is skipped without them. The
second talks to a stand-in with BridgeStan's interface, so that what is ours is always tested.
"""

import json
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

PROGRAMS = {
    "schools": """
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
""",
    # waiting times with correlated intercepts and slopes by cafe
    "cafes": """
data {
  int<lower=1> N; int<lower=1> K;
  array[N] int<lower=1, upper=K> cafe; vector[N] afternoon; vector[N] wait;
}
parameters {
  real a; real b; vector<lower=0>[2] scale; real<lower=0.05> noise;
  cholesky_factor_corr[2] factor; matrix[2, K] effect;
}
transformed parameters { matrix[2, K] shift = diag_pre_multiply(scale, factor) * effect; }
model {
  a ~ normal(5, 2);
  b ~ normal(-1, 0.5);
  scale ~ exponential(1);
  noise ~ normal(0, 1);
  factor ~ lkj_corr_cholesky(2);
  to_vector(effect) ~ std_normal();
  for (n in 1:N)
    wait[n] ~ normal(a + shift[1, cafe[n]] + (b + shift[2, cafe[n]]) * afternoon[n], noise);
}
""",
    # velocities of galaxies: a mixture of three clusters, ordered by their centres
    "galaxies": """
data { int<lower=1> N; vector[N] velocity; }
parameters { simplex[3] weight; ordered[3] centre; vector<lower=0>[3] spread; }
model {
  weight ~ dirichlet(rep_vector(2, 3));
  centre ~ normal([10, 21, 33]', 3);
  spread ~ lognormal(0, 1);
  for (n in 1:N) {
    vector[3] part;
    for (k in 1:3) part[k] = log(weight[k]) + normal_lpdf(velocity[n] | centre[k], spread[k]);
    target += log_sum_exp(part);
  }
}
""",
}
_RNG = np.random.default_rng(1)
CAFE = np.repeat(np.arange(5), 8)
AFTERNOON = np.tile([0.0, 1.0], 20)
WAIT = 4 + 0.5 * CAFE - AFTERNOON + 0.5 * _RNG.standard_normal(40)
# Roeder 1990, Journal of the American Statistical Association 85(411), in km/s
VELOCITY = (
    np.array(
        """
    9172 9350 9483 9558 9775 10227 10406 16084 16170 18419 18552 18600 18927 19052 19070 19330
    19343 19349 19440 19473 19529 19541 19547 19663 19846 19856 19863 19914 19918 19973 19989
    20166 20175 20179 20196 20215 20221 20415 20629 20795 20821 20846 20875 20986 21137 21492
    21701 21814 21921 21960 22185 22209 22242 22249 22314 22374 22495 22746 22747 22888 22914
    23206 23241 23263 23484 23538 23542 23666 23706 23711 24129 24285 24289 24366 24717 24990
    25633 26690 26995 32065 32789 34279
    """.split(),
        float,
    )
    / 1000
)
DATA = {
    "schools": {"J": 8, "y": SCHOOLS, "sigma": ERRORS},
    "cafes": {"N": 40, "K": 5, "cafe": CAFE + 1, "afternoon": AFTERNOON, "wait": WAIT},
    "galaxies": {"N": 82, "velocity": VELOCITY},
}


# Where NUTS starts: from random points most of its chains stay in modes of the mixture that have
# e^-12 of the mass.
STARTS = {"galaxies": np.array([0.1, 0.8, 0.1, 10, 21, 33, 1, 2, 2])}


@pytest.fixture(scope="module", params=list(PROGRAMS))
def real(request, tmp_path_factory):
    """Stan's model and what the bridge makes of it."""
    name = request.param
    compiled = compiled_model(name, tmp_path_factory.mktemp("stan"))
    bridgestan = pytest.importorskip("bridgestan")
    text = json.dumps(DATA[name], default=lambda x: np.asarray(x).tolist())
    return name, bridgestan.StanModel(compiled, data=text), from_model(compiled, DATA[name])


def compiled_model(name, folder):
    """The path of a compiled program; a skip where it cannot be built here."""
    given = os.environ.get("BBVI_TEST_STAN_MODELS")  # a folder of libraries built from PROGRAMS
    if given:
        return os.path.join(given, f"{name}_model.so")
    bridgestan = pytest.importorskip("bridgestan")
    where = "a C++ compiler, and BridgeStan's sources at BRIDGESTAN or in ~/.bridgestan"
    # nothing is downloaded by a test
    if not bridgestan.compile.get_bridgestan_path(download=False):
        pytest.skip(f"compiling a Stan model needs {where}")
    path = folder / f"{name}.stan"
    path.write_text(PROGRAMS[name])
    try:
        return bridgestan.compile_model(path)
    except RuntimeError as error:
        pytest.skip(f"compiling a Stan model needs {where}: {error}")


def structured(b, rows):
    """Unconstrained rows (S, D) in Stan's order as the bridge's parameters."""
    sizes = [(name, np.shape(value)) for name, value in b.init.items()]
    ends = np.cumsum([int(np.prod(shape)) for _, shape in sizes])
    parts = np.split(rows, ends[:-1], axis=1)
    return {n: x.reshape(-1, *shape) for (n, shape), x in zip(sizes, parts, strict=True)}


@pytest.mark.usefixtures("x64")
@pytest.mark.filterwarnings("ignore")
def test_density_and_gradient_of_stan(real):
    name, model, b = real
    if name == "schools":
        check_density(b)
    rows = 0.7 * np.random.default_rng(3).standard_normal((20, model.param_unc_num()))
    both = jax.jit(jax.vmap(jax.value_and_grad(b.log_joint), in_axes=(0, None)))
    values, gradients = both(structured(b, rows), b.data)
    for i, row in enumerate(rows):
        expected, slope = model.log_density_gradient(row, propto=True, jacobian=True)
        np.testing.assert_allclose(values[i], expected, rtol=1e-10)
        whole = structured(b, slope[None])
        for leaf, found in gradients.items():
            np.testing.assert_allclose(found[i], whole[leaf][0], rtol=1e-8, atol=1e-10)


@pytest.mark.filterwarnings("ignore")
def test_values_of_stan(real):
    name, model, b = real
    rows = 0.7 * np.random.default_rng(4).standard_normal((5, model.param_unc_num()))
    draws = b.postprocess(structured(b, rows))
    names = model.param_names(include_tp=True, include_gq=True)
    assert set(draws) == {n.split(".")[0] for n in names}
    for i, row in enumerate(rows):
        rng = model.new_rng(0)
        values = model.param_constrain(row, include_tp=True, include_gq=True, rng=rng)
        for entry, value in zip(names, values, strict=True):
            leaf, *index = entry.split(".")
            found = draws[leaf][(i, *(int(k) - 1 for k in index))]
            np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)
    if name == "schools":
        np.testing.assert_array_equal(draws["m"][0], [[11, 12, 13], [21, 22, 23]])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_agrees_with_nuts(real):
    """With nutpie's NUTS on Stan's own density and gradient."""
    nutpie = pytest.importorskip("nutpie")
    array_stats = pytest.importorskip("arviz_stats.base").array_stats
    name, model, b = real
    dim = model.param_unc_num()
    start = model.param_unconstrain(STARTS[name]) if name in STARTS else np.zeros(dim)
    lock = threading.Lock()

    def make_density():
        def density(row):
            with lock:
                try:
                    return model.log_density_gradient(row, propto=True, jacobian=True)
                except RuntimeError:  # a point outside
                    return -np.inf, np.zeros(dim)

        return density

    sampler = nutpie.compiled_pyfunc.from_pyfunc(
        dim,
        make_density,
        lambda seed, number, chain: lambda row: {"u": row},
        expanded_dtypes=[np.dtype(np.float64)],
        expanded_shapes=[(dim,)],
        expanded_names=["u"],
        make_initial_point_fn=lambda seed: start + np.random.default_rng(seed).normal(0, 0.1, dim),
    )
    settings = {"draws": 2000, "tune": 1000, "chains": 4, "target_accept": 0.95}
    tree = nutpie.sample(sampler, seed=1, progress_bar=False, **settings)
    rows = tree["posterior"]["u"].values
    result = bbvi.fit(b.log_joint, b.init, b.data)
    assert result.verdict.level == "trusted", str(result.verdict)
    ours = b.postprocess(result.posterior.sample(0, 4000))
    theirs = b.postprocess(structured(b, rows.reshape(-1, dim)))
    for name, found in ours.items():
        chains = theirs[name].reshape(4, 2000, -1)
        found = np.asarray(found).reshape(4000, -1)
        for i in np.flatnonzero(found.std(0) > 1e-6):
            x = chains[:, :, i]
            size = 1 / (1 / array_stats.ess(x, chain_axis=0, draw_axis=1) + 1 / 1000)
            error = 4 * x.std() / np.sqrt(size)
            assert abs(found[:, i].mean() - x.mean()) < error, (name, i)
