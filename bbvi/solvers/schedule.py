"""The state of stochastic gradients, and how windows move it on: units, the rate, the stop."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from bbvi._tree import tie
from bbvi._types import Array, PyTree
from bbvi.families import Family, Frame
from bbvi.solvers.base import RunLog, record, unravel_in
from bbvi.solvers.windows import BATCHES, Window, close_batch, close_window, new_window
from bbvi.status import Status

# Settings in standardised units, in which the bound's curvature is of order one whatever the
# problem:
FIRST_RATE = 0.1  # a tenth of a posterior sd a step
_DECAY = 0.5  # on each stall
FIRST_BATCH = 25  # steps, a multiple of the stride
# Steps between two looks at whether to stop. On an accelerator the host waits for the device at
# each look, which takes as long as several kernels; beyond a few steps little is left to gain.
STRIDE = 5


class StochasticGradientState(NamedTuple):
    """State of `StochasticGradient`, the parameters flat as in its window.

    Attributes:
        log: the run so far.
        key: the root key; step t uses `fold_in(key, t)`.
        frame: the standardised units.
        params: the family's parameters in those units, flat (P,).
        opt_state: the optimizer's state.
        rate: what the optimizer's updates are multiplied by.
        reference: the parameters when the frame was set.
        average: mean of the parameters over the last complete window, in units of `frame`.
        comparable: whether `reference` was itself the average of a stalled window.
        drift: how far the average last moved.
        bad: steps in a row that were not finite.
        window: sums over the present window.
    """

    log: RunLog
    key: Array
    frame: Frame
    params: Array
    opt_state: PyTree
    rate: Array
    reference: Array
    average: Array
    comparable: Array
    drift: Array
    bad: Array
    window: Window


def units_of(family: Family, frame: Frame, params: Array) -> Array | float:
    """What counts as a move by one, for all parameters or each of them (P,)."""
    units = family.units(unravel_in(family, frame)(params))
    return units if isinstance(units, float) else ravel_pytree(units)[0]


def end_batch(
    state: StochasticGradientState, family: Family, tolerance: float, adaptive: bool
) -> StochasticGradientState:
    """Record the batch; at the end of a window judge progress.

    Args:
        state: after the last step of a batch.
        family: what is fitted.
        tolerance: in posterior standard deviations; 0 never stops.
        adaptive: whether units and rate change from window to window.
    """

    def judged(state):
        return _end_window(state, family, tolerance, adaptive)

    window, elbo, elbo_se = close_batch(state.window)
    log = state.log._replace(history=record(state.log.history, state.log.step, elbo, elbo_se))
    state = tie(state._replace(log=log, window=window), state.key)
    return jax.lax.cond(window.batch == BATCHES, judged, lambda s: s, state)


def _end_window(state, family, tolerance, adaptive):
    """Average; if stalled, compare with the average before, decay the rate, maybe stop."""
    w = state.window
    average, variance, stalled = close_window(w)
    units = units_of(family, state.frame, average)
    noise = jnp.max(jnp.sqrt(variance) / units)
    drift = jnp.max(jnp.abs(average - state.reference) / units)
    settled = stalled & state.comparable & (drift <= tolerance)
    settled = settled & (noise <= tolerance) & (tolerance > 0)

    estimate = jnp.where(stalled, average, state.params)
    frame = state.frame
    if adaptive:
        frame, estimate, average = _new_units(family, frame, estimate, average)
    decay = stalled & adaptive
    longer = STRIDE * jnp.round(w.batch_length * (_DECAY**-0.5 / STRIDE)).astype(jnp.int32)
    length = jnp.where(decay, longer, w.batch_length)
    window = new_window(estimate, state.log.step, state.log.step + length, w.elbo_origin)
    log = state.log._replace(
        status=jnp.where(
            settled & (state.log.status == Status.RUNNING),
            int(Status.CONVERGED),
            state.log.status,
        ).astype(jnp.int32)
    )
    # An optimizer of the user's goes on from where it is: only the averages are ours.
    params = estimate if adaptive else state.params
    state = state._replace(
        log=log,
        frame=frame,
        params=params,
        rate=jnp.where(decay, state.rate * _DECAY, state.rate),
        reference=estimate,
        average=average,
        comparable=stalled,
        drift=drift,
        window=window,
    )
    return tie(state, state.key)


def _new_units(family, frame, estimate, average):
    """Units in which `estimate` is standard, and both vectors in them."""
    unravel = unravel_in(family, frame)
    plain = family.from_frame(unravel(estimate), frame)
    plain_average = family.from_frame(unravel(average), frame)
    new = family.frame(plain)
    estimate = ravel_pytree(family.to_frame(plain, new))[0]
    return new, estimate, ravel_pytree(family.to_frame(plain_average, new))[0]
