"""`fit`: check, choose, run, judge."""

import os
import time
import warnings
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import jax
import numpy as np

from bbvi._tree import as_key, path_name, split
from bbvi._types import Array, Key, LogJoint, PyTree
from bbvi.auto import Auto
from bbvi.budget import Budget, Purse
from bbvi.diagnostics.figures import of_weight
from bbvi.diagnostics.judging import judge
from bbvi.diagnostics.propriety import unbounded
from bbvi.inputs import make_target
from bbvi.observers import BudgetWatch, Checkpoint, Observers, ProgressBar, Snapshot, show_stage
from bbvi.posterior import Posterior
from bbvi.result import FitResult
from bbvi.run import constrain, examine, run
from bbvi.solvers import Solver
from bbvi.stages.gaussians.matching import find_start
from bbvi.stages.judged import fit_stage
from bbvi.stages.ranking import beside, better, proven_by
from bbvi.stages.stage import Fitted, plain_stage
from bbvi.status import BBVIWarning, FitError, InputError
from bbvi.target import Target


def fit(
    log_joint: LogJoint,
    init: PyTree | FitResult,
    data: PyTree = None,
    *,
    support: PyTree = None,
    solver: Auto | Solver | None = None,
    key: Key = 0,
    max_steps: int | None = None,
    budget: Budget | None = None,
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
        budget: `bbvi.Budget(gradients=..., seconds=...)`, a limit on the whole fit; the best
            found until then comes back.
        progress: show a progress bar for each stage (extra `progress`).
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
    began = time.perf_counter()
    previous = init if isinstance(init, FitResult) else None
    init, support = _start_from(previous, init, data, support)
    target, init, data = make_target(log_joint, init, data, support)
    _check_settings(solver, max_steps, budget)
    purse = Purse(budget, began)
    start = jax.device_get(examine(target, init, data))
    _check_start(target, start, data)
    spec = _data_spec(data)
    if previous is not None and previous.data_spec != spec:
        warnings.warn(
            f"the data have shapes {spec}, but the previous fit had {previous.data_spec}: "
            "this compiles again.",
            BBVIWarning,
            stacklevel=2,
        )
    checked = time.perf_counter() - began
    root = as_key(key)

    driven: list[str] = []

    def drive(
        name: str,
        solver: Solver,
        target: Target,
        first: Callable[[], Any],
        like: Callable[[], Any],
        data: PyTree,
    ) -> Any:
        limit = solver.limit(target) if max_steps is None else max_steps
        saved = None
        if checkpoint is not None:
            # stages after the first have files of their own beside it
            path = f"{os.fspath(checkpoint)}.{name}" if driven else checkpoint
            saved = Checkpoint(path, target, solver, (init, data), root)
        driven.append(name)
        state = saved.read(jax.eval_shape(like)) if saved is not None else None
        bar = ProgressBar(name, limit) if progress else None
        limits = BudgetWatch(purse) if budget is not None else None
        watching = [w for w in (callback, saved, bar, limits) if w is not None]
        if budget is not None and (draws := getattr(solver, "objective", None)) is not None:
            # a limit in gradients is one in steps, which need not wait for a chunk to end
            limit = int(min(limit, max(1, purse.gradients // draws.draws)))
        try:
            first_state = first() if state is None else state
            return run(solver, target, first_state, data, limit, Observers(limit, watching))
        finally:
            if bar is not None:
                bar.close()

    warm = None if previous is None else (previous.posterior.family, previous.posterior.params)
    if isinstance(solver, Solver):
        start_key, run_key, judge_key = split(root, 3)
        begin_in = find_start(target, start.z, start_key, data) if warm is None else None
        stages = [fit_stage("run", solver, target, begin_in, warm, run_key, judge_key, data, drive)]
    else:
        auto = Auto() if solver is None else solver
        show = show_stage if progress else plain_stage
        stages = auto.solve(target, start.z, root, data, warm, drive, purse, show)
    default = not isinstance(solver, Solver)
    result = _assemble(target, data, spec, start.z, stages, (began, checked), default, purse.ended)
    if throw and result.status.failed:
        raise FitError(" ".join([result.status.message, *result.verdict.actions]), result)
    return result


def _assemble(
    target: Target,
    data: PyTree,
    spec: tuple,
    start: Array,
    stages: list[Fitted],
    times: tuple[float, float],
    default: bool,
    budget_ended: bool,
) -> FitResult:
    """The best stage, judged; corrected by its importance weights if that helps.

    `times` are when the fit began, and the seconds that its checks took.
    """
    proven = proven_by(stages)
    best = reduce(better, [beside(stage, proven) for stage in stages])
    diagnostics = best.diagnostics
    correct = default and best.corrects
    # The race and the match try far-out points on purpose: what they skip biases nothing.
    share = best.num_skipped / max(1, best.num_gradients) if best.state is not None else 0.0
    names = target.scalar_names
    # chains that set out from it, or from a richer one, where it was kept instead of them
    chained = [s for s in stages if s.chains is not None]
    doubts = [s.chains for s in chained if s.params is best.params]
    doubts += [s.chains for s in chained[-1:]]
    verdict_of = partial(
        judge,
        diagnostics,
        best.status,
        names,
        best.drift,
        share,
        correct,
        best.mode_weights,
        best.chains,
        doubts[0] if doubts else None,
        budget_ended and not best.settled,
        left_out=best.left_out,
        neck=best.neck,
        seam=best.seam,
        unseen=best.unseen,
        short=best.short,
        aside=best.aside,
    )
    endless = next((s.endless for s in stages if s.endless), ())
    verdict = verdict_of(unbounded=endless)
    if verdict.level != "trusted" and default and not endless:
        verdict = verdict_of(unbounded=open_ended(target, best, start, data))
    bounds_need_data = any(leaf.bijector.functions for leaf in target.leaves)
    began, checked = times
    timings = [("check", checked)]
    for stage in stages:
        fitting, judging = stage.seconds
        timings += [(stage.name, fitting), (f"judge {stage.name}", judging)]
    accounted = sum(seconds for _, seconds in timings)
    timings.append(("other", max(time.perf_counter() - began - accounted, 0.0)))
    return FitResult(
        posterior=Posterior(
            best.params,
            data if bounds_need_data else None,
            target,
            best.family,
            *_weighted(best) if correct else (),
        ),
        diagnostics=diagnostics,
        history=best.history,
        status=best.status,
        verdict=verdict,
        num_steps=best.num_steps,
        num_gradients=sum(stage.num_gradients for stage in stages),
        num_skipped=sum(stage.num_skipped for stage in stages),
        drift=best.drift,
        timings=tuple(timings),
        spent=tuple((stage.name, stage.num_gradients) for stage in stages),
        solver=best.solver,
        state=best.state,
        data_spec=spec,
    )


def open_ended(target: Target, stage: Fitted, start: Array, data: PyTree) -> tuple[str, ...]:
    """Names of leaves that nothing bounds, seen from the draw with the largest weight.

    That of a fit with hopeless weights may be far out on the very plateau: then they are seen from
    the draw nearest the centre. Of a fit that ran away past all floats no draw has a weight: then
    from the user's point.
    """
    d, frame = stage.diagnostics, stage.frame
    usable = np.isfinite(d.log_weights) & np.isfinite(d.draws).all(axis=1)
    places = [start]
    if usable.any():
        draws, log_weights = d.draws[usable], d.log_weights[usable]
        with np.errstate(all="ignore"):
            away = np.linalg.norm(frame.invert(draws), axis=1)
        nearest = np.argmin(np.nan_to_num(away, nan=np.inf))
        places = [draws[np.argmax(log_weights)], draws[nearest]]
    for place in places:
        names = unbounded(target, place, frame, data)
        if names:
            return names
    return ()


def _weighted(stage: Fitted) -> tuple:
    """The draws that have a weight, and their log weights; always as many of one kind of stage."""
    d = stage.diagnostics
    weighs = np.isfinite(d.log_weights)
    found: Any = d.draws[weighs], d.log_weights[weighs]
    if stage.chains is None:
        found = of_weight(weighs, d.draws, d.log_weights), d.log_weights
    return tuple(map(jax.numpy.asarray, found))


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


def _check_settings(solver, max_steps, budget) -> None:
    if solver is not None and not isinstance(solver, (Auto, Solver)):
        raise InputError(
            f"solver must be None, bbvi.Auto() or a solver such as bbvi.StochasticGradient(), "
            f"not {solver!r}."
        )
    if budget is not None and not isinstance(budget, Budget):
        raise InputError(
            "budget must be bbvi.Budget(gradients=...) or bbvi.Budget(seconds=...), "
            f"not {budget!r}."
        )
    if max_steps is not None and (not isinstance(max_steps, (int, np.integer)) or max_steps < 1):
        raise InputError(f"max_steps must be a positive whole number, not {max_steps!r}.")


def _check_start(target: Target, start, data: PyTree) -> None:
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
        for path, leaf in jax.tree_util.tree_leaves_with_path(data):
            values = np.asarray(leaf) if jax.numpy.issubdtype(leaf.dtype, jax.numpy.inexact) else 0
            if np.isnan(values).any():
                raise InputError(
                    f"{path_name('data', path)} has a NaN, and log_joint is {start.log_density} at "
                    "init: leave missing values out, or handle them in log_joint."
                )
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


def _data_spec(data: PyTree) -> tuple:
    return tuple(
        (x.shape, np.dtype(x.dtype).name)
        for x in jax.tree.leaves(data)
        if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    )
