"""The driver: every jitted entry point of a fit, and the host loop around the longest one."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._compile import loop_jit, once_jit, plain_jit, quick_jit
from bbvi._types import Array, PyTree
from bbvi.solvers import Solver
from bbvi.status import Status
from bbvi.target import Target

_FIRST_CHUNK = 256  # steps
_CHUNK_SECONDS = 0.25  # how long Ctrl-C, a callback or a progress bar may have to wait


class Start(NamedTuple):
    """The user's point as the target sees it, and what is wrong with it, if anything.

    Attributes:
        z: (D,) the flat vector.
        inside: one flag a leaf, whether it lies in its support.
        finite: one flag a leaf, whether its values are finite.
        log_density: the log density there.
        finite_gradient: one flag a leaf, whether the gradient is finite there.
    """

    z: Array
    inside: Array
    finite: Array
    log_density: Array
    finite_gradient: Array


@quick_jit()
def examine(target: Target, params: PyTree, data: PyTree) -> Start:
    """Look at the user's point: the one evaluation before a fit."""
    values = target.treedef.flatten_up_to(params)
    bound = [leaf.bijector.bind(params, data) for leaf in target.leaves]
    inside = jnp.stack([b.contains(x) for b, x in zip(bound, values, strict=True)])
    finite = jnp.stack([jnp.all(jnp.isfinite(x)) for x in values])
    z = target.unconstrain(params, data)
    log_density, gradient = jax.value_and_grad(target.log_density)(z, data)
    parts = [jnp.all(jnp.isfinite(leaf.take(gradient))) for leaf in target.leaves]
    return Start(z, inside, finite, log_density, jnp.stack(parts))


@quick_jit(1, (0, 1))
def begin(solver: Solver, target: Target, loc: Array, scale: Array, key: Array, data: PyTree):
    """The solver's first state, compiled."""
    return solver.init(target, loc, scale, key, data)


@quick_jit(1, (0, 1))
def begin_at(solver: Solver, target: Target, params: PyTree, key: Array, data: PyTree):
    """The solver's first state at given parameters of its family, compiled."""
    return solver.init_at(target, params, key, data)


@plain_jit((0,))
def constrain(target: Target, z: Array, data: PyTree) -> PyTree:
    """The user's parameters at a flat vector (D,), compiled."""
    return target.constrain(z, data)


@loop_jit((0, 1))
def _run(solver: Solver, target: Target, state: Any, data: PyTree, limit: Array) -> Any:
    return solver.advance(target, state, data, limit)


@once_jit()
def finish(solver: Solver, state: Any) -> PyTree:
    """The family's parameters that a state stands for, compiled."""
    return solver.output(state)


def run(
    solver: Solver,
    target: Target,
    state: Any,
    data: PyTree,
    max_steps: int,
    observe: Callable[[Any], Any] | None = None,
) -> Any:
    """Step until the solver stops or `max_steps` steps are taken.

    One compiled loop whose step limit is an argument; the host calls it in chunks, so the
    numbers are the same to the bit however often somebody looks.

    Args:
        solver: the solver.
        target: the target.
        state: a state of the solver, not changed.
        data: the user's data.
        max_steps: total number of steps, counted from the solver's `init`.
        observe: called with the state after each chunk; true, or a `Status`, ends the run.

    Returns:
        the last state. Ctrl-C, or `observe` saying so, ends the run with
        `Status.INTERRUPTED` and all that was done until then.
    """
    chunk = _FIRST_CHUNK
    step = int(state.log.step)
    try:
        while step < max_steps and int(state.log.status) == Status.RUNNING:
            began = time.perf_counter()
            limit = np.int32(min(step + chunk, max_steps))
            state = jax.block_until_ready(_run(solver, target, state, data, limit))
            if time.perf_counter() - began < _CHUNK_SECONDS:
                chunk *= 2
            elif time.perf_counter() - began > 2 * _CHUNK_SECONDS:
                chunk = max(1, chunk // 2)
            step = int(state.log.step)
            answer = observe(state) if observe is not None else False
            if answer:
                status = answer if isinstance(answer, Status) else Status.INTERRUPTED
                return _with_status(state, status)
    except KeyboardInterrupt:
        return _with_status(state, Status.INTERRUPTED)
    return state


def _with_status(state: Any, status: Status) -> Any:
    if int(state.log.status) != Status.RUNNING:
        return state
    return state._replace(log=state.log._replace(status=np.int32(status)))
