"""NumPyro's NUTS from a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bbvi.bridges.mcmc.chains import FIRST_STEP, TARGET_ACCEPTANCE, Chains

if TYPE_CHECKING:
    from bbvi.bridges.mcmc.start import McmcStart


def kernel(start: McmcStart, options: dict[str, Any]) -> Any:
    """`numpyro.infer.NUTS` with the mass matrix of `start`, held."""
    from numpyro.infer import NUTS

    settings = {
        "inverse_mass_matrix": start.inverse_mass_matrix,
        "dense_mass": start.inverse_mass_matrix.ndim == 2,
        "adapt_mass_matrix": False,
        "target_accept_prob": TARGET_ACCEPTANCE,
        "step_size": FIRST_STEP,
    }
    return NUTS(potential_fn=lambda z: -start.log_density(z), **{**settings, **options})


def run(start: McmcStart, num_draws: int, num_warmup: int, progress_bar: bool) -> Chains:
    """All chains; see `McmcStart.numpyro_nuts`."""
    from numpyro.infer import MCMC

    mcmc = MCMC(
        kernel(start, {}),
        num_warmup=num_warmup,
        num_samples=num_draws,
        num_chains=start.z.shape[0],
        # a log joint that cannot be batched runs one chain after another
        chain_method="sequential" if start.target.sequential else "vectorized",
        progress_bar=progress_bar,
    )
    starts = start.z if start.z.shape[0] > 1 else start.z[0]
    spent = ("num_steps", "diverging", "adapt_state.step_size")
    mcmc.warmup(start.key, init_params=starts, collect_warmup=True, extra_fields=spent)
    warmup = int(mcmc.get_extra_fields()["num_steps"].sum())
    mcmc.run(mcmc.post_warmup_state.rng_key, extra_fields=spent)
    fields = mcmc.get_extra_fields(group_by_chain=True)
    return Chains(
        jax.device_get(start.constrain(mcmc.get_samples(group_by_chain=True))),
        warmup,
        int(fields["num_steps"].sum()),
        int(fields["diverging"].sum()),
        np.asarray(fields["adapt_state.step_size"])[:, -1],
    )
