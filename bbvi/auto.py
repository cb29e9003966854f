"""The default: stages on the host, each compiled only when it is reached."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bbvi._compile import quick_jit
from bbvi._tree import tree_where
from bbvi._types import Array, PyTree
from bbvi.families import CouplingFlow, Frame, LowRankGaussian
from bbvi.objectives import ELBO
from bbvi.solvers import BatchAndMatch, StochasticGradient
from bbvi.solvers.base import RunLog
from bbvi.solvers.starts import race
from bbvi.stage import Fitted, fit_stage, judged_stage
from bbvi.target import Target
from bbvi.verdict import is_settled

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
    2. Batch and match from the best three: a full-rank Gaussian, which is judged on fresh
       draws. If the importance weights can be believed and agree with it, this is the answer.
    3. Else a coupling flow that starts as that Gaussian, judged in the same way.

    For D over 256 the dense stages give way to a low-rank Gaussian fitted by stochastic
    gradients. Of several stages the best by its bound is kept; where the importance weights
    can be believed, moments and draws are corrected by them.

    Args:
        flow_steps: steps of the flow's training.
        flow_draws: draws a step.
        flow: the family of stage 3.

    Example:
        >>> Auto(flow_steps=3000).flow_draws
        64
    """

    flow_steps: int = 1500
    flow_draws: int = 64
    flow: CouplingFlow = CouplingFlow()

    def solve(
        self,
        target: Target,
        loc: Array,
        key: Array,
        data: PyTree,
        previous: tuple[Any, PyTree] | None,
        run: Callable[..., Any],
    ) -> list[Fitted]:
        """All stages that were needed, the last one the most elaborate.

        Args:
            target: the target.
            loc: the user's point (D,).
            key: a typed random key.
            data: the user's data.
            previous: family and parameters of a previous fit to go on from, or None.
            run: drives a solver's state to its end; see `bbvi.stage.fit_stage`.
        """
        start_key, run_key, judge_key = jax.random.split(key, 3)
        if target.dim > _DENSE_LIMIT:
            solver = StochasticGradient(LowRankGaussian())
            begin = find_start(target, loc, start_key, data) if previous is None else None
            return [
                fit_stage(
                    "low-rank", solver, target, begin, previous, run_key, judge_key, data, run
                )
            ]
        gaussian = self._gaussian(target, loc, start_key, judge_key, data, previous)
        if is_settled(gaussian.diagnostics, gaussian.status):
            return [gaussian]
        warm = previous if previous is not None and previous[0] == self.flow else None
        frame = gaussian.family.frame(gaussian.params)
        solver = self.flow_solver()
        flow = fit_stage("flow", solver, target, frame, warm, run_key, judge_key, data, run)
        return [gaussian, flow]

    def flow_solver(self) -> StochasticGradient:
        """How stage 3 is trained: a planned number of steps, the rate falling to nothing."""
        objective = ELBO(num_draws=self.flow_draws)
        optimizer = _flow_optimizer(self.flow_steps)
        return StochasticGradient(self.flow, objective, optimizer, 0.0, self.flow_steps)

    def _gaussian(self, target, loc, start_key, judge_key, data, previous) -> Fitted:
        def run():
            if previous is None:
                return match_starts(target, loc, start_key, data)
            family, params = previous
            return match_from(target, family.frame(params), start_key, data)

        return judged_stage("gaussian", BatchAndMatch(), target, run, judge_key, data)


@lru_cache(maxsize=16)
def _flow_optimizer(steps: int) -> optax.GradientTransformation:
    """Adam, warmed up and annealed; cached, since a new one is a new compile.

    The rate of 3e-3 and the clipping are those that worked across flows of this size in
    Agrawal and Domke 2024; annealing lets the averages of the end be those of one optimum.
    """
    warmup = min(100, steps // 4)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 3e-3, warmup, steps, 1e-5)
    # flattened: one kernel a step of the optimizer, not one a layer
    return optax.flatten(optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule)))


@quick_jit()
def find_start(target: Target, loc: Array, key: Array, data: PyTree) -> tuple[Frame, Array]:
    """The winner of the race as units to start in, and the gradients spent."""
    starts = race(target, loc, key, data)
    return Frame(starts.loc[0], starts.scale[0]), starts.num_gradients


@quick_jit()
def match_starts(target: Target, loc: Array, key: Array, data: PyTree) -> tuple[PyTree, RunLog]:
    """Stages 1 and 2 of `Auto`, compiled together.

    Returns:
        parameters of the full-rank Gaussian with the best bound, and the run so far.
    """
    race_key, match_key = jax.random.split(key)
    starts = race(target, loc, race_key, data)
    chosen = Frame(starts.loc[:_MATCHED], starts.scale[:_MATCHED])
    matched = partial(_match, target, match_key, data)
    mapped = jax.lax.map(matched, chosen) if target.sequential else jax.vmap(matched)(chosen)
    params, elbos, logs = mapped
    elbos = jnp.where(jnp.isfinite(elbos), elbos, -jnp.inf)
    best = jnp.argmax(elbos)
    params, log = jax.tree.map(lambda x: x[best], (params, logs))
    raced = BatchAndMatch().family.init(starts.loc[0], starts.scale[0])
    params = tree_where(elbos[best] > starts.elbo[0], params, raced)
    return params, log._replace(
        num_gradients=starts.num_gradients + jnp.sum(logs.num_gradients),
        num_skipped=jnp.sum(logs.num_skipped),
    )


@quick_jit()
def match_from(target: Target, frame: Frame, key: Array, data: PyTree) -> tuple[PyTree, RunLog]:
    """Stage 2 from one given start, compiled."""
    params, _, log = _match(target, key, data, frame)
    return params, log


def _match(target, key, data, frame):
    solver = BatchAndMatch()
    state = solver.init(target, frame.loc, frame.scale, key, data)
    state = solver.advance(target, state, data, jnp.int32(solver.max_steps))
    return solver.output(state), state.best.elbo, state.log
