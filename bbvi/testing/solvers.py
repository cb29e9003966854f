"""The check of a solver, for people who add their own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._types import Array, Key, PyTree
from bbvi.inputs import make_target
from bbvi.solvers import Info, Solver
from bbvi.solvers.base import RunLog
from bbvi.status import Status
from bbvi.target import Target
from bbvi.testing.require import require, require_near, require_same_leaves


def check_solver(solver: Solver, *, key: Key = 0, reaches: bool = True) -> None:
    r"""Check that a solver keeps its promises.

    On a Gaussian of two independent coordinates: hash; that `init`, `init_at`, `step`, `advance`
    and `output` agree on structure, shapes and dtypes (no weak types), and `output` with the
    family; that each step is counted, with its gradients; that `advance` does what steps by hand
    do, stops at its limit and leaves a state that has ended alone; `jax.jit`, `jax.lax.scan`, and
    `jax.vmap` over keys and data; that a step on which every draw is NaN changes the counts and
    nothing else, and that nothing but such steps ends in `Status.NONFINITE`. All in the default
    dtype: run it a second time with 64-bit types enabled.

    Args:
        solver: the solver.
        key: an int or a JAX key, for the runs.
        reaches: whether the solver should get to the Gaussian within its own step limit, to 0.1
            standard deviations in the means and 10% in the standard deviations.

    Raises:
        AssertionError: if a promise is broken; the message says which.

    Example:
        >>> from bbvi.solvers import BatchAndMatch
        >>> check_solver(BatchAndMatch())
    """
    name = type(solver).__name__
    require(isinstance(solver, Solver), f"{name} is not a subclass of bbvi.Solver.")
    require(
        "__dataclass_fields__" in vars(type(solver)),
        f"{name} must be decorated with @dataclass(frozen=True).",
    )
    hash(solver)
    key = jax.random.key(key) if isinstance(key, int) else key
    dtype = jnp.result_type(float)
    problems = [
        {"mean": jnp.array(mean, dtype), "sd": jnp.array(sd, dtype), "usable": jnp.ones((), bool)}
        for mean, sd in (([1.0, -2.0], [0.5, 2.0]), ([-1.5, 0.5], [1.5, 0.7]))
    ]
    good, bad = problems[0], problems[0] | {"usable": jnp.zeros((), bool)}
    target, start, _ = make_target(_independent_gaussian, np.zeros(2, dtype), good, None)
    limit = solver.limit(target)
    require(isinstance(limit, int) and limit > 0, f"{name}: limit is {limit!r}.")
    _check_solver_types(solver, target, good)

    init = jax.jit(lambda key, data: solver.init(target, start, jnp.ones_like(start), key, data))
    advance = jax.jit(lambda state, data, limit: solver.advance(target, state, data, limit))
    output = jax.jit(solver.output)

    @jax.jit
    def step(state: Any, data: PyTree) -> Any:
        # as a scan over one, which asks for a state that keeps its types
        return jax.lax.scan(lambda s, _: solver.step(target, s, data), state, length=1)[0]

    def require_same_run(message: str, found: Any, expected: Any, factor: float) -> None:
        """The same counts, and the same output up to rounding."""
        a, b = ([int(x) for x in state.log[:4]] for state in (found, expected))
        require(a == b, f"{name}: {message}: the log is {a} and not {b}.")
        require_same_leaves(f"{name}: {message}", output(found), output(expected), factor)

    state = init(key, good)
    counts = jax.tree.map(int, state.log[:4])
    require(counts == (0, Status.RUNNING, 0, 0), f"{name}: the log of init is {counts}.")
    first = state
    for number in range(1, _SOLVER_STEPS + 1):
        if state.log.status != Status.RUNNING:
            break
        before, state = state.log, step(state, good)
        require(int(state.log.step) == number, f"{name}: step {number} is not counted.")
        more = state.log.num_gradients > before.num_gradients
        require(bool(more), f"{name}: num_gradients does not count the gradients of a step.")
        require(int(state.log.num_skipped) == 0, f"{name}: num_skipped counts good draws.")
    by_hand = state
    ran = advance(first, good, _SOLVER_STEPS)
    require_same_run("advance differs from steps by hand", ran, by_hand, 100)
    again = advance(ran, good, _SOLVER_STEPS)
    require_same_run("advance goes on after the steps asked for", again, ran, 0)

    keys = jax.random.split(key, 2)
    datas = jax.tree.map(lambda *x: jnp.stack(x), *problems)
    batch = jax.jit(
        jax.vmap(
            lambda key, data: solver.advance(
                target,
                solver.init(target, start, jnp.ones_like(start), key, data),
                data,
                jnp.int32(_SOLVER_STEPS),
            )
        )
    )(keys, datas)
    for i, data in enumerate(problems):
        found = jax.tree.map(lambda x, i=i: x[i], batch)
        single = advance(init(keys[i], data), data, _SOLVER_STEPS)
        require_same_run("a run is another one under vmap", found, single, 100)

    after = step(by_hand, bad)
    steps, skipped = int(after.log.step - by_hand.log.step), int(after.log.num_skipped)
    require(steps == 1, f"{name}: a step without a usable draw is not counted.")
    require(skipped > 0, f"{name}: num_skipped does not count draws that are NaN.")
    message = f"{name}: a step without a usable draw changes the output"
    require_same_leaves(message, output(after), output(by_hand), 0)
    failed = advance(first, bad, limit)
    status = Status(int(failed.log.status))
    require(
        status is Status.NONFINITE, f"{name}: without a usable draw the run ends as {status.name}."
    )
    message = f"{name}: a run without a usable draw changes the output"
    require_same_leaves(message, output(failed), output(first), 10)

    ended = advance(first, good, limit)
    status = Status(int(ended.log.status))
    require(int(ended.log.step) <= limit, f"{name}: advance goes beyond its limit.")
    require(not status.failed, f"{name}: the run ends as {status.name}.")
    again = advance(ended, good, limit)
    require_same_run("advance changes a state that has ended", again, ended, 0)
    if not reaches:
        return
    family = solver.family_for(target)
    draws = jax.jit(lambda p, key: family.sample_and_log_prob(p, key, _SOLVER_DRAWS)[0])
    z = np.asarray(draws(output(ended), key))
    mean, sd = (np.asarray(good[label]) for label in ("mean", "sd"))
    error = sd / _SOLVER_DRAWS**0.5
    message = f"{name}: the run misses the {{}} of a Gaussian"
    require_near(z.mean(0), mean, error + 0.1 / 5 * sd, message.format("means"))
    message = message.format("standard deviations")
    require_near(z.std(0), sd, error + 0.1 / 5 * sd, message)


_SOLVER_STEPS = 5


_SOLVER_DRAWS = 4096


def _independent_gaussian(x: Array, data: dict[str, Array]) -> Array:
    value = -0.5 * jnp.sum(((x - data["mean"]) / data["sd"]) ** 2)
    return jnp.where(data["usable"], value, jnp.nan)


def _check_solver_types(solver: Solver, target: Target, data: PyTree) -> None:
    """Structures, shapes and dtypes of all that a solver makes, without running it."""
    name = type(solver).__name__
    vector = jax.ShapeDtypeStruct((target.dim,), target.dtype)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def types(tree: PyTree) -> tuple[Any, list[tuple]]:
        leaves, structure = jax.tree.flatten(tree)
        return structure, [(x.shape, x.dtype, x.weak_type) for x in leaves]

    state = jax.eval_shape(lambda *x: solver.init(target, *x), vector, vector, key, data)
    require(
        isinstance(getattr(state, "log", None), RunLog), f"{name}: the state has no log: RunLog."
    )
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        require(not leaf.weak_type, f"{name}: state{jax.tree_util.keystr(path)} has a weak dtype.")
    after, info = jax.eval_shape(lambda *x: solver.step(target, *x), state, data)
    expected = types(state)
    require(types(after) == expected, f"{name}: step changes {_first_change(state, after)}.")
    end = jax.eval_shape(lambda s, d: solver.advance(target, s, d, jnp.int32(3)), state, data)
    require(types(end) == expected, f"{name}: advance changes {_first_change(state, end)}.")
    require(
        isinstance(info, Info) and all(x.shape == () for x in info),
        f"{name}: step must return a state and an Info of scalars.",
    )
    found = jax.eval_shape(solver.output, state)
    params = jax.eval_shape(solver.family_for(target).init, vector, vector)
    require(
        types(found) == types(params),
        f"{name}: output gives {found} and not {params}, the family's.",
    )
    warm = jax.eval_shape(lambda *x: solver.init_at(target, *x), params, key, data)
    require(
        types(warm) == expected, f"{name}: init_at and init differ: {_first_change(state, warm)}."
    )


def _first_change(before: PyTree, after: PyTree) -> str:
    """The first leaf of a state that another one has differently."""
    others = jax.tree_util.tree_flatten_with_path(after)[0]
    paths = jax.tree_util.tree_flatten_with_path(before)[0]
    for (path, leaf), (other_path, other) in zip(paths, others, strict=False):
        same = (leaf.shape, leaf.dtype, leaf.weak_type) == (
            other.shape,
            other.dtype,
            other.weak_type,
        )
        if path != other_path or not same:
            return f"state{jax.tree_util.keystr(path)}, {leaf}, to {other}"
    return "the structure of the state"
