"""Hamiltonian trajectories of many chains at once, in the base space of an approximation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bbvi._compile import loop_jit
from bbvi._types import Array, PyTree
from bbvi.diagnostics.base_space import standardised
from bbvi.families import Family
from bbvi.target import Target

# A quarter of the period of a standard normal: draws at its ends are independent.
LENGTH = 1.5707963
# One leap so long is a quarter of a period of a standard normal: nothing is won by longer ones,
# which near 2 are unstable.
_LONGEST_LEAP = 2**0.5
# Near the optimum for many dimensions, and for few a little cautious (Beskos et al. 2013).
ACCEPTANCE = 0.8
_DIVERGENT = -50.0  # change of log density times momentum density along a trajectory, nats


class Extent(NamedTuple):
    """How many chains there are, and how long they are.

    Attributes:
        chains: of them.
        states: of each, a trajectory or more apart; a third is left out while they settle.
    """

    chains: int
    states: int

    @property
    def settling(self) -> int:
        return self.states // 3


# From a place as wide as the posterior a great many, of which few need to forget much: enough for
# an error of 0.03 sd in every mean if trajectories were of no use at all; but all their states at
# once are 24 times as many numbers as these. From a place that is not, few that are long: of 770
# slopes and their scales 512 chains in 163,000 gradients were not settled yet, 128 in 107,000.
_MANY, _LEAST, _ELEMENTS = Extent(512, 24), 128, 1 << 20
LONG = Extent(128, 66)


def many(dim: int) -> Extent:
    """Many short chains for D = `dim`, as many as memory allows."""
    return _MANY._replace(chains=max(_LEAST, min(_MANY.chains, _ELEMENTS // dim)))


class Segment(NamedTuple):
    """So many trajectories of all chains."""

    path: Array
    stride: Array
    acceptance: Array
    divergent_share: Array
    num_gradients: Array


# 20,000 gradients and more: without optimisation each takes 2 to 10 times as long.
@loop_jit((0, 1))
def advance(
    target: Target,
    family: Family,
    params: PyTree,
    key: Array,
    data: PyTree,
    most_leaps: Any,
    eps: Array,
    stride: Array,
    settling: Any,
    times: Any,
) -> Segment:
    """Trajectories at times (T,) from `eps` (chains, D), the first `settling` set the stride."""
    dtype, number = target.dtype, eps.shape[0]

    def density(eps):
        return standardised(target, family, params, eps, data)[1:]

    def trajectory(state, t):
        eps, value, slope, stride, spent = state
        jitter_key, momentum_key, accept_key = jax.random.split(jax.random.fold_in(key, t), 3)
        length = LENGTH * jax.random.uniform(jitter_key, (), dtype, 0.5, 1.5)
        first = t < 0
        step = jnp.where(first, 0, stride)
        leaps = jnp.clip(jnp.ceil(length / stride), 1, jnp.where(first, 1, most_leaps))
        leaps = leaps.astype(jnp.int32)
        momentum = jax.random.normal(momentum_key, eps.shape, dtype)

        def leap(carry):
            i, x, p, _, g = carry
            p = p + 0.5 * step * g
            x = x + step * p
            v, g = density(x)
            return i + 1, x, p + 0.5 * step * g, v, g

        begin = (jnp.zeros((), jnp.int32), eps, momentum, value, slope)
        _, x, p, v, g = jax.lax.while_loop(lambda c: c[0] < leaps, leap, begin)
        change = v - value - 0.5 * jnp.sum(p**2, axis=-1) + 0.5 * jnp.sum(momentum**2, axis=-1)
        # a chain that began without density takes whatever it finds
        change = jnp.where(jnp.isnan(change), -jnp.inf, change)
        chance = jnp.exp(jnp.minimum(change, 0))
        accept = (jax.random.uniform(accept_key, (number,), dtype) < chance) | first
        eps = jnp.where(accept[:, None], x, eps)
        slope = jnp.where(accept[:, None], g, slope)
        value = jnp.where(accept, v, value)
        mean_chance = jnp.mean(chance)
        adapted = jnp.minimum(stride * jnp.exp(mean_chance - ACCEPTANCE), _LONGEST_LEAP)
        stride = jnp.where((t >= settling) | first, stride, adapted)
        seen = (eps, mean_chance, jnp.mean((change < _DIVERGENT).astype(dtype)))
        return (eps, value, slope, stride, spent + leaps), seen

    # The density at the start is found by a step that stands still, so that the program holds
    # log joint and family once.
    state = (eps, jnp.zeros_like(eps[:, 0]), jnp.zeros_like(eps), stride, jnp.zeros((), jnp.int32))
    before = jnp.full((1,), -1, times.dtype)
    state, seen = jax.lax.scan(trajectory, state, jnp.concatenate([before, times]))
    path, chance, divergent = (x[1:] for x in seen)
    counted = times >= settling

    def over_counted(x):
        return jnp.sum(jnp.where(counted, x, 0)) / jnp.sum(counted)

    return Segment(
        path, state[3], over_counted(chance), over_counted(divergent), state[-1] * number
    )
