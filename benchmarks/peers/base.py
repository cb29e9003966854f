"""What a peer is given and what it hands back."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bbvi

# Moments of a fitted distribution are read off this many draws: 0.007 sd of noise.
DRAWS = 20_000
Moments = tuple[dict, dict]


class Fit(NamedTuple):
    """A peer's answer.

    Attributes:
        z: (S, D) draws on the unconstrained space; None from bbvi, whose result has moments.
        gradients: evaluations of the gradient of the log density; None where it must be counted.
        said: what the tool itself says against its answer; empty if nothing.
        result: bbvi's result.
    """

    z: np.ndarray | None
    gradients: int | None
    said: str = ""
    result: Any = None


Run = Callable[[int], Fit]  # of a key; an adapter makes one from a problem and settings


class Problem:
    """A log joint, its data, and what is known of its moments.

    Every peer gets `log_density`, the same flat function on the unconstrained space that bbvi's
    own solvers see.
    """

    def __init__(self, name: str, log_joint: Callable, init, data, support, moments: Callable):
        self.name, self.log_joint, self.init, self.support = name, log_joint, init, support
        self.target, _, self.data = bbvi.make_target(log_joint, init, data, support)
        self._moments = moments

    @property
    def dim(self) -> int:
        return self.target.dim

    def log_density(self, z, data):
        return self.target.log_density(z, data)

    @cached_property
    def bound(self) -> Callable:
        """The density with its data, for tools that take a function of the position alone."""
        return lambda z: self.target.log_density(z, self.data)

    def starts(self, count: int) -> np.ndarray:
        """Points for tools that want them: uniform(-2, 2), as Stan and numpyro do."""
        return np.random.default_rng(0).uniform(-2, 2, (count, self.dim))

    def moments(self, z: np.ndarray) -> Moments:
        """Means and sds on the natural space."""
        constrain = jax.jit(jax.vmap(lambda z: self.target.constrain(z, self.data)))
        draws = jax.tree.map(np.asarray, constrain(jnp.asarray(z)))
        mean = jax.tree.map(lambda x: x.mean(0), draws)
        return mean, jax.tree.map(lambda x: x.std(0, ddof=1), draws)

    def reference(self) -> Moments:
        return self._moments()


def rhat_over(draws: np.ndarray, limit: float = 1.01) -> str:
    """What a sampler's summary would show: the worst split R-hat of (chains, draws, D) draws."""
    chains, count, dim = draws.shape
    halves = draws[:, : count // 2 * 2].reshape(chains * 2, count // 2, dim)
    within = halves.var(1, ddof=1).mean(0)
    between = halves.mean(1).var(0, ddof=1)
    worst = float(np.sqrt((count // 2 - 1) / (count // 2) + between / within).max())
    return f"R-hat {worst:.3f}" if not worst <= limit else ""


def counting(log_density: Callable) -> tuple[Callable, list[int]]:
    """The density again, and a list whose one number grows with each gradient evaluated.

    Slow, so for a run of its own: each gradient calls back to Python.
    """
    count = [0]

    def add():
        count[0] += 1

    @jax.custom_vjp
    def density(z):
        return log_density(z)

    def forward(z):
        value, grad = jax.value_and_grad(log_density)(z)
        # a callback that takes no operand would run once for a whole batch
        jax.debug.callback(lambda _: add(), value)
        return value, grad

    density.defvjp(forward, lambda grad, seed: (seed * grad,))
    return density, count
