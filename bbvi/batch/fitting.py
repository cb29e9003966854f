"""`fit_batch`: check, choose widths, run, judge, and fit by themselves those that need it."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from bbvi._tree import pick
from bbvi._types import Key, LogJoint, PyTree
from bbvi.auto import Auto
from bbvi.batch.by_data import by_data
from bbvi.batch.engine import Work, join
from bbvi.batch.judging import is_hopeless
from bbvi.batch.memory import choose_mesh, choose_widths, compiles_quickly
from bbvi.batch.pipeline import make_records
from bbvi.batch.problems import Problems, make_problems
from bbvi.batch.processes import gather, own_folder, own_share
from bbvi.batch.programs import Plan
from bbvi.batch.ragged import Ragged
from bbvi.batch.records import Records
from bbvi.batch.result import BatchResult
from bbvi.batch.shards import Shards
from bbvi.families import LowRankGaussian
from bbvi.fit import fit
from bbvi.inputs import make_target
from bbvi.observers import progress_bar
from bbvi.result import FitResult
from bbvi.solvers import BatchAndMatch, Solver, StochasticGradient
from bbvi.status import InputError
from bbvi.target import Target

# As in `bbvi.auto`.
_DENSE_LIMIT = 256


def fit_batch(
    log_joint: LogJoint,
    init: PyTree,
    data: PyTree = None,
    *,
    in_axes: PyTree = 0,
    init_axes: PyTree = None,
    support: PyTree = None,
    solver: Auto | Solver | Callable[[PyTree], Solver] | None = None,
    key: Key = 0,
    max_steps: int | None = None,
    chunk: int | str = "auto",
    devices: Any = None,
    escalate: bool = True,
    path: str | os.PathLike | None = None,
    progress: bool = False,
) -> BatchResult:
    r"""Fit many problems of one shape, each with a life of its own.

    Every problem has its own start, state, stop, fresh draws and verdict. Some hundreds are
    stepped at once; the place of one that has ended is taken by the next, so the cost is
    nearly the sum of what the problems need, not their number times the slowest.

    The default races a few starts, matches a full-rank Gaussian, and judges it on few fresh
    draws. The Gaussian of a problem that these do not clear is refitted to its weighted
    draws, as a mixture of a few, and judged on more of them; what is still not trusted then
    is fitted by itself, by `bbvi.fit`.

    Args:
        log_joint: `log_joint(params, data)` of ONE problem, as for `bbvi.fit`.
        init: an example point in your structure, for all problems or, with `init_axes`, one
            for each.
        data: arrays in any structure, with a problem axis B where `in_axes` says so; or what
            `bbvi.ragged` made of problems with different numbers of rows.
        in_axes: as in `jax.vmap`: the problem axis of the data; None for what is shared; or
            a tree of these.
        init_axes: the same for `init`.
        support: supports in the structure of `init`; bounds that differ by problem are
            functions of the data.
        solver: None or `bbvi.Auto()` for the default; or a solver, which gets the same starts;
            or, where settings differ by problem, a function of a problem's data that returns
            one: `lambda data: bbvi.StochasticGradient(optimizer=optax.adam(data["rate"]))`.
        key: an int or a JAX random key, from which each problem gets its own by its number;
            or an array of B keys.
        max_steps: step limit of a problem.
        chunk: how many problems are stepped at once; "auto" goes by the memory it takes.
        devices: JAX devices to spread over; None takes all local ones.
        escalate: whether the default may fit by themselves the problems that are not trusted.
        path: a folder that takes the results as they come; the same call goes on after a kill.
            Several processes of `jax.distributed` share the problems, and need as many again
            to go on.
        progress: show a progress bar (extra `progress`).

    Returns:
        means, verdicts and figures with a leading axis B; `results[i]` is a `FitResult`. No
        problem stops the others: one that cannot be fitted is rejected, with reasons.

    Raises:
        InputError: if the input cannot be used by any problem.

    Example:
        >>> import bbvi, jax.numpy as jnp, numpy as np
        >>> def log_joint(params, data):
        ...     z = (data["y"] - params["mu"]) / data["error"]
        ...     return -0.5 * (params["mu"] / 10) ** 2 - 0.5 * jnp.sum(z**2)
        >>> data = {"y": np.random.default_rng(0).normal(3, 1, (20, 50)), "error": 1.0}
        >>> axes = {"y": 0, "error": None}
        >>> results = bbvi.fit_batch(log_joint, {"mu": 0.0}, data, in_axes=axes)
        >>> len(results), results.posterior.mean()["mu"].shape
        (20, (20,))
        >>> results.where(verdict="rejected").tolist()
        []
    """
    settings: dict[str, Any] = dict(
        solver=solver,
        max_steps=max_steps,
        chunk=chunk,
        devices=devices,
        escalate=escalate,
        progress=progress,
    )
    if isinstance(data, Ragged):
        if in_axes != 0:
            raise InputError("ragged data have their problems in front: leave in_axes out.")
        return _fit_ragged(log_joint, init, data, init_axes, support, key, path, settings)
    problems = make_problems(init, data, key, in_axes, init_axes)
    first_init, first_data = problems.one(0)
    target, _, _ = make_target(log_joint, first_init, first_data, support)
    return fit_problems(target, problems, support, path=path, **settings)


def _fit_ragged(
    log_joint, init, data: Ragged, init_axes, support, key, path, settings
) -> BatchResult:
    """Bucket by bucket, each problem with the key of its number; one result in their order."""
    problems = make_problems(init, data.padded(), key, 0, init_axes)
    first_init, first_data = problems.one(0)
    target, _, _ = make_target(log_joint, first_init, first_data, support)
    parts = []
    for number, bucket in enumerate(data.buckets):
        own = problems.take(bucket.index)
        own = own._replace(data=tuple(jax.tree.leaves(bucket.data)))
        some = replace(problems, size=len(bucket.index), rows=own)
        folder = None if path is None else os.path.join(path, f"bucket-{number}")
        parts.append(fit_problems(target, some, support, path=folder, **settings))
    order = np.argsort(np.concatenate([b.index for b in data.buckets]))
    singles = {
        int(b.index[i]): single
        for b, part in zip(data.buckets, parts, strict=True)
        for i, single in part.singles.items()
    }
    mixtures = {
        int(b.index[i]): mixture
        for b, part in zip(data.buckets, parts, strict=True)
        for i, mixture in part.mixtures.items()
    }
    work = Work(sum(p.work.steps for p in parts), sum(p.work.slot_steps for p in parts))
    spent = {name: 0.0 for part in parts for name, _ in part.timings}
    for part in parts:
        for name, seconds in part.timings:
            spent[name] += seconds
    return BatchResult(
        parts[0].plan,
        pick(join([part.records for part in parts]), order),
        singles,
        problems,
        work,
        support,
        tuple(spent.items()),
        mixtures,
    )


def fit_problems(
    target: Target,
    problems: Problems,
    support: PyTree,
    *,
    solver: Auto | Solver | Callable[[PyTree], Solver] | None = None,
    max_steps: int | None = None,
    chunk: int | str = "auto",
    devices: Any = None,
    escalate: bool = True,
    path: str | os.PathLike | None = None,
    progress: bool = False,
) -> BatchResult:
    """`fit_batch` of problems that are put together already."""
    _check_settings(solver, max_steps, chunk)
    if target.sequential:
        raise InputError(
            "log_joint cannot be batched by jax.vmap, so problems cannot be fitted together: give "
            "its callback a vmap_method, or call bbvi.fit for each."
        )
    began = time.perf_counter()
    if callable(solver):
        solver = by_data(solver, problems.one(0)[1])
    default = not isinstance(solver, Solver)
    chosen = _first_solver(target) if default else solver
    assert isinstance(chosen, Solver)
    mesh, quick = choose_mesh(problems.size, devices), compiles_quickly(target, problems.size)
    plan = Plan(mesh, target, chosen, problems.shape, quick)
    limit = chosen.limit(target) if max_steps is None else int(max_steps)
    folder = own_folder(path)
    store = None if folder is None else Shards(folder, target, chosen, problems)
    parts, singles = ([], {}) if store is None else store.read()
    mixtures: dict[int, PyTree] = {}
    mine = own_share(problems.size)
    if not mine.size:
        raise InputError(
            f"{jax.process_count()} processes share {problems.size} problems: give at least one "
            "to each."
        )
    bar = progress_bar(None, len(mine), "fit") if progress else None
    work = Work()
    try:
        done = np.zeros(problems.size, bool)
        for part in parts:
            done[part.numbers] = True
        queue = mine[~done[mine]]
        if queue.size:
            widths = choose_widths(plan, problems, chunk)
            found = make_records(plan, problems, queue, widths, limit, work, default)
            for part in found:
                parts.append(part)
                if store is not None:
                    store.add(part)
                if bar is not None:
                    bar.update(len(part.numbers))
    finally:
        if store is not None:
            store.flush()
        if bar is not None:
            bar.close()
    numbers = np.concatenate([part.numbers for part in parts])
    order = np.argsort(numbers)
    numbers = numbers[order]
    records = pick(join([part.records for part in parts]), order)
    for part in parts:
        mixtures |= part.mixtures
    middle = time.perf_counter()
    if default and escalate and target.dim <= _DENSE_LIMIT:
        auto = Auto() if solver is None else solver
        for i in numbers[list(_unsettled(records))].tolist():
            if i not in singles:
                singles[i] = _fit_one(target, problems, support, auto, i)
                if store is not None:
                    store.add_single(i, singles[i])
    apart = bool(singles)
    records, mixtures, singles, work = gather(numbers, records, mixtures, singles, work)
    timings = [("batch", middle - began)]
    if apart:
        timings.append(("singles", time.perf_counter() - middle))
    return BatchResult(plan, records, singles, problems, work, support, tuple(timings), mixtures)


def _first_solver(target: Target) -> Solver:
    """What the default runs in a batch."""
    if target.dim > _DENSE_LIMIT:
        return StochasticGradient(LowRankGaussian())
    return BatchAndMatch()


def _unsettled(records: Records) -> Iterator[int]:
    """Problems for which a richer family might help."""
    numbers = np.flatnonzero(records.level)
    for i, facts in zip(numbers.tolist(), pick(records, numbers).all_facts(), strict=True):
        if not is_hopeless(facts):
            yield i


def _fit_one(target: Target, problems: Problems, support, auto: Any, i: int) -> FitResult:
    """One problem by itself, by all stages of the default."""
    init, data = problems.one(i)
    data = data if target.takes_data else None
    return fit(
        target.log_joint,
        init,
        data,
        support=support,
        solver=auto,
        key=problems.key(i),
        throw=False,
    )


def _check_settings(solver, max_steps, chunk) -> None:
    if not (solver is None or isinstance(solver, (Auto, Solver)) or callable(solver)):
        raise InputError(
            "solver must be None, bbvi.Auto(), a solver such as bbvi.StochasticGradient() or a "
            f"function that makes one of a problem's data, not {solver!r}."
        )
    if max_steps is not None and not _is_count(max_steps):
        raise InputError(f"max_steps must be a positive whole number, not {max_steps!r}.")
    if chunk != "auto" and not _is_count(chunk):
        raise InputError(f"chunk must be 'auto' or a positive whole number, not {chunk!r}.")


def _is_count(x: Any) -> bool:
    whole = isinstance(x, (int, np.integer)) and not isinstance(x, bool)
    return whole and bool(x >= 1)
