"""`fit`: check, choose, run, judge."""

import os
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from bbvi._tree import as_key
from bbvi._types import Array, Key, LogJoint, PyTree
from bbvi.auto import Auto, find_start
from bbvi.diagnostics import diagnose
from bbvi.observers import Checkpoint, Observers, ProgressBar, Snapshot, snapshot
from bbvi.posterior import Posterior
from bbvi.result import FitResult, Trace
from bbvi.run import begin, begin_at, constrain, examine, finish, run
from bbvi.solvers import Solver
from bbvi.status import BBVIWarning, FitError, InputError, Status
from bbvi.target import Target, make_target
from bbvi.verdict import judge


def fit(
    log_joint: LogJoint,
    init: PyTree | FitResult,
    data: PyTree = None,
    *,
    support: PyTree = None,
    solver: Auto | Solver | None = None,
    key: Key = 0,
    max_steps: int | None = None,
    progress: bool = False,
    callback: Callable[[Snapshot], Any] | None = None,
    checkpoint: str | os.PathLike | None = None,
    throw: bool = True,
) -> FitResult:
    r"""Approximate the posterior of a log joint density.

    Maximises the evidence lower bound E_q[log p(params, data) - log q(params)] over a family
    q on the unconstrained space, then judges the result on fresh draws.

    Args:
        log_joint: `log_joint(params, data)`, the log of likelihood times prior at ONE point,
            on the natural (constrained) space and without Jacobians; or `log_joint(params)`
            where there are no data. Compiled programs are kept by its identity: define it
            once, not anew for each call.
        init: an example point in your structure (dicts, lists, arrays, numbers), which also
            competes as a start; or a previous result to go on from.
        data: arrays in any structure, handed to `log_joint`. New data of the same shapes
            compile nothing.
        support: supports such as `bbvi.positive`, in the structure of `init`; what is left
            out is real.
        solver: None or `bbvi.Auto()` for the default; or a solver, which gets the same starts.
        key: an int or a JAX random key.
        max_steps: limit on the last solver's steps.
        progress: show a progress bar (extra `progress`).
        callback: called with a `Snapshot` a few times a second; a true value ends the run.
        checkpoint: a file written a few times a second, from which the same call goes on
            after a kill, with the same bits.
        throw: raise `FitError` when there is no usable answer; else the result says so.

    Returns:
        the posterior, its diagnostics and its verdict. Ctrl-C returns the fit so far.

    Raises:
        InputError: if the input cannot be used; one sentence names the leaf and what to do.
        FitError: if the run failed and `throw`; its `.result` holds what there is.

    Example:
        >>> import bbvi, jax.numpy as jnp
        >>> def log_joint(params, data):
        ...     prior = -0.5 * (params["mu"] / 10) ** 2 - params["sigma"]
        ...     z = (data["y"] - params["mu"]) / params["sigma"]
        ...     return prior - 0.5 * jnp.sum(z**2) - len(z) * jnp.log(params["sigma"])
        >>> data = {"y": jnp.array([7.1, 8.4, 8.0, 7.7, 8.9])}
        >>> init = {"mu": 0.0, "sigma": 1.0}
        >>> result = bbvi.fit(log_joint, init, data, support={"sigma": bbvi.positive})
        >>> bool(abs(result.posterior.mean()["mu"] - 8.0) < 0.1)
        True

    Source: Kucukelbir et al. 2017, JMLR 18(14), for the problem; see `bbvi.Auto` for how it
    is solved.
    """
    clock = _Clock()
    with clock("check"):
        previous = init if isinstance(init, FitResult) else None
        init, support = _start_from(previous, init, data, support)
        target, init, data = make_target(log_joint, init, data, support)
        _check_settings(solver, max_steps)
        start = jax.device_get(examine(target, init, data))
        _check_start(target, start)
        spec = _data_spec(data)
        if previous is not None and previous.data_spec != spec:
            warnings.warn(
                f"the data have shapes {spec}, but the previous fit had {previous.data_spec}: "
                "this compiles again.",
                BBVIWarning,
                stacklevel=2,
            )
    auto = Auto(solver) if not isinstance(solver, Auto) else solver
    last = auto.last_stage(target)
    start_key, run_key, judge_key = jax.random.split(as_key(key), 3)
    limit = last.limit(target) if max_steps is None else max_steps

    saved = Checkpoint(checkpoint, target, last, (init, data), run_key) if checkpoint else None
    found = saved.read(lambda: _template(last, target, run_key, data)) if saved else None
    if found is not None:
        state, before = found
    else:
        with clock("start"):
            state, before = _first_state(
                auto, last, target, previous, start, (start_key, run_key), data
            )
    with clock("run"):
        observers: list[Callable[[Snapshot], Any]] = [callback] if callback is not None else []
        bar = ProgressBar(limit) if progress else None
        observers += [x for x in (saved, bar) if x is not None]
        if saved:
            saved.begin(before)
        try:
            state = run(last, target, state, data, limit, Observers(limit, observers))
        finally:
            if bar is not None:
                bar.close()
    with clock("judge"):
        result = _judged(last, target, state, before, limit, judge_key, data, spec, clock)
    if throw and result.status.failed:
        raise FitError("\n".join([result.status.message, *result.verdict.actions]), result)
    return result


