"""L-BFGS paths uphill on a log density, with points kept on the way."""

from typing import Any, NamedTuple

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


class _State(NamedTuple):
    x: Array
    value: Array
    gradient: Array
    direction: Array
    stride: Array
    alpha: Array  # diagonal of the initial inverse Hessian
    steps: Array  # (memory, D) displacements, the newest last
    bends: Array  # (memory, D) changes of the gradient
    inverse_dots: Array  # (memory,) 1 / (step . bend), 0 for an empty slot
    accepted: Array
    evaluations: Array
    done: Array
    snapshots: Array
    scales: Array


def lbfgs_path(target: Target, start: Array, data: PyTree, max_evaluations: int) -> Path:
    """Minimise -log density from `start` (D,), one gradient evaluation an iteration.

    A backtracking trial is an iteration of the one loop, so paths batched by `vmap` waste
    nothing on each other's line searches. The diagonal of the inverse Hessian follows Gilbert
    and Lemarechal 1989, as in Pathfinder (Zhang et al. 2022, JMLR 23(306), algorithm 3).
    """
    dim, dtype = start.shape[0], start.dtype
    evaluate = jax.value_and_grad(lambda z: -target.log_density(z, data))
    value, gradient = evaluate(start)
    zeros = jnp.zeros((_MEMORY, dim), dtype)
    count = jnp.zeros((), jnp.int32)
    kept = len(SNAPSHOTS)
    state = _State(
        x=start,
        value=value,
        gradient=gradient,
        direction=-gradient,
        # the first step moves no coordinate by more than one unit
        stride=1 / jnp.maximum(1, jnp.max(jnp.abs(gradient))),
        alpha=jnp.ones(dim, dtype),
        steps=zeros,
        bends=zeros,
        inverse_dots=jnp.zeros(_MEMORY, dtype),
        accepted=count,
        evaluations=count + 1,
        done=~(jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))),
        snapshots=jnp.tile(start, (kept, 1)),
        scales=jnp.ones((kept, dim), dtype),
    )
    noise = 10 * jnp.finfo(dtype).eps

    def iterate(s: _State) -> _State:
        x = s.x + s.stride * s.direction
        value, gradient = evaluate(x)
        slope = jnp.sum(s.gradient * s.direction)
        finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))
        slack = noise * jnp.abs(s.value)
        accept = finite & (value <= s.value + _ARMIJO * s.stride * slope + slack)

        remembered = _remember(s, x - s.x, gradient - s.gradient)
        direction = _descent(remembered, gradient)
        slope = jnp.sum(gradient * direction)
        downhill = jnp.isfinite(slope) & (slope < 0)
        direction = jnp.where(downhill, direction, -gradient)
        flat = -0.5 * slope < jnp.maximum(_DECREMENT, noise * jnp.abs(value))
        accepted = s.accepted + 1
        here = jnp.array(SNAPSHOTS)[:, None] >= accepted  # later slots follow the path
        moved = remembered._replace(
            x=x,
            value=value,
            gradient=gradient,
            direction=direction,
            stride=jnp.where(downhill, 1, 1 / jnp.maximum(1, jnp.max(jnp.abs(gradient)))),
            accepted=accepted,
            done=(downhill & flat) | (jnp.max(jnp.abs(gradient)) == 0),
            snapshots=jnp.where(here, x, s.snapshots),
            scales=jnp.where(here, jnp.sqrt(remembered.alpha), s.scales),
        )
        shorter = s._replace(stride=s.stride * jnp.where(finite, 0.3, 0.1))
        shorter = shorter._replace(done=shorter.stride < noise)
        state = tree_where(accept, moved, shorter)
        return state._replace(evaluations=s.evaluations + 1)

    state = jax.lax.while_loop(
        lambda s: ~s.done & (s.evaluations < max_evaluations), iterate, state
    )
    points = jnp.concatenate([state.snapshots, state.x[None]])
    scales = jnp.concatenate([state.scales, jnp.sqrt(state.alpha)[None]])
    return Path(points, scales, state.evaluations)


def _remember(s: _State, step: Array, bend: Array) -> Any:
    """The state with one more pair, unless its curvature is not positive."""
    dot = jnp.sum(step * bend)
    curved = dot > 1e-10 * jnp.sum(bend * bend) * jnp.sqrt(jnp.finfo(step.dtype).eps)
    safe = jnp.where(curved, dot, 1)
    a = jnp.sum(bend * s.alpha * bend)
    c = jnp.sum(step * step / s.alpha)
    inverse = a / (safe * s.alpha) + bend**2 / safe - a * step**2 / (safe * c * s.alpha**2)
    alpha = jnp.where(inverse > 0, 1 / inverse, s.alpha)
    alpha = jnp.where(jnp.isfinite(alpha) & (alpha > 0), alpha, s.alpha)

    def push(memory, new):
        return jnp.concatenate([memory[1:], new[None]])

    grown = s._replace(
        alpha=alpha,
        steps=push(s.steps, step),
        bends=push(s.bends, bend),
        inverse_dots=push(s.inverse_dots, 1 / safe),
    )
    return tree_where(curved, grown, s)


def _descent(s: _State, gradient: Array) -> Array:
    """Minus the inverse Hessian times the gradient (Nocedal and Wright 2006, algorithm 7.4)."""

    def backward(q, pair):
        step, bend, inverse = pair
        weight = inverse * jnp.sum(step * q)
        return q - weight * bend, weight

    def forward(r, pair):
        step, bend, inverse, weight = pair
        return r + step * (weight - inverse * jnp.sum(bend * r)), None

    pairs = (s.steps, s.bends, s.inverse_dots)
    q, weights = jax.lax.scan(backward, gradient, pairs, reverse=True)
    r, _ = jax.lax.scan(forward, s.alpha * q, (*pairs, weights))
    return -r
