"""The compiled programs of a batch: begin, advance, judge. Nothing here looks at a value."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from bbvi._tree import tree_where
from bbvi._types import Array, PyTree
from bbvi.batch.problems import Common, Rows, Shape
from bbvi.batch.start import QuickStart, quick_start, uncovered_peak
from bbvi.diagnostics import Diagnostics, diagnose
from bbvi.families import Family
from bbvi.objectives.draws import normals
from bbvi.solvers import BatchAndMatch, Solver
from bbvi.status import Status
from bbvi.target import Target

AXIS = "problem"
# Points behind the moments of constrained parameters: quasi-random, the same for every problem.
_MOMENT_POINTS = 1024


class Plan(NamedTuple):
    """The static arguments that all programs share.

    Attributes:
        mesh: the devices that problems are spread over, or None for one device.
        target: the target.
        solver: the solver.
        shape: the static part of the batch.
    """

    mesh: Mesh | None
    target: Target
    solver: Solver
    shape: Shape


class Life(NamedTuple):
    """One problem under way: the solver's state, with keys as words, and its start."""

    state: Any
    start: QuickStart


class Judged(NamedTuple):
    """What is known of a problem at its end.

    Attributes:
        params: the family's parameters.
        diagnostics: figures from fresh draws; its draws and weights are left out.
        mean: (C,) means of the scalar parameters under the family.
        sd: (C,) their standard deviations.
        uncovered: whether a path ended on a peak that the fit does not cover.
        usable: whether the user's point could be used.
        drift: how far the averaged parameters last moved, in posterior sds.
        steps: steps taken.
        status: a `Status` code.
        num_gradients: gradient evaluations of the log joint.
        num_skipped: draws left out because they were not finite.
    """

    params: PyTree
    diagnostics: Diagnostics
    mean: Array
    sd: Array
    uncovered: Array
    usable: Array
    drift: Array
    steps: Array
    status: Array
    num_gradients: Array
    num_skipped: Array


@partial(jax.jit, static_argnums=0)
def begin(plan: Plan, rows: Rows, common: Common) -> Life:
    """The first states of some problems (W of them)."""
    target, solver, shape = plan.target, plan.solver, plan.shape

    def one(row, common):
        init, data, key = shape.problem(row, common)
        start_key, run_key, _ = jax.random.split(key, 3)
        start = quick_start(target, init, start_key, data)
        state = solver.init(target, start.loc, start.scale, run_key, data)
        # a start that cannot be used is not run: its problem is over before it began
        status = jnp.where(start.usable, state.log.status, int(Status.NONFINITE))
        state = state._replace(log=state.log._replace(status=status))
        return Life(_to_words(_without_history(solver, state)), start)

    return _each(plan.mesh, one, rows)(common)


class Advanced(NamedTuple):
    """Lives some steps later.

    Attributes:
        life: the lives (W).
        active: (W,) which of them are still running.
        steps: (devices,) steps that every slot of a device took.
    """

    life: Life
    active: Array
    steps: Array


@partial(jax.jit, static_argnums=0)
def advance(
    plan: Plan, life: Life, rows: Rows, common: Common, active: Array, least: Array, limit: Array
) -> Advanced:
    """Step all lives that are active until only `least` of them are, on each device.

    Args:
        plan: the static part.
        life: the lives (W).
        rows: their problems.
        common: what the problems share.
        active: (W,) which slots hold a problem that is not done.
        least: return when no more than this are active on a device.
        limit: the step limit of a problem.
    """
    target, solver, shape = plan.target, plan.solver, plan.shape
    like = _state_like(plan, rows, common)

    def step(state, row, common, active):
        _, data, _ = shape.problem(row, common)
        new, _ = solver.step(target, _from_words(state, like, shape.key), data)
        state = tree_where(active, _to_words(new), state)
        going = (state.log.status == Status.RUNNING) & (state.log.step < limit)
        return state, active & going

    steps = jax.vmap(step, (0, 0, None, 0))

    def all_of_a_device(life, rows, active, common, least):
        def body(carry):
            state, active, count = carry
            return *steps(state, rows, common, active), count + 1

        # computed from the problems' numbers, so that each device may count differently
        zero = rows.index[0] * 0
        carry = (life.state, active, zero)
        state, active, count = jax.lax.while_loop(lambda c: jnp.sum(c[1]) > least, body, carry)
        return Advanced(life._replace(state=state), active, count[None])

    split, whole = (life, rows, active), (common, least)
    return _on_each_device(plan.mesh, all_of_a_device, split, whole)


