"""nutpie's NUTS from a fit.

nutpie has no way to be given a mass matrix: its diagonal adaptation has nothing left to find in
units in which the fit is standard. It calls the density from threads of its own, one a chain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._compile import plain_jit
from bbvi._types import Array, PyTree
from bbvi.bridges.mcmc.chains import TARGET_ACCEPTANCE, Chains
from bbvi.bridges.mcmc.space import BaseSpace, log_density
from bbvi.target import Target

if TYPE_CHECKING:
    from bbvi.bridges.mcmc.start import McmcStart


def run(start: McmcStart, num_draws: int, num_warmup: int, progress_bar: bool) -> Chains:
    """All chains; see `McmcStart.nutpie_nuts`."""
    import nutpie
    from nutpie.compiled_pyfunc import from_pyfunc

    starts = np.asarray(start.z, np.float64)
    dim, double = starts.shape[1], jax.config.jax_enable_x64  # type: ignore[attr-defined]

    def make_density() -> Any:
        def density(z):
            # a thread starts with the setting of the process, not with that of the caller
            with jax.enable_x64(double):
                z = jnp.asarray(z, start.z.dtype)
                value, slope = _value_and_grad(start.target, z, start.data, start.base)
                return float(value), np.asarray(slope, np.float64)

        return density

    model = from_pyfunc(
        dim,
        make_density,
        lambda seed, number, chain: lambda z: {"z": z},
        expanded_dtypes=[np.dtype(np.float64)],
        expanded_shapes=[(dim,)],
        expanded_names=["z"],
        # nutpie says which seed a chain has and not which chain it is
        make_initial_point_fn=lambda seed: starts[np.random.default_rng(seed).choice(len(starts))],
    )
    seed = int(jax.random.bits(start.key, dtype=jnp.uint32))
    tree: Any = nutpie.sample(
        model,
        draws=num_draws,
        tune=num_warmup,
        chains=len(starts),
        seed=seed,
        target_accept=TARGET_ACCEPTANCE,
        progress_bar=progress_bar,
    )
    zs = jnp.asarray(tree["posterior"]["z"].values, start.z.dtype)
    before, after = tree["warmup_sample_stats"], tree["sample_stats"]
    return Chains(
        jax.device_get(start.constrain(zs)),
        int(before["n_steps"].sum()),
        int(after["n_steps"].sum()),
        int(after["diverging"].sum()),
        after["step_size"].values[:, -1],
    )


@plain_jit((0,))
def _value_and_grad(
    target: Target, z: Array, data: PyTree, base: BaseSpace | None
) -> tuple[Array, Array]:
    return jax.value_and_grad(lambda z: log_density(target, z, data, base))(z)
