"""L-BFGS downhill, one evaluation at a time; and paths uphill on a log density."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._arrays import choose, namespace
from bbvi._linalg import dot
from bbvi._types import AnyArray, PyTree
from bbvi.evaluate import scores
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

    Like everything here it may have more axes in front, and be of arrays of JAX or of numpy.

    Attributes:
        alpha: (D,) diagonal of the initial inverse Hessian.
        steps: (M, D) displacements, the newest last; zero where there is none yet.
        bends: (M, D) changes of the gradient.
        inverse_dots: (M,) 1 / (step . bend), 0 for an empty slot.
        inverse: (M, M) R^-1, upper triangular, where R has the products of each step with the bends
            from its own on; zero for empty slots.
    """

    alpha: AnyArray
    steps: AnyArray
    bends: AnyArray
    inverse_dots: AnyArray
    inverse: AnyArray


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

    x: AnyArray
    value: AnyArray
    gradient: AnyArray
    direction: AnyArray
    stride: AnyArray
    memory: Memory
    accepted: AnyArray
    flat: AnyArray
    done: AnyArray

    @property
    def trial(self) -> AnyArray:
        """The point (D,) to evaluate next; at first the start itself."""
        return self.x + self.stride[..., None] * self.direction


def begin_search(x: AnyArray, memory: int = _MEMORY) -> Search:
    """A search from `x` (D,), before its first evaluation."""
    xp, lead = namespace(x), x.shape[:-1]
    pairs, count = xp.zeros((*lead, memory, x.shape[-1]), x.dtype), xp.zeros(lead, xp.int32)
    slots, square = (xp.zeros((*lead, *shape), x.dtype) for shape in ((memory,), (memory, memory)))
    return Search(
        x=x,
        value=xp.full(lead, xp.inf, x.dtype),
        gradient=xp.zeros_like(x),
        direction=xp.zeros_like(x),
        stride=xp.ones(lead, x.dtype),
        memory=Memory(xp.ones_like(x), pairs, pairs, slots, square),
        accepted=count,
        flat=count,
        done=xp.zeros(lead, bool),
    )


def take(
    search: Search,
    value: AnyArray,
    gradient: AnyArray,
    finite: AnyArray,
    decrement: float = _DECREMENT,
    forced: AnyArray | bool = False,
) -> tuple[Search, AnyArray]:
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
    xp = namespace(search.x)
    noise = 10 * float(xp.finfo(search.x.dtype).eps)
    started = xp.isfinite(search.value)
    slope = xp.sum(search.gradient * search.direction, axis=-1)
    slack = noise * xp.abs(search.value)
    low = value <= search.value + _ARMIJO * search.stride * slope + slack
    accept = finite & (low | forced)

    x = search.trial
    memory = remember(search.memory, x - search.x, gradient - search.gradient)
    direction = descent(memory, gradient)
    new_slope = xp.sum(gradient * direction, axis=-1)
    downhill = xp.isfinite(new_slope) & (new_slope < 0)
    floor = noise * xp.abs(value)
    gain = -0.5 * new_slope
    # a prediction that grows is one of a curvature that is only being learnt
    shrinks = (new_slope >= slope) | (gain < floor)
    flat = downhill & shrinks & (gain < xp.maximum(decrement, floor))
    steepest = xp.max(xp.abs(gradient), axis=-1)
    flat_steps = xp.where(flat, search.flat + 1, 0)
    moved = Search(
        x=x,
        value=value,
        gradient=gradient,
        direction=xp.where(downhill[..., None], direction, -gradient),
        # without curvature, no coordinate moves by more than one unit
        stride=xp.where(downhill & started, 1, 1 / xp.maximum(1, steepest)),
        memory=memory,
        accepted=search.accepted + started,
        flat=flat_steps,
        done=(flat_steps >= _FLAT_STEPS) | (steepest == 0),
    )
    stride = search.stride * xp.where(finite, 0.3, 0.1).astype(search.x.dtype)
    shorter = search._replace(stride=stride, done=~started | (stride < noise))
    return choose(accept, moved, shorter), accept


class Path(NamedTuple):
    """Where a path went.

    Attributes:
        points: (P, D) snapshots, the last one the end.
        curvature_scale: (P, D) square roots of the diagonal inverse Hessian estimated there.
        num_gradients: evaluations spent.
    """

    points: AnyArray
    curvature_scale: AnyArray
    num_gradients: AnyArray


class Walk(NamedTuple):
    """A path between two evaluations.

    Attributes:
        search: the search along it.
        points: (P - 1, D) snapshots so far.
        scales: (P - 1, D) their scales.
        num_gradients: evaluations spent.
    """

    search: Search
    points: AnyArray
    scales: AnyArray
    num_gradients: AnyArray

    @property
    def path(self) -> Path:
        """What was seen on the way, and the end."""
        xp = namespace(self.points)
        end, scale = self.search.x, xp.sqrt(self.search.memory.alpha)
        points = xp.concatenate([self.points, end[..., None, :]], axis=-2)
        scales = xp.concatenate([self.scales, scale[..., None, :]], axis=-2)
        return Path(points, scales, self.num_gradients)


def begin_walk(start: AnyArray) -> Walk:
    """A path from `start` (D,), before its first evaluation."""
    xp = namespace(start)
    points = xp.stack([start] * len(SNAPSHOTS), axis=-2)
    search = begin_search(start)
    return Walk(search, points, xp.ones_like(points), search.accepted)


