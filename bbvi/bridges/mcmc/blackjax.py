"""BlackJAX's NUTS from a fit: a warm-up of the step size alone, then draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from bbvi._compile import plain_jit
from bbvi._types import Array, PyTree
from bbvi.bridges.mcmc.chains import FIRST_STEP, TARGET_ACCEPTANCE, Chains
from bbvi.bridges.mcmc.space import BaseSpace, log_density
from bbvi.target import Target

if TYPE_CHECKING:
    from bbvi.bridges.mcmc.start import McmcStart


def run(start: McmcStart, num_draws: int, num_warmup: int) -> Chains:
    """All chains; see `McmcStart.blackjax_nuts`."""
    keys = jax.random.split(start.key, start.z.shape[0])
    inputs = keys, start.z, start.inverse_mass_matrix, start.data, start.base
    found = _run(start.target, num_draws, num_warmup, *inputs)
    zs, step_size, warmup, spent, divergent = jax.device_get(found)
    # one leapfrog step is one gradient
    draws = jax.device_get(start.constrain(zs))
    return Chains(draws, int(warmup.sum()), int(spent.sum()), int(divergent.sum()), step_size)


@plain_jit((0, 1, 2))
def _run(
    target: Target,
    num_draws: int,
    num_warmup: int,
    keys: Array,
    starts: Array,
    inverse_mass_matrix: Array,
    data: PyTree,
    base: BaseSpace | None,
) -> tuple[Array, ...]:
    """Draws (chains, draws, D), step sizes, gradients of warm-up and draws, divergences."""
    import blackjax
    from blackjax.adaptation.step_size import dual_averaging_adaptation

    def density(z):
        return log_density(target, z, data, base)

    first, update, last = dual_averaging_adaptation(TARGET_ACCEPTANCE)
    step = blackjax.nuts.build_kernel()

    def warm(carry, key):
        state, adaptation = carry
        size = jnp.exp(adaptation.log_step_size)
        state, info = step(key, state, density, size, inverse_mass_matrix)
        return (state, update(adaptation, info.acceptance_rate)), info.num_integration_steps

    def chain(key, start):
        warm_key, draw_key = jax.random.split(key)
        state = blackjax.nuts.init(start, density)
        carry = state, first(jnp.asarray(FIRST_STEP, start.dtype))
        (state, adaptation), warmup = jax.lax.scan(
            warm, carry, jax.random.split(warm_key, num_warmup)
        )
        size = last(adaptation)

        def draw(state, key):
            state, info = step(key, state, density, size, inverse_mass_matrix)
            return state, (state.position, info.num_integration_steps, info.is_divergent)

        _, (zs, spent, divergent) = jax.lax.scan(draw, state, jax.random.split(draw_key, num_draws))
        return zs, size, warmup.sum(), spent.sum(), divergent.sum()

    if target.sequential:
        return jax.lax.map(lambda args: chain(*args), (keys, starts))
    return jax.vmap(chain)(keys, starts)