@partial(jax.jit, static_argnums=(0, 1))
def judge_lives(plan: Plan, num_draws: int, life: Life, rows: Rows, common: Common) -> Judged:
    """What some lives ended in, judged on fresh draws."""
    target, solver, shape = plan.target, plan.solver, plan.shape
    family = solver.family_for(target)
    like = _state_like(plan, rows, common)

    def one(pair, common):
        life, row = pair
        _, data, key = shape.problem(row, common)
        state = _from_words(life.state, like, shape.key)
        params = solver.output(state)
        judged = _diagnose(target, family, params, _judge_key(key), data, num_draws)
        mean, sd = _moments(target, family, params, data, judged)
        log_q = family.log_prob(params, life.start.peaks)
        log = state.log
        drift = getattr(state, "drift", jnp.zeros((), target.dtype))
        return Judged(
            params=params,
            diagnostics=judged,
            mean=mean,
            sd=sd,
            uncovered=uncovered_peak(target, log_q, life.start, judged.elbo, data),
            usable=life.start.usable,
            drift=drift,
            steps=log.step,
            status=log.status,
            num_gradients=log.num_gradients + life.start.num_gradients,
            num_skipped=log.num_skipped,
        )

    return _each(plan.mesh, one, (life, rows))(common)


@partial(jax.jit, static_argnums=(0, 1))
def judge_params(
    plan: Plan, num_draws: int | None, params: PyTree, rows: Rows, common: Common
) -> Diagnostics:
    """Judge given parameters of some problems on more draws than at first."""
    target, shape = plan.target, plan.shape
    family = plan.solver.family_for(target)

    def one(pair, common):
        params, row = pair
        _, data, key = shape.problem(row, common)
        return _diagnose(target, family, params, second_key(key), data, num_draws)

    return _each(plan.mesh, one, (params, rows))(common)


def second_key(key: Array) -> Array:
    """The key of the second look at a problem, from the problem's key."""
    return jax.random.fold_in(_judge_key(key), 1)


def _judge_key(key: Array) -> Array:
    return jax.random.split(key, 3)[2]


def _diagnose(target, family, params, key, data, num_draws) -> Diagnostics:
    """Diagnostics without the draws, which would outweigh all else."""
    found = diagnose.plain(target, family, params, key, data, num_draws)
    nothing = found.log_weights[:0]
    return found._replace(draws=found.draws[:0], log_weights=nothing)


def _moments(
    target: Target, family: Family, params: PyTree, data: PyTree, found: Diagnostics
) -> tuple[Array, Array]:
    """Means and sds (C,) of the scalars under the family, nearly without Monte Carlo noise."""
    size = family.noise_size(target.dim)
    eps = normals(
        jax.random.key(0), _MOMENT_POINTS, size, target.dtype, antithetic=True, quasi=True
    )
    if size != target.dim:
        return found.raw.mean, found.raw.sd
    z, _ = family.reparam(params, eps)
    x = jax.vmap(lambda z: target.scalars(target.constrain(z, data)))(z)
    mean = jnp.mean(x, axis=0)
    sd = jnp.sqrt(jnp.mean((x - mean) ** 2, axis=0))
    try:
        exact_mean, exact_sd = family.mean(params), family.sd(params)
    except NotImplementedError:
        return mean, sd
    start = 0
    for leaf in target.leaves:
        count = int(np.prod(leaf.shape))
        if leaf.bijector.name == "real":
            here, there = slice(start, start + count), slice(leaf.start, leaf.start + count)
            mean = mean.at[here].set(exact_mean[there])
            sd = sd.at[here].set(exact_sd[there])
        start += count
    return mean, sd


# --- states between programs ----------------------------------------------------------------


def _state_like(plan: Plan, rows: Rows, common: Common) -> Any:
    """The structure of the solver's state, with its keys as keys."""
    target = plan.target

    def state(row, common):
        init, data, key = plan.shape.problem(row, common)
        z = target.unconstrain(init, data)
        state = plan.solver.init(target, z, jnp.ones_like(z), key, data)
        return _without_history(plan.solver, state)

    row = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), rows)
    return jax.eval_shape(state, row, common)


def _without_history(solver: Solver, state: Any) -> Any:
    """Batch and match appends to its history and reads it never: one entry is as good as 512."""
    if not isinstance(solver, BatchAndMatch):
        return state
    history = state.log.history
    short = history._replace(
        step=history.step[:1], elbo=history.elbo[:1], elbo_se=history.elbo_se[:1]
    )
    return state._replace(log=state.log._replace(history=short))


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _to_words(state: Any) -> Any:
    """Random keys as their words, which a host can hold."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, state)


def _from_words(state: Any, like: Any, kind: str) -> Any:
    def one(x, shape):
        return jax.random.wrap_key_data(x, impl=kind) if _is_key(shape) else x

    return jax.tree.map(one, state, like)


# --- devices --------------------------------------------------------------------------------


def _each(mesh: Mesh | None, one: Callable, rows: PyTree) -> Callable:
    """`one(row, common)` for every row, spread over the devices."""

    def call(common):
        return _on_each_device(mesh, jax.vmap(one, (0, None)), (rows,), (common,))

    return call


def _on_each_device(mesh: Mesh | None, function: Callable, split: tuple, whole: tuple) -> Any:
    """`function(*split, *whole)`, with `split` cut along its first axis over the devices."""
    if mesh is None:
        return function(*split, *whole)
    specs = (P(AXIS),) * len(split) + (P(),) * len(whole)
    # problems do not talk to each other, so there is nothing for the checker to check
    mapped = jax.shard_map(
        function, mesh=mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False
    )
    return mapped(*split, *whole)
