"""Averages over windows of steps, and whether these still show a trend."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from bbvi._types import Array

BATCHES = 8  # a window is so many batches; their means carry the noise estimate
# Batches' means that are independent have a von Neumann ratio near 2 and those on a trend near
# 0 (von Neumann 1941); a window counts as stalled above this.
_STALL_RATIO = 1.0


class Window(NamedTuple):
    """Running sums over the batches of one window, all in standardised units.

    Parameters are flat vectors (P,): one kernel where a tree would need one a leaf, at each of the
    many small operations of a step.

    Attributes:
        batch: batches complete.
        batch_end: step at which the present batch ends.
        batch_length: its length in steps.
        batch_sum: sum of the parameters over its steps.
        elbo_origin: an ELBO of before, from which those of the batch are counted: squares of
            the values themselves would lose their spread to rounding.
        elbo_sum: sums over its steps of the ELBO less that, its square, and the usable steps.
        previous: mean of the batch before.
        total: sum of the batch means.
        squares: sum of their squares.
        jumps: sum of the squared differences between neighbours, a scalar.
    """

    batch: Array
    batch_end: Array
    batch_length: Array
    batch_sum: Array
    elbo_origin: Array
    elbo_sum: Array
    previous: Array
    total: Array
    squares: Array
    jumps: Array


def new_window(params: Array, step: Array, batch_end: Array, elbo_origin: Array | float) -> Window:
    """An empty window.

    Args:
        params: of the shape (P,) of what is averaged.
        step: steps taken.
        batch_end: the step at which its first batch ends.
        elbo_origin: an ELBO of before.
    """
    zeros = jnp.zeros_like(params)
    return Window(
        batch=jnp.zeros((), jnp.int32),
        batch_end=batch_end.astype(jnp.int32),
        batch_length=(batch_end - step).astype(jnp.int32),
        batch_sum=zeros,
        elbo_origin=jnp.asarray(elbo_origin, params.dtype),
        elbo_sum=jnp.zeros(3, params.dtype),
        previous=zeros,
        total=zeros,
        squares=zeros,
        jumps=jnp.zeros((), params.dtype),
    )


def close_batch(w: Window) -> tuple[Window, Array, Array]:
    """The window once its batch is complete, and the batch's mean ELBO with its standard error."""
    total, squared, number = w.elbo_sum
    number = jnp.maximum(number, 1)
    shift = total / number
    elbo = w.elbo_origin + shift
    elbo_se = jnp.sqrt(jnp.maximum(squared / number - shift**2, 0) / number)
    mean = w.batch_sum / w.batch_length.astype(w.batch_sum.dtype)
    jump = jnp.sum((mean - w.previous) ** 2)
    window = w._replace(
        batch=w.batch + 1,
        batch_end=w.batch_end + w.batch_length,
        batch_sum=jnp.zeros_like(mean),
        elbo_origin=elbo,
        elbo_sum=jnp.zeros_like(w.elbo_sum),
        previous=mean,
        total=w.total + mean,
        squares=w.squares + mean**2,
        jumps=w.jumps + jnp.where(w.batch > 0, jump, 0),
    )
    return window, elbo, elbo_se


def close_window(w: Window) -> tuple[Array, Array, Any]:
    """The average (P,) of a window whose batches are complete, its variance, and if it stalled."""
    n = BATCHES
    average = w.total / n
    variance = jnp.maximum(w.squares / n - average**2, 0) / (n - 1)
    spread = n * (n - 1) * jnp.sum(variance)
    # <=, so that a window that did not move at all counts as stalled
    stalled = w.jumps / (n - 1) >= _STALL_RATIO * spread / n
    return average, variance, stalled