def _first_state(auto, last, target, previous, start, keys, data) -> tuple[Any, dict]:
    """Race and match, or take the previous fit as it is."""
    start_key, run_key = keys
    if previous is None:
        match = auto.matches(target)
        frame, gradients, skipped = find_start(target, match, start.z, start_key, data)
        state = begin(last, target, *frame, run_key, data)
        return state, {"gradients": int(gradients), "skipped": int(skipped)}
    posterior = previous.posterior
    if last.family_for(target) == posterior.family:
        state = begin_at(last, target, posterior.params, run_key, data)
    else:
        state = begin(last, target, *posterior.family.frame(posterior.params), run_key, data)
    return state, {"gradients": 0, "skipped": 0}


def _judged(last, target, state, before, limit, key, data, spec, clock) -> FitResult:
    family = last.family_for(target)
    params = finish(last, state)
    diagnostics = jax.device_get(diagnose(target, family, params, key, data))
    seen = snapshot(state, limit)
    log = jax.device_get(state.log)
    status = Status.MAX_STEPS if seen.status is Status.RUNNING else seen.status
    gradients = int(log.num_gradients) + before["gradients"]
    skipped = int(log.num_skipped) + before["skipped"]
    # The race tries far-out points on purpose: only what the run itself skipped biases it.
    share = int(log.num_skipped) / max(1, int(log.num_gradients))
    verdict = judge(diagnostics, status, target.scalar_names, seen.drift, share)
    bounds_need_data = any(leaf.bijector.functions for leaf in target.leaves)
    count = int(log.history.count)
    clock.stop("judge")
    return FitResult(
        posterior=Posterior(params, data if bounds_need_data else None, target, family),
        diagnostics=diagnostics,
        history=Trace(*(np.asarray(x)[:count] for x in log.history[:3])),
        status=status,
        verdict=verdict,
        num_steps=seen.step,
        num_gradients=gradients,
        num_skipped=skipped,
        drift=seen.drift,
        timings=tuple(clock.seconds.items()),
        solver=last,
        state=state,
        data_spec=spec,
    )


def _start_from(previous: FitResult | None, init, data, support) -> tuple[PyTree, PyTree]:
    """The point and the supports to start from; those of the previous result if there is one."""
    if previous is None:
        return init, support
    posterior = previous.posterior
    target = posterior.target
    point = constrain(target, posterior.family.frame(posterior.params).loc, data)
    if support is None:
        support = target.treedef.unflatten([leaf.bijector for leaf in target.leaves])
    return point, support


def _check_settings(solver, max_steps) -> None:
    if solver is not None and not isinstance(solver, (Auto, Solver)):
        raise InputError(
            f"solver must be None, bbvi.Auto() or a solver such as bbvi.StochasticGradient(), "
            f"not {solver!r}."
        )
    if max_steps is not None and (not isinstance(max_steps, (int, np.integer)) or max_steps < 1):
        raise InputError(f"max_steps must be a positive whole number, not {max_steps!r}.")


def _check_start(target: Target, start) -> None:
    """Refuse a start at which nothing can be computed, and name the leaf."""
    names = [leaf.name for leaf in target.leaves]
    for name, leaf, finite, inside in zip(
        names, target.leaves, start.finite, start.inside, strict=True
    ):
        if not finite:
            raise InputError(f"init: {name} has a NaN or an infinity.")
        if not inside:
            raise InputError(f"init: {name} is outside its support, {leaf.bijector.name}.")
    if not np.isfinite(start.log_density):
        raise InputError(
            f"log_joint is {start.log_density} at init: start at a point where it is finite, and "
            "check for the log or sqrt of a negative number."
        )
    bad = [n for n, ok in zip(names, start.finite_gradient, strict=True) if not ok]
    if bad:
        raise InputError(
            f"the gradient of log_joint with respect to {', '.join(bad)} is not finite at init: "
            "look for sqrt, log, abs or a norm at zero there."
        )


def _template(last: Solver, target: Target, key: Array, data: PyTree) -> Any:
    """The structure of the last stage's state, without computing one."""
    vector = jax.ShapeDtypeStruct((target.dim,), target.dtype)
    return jax.eval_shape(lambda v, k, d: last.init(target, v, v, k, d), vector, key, data)


def _data_spec(data: PyTree) -> tuple:
    return tuple(
        (x.shape, np.dtype(x.dtype).name)
        for x in jax.tree.leaves(data)
        if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    )


class _Clock:
    """Seconds by stage."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._began: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str):
        self._began[stage] = time.perf_counter()
        try:
            yield
        finally:
            self.stop(stage)

    def stop(self, stage: str) -> None:
        self.seconds[stage] = time.perf_counter() - self._began[stage]
