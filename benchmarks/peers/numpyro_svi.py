"""numpyro's SVI with an automatic guide."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import SVI, Trace_ELBO, autoguide

from .base import DRAWS, Fit, Problem, Run


def fit(
    problem: Problem, guide: str, rate: float, steps: int, draws: int = 1, decay: bool = False
) -> Run:
    def model(data):
        flat = dist.ImproperUniform(dist.constraints.real_vector, (), (problem.dim,))
        numpyro.factor("density", problem.log_density(numpyro.sample("z", flat), data))

    automatic = getattr(autoguide, guide)(model)
    adam = optax.adam(optax.cosine_decay_schedule(rate, steps) if decay else rate)
    svi = SVI(model, automatic, adam, Trace_ELBO(num_particles=draws))

    def run(key: int) -> Fit:
        fit_key, draw_key = jax.random.split(jax.random.key(key))
        found = svi.run(fit_key, steps, problem.data, progress_bar=False, stable_update=True)
        posterior = automatic.sample_posterior(draw_key, found.params, sample_shape=(DRAWS,))
        return Fit(np.asarray(jnp.reshape(posterior["z"], (DRAWS, problem.dim))), steps * draws)

    return run
