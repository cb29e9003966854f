"""blackjax's Pathfinder, from one start or from several with importance resampling."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.vi import multipathfinder, pathfinder

from .base import DRAWS, Fit, Problem, Run, counting


def one(problem: Problem, **settings) -> Run:
    density, start = problem.bound, jnp.asarray(problem.starts(1)[0])
    approximate = jax.jit(lambda k, x: pathfinder.approximate(k, density, x, **settings)[0])

    def run(key: int) -> Fit:
        fit_key, draw_key = jax.random.split(jax.random.key(key))
        z, _ = pathfinder.sample(draw_key, approximate(fit_key, start), DRAWS)
        return Fit(np.asarray(z), None)

    return run


def several(problem: Problem, paths: int, **settings) -> Run:
    starts = jnp.asarray(problem.starts(paths))
    vi = blackjax.multipathfinder(problem.bound)
    approximate = jax.jit(lambda k, x: vi.init(k, x, **settings)[0])

    def run(key: int) -> Fit:
        fit_key, draw_key = jax.random.split(jax.random.key(key))
        state = approximate(fit_key, starts)
        z = vi.sample(draw_key, state, DRAWS)
        khat = float(multipathfinder.psis_weights(state)[1])
        return Fit(np.asarray(z), None, f"k-hat {khat:.2f}" if not khat <= 0.7 else "")

    return run


# Its bound is of values alone, so what is counted is the gradients along the paths.


def count_one(problem: Problem, **settings) -> int:
    density, count = counting(problem.bound)
    start = jnp.asarray(problem.starts(1)[0])
    found, _ = pathfinder.approximate(jax.random.key(0), density, start, **settings)
    jax.block_until_ready(found.elbo)
    jax.effects_barrier()
    return count[0]


def count_several(problem: Problem, paths: int, **settings) -> int:
    density, count = counting(problem.bound)
    starts = jnp.asarray(problem.starts(paths))
    found, _ = blackjax.multipathfinder(density).init(jax.random.key(0), starts, **settings)
    jax.block_until_ready(found.logp)
    jax.effects_barrier()
    return count[0]
