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
    move,
    separate_modes,
)
from bbvi.objectives import ELBO
from bbvi.solvers import BatchAndMatch, StochasticGradient
from bbvi.stage import Fitted, fit_stage, judged_stage
from bbvi.status import Status
from bbvi.target import Target
from bbvi.verdict import is_settled, is_sharp, weights_usable

# Up to here a dense covariance and its eigenvalues cost less than the gradients that go with
# them; beyond, a full match needs thousands of draws a step.
_DENSE_LIMIT = 256
# A move of the Gaussian needs so many effective draws a dimension, and goes on while each
# brings a tenth more: a move costs one judgement, a few milliseconds for most targets.
_DRAWS_PER_DIMENSION = 5
_MOST_MOVES = 4
_WORTHWHILE = 1.1


@dataclass(frozen=True)
class Auto:
    r"""The default solver: nothing to choose.

    1. A race of starts: the user's point, zero and random points, and points on L-BFGS paths
       uphill from each, ranked by their bound on common draws.
    2. Batch and match from three good starts, far from each other if there are such: a
       full-rank Gaussian, which is judged on fresh draws, half of them with heavier tails.
       Where the starts led to separate modes, so is their mixture.
    3. While that pays, the Gaussian moves to the moments of its weighted draws and is judged
       again: a step of adaptive importance sampling, without gradients.
    4. Where the weighted draws can still not answer for the posterior, a coupling flow that
       starts as that Gaussian; and, where its weights cannot be believed, a second round.

    For D over 256 the dense stages give way to a low-rank Gaussian fitted by stochastic
    gradients. Of several stages the one whose weighted draws are best is kept; where they say
    more of the moments than their own noise, moments and draws are corrected by the weights.

    Args:
        flow_steps: steps of the flow's training.
        flow_draws: draws a step.
        flow: the family of stage 4.

    Example:
        >>> Auto(flow_steps=3000).flow_draws
        64

    Source: the match is that of Cai et al. 2024 (arXiv:2402.14758), the moves those of Cappé
    et al. 2008 (Statistics and Computing 18), the flow that of Dinh et al. 2017.
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
        else:
            stages += self._moves(target, gaussian, judge_key, data)
        if any(is_settled(stage.diagnostics, stage.status) for stage in stages):
            return stages
        warm = previous if previous is not None and previous[0] == self.flow else None
        single = max(
            (s for s in stages if s.family == gaussian.family), key=lambda s: s.diagnostics.ess
        )
        frame = single.family.frame(single.params)
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

    def _moves(self, target, gaussian, judge_key, data) -> list[Fitted]:
        """Gaussians with the moments of the weighted draws of the one before."""
        moved: list[Fitted] = []
        at = gaussian
        # fewer effective draws than this do not tell a covariance
        enough = _DRAWS_PER_DIMENSION * (target.dim + 1)
        while len(moved) < _MOST_MOVES and not at.status.failed:
            d = at.diagnostics
            if is_sharp(d) and is_settled(d, at.status) or float(d.ess) < enough:
                break
            here = at
            key = jax.random.fold_in(judge_key, len(moved) + 1)

            def run(d=d, log=here.log):
                return move(here.family, d.draws, d.log_weights), log

            stage = judged_stage("move", here.solver, here.family, target, run, key, data)
            stage = stage._replace(num_gradients=0, num_skipped=0)
            moved.append(stage)
            if not float(stage.diagnostics.ess) > _WORTHWHILE * float(d.ess):
                break
            at = stage
        return moved

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