def go_on(walk: Walk, value: AnyArray, gradient: AnyArray, finite: AnyArray) -> Walk:
    """The path after its trial point has been evaluated."""
    xp = namespace(walk.points)
    search, accepted = take(walk.search, value, gradient, finite)
    # later slots follow the path
    here = (xp.array(SNAPSHOTS) >= search.accepted[..., None]) & accepted[..., None]
    scale = xp.sqrt(search.memory.alpha)
    return Walk(
        search,
        xp.where(here[..., None], search.x[..., None, :], walk.points),
        xp.where(here[..., None], scale[..., None, :], walk.scales),
        walk.num_gradients + 1,
    )


def lbfgs_path(
    target: Target, start: AnyArray, data: PyTree, max_evaluations: AnyArray | int
) -> Path:
    """Minimise -log density from `start` (D,), one gradient evaluation an iteration.

    A backtracking trial is an iteration of the one loop, so paths batched by `vmap` waste
    nothing on each other's line searches. The diagonal of the inverse Hessian follows Gilbert
    and Lemarechal 1989, as in Pathfinder (Zhang et al. 2022, JMLR 23(306), algorithm 3).
    """
    evaluate = jax.value_and_grad(lambda z: -target.log_density(z, data))

    def unfinished(walk):
        return ~walk.search.done & (walk.num_gradients < max_evaluations)

    def iterate(walk):
        value, gradient = evaluate(walk.search.trial)
        finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))
        return go_on(walk, value, gradient, finite)

    return jax.lax.while_loop(unfinished, iterate, begin_walk(start)).path


def paths_uphill(
    target: Target,
    starts: np.ndarray,
    data: PyTree,
    max_evaluations: int,
    held: np.ndarray | None = None,
) -> Path:
    """`lbfgs_path` from many starts (N, D) at once, on the host but for the evaluations.

    Args:
        target: the target.
        starts: (N, D).
        data: the user's data.
        max_evaluations: of each path.
        held: (N, D) coordinates that stay where they are until their path has ended, or half of
            its evaluations are spent: from there it begins anew.
    """
    walk = begin_walk(starts)
    held = np.zeros(starts.shape, bool) if held is None else held
    with np.errstate(all="ignore"):
        while True:
            half = walk.search.done | (2 * walk.num_gradients >= max_evaluations)
            free = half & held.any(axis=1)
            if free.any():
                anew = begin_walk(walk.search.x)._replace(num_gradients=walk.num_gradients)
                walk, held = choose(free, anew, walk), held & ~free[:, None]
            active = ~walk.search.done & (walk.num_gradients < max_evaluations)
            if not active.any():
                return walk.path
            log_p, score, ok = jax.device_get(scores(target, walk.search.trial, data))
            score = np.where(held, 0, score)
            walk = choose(active, go_on(walk, -log_p, -score, ok), walk)


def remember(memory: Memory, step: AnyArray, bend: AnyArray) -> Memory:
    """The memory with one more pair, unless its curvature is not positive."""
    xp, alpha = namespace(step), memory.alpha

    def total(x):
        return xp.sum(x, axis=-1, keepdims=True)

    dot = total(step * bend)
    curved = dot > 1e-10 * total(bend * bend) * xp.sqrt(xp.finfo(step.dtype).eps)
    safe = xp.where(curved, dot, 1)
    a = total(bend * alpha * bend)
    c = total(step * step / alpha)
    inverse = a / (safe * alpha) + bend**2 / safe - a * step**2 / (safe * c * alpha**2)
    updated = xp.where(inverse > 0, 1 / inverse, alpha)
    updated = xp.where(xp.isfinite(updated) & (updated > 0), updated, alpha)

    def push(rows, new):
        return xp.concatenate([rows[..., 1:, :], new[..., None, :]], axis=-2)

    # R grows by a column, the products of the steps with the new bend, and so does its inverse
    older, kept = memory.steps[..., 1:, :], memory.inverse[..., 1:, 1:]
    column = -_times(kept, _times(older, bend)) / safe
    column = xp.concatenate([column, 1 / safe], axis=-1)
    square = xp.concatenate([kept, xp.zeros_like(kept[..., :1, :])], axis=-2)
    grown = Memory(
        alpha=updated,
        steps=push(memory.steps, step),
        bends=push(memory.bends, bend),
        inverse_dots=xp.concatenate([memory.inverse_dots[..., 1:], 1 / safe], axis=-1),
        inverse=xp.concatenate([square, column[..., None]], axis=-1),
    )
    return choose(curved[..., 0], grown, memory)


def descent(memory: Memory, gradient: AnyArray) -> AnyArray:
    """Minus the inverse Hessian times the gradient.

    The two loops over the moves (Nocedal and Wright 2006, algorithm 7.4) solve two triangular
    systems in R, the products of each step with the bends from its own on:

        R w = S g,  R' c = diag(R) w - Y r,  r = alpha (g - Y' w),  and the result is -(r + S' c).
    """
    xp, (alpha, steps, bends, inverse_dots, inverse) = namespace(gradient), memory
    w = _times(inverse, _times(steps, gradient))
    start = alpha * (gradient - _times(xp.swapaxes(bends, -1, -2), w))
    rest = w / xp.where(inverse_dots == 0, 1, inverse_dots) - _times(bends, start)
    c = _times(xp.swapaxes(inverse, -1, -2), rest)
    return -(start + _times(xp.swapaxes(steps, -1, -2), c))


def _times(matrix: AnyArray, vector: AnyArray) -> AnyArray:
    return dot(matrix, vector[..., None])[..., 0]
