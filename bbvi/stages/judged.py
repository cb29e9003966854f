"""Stages as they are made: a solver is run, and what it found judged on fresh draws."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from bbvi._compile import worth_preparing
from bbvi._types import Array, PyTree
from bbvi.diagnostics.evidence import moment_noise, needs_correction, squares_heavy
from bbvi.diagnostics.figures import Diagnostics
from bbvi.diagnostics.fresh_draws import (
    closer_looks,
    default_draws,
    diagnose,
    first_looks,
    is_heavy,
    most_draws,
    prepare_diagnose,
    reaches_far,
)
from bbvi.diagnostics.judging import is_settled
from bbvi.families import Family, Frame
from bbvi.run import begin, begin_at, finish
from bbvi.solvers import Solver
from bbvi.solvers.base import RunLog
from bbvi.stages.stage import Fitted, Trace
from bbvi.status import Status
from bbvi.target import Target

# Draws far out are believed unless they are noisier by this factor: of heavy squares the noise is
# read too small.
_AS_NOISY = 2.0
# How many times as many draws may be made where nothing but noise is left, and with how much of
# it, in sds, there is no hope that these are enough: a heavy tail that more draws do not make
# light. (Of five Student-t of four degrees the noise was 0.25, and 0.01 of four times as many.)
_TIMES, _TOO_NOISY = (4, 8, 16), 0.5


def fit_stage(
    name: str,
    solver: Solver,
    target: Target,
    start: tuple[Frame, int] | Frame | None,
    previous: tuple[Family, PyTree] | None,
    run_key: Array,
    judge_key: Array,
    data: PyTree,
    run: Callable[..., Any],
) -> Fitted:
    """Run a stepping solver from a start, or from a previous fit, and judge it.

    Args:
        name: of the stage.
        solver: the solver.
        target: the target.
        start: units to start in, perhaps with the gradients it took to find them.
        previous: family and parameters to start from instead; its shape is kept where the
            solver fits the same family.
        run_key: key of the run.
        judge_key: key of the fresh draws.
        data: the user's data.
        run: `run(name, solver, target, first, like, data)` drives a state to its end; `first`
            makes it, since a checkpoint may make that unnecessary, and `like` can be traced for
            its structure.
    """
    began = time.perf_counter()
    frame, spent = start if start is not None and not isinstance(start, Frame) else (start, 0)
    family = solver.family_for(target)

    where: tuple
    if previous is not None and previous[0] == family:
        start_at, where = begin_at, (previous[1],)
    else:
        units = frame if previous is None else previous[0].frame(previous[1])
        assert units is not None, "a stage starts from a frame or from a previous fit"
        start_at, where = begin, (units.loc, units.scale)
    if worth_preparing((target, solver), data):
        # what judges the fit is built while it runs
        warm = start_at is begin_at
        shapes = where[0] if warm else jax.eval_shape(family.init, where[0], where[0])
        prepare_diagnose(target, family, shapes, judge_key, data)
    first = partial(start_at, solver, target, *where, run_key, data)
    like = partial(start_at.plain, solver, target, *where, run_key, data)
    state = run(name, solver, target, first, like, data)
    params = finish(solver, state)
    middle = time.perf_counter()
    log, drift = jax.device_get((state.log, getattr(state, "drift", np.nan)))
    judged = _judge(target, family, params, judge_key, data, Status.of_ended(log.status))
    return _fitted(
        name,
        solver,
        family,
        params,
        judged,
        log,
        float(drift),
        int(spent),
        state,
        (middle - began, time.perf_counter() - middle),
    )


def judged_stage(
    name: str,
    solver: Solver,
    family: Family,
    target: Target,
    run: Callable[[], tuple[PyTree, RunLog]],
    judge_key: Array,
    data: PyTree,
) -> Fitted:
    """Run a stage that is one compiled program, and judge it."""
    began = time.perf_counter()
    params, log = jax.block_until_ready(run())
    middle = time.perf_counter()
    log = jax.device_get(log)
    judged = _judge(target, family, params, judge_key, data, Status.of_ended(log.status))
    seconds = (middle - began, time.perf_counter() - middle)
    return _fitted(name, solver, family, params, judged, log, 0.0, 0, None, seconds)


def _judge(
    target: Target, family: Family, params: PyTree, key: Array, data: PyTree, status: Status
) -> tuple[Diagnostics, bool]:
    """What fresh draws say, and whether half of these lie far out.

    A quarter of the draws may be enough: of a member that needs no correction, whose own moments
    are the answer, or where draws are costly. Where squares are heavy, draws far out may say more,
    and are asked.
    """
    for found in first_looks(target, family, params, key, data):
        enough = is_heavy(target) or not needs_correction(found)
        if enough and is_settled(found, status):
            break
    number = int(found.num_draws)
    if not (squares_heavy(found) and reaches_far(target, family, params, number)):
        return found, False
    far = jax.device_get(diagnose(target, family, params, key, data, number, far=True))
    closer = moment_noise(far).max() < _AS_NOISY * moment_noise(found).max()
    # what would be settled by heavy squares has to be so by draws far out
    return (far, True) if closer or is_settled(found, status) else (found, False)


def judged_closer(
    target: Target,
    key: Array,
    data: PyTree,
    stage: Fitted,
    patience: int = 1,
    surely: bool = False,
) -> Fitted:
    """The stage judged on more draws, where that may settle it and costs less than what comes next.

    Args:
        target: the target.
        key: a typed random key.
        data: the user's data.
        stage: the stage.
        patience: how many times as long as usual that may take.
        surely: whether one that is settled is judged again too.
    """

    def hopeful(fit):
        return fit.only_noisy and moment_noise(fit.diagnostics).max() <= _TOO_NOISY

    numbers = [times * default_draws(target)[-1] for times in _TIMES]
    numbers = [number for number in numbers if number <= patience * most_draws(target)]
    if not numbers or not (hopeful(stage) or surely and stage.settled):
        return stage
    began = time.perf_counter()
    looks = closer_looks(target, stage.family, stage.params, key, data, stage.far, numbers)
    for found in looks:
        stage = stage._replace(diagnostics=found)
        if not hopeful(stage):
            break
    run, judged = stage.seconds
    return stage._replace(seconds=(run, judged + time.perf_counter() - began))


def _fitted(name, solver, family, params, judged, log, drift, spent, state, seconds) -> Fitted:
    diagnostics, far = judged
    entries = int(log.history.entries)
    return Fitted(
        name=name,
        solver=solver,
        family=family,
        params=params,
        diagnostics=diagnostics,
        status=Status.of_ended(log.status),
        drift=drift,
        num_steps=int(log.step),
        num_gradients=int(log.num_gradients) + spent,
        num_skipped=int(log.num_skipped),
        history=Trace(*(np.asarray(x)[:entries] for x in log.history[:3])),
        seconds=seconds,
        log=log,
        state=state,
        far=far,
    )
