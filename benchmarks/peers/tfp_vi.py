"""TFP's fit_surrogate_posterior on JAX, with a Gaussian surrogate."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tensorflow_probability.substrates import jax as tfp

from .base import DRAWS, Fit, Problem, Run


def surrogate(shape: str, dim: int, dtype=None) -> tuple[Callable, tuple]:
    """How a surrogate is built from its parameters, and the first ones.

    Written out, as TFP's own documentation does beside its builders: those of an affine surrogate
    give an unclear error under jit with jax 0.12.
    """
    if shape == "diag":

        def build(loc, log_scale):
            return tfp.distributions.MultivariateNormalDiag(loc, jnp.exp(log_scale))

        return build, (jnp.zeros(dim, dtype), jnp.zeros(dim, dtype))

    def build(loc, entries):
        lower = tfp.math.fill_triangular(entries)
        scale = jnp.tril(lower, -1) + jnp.diag(jnp.exp(jnp.diag(lower)))
        return tfp.distributions.MultivariateNormalTriL(loc, scale)

    return build, (jnp.zeros(dim, dtype), jnp.zeros(dim * (dim + 1) // 2, dtype))


def fit(
    problem: Problem, shape: str, rate: float, steps: int, draws: int = 1, decay: bool = False
) -> Run:
    density = jax.vmap(problem.bound)
    build, first = surrogate(shape, problem.dim, problem.target.dtype)
    adam = optax.adam(optax.cosine_decay_schedule(rate, steps) if decay else rate)

    def run(key: int) -> Fit:
        # it takes raw keys alone
        fit_key, draw_key = jax.random.split(jax.random.PRNGKey(key))
        params, _ = tfp.vi.fit_surrogate_posterior_stateless(
            density,
            build_surrogate_posterior_fn=build,
            initial_parameters=first,
            optimizer=adam,
            num_steps=steps,
            sample_size=draws,
            jit_compile=True,
            seed=fit_key,
        )
        z = build(*params).sample(DRAWS, seed=draw_key)
        return Fit(np.asarray(jnp.reshape(z, (DRAWS, problem.dim))), steps * draws)

    return run
