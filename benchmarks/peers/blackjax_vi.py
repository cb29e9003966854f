"""blackjax's meanfield_vi and fullrank_vi, in the scan its documentation shows."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from .base import DRAWS, Fit, Problem, Run


def fit(
    problem: Problem, algorithm: str, rate: float, steps: int, draws: int, decay: bool = False
) -> Run:
    adam = optax.adam(optax.cosine_decay_schedule(rate, steps) if decay else rate)
    vi = getattr(blackjax, algorithm)(problem.bound, adam, num_samples=draws)

    @jax.jit
    def optimise(key):
        def step(state, key):
            return vi.step(key, state)

        start = vi.init(jnp.zeros(problem.dim))
        return jax.lax.scan(step, start, jax.random.split(key, steps))[0]

    def run(key: int) -> Fit:
        fit_key, draw_key = jax.random.split(jax.random.key(key))
        return Fit(np.asarray(vi.sample(draw_key, optimise(fit_key), DRAWS)), steps * draws)

    return run
