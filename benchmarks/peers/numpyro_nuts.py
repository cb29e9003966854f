"""numpyro's NUTS, four chains in one program."""

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import MCMC, NUTS

from .base import Fit, Problem, Run, rhat_over


def fit(
    problem: Problem,
    chains: int = 4,
    warmup: int = 1000,
    draws: int = 1000,
    dense_mass: bool = False,
    accept: float = 0.8,
) -> Run:
    kernel = NUTS(
        potential_fn=lambda z: -problem.bound(z),
        dense_mass=dense_mass,
        target_accept_prob=accept,
    )
    mcmc = MCMC(
        kernel,
        num_warmup=warmup,
        num_samples=draws,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    fields, starts = ("num_steps", "diverging"), jnp.asarray(problem.starts(chains))

    def run(key: int) -> Fit:
        mcmc.warmup(
            jax.random.key(key), init_params=starts, extra_fields=fields, collect_warmup=True
        )
        gradients = int(mcmc.get_extra_fields()["num_steps"].sum())
        mcmc.run(mcmc.post_warmup_state.rng_key, extra_fields=fields)
        extra = mcmc.get_extra_fields()
        gradients += int(extra["num_steps"].sum())
        z = np.asarray(mcmc.get_samples(group_by_chain=True))
        diverging = int(extra["diverging"].sum())
        said = [f"{diverging} divergences"] if diverging else []
        said += filter(None, [rhat_over(z)])
        return Fit(z.reshape(-1, problem.dim), gradients, ", ".join(said))

    return run
