"""The default: stages on the host, each compiled only when it is reached."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from bbvi._tree import tree_where
from bbvi._types import Array, PyTree
from bbvi.families import Frame, FullRankGaussian, LowRankGaussian
from bbvi.solvers import BatchAndMatch, Solver, StochasticGradient
from bbvi.solvers.starts import race
from bbvi.target import Target

# Up to here a dense covariance and its eigenvalues cost less than the gradients that go with
# them; beyond, a full match needs thousands of draws a step.
_DENSE_LIMIT = 256
# Starts that are matched: the winner of the race need not be in the best mode.
_MATCHED = 3


@dataclass(frozen=True)
class Auto:
    r"""The default solver: nothing to choose.

    1. A race of starts: the user's point, zero and random points, and points on L-BFGS paths
       uphill from each, ranked by their bound on common draws.
    2. For D up to 256, batch and match from the best three, which solves a posterior that is
       nearly Gaussian outright; the best bound goes on.
    3. Stochastic gradient ascent of the bound until the averages settle: with a full-rank
       Gaussian, or a low-rank one for larger D.

    Args:
        solver: the last stage; None chooses by dimension. Another solver gets the same starts.
    """

    solver: Solver | None = None

    def last_stage(self, target: Target) -> Solver:
        """The solver that ends the fit."""
        if self.solver is not None:
            return self.solver
        if target.dim <= _DENSE_LIMIT:
            return StochasticGradient(FullRankGaussian())
        return StochasticGradient(LowRankGaussian())

    def matches(self, target: Target) -> bool:
        """Whether the second stage is run: a dense match helps only a dense family."""
        dense = isinstance(self.last_stage(target).family_for(target), FullRankGaussian)
        return dense and target.dim <= _DENSE_LIMIT


@partial(jax.jit, static_argnums=(0, 1))
def find_start(
    target: Target, match: bool, loc: Array, key: Array, data: PyTree
) -> tuple[Frame, Array, Array]:
    """The first two stages, compiled together.

    Args:
        target: the target.
        match: whether to match full-rank Gaussians from the best starts.
        loc: the user's point (D,).
        key: a typed random key.
        data: the user's data.

    Returns:
        where the last stage begins, gradients spent, and draws skipped.
    """
    race_key, match_key = jax.random.split(key)
    starts = race(target, loc, race_key, data)
    zero = jnp.zeros((), jnp.int32)
    if not match:
        return Frame(starts.loc[0], starts.scale[0]), starts.num_gradients, zero
    solver = BatchAndMatch()

    def matched(start):
        state = solver.init(target, *start, match_key, data)
        state = solver.advance(target, state, data, jnp.int32(solver.max_steps))
        params = solver.output(state)
        frame = Frame(params["loc"], solver.family.factor(params))
        return frame, state.best.elbo, state.log

    chosen = (starts.loc[:_MATCHED], starts.scale[:_MATCHED])
    mapped = jax.lax.map(matched, chosen) if target.sequential else jax.vmap(matched)(chosen)
    frames, elbos, logs = mapped
    elbos = jnp.where(jnp.isfinite(elbos), elbos, -jnp.inf)
    best = jnp.argmax(elbos)
    frame = jax.tree.map(lambda x: x[best], frames)
    raced = Frame(starts.loc[0], jnp.diag(starts.scale[0]))
    frame = tree_where(elbos[best] > starts.elbo[0], frame, raced)
    gradients = starts.num_gradients + jnp.sum(logs.num_gradients)
    return frame, gradients, jnp.sum(logs.num_skipped)
