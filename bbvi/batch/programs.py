"""The compiled programs of a batch: begin, advance, judge. Nothing here looks at a value."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from bbvi._compile import QUICKLY, TunedJit
from bbvi._tree import tree_where
from bbvi._types import Array, PyTree
from bbvi.batch.look import first_look
from bbvi.batch.marginals import own_moments
from bbvi.batch.problems import Common, Rows, Shape
from bbvi.batch.start import QuickStart, quick_start, uncovered_peak
from bbvi.diagnostics.figures import Diagnostics
from bbvi.diagnostics.pareto import psis
from bbvi.families import Family
from bbvi.families.proposals import with_tails
from bbvi.solvers import BatchAndMatch, Solver
from bbvi.status import Status
from bbvi.target import Target

AXIS = "problem"


class Plan(NamedTuple):
    """The static arguments that all programs share.

    Attributes:
        mesh: the devices that problems are spread over, or None for one device.
        target: the target.
        solver: the solver.
        shape: the static part of the batch.
        quick: whether programs are compiled without optimisation: in a third of the time, to
            run at a third of the speed.
    """

    mesh: Mesh | None
    target: Target
    solver: Solver
    shape: Shape
    quick: bool = False

    @property
    def family(self) -> Family:
        """The family that the solver fits."""
        return self.solver.family_for(self.target)

    @property
    def num_devices(self) -> int:
        """How many devices the problems are spread over."""
        return 1 if self.mesh is None else self.mesh.size


def program(static_argnums: tuple[int, ...]) -> Callable[[Callable], TunedJit]:
    """Decorator of a function of a plan, compiled as the plan says."""
    pays = lambda plan, *args: plan.quick  # noqa: E731
    return lambda function: TunedJit(function, static_argnums, QUICKLY, pays)


class Life(NamedTuple):
    """One problem under way: the solver's state, with keys as words, and its start."""

    state: Any
    start: QuickStart


class Look(NamedTuple):
    """What fresh draws say of some fits.

    Attributes:
        diagnostics: figures; the draws and their weights are left out.
        mean: (C,) means of the scalar parameters under the family.
        sd: (C,) their standard deviations.
        uncovered: whether a path ended on a peak that the fit does not cover.
        apart: whether the fit consists of separate modes.
    """

    diagnostics: Diagnostics
    mean: Array
    sd: Array
    uncovered: Array
    apart: Array


class End(NamedTuple):
    """How a run ended.

    Attributes:
        usable: whether the user's point could be used.
        drift: how far the averaged parameters last moved, in posterior sds.
        steps: steps taken.
        status: a `Status` code.
        num_gradients: gradient evaluations of the log joint.
        num_skipped: draws left out because they were not finite.
    """

    usable: Array
    drift: Array
    steps: Array
    status: Array
    num_gradients: Array
    num_skipped: Array


@program((0,))
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

    return each(plan.mesh, one, rows)(common)


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


@program((0,))
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


@program((0, 1))
def judge_lives(
    plan: Plan, num_draws: int, life: Life, rows: Rows, common: Common
) -> tuple[PyTree, Look, End]:
    """The parameters that some lives ended in, and a first look at them."""
    target, solver, shape = plan.target, plan.solver, plan.shape
    family = solver.family_for(target)
    like = _state_like(plan, rows, common)

    def one(pair, common):
        life, row = pair
        _, data, key = shape.problem(row, common)
        state = _from_words(life.state, like, shape.key)
        params = solver.output(state)
        mean, sd = own_moments(target, family, params, data)
        args = (target, family, params, look_key(key, 0), data, num_draws, mean, sd)
        found = first_look(*args)
        log = state.log
        end = End(
            usable=life.start.usable,
            drift=getattr(state, "drift", jnp.zeros((), target.dtype)),
            steps=log.step,
            status=log.status,
            num_gradients=log.num_gradients + life.start.num_gradients,
            num_skipped=log.num_skipped,
        )
        # what the heavier half of the fresh draws would have found is covered as well
        log_q = log_proposal(target, family, params, life.start.peaks)
        left = uncovered_peak(target, log_q, life.start, found.log_evidence, data)
        look = Look(found, mean, sd, left, jnp.zeros((), bool))
        return params, look, end

    return each(plan.mesh, one, (life, rows))(common)


@program((0, 1, 2, 3))
def draw_some(
    plan: Plan,
    family: Family,
    num_draws: int,
    pool: int,
    params: PyTree,
    corrected: Array,
    numbers: Array,
    rows: Rows,
    common: Common,
) -> PyTree:
    """Draws (W, num_draws, ...) of some fits, by importance weights where these correct them."""
    target, shape = plan.target, plan.shape

    def one(args, common):
        params, corrected, number, row = args
        _, data, key = shape.problem(row, common)
        plain_key, pool_key, pick_key = jax.random.split(jax.random.fold_in(key, number), 3)
        z, _ = family.sample_and_log_prob(params, plain_key, num_draws)
        proposed = family.propose(params, pool_key, pool)
        ratio = target.log_densities(proposed.z, data) - proposed.log_mixture
        log_weights, _ = psis(jnp.where(jnp.isfinite(ratio), ratio, -jnp.inf))
        total = jnp.cumsum(jnp.exp(log_weights))
        at = jax.random.uniform(pick_key, (num_draws,), total.dtype) * total[-1]
        chosen = jnp.searchsorted(total, at)
        z = jnp.where(corrected, proposed.z[chosen], z)
        return jax.vmap(lambda z: target.constrain(z, data))(z)

    return each(plan.mesh, one, (params, corrected, numbers, rows))(common)


def look_key(key: Array, number: Array | int) -> Array:
    """The key of the fresh draws of a problem's look, from the problem's key."""
    return jax.random.fold_in(jax.random.split(key, 3)[2], number)


def log_proposal(target: Target, family: Family, params: PyTree, z: Array) -> Array:
    """Log density (S,) of a fit with the heavier tails of the other half of its fresh draws."""
    units = family.frame(params).invert(z)
    return with_tails(family.log_prob(params, z), jnp.sum(units**2, axis=-1), target.dim)


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


def each(mesh: Mesh | None, one: Callable, rows: PyTree) -> Callable:
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
    mapped = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False)
    return mapped(*split, *whole)
