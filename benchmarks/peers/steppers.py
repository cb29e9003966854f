"""A number of steps of each tool's mean-field or low-rank loop, as one compiled program.

Every stepper is `make(log_density, dim, draws, data)`, giving `run(steps, key, data)` for a static
number of steps, which returns its last state. This is kinder to the tools than their own entry
points where those compile on every call.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

import bbvi

Density = Callable  # (z (D,), data) -> scalar
RATE, RANK = 0.01, 10


def bare(log_density: Density, dim: int, draws: int, data) -> Callable:
    """The draws and the gradient of a mean-field bound alone: no state, no optimizer."""

    def run(steps, key, data):
        def step(params, t):
            eps = jax.random.normal(jax.random.fold_in(key, t), (draws, dim))

            def loss(params):
                loc, log_scale = params
                z = loc + jnp.exp(log_scale) * eps
                return -jnp.mean(jax.vmap(lambda z: log_density(z, data))(z)) - log_scale.sum()

            value, grad = jax.value_and_grad(loss)(params)
            return jax.tree.map(lambda p, g: p - 1e-6 * g, params, grad), value

        start = jnp.zeros(dim), jnp.full(dim, -2.0)
        return jax.lax.scan(step, start, jnp.arange(steps))

    return run


def of_bbvi(family: bbvi.Family) -> Callable:
    def make(log_density, dim, draws, data):
        # a tolerance that is never met: the stop is computed, and the loop runs on
        objective = bbvi.ELBO(num_draws=draws, antithetic=draws > 1, entropy="monte_carlo")
        solver = bbvi.StochasticGradient(family, objective, tolerance=1e-12)
        target, _, _ = bbvi.make_target(log_density, jnp.zeros(dim), data, None)

        def run(steps, key, data):
            state = solver.init(target, jnp.zeros(dim), jnp.full(dim, 0.1), key, data)
            return solver.advance(target, state, data, jnp.int32(steps))

        return run

    return make


def of_numpyro(guide: str, **settings) -> Callable:
    def make(log_density, dim, draws, data):
        import numpyro
        import numpyro.distributions as dist
        from numpyro.infer import SVI, Trace_ELBO, autoguide

        def model(data):
            flat = dist.ImproperUniform(dist.constraints.real_vector, (), (dim,))
            numpyro.factor("density", log_density(numpyro.sample("z", flat), data))

        automatic = getattr(autoguide, guide)(model, **settings)
        svi = SVI(model, automatic, numpyro.optim.Adam(RATE), Trace_ELBO(num_particles=draws))
        # the guide keeps what it sees first, which inside a trace would leak
        start = svi.init(jax.random.key(0), data)

        def run(steps, key, data):
            step = lambda state, _: svi.update(state, data)  # noqa: E731
            return jax.lax.scan(step, start, None, length=steps)

        return run

    return make


def of_blackjax(algorithm: str) -> Callable:
    def make(log_density, dim, draws, data):
        import blackjax

        def run(steps, key, data):
            density = lambda z: log_density(z, data)  # noqa: E731
            vi = getattr(blackjax, algorithm)(density, optax.adam(RATE), num_samples=draws)
            keys = jax.random.split(key, steps)
            return jax.lax.scan(lambda s, k: vi.step(k, s), vi.init(jnp.zeros(dim)), keys)

        return run

    return make


def of_tfp(log_density, dim, draws, data):
    from .tfp_vi import surrogate, tfp

    build, first = surrogate("diag", dim)

    def run(steps, key, data):
        return tfp.vi.fit_surrogate_posterior_stateless(
            jax.vmap(lambda z: log_density(z, data)),
            build_surrogate_posterior_fn=build,
            initial_parameters=first,
            optimizer=optax.adam(RATE),
            num_steps=steps,
            sample_size=draws,
            seed=jax.random.key_data(key),
        )

    return run


MEAN_FIELD = {
    "bare gradient": bare,
    "bare gradient, XLA's sums": bare,
    "bbvi MeanFieldGaussian": of_bbvi(bbvi.MeanFieldGaussian()),
    "numpyro AutoNormal": of_numpyro("AutoNormal"),
    "blackjax meanfield_vi": of_blackjax("meanfield_vi"),
    "TFP mean-field": of_tfp,
}
LOW_RANK = {
    "bbvi LowRankGaussian": of_bbvi(bbvi.LowRankGaussian(rank=RANK)),
    "numpyro AutoLowRankMultivariateNormal": of_numpyro("AutoLowRankMultivariateNormal", rank=RANK),
}
STEPPERS = MEAN_FIELD | LOW_RANK
