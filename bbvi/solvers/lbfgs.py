"""L-BFGS downhill, one evaluation at a time; and paths uphill on a log density."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bbvi._tree import tree_where
from bbvi._types import Array, PyTree
from bbvi.target import Target

# Snapshots are taken after so many accepted iterations; the last point makes one more.
SNAPSHOTS = (4, 16, 64)
_MEMORY = 10
_ARMIJO = 1e-4
# A path ends when the predicted rise (the Newton decrement) is below this many nats.
_DECREMENT = 1e-3
# The prediction takes the curvatures remembered, at first those of the steepest directions alone,
# and sees no gain along flat ones: a small one has to be repeated, and shrink, to be believed.
_FLAT_STEPS = 3


class Memory(NamedTuple):
    """What a search knows of curvature: an inverse Hessian from its last M moves.

    Attributes:
        alpha: (D,) diagonal of the initial inverse Hessian.
        steps: (M, D) displacements, the newest last; zero where there is none yet.
        bends: (M, D) changes of the gradient.
        inverse_dots: (M,) 1 / (step . bend), 0 for an empty slot.
    """

    alpha: Array
    steps: Array
    bends: Array
    inverse_dots: Array


class Search(NamedTuple):
    """A minimisation between two evaluations.

    Attributes:
        x: (D,) the best point so far.
        value: the function there; infinite before the first evaluation.
        gradient: (D,) its gradient there.
        direction: (D,) where to go.
        stride: how far along it the next evaluation is.
        memory: the curvature.
        accepted: moves made.
        flat: moves in a row with a predicted gain that is too small to matter.
        done: whether there is nothing more to gain.
    """

    x: Array
    value: Array
    gradient: Array
    direction: Array
    stride: Array
    memory: Memory
    accepted: Array
    flat: Array
    done: Array

    @property
    def trial(self) -> Array:
        """The point (D,) to evaluate next; at first the start itself."""
        return self.x + self.stride * self.direction


def begin_search(x: Array, memory: int = _MEMORY) -> Search:
    """A search from `x` (D,), before its first evaluation."""
    zeros, count = jnp.zeros((memory, *x.shape), x.dtype), jnp.zeros((), jnp.int32)
    return Search(
        x=x,
        value=jnp.full((), jnp.inf, x.dtype),
        gradient=jnp.zeros_like(x),
        direction=jnp.zeros_like(x),
        stride=jnp.ones((), x.dtype),
        memory=Memory(jnp.ones_like(x), zeros, zeros, jnp.zeros(memory, x.dtype)),
        accepted=count,
        flat=count,
        done=jnp.zeros((), bool),
    )


def take(
    search: Search,
    value: Array,
    gradient: Array,
    finite: Array,
    decrement: float = _DECREMENT,
    forced: Array | bool = False,
) -> tuple[Search, Array]:
    """Judge the evaluation of `search.trial`: move there, or come back with a shorter stride.

    Args:
        search: the search.
        value: the function at the trial point.
        gradient: (D,) its gradient.
        finite: whether these can be used.
        decrement: the predicted gain that is too small to matter.
        forced: move there whatever the value.

    Returns:
        the search, and whether it moved.
    """
    noise = 10 * jnp.finfo(search.x.dtype).eps
    started = jnp.isfinite(search.value)
    slope = jnp.sum(search.gradient * search.direction)
    slack = noise * jnp.abs(search.value)
    low = value <= search.value + _ARMIJO * search.stride * slope + slack
    accept = finite & (low | forced)

    x = search.trial
    memory = remember(search.memory, x - search.x, gradient - search.gradient)
    direction = descent(memory, gradient)
    new_slope = jnp.sum(gradient * direction)
    downhill = jnp.isfinite(new_slope) & (new_slope < 0)
    floor = noise * jnp.abs(value)
    gain = -0.5 * new_slope
    # a prediction that grows is one of a curvature that is only being learnt
    shrinks = (new_slope >= slope) | (gain < floor)
    flat = downhill & shrinks & (gain < jnp.maximum(decrement, floor))
    steepest = jnp.max(jnp.abs(gradient))
    flat_steps = jnp.where(flat, search.flat + 1, 0)
    moved = Search(
        x=x,
        value=value,
        gradient=gradient,
        direction=jnp.where(downhill, direction, -gradient),
        # without curvature, no coordinate moves by more than one unit
        stride=jnp.where(downhill & started, 1, 1 / jnp.maximum(1, steepest)),
        memory=memory,
        accepted=search.accepted + started,
        flat=flat_steps,
        done=(flat_steps >= _FLAT_STEPS) | (steepest == 0),
    )
    stride = search.stride * jnp.where(finite, 0.3, 0.1)
    shorter = search._replace(stride=stride, done=~started | (stride < noise))
    return tree_where(accept, moved, shorter), accept


class Path(NamedTuple):
    """Where a path went.

    Attributes:
        points: (P, D) snapshots, the last one the end.
        curvature_scale: (P, D) square roots of the diagonal inverse Hessian estimated there.
        num_gradients: evaluations spent.
    """

    points: Array
    curvature_scale: Array
    num_gradients: Array


def lbfgs_path(target: Target, start: Array, data: PyTree, max_evaluations: Array | int) -> Path:
    """Minimise -log density from `start` (D,), one gradient evaluation an iteration.

    A backtracking trial is an iteration of the one loop, so paths batched by `vmap` waste
    nothing on each other's line searches. The diagonal of the inverse Hessian follows Gilbert
    and Lemarechal 1989, as in Pathfinder (Zhang et al. 2022, JMLR 23(306), algorithm 3).
    """
    evaluate = jax.value_and_grad(lambda z: -target.log_density(z, data))
    kept = len(SNAPSHOTS)
    snapshots, scales = jnp.tile(start, (kept, 1)), jnp.ones((kept, start.shape[0]), start.dtype)

    def iterate(carry):
        search, snapshots, scales, count = carry
        value, gradient = evaluate(search.trial)
        finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))
        search, accepted = take(search, value, gradient, finite)
        here = jnp.array(SNAPSHOTS)[:, None] >= search.accepted  # later slots follow the path
        here = here & accepted
        snapshots = jnp.where(here, search.x, snapshots)
        scales = jnp.where(here, jnp.sqrt(search.memory.alpha), scales)
        return search, snapshots, scales, count + 1

    first = (begin_search(start), snapshots, scales, jnp.zeros((), jnp.int32))
    search, snapshots, scales, count = jax.lax.while_loop(
        lambda c: ~c[0].done & (c[3] < max_evaluations), iterate, first
    )
    points = jnp.concatenate([snapshots, search.x[None]])
    scales = jnp.concatenate([scales, jnp.sqrt(search.memory.alpha)[None]])
    return Path(points, scales, count)


def remember(memory: Memory, step: Array, bend: Array) -> Memory:
    """The memory with one more pair, unless its curvature is not positive."""
    alpha = memory.alpha
    dot = jnp.sum(step * bend)
    curved = dot > 1e-10 * jnp.sum(bend * bend) * jnp.sqrt(jnp.finfo(step.dtype).eps)
    safe = jnp.where(curved, dot, 1)
    a = jnp.sum(bend * alpha * bend)
    c = jnp.sum(step * step / alpha)
    inverse = a / (safe * alpha) + bend**2 / safe - a * step**2 / (safe * c * alpha**2)
    updated = jnp.where(inverse > 0, 1 / inverse, alpha)
    updated = jnp.where(jnp.isfinite(updated) & (updated > 0), updated, alpha)

    def push(rows, new):
        return jnp.concatenate([rows[1:], new[None]])

    grown = Memory(
        alpha=updated,
        steps=push(memory.steps, step),
        bends=push(memory.bends, bend),
        inverse_dots=push(memory.inverse_dots, 1 / safe),
    )
    return tree_where(curved, grown, memory)


def descent(memory: Memory, gradient: Array) -> Array:
    """Minus the inverse Hessian times the gradient (Nocedal and Wright 2006, algorithm 7.4)."""

    def backward(q, pair):
        step, bend, inverse = pair
        weight = inverse * jnp.sum(step * q)
        return q - weight * bend, weight

    def forward(r, pair):
        step, bend, inverse, weight = pair
        return r + step * (weight - inverse * jnp.sum(bend * r)), None

    pairs = (memory.steps, memory.bends, memory.inverse_dots)
    q, weights = jax.lax.scan(backward, gradient, pairs, reverse=True)
    r, _ = jax.lax.scan(forward, memory.alpha * q, (*pairs, weights))
    return -r
