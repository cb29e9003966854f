"""The default: stages on the host, each compiled only when it is reached."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np
import optax

from bbvi._types import Array, PyTree
from bbvi.families import CouplingFlow, GaussianMixture, LowRankGaussian
from bbvi.matching import (
    Matches,
    covers,
    find_start,
    match_from,
    match_starts,
    separate_modes,
)
from bbvi.objectives import ELBO
from bbvi.solvers import BatchAndMatch, StochasticGradient
from bbvi.stage import Fitted, fit_stage, judged_stage
from bbvi.status import Status
from bbvi.target import Target
from bbvi.verdict import is_settled, weights_usable

# Up to here a dense covariance and its eigenvalues cost less than the gradients that go with
# them; beyond, a full match needs thousands of draws a step.
_DENSE_LIMIT = 256


@dataclass(frozen=True)
class Auto:
    r"""The default solver: nothing to choose.

    1. A race of starts: the user's point, zero and random points, and points on L-BFGS paths
       uphill from each, ranked by their bound on common draws.
    2. Batch and match from three good starts, far from each other if there are such: a
       full-rank Gaussian, which is judged on fresh draws. If the importance weights can be
       believed and agree with it, this is the answer. Where the starts led to separate modes,
       so is their mixture.
    3. Else a coupling flow that starts as that Gaussian, judged in the same way; where the
       weights can still not be believed, it is trained for a second round.

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
        gaussian, matches = self._gaussian(target, loc, start_key, judge_key, data, previous)
        modes = separate_modes(matches)
        stages = [gaussian]
        if len(modes) > 1:
            stages = self._mixture(target, gaussian, matches, modes, judge_key, data)
        if is_settled(stages[-1].diagnostics, stages[-1].status):
            return stages
        warm = previous if previous is not None and previous[0] == self.flow else None
        frame = gaussian.family.frame(gaussian.params)
        solver = self.flow_solver()
        keys = (run_key, judge_key)
        flow = fit_stage("flow", solver, target, frame, warm, *keys, data, run)
        if flow.status is Status.COMPLETED and not weights_usable(flow.diagnostics):
            # a second round of the same program from where the first one ended
            stages.append(flow)
            trained = (flow.family, flow.params)
            keys = (jax.random.fold_in(run_key, 1), judge_key)
            flow = fit_stage("flow-2", solver, target, None, trained, *keys, data, run)
        if not covers(
            target, flow.family, flow.params, matches, modes, flow.diagnostics.elbo, data
        ):
            flow = flow._replace(mode_weights=stages[0].mode_weights)
        return [*stages, flow]

    def flow_solver(self) -> StochasticGradient:
        """How stage 3 is trained: a planned number of steps, the rate falling to nothing."""
        objective = ELBO(num_draws=self.flow_draws)
        optimizer = _flow_optimizer(self.flow_steps)
        return StochasticGradient(self.flow, objective, optimizer, 0.0, self.flow_steps)

    def _gaussian(
        self, target, loc, start_key, judge_key, data, previous
    ) -> tuple[Fitted, Matches]:
        found: list[Matches] = []

        def run():
            if previous is None:
                params, log, matches = match_starts(target, loc, start_key, data)
            else:
                frame = previous[0].frame(previous[1])
                params, log, matches = match_from(target, frame, start_key, data)
            found.append(jax.device_get(matches))
            return params, log

        solver = BatchAndMatch()
        fitted = judged_stage("gaussian", solver, solver.family, target, run, judge_key, data)
        return fitted, found[0]

    def _mixture(self, target, gaussian, matches, modes, judge_key, data) -> list[Fitted]:
        """Several modes: their mixture, and a note on the single Gaussian that it is but one."""
        family, single = GaussianMixture(), BatchAndMatch().family
        chosen = jax.tree.map(lambda x: x[np.array(modes)], matches)
        log_weights = chosen.elbo - chosen.elbo.max()
        weights = np.exp(log_weights) / np.exp(log_weights).sum()

        def run():
            factor = jax.vmap(single.factor)(chosen.params)
            params = family.join(log_weights, chosen.params["loc"], factor)
            return params, gaussian.log

        stage = judged_stage("mixture", gaussian.solver, family, target, run, judge_key, data)
        mixture = stage._replace(num_gradients=0, num_skipped=0)
        return [gaussian._replace(mode_weights=tuple(map(float, weights))), mixture]


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
