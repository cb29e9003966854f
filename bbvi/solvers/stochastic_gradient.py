"""Stochastic gradient ascent of a bound, with any optax optimizer or none."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bbvi._tree import all_finite, tree_max_abs, tree_sq_norm, tree_where
from bbvi._types import Array, PyTree
from bbvi.families import Family, Frame, FullRankGaussian
from bbvi.objectives import ELBO, LossInfo, Objective
from bbvi.solvers.base import Info, RunLog, Solver, empty_log, record
from bbvi.status import Status
from bbvi.target import Target

# Settings of the default optimizer, all in standardised units, in which the bound's curvature
# is of order one whatever the problem:
_FIRST_RATE = 0.1  # a tenth of a posterior sd a step
_DECAY = 0.5  # on each stall
# Adam's floor. Gradients well below it get a step rate/floor times the gradient, a contraction
# for curvatures up to 2 floor/rate: with sticking-the-landing gradients the end game is then
# geometric, where plain Adam would go on jittering by the rate.
_ADAM_FLOOR = 0.3
_BATCHES = 8  # a window is so many batches; their means carry the noise estimate
_FIRST_BATCH = 25  # steps
# Batches' means that are independent have a von Neumann ratio near 2 and those on a trend near
# 0 (von Neumann 1941); a window counts as stalled above this.
_STALL_RATIO = 1.0
_BAD_STEPS = 100  # in a row, after which the run is given up


class Window(NamedTuple):
    """Running sums over the batches of one window, all in standardised units.

    Attributes:
        batch: batches complete.
        batch_end: step at which the present batch ends.
        batch_length: its length in steps.
        batch_sum: sum of the parameters over its steps.
        elbo_sum: sums over its steps of the ELBO, its square, and the number of usable steps.
        previous: mean of the batch before.
        total: sum of the batch means.
        squares: sum of their squares.
        jumps: sum of the squared differences between neighbours, a scalar.
    """

    batch: Array
    batch_end: Array
    batch_length: Array
    batch_sum: PyTree
    elbo_sum: Array
    previous: PyTree
    total: PyTree
    squares: PyTree
    jumps: Array


class StochasticGradientState(NamedTuple):
    """State of `StochasticGradient`.

    Attributes:
        log: the run so far.
        key: the root key; step t uses `fold_in(key, t)`.
        frame: the standardised units.
        params: the family's parameters in those units.
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
    params: PyTree
    opt_state: PyTree
    rate: Array
    reference: PyTree
    average: PyTree
    comparable: Array
    drift: Array
    bad: Array
    window: Window


@dataclass(frozen=True)
class StochasticGradient(Solver):
    r"""Minimise an objective with stochastic gradients; nothing to tune.

    The parameters are optimised in *standardised units*, z = loc + scale w with w standard
    under the present approximation, so a rate means the same for every problem. Steps are
    counted in windows of eight batches. When a window's batch means show no trend beyond
    their noise, the window's average becomes the present estimate and the origin of new
    units, the rate is halved and windows get longer. The run stops when, from one such
    average to the next, no parameter moved by more than `tolerance`, and none is noisier than
    that: for a Gaussian, means in posterior standard deviations and scales in relative units.

    Args:
        family: what is fitted.
        objective: what is minimised.
        optimizer: any `optax.GradientTransformation` (also those that need `value`, `grad` and
            `value_fn`). It sees standardised units, fixed at the start, and its updates are
            applied as they are; averaging and the stop stay on. None takes Adam with the
            rate schedule above.
        tolerance: in posterior standard deviations; 0 takes `max_steps` steps as planned.
        max_steps: the step limit when the call gives none.

    Source: iterate averaging, Polyak and Juditsky 1992; averages by level of the rate, as in
    Welandawe et al. 2024 (arXiv:2203.15945).
    """

    family: Family = field(default_factory=FullRankGaussian)
    objective: Objective = field(default_factory=ELBO)
    optimizer: optax.GradientTransformation | None = None
    tolerance: float = 0.01
    max_steps: int = 20_000

    def __post_init__(self):
        if self.optimizer is not None and not isinstance(
            self.optimizer, optax.GradientTransformation
        ):
            raise TypeError(
                "optimizer must be an optax.GradientTransformation such as optax.adam(1e-2), "
                f"not {self.optimizer!r}."
            )

    def family_for(self, target: Target) -> Family:
        return self.family

    def limit(self, target: Target) -> int:
        return self.max_steps

    def init(
        self, target: Target, loc: Array, scale: Array, key: Array, data: PyTree
    ) -> StochasticGradientState:
        return self.init_at(target, self.family.init(loc, scale), key, data)

    def init_at(
        self, target: Target, params: PyTree, key: Array, data: PyTree
    ) -> StochasticGradientState:
        frame = self.family.frame(params)
        params = self.family.to_frame(params, frame)
        dtype = target.dtype
        rate = jnp.full((), 1.0 if self.optimizer is not None else _FIRST_RATE, dtype)
        log = empty_log(dtype)
        return StochasticGradientState(
            log=log,
            key=key,
            frame=frame,
            params=params,
            opt_state=self._optax().init(params),
            rate=rate,
            reference=params,
            average=params,
            comparable=jnp.zeros((), bool),
            drift=jnp.full((), jnp.inf, dtype),
            bad=log.step,
            window=_new_window(params, log.step, log.step + _FIRST_BATCH, dtype),
        )

    def step(
        self, target: Target, state: StochasticGradientState, data: PyTree
    ) -> tuple[StochasticGradientState, Info]:
        state, elbo = self._descend(target, state, data)
        state = jax.lax.cond(
            state.log.step == state.window.batch_end, self._end_batch, lambda s: s, state
        )
        return state, Info(elbo, state.drift, state.rate)

    def advance(
        self, target: Target, state: StochasticGradientState, data: PyTree, limit: Array
    ) -> StochasticGradientState:
        # The same as looping over `step`, with the end of a batch looked for once a batch.
        def unfinished(state):
            return (state.log.step < limit) & (state.log.status == Status.RUNNING)

        def one_batch(state):
            stop = jnp.minimum(limit, state.window.batch_end)
            state = jax.lax.while_loop(
                lambda s: s.log.step < stop, lambda s: self._descend(target, s, data)[0], state
            )
            ended = state.log.step == state.window.batch_end
            return jax.lax.cond(ended, self._end_batch, lambda s: s, state)

        return jax.lax.while_loop(unfinished, one_batch, state)

    def output(self, state: StochasticGradientState) -> PyTree:
        # before the first window is complete there is no average
        estimate = tree_where(jnp.isfinite(state.drift), state.average, state.params)
        return self.family.from_frame(estimate, state.frame)

    def loss(
        self, target: Target, frame: Frame, params: PyTree, eps: Array, data: PyTree
    ) -> tuple[Array, LossInfo]:
        """The objective at given noise, for parameters in units of `frame`."""

        def log_density(w):
            z = frame.apply(w)
            still = jax.lax.stop_gradient(z)
            log_p, score, ok = target.score(
                still, data, getattr(self.objective, "chunk_size", None)
            )
            # The score is known, so the log density enters as its tangent plane: the value and
            # the gradient are exact, and bad draws are already out of both.
            tangent = jnp.sum(score * (z - still), axis=-1)
            return log_p + frame.log_det * ok + tangent, ok

        return self.objective.loss(self.family, params, eps, log_density)

    def _optax(self) -> optax.GradientTransformationExtraArgs:
        if self.optimizer is not None:
            return optax.with_extra_args_support(self.optimizer)
        return _default_optimizer()

    def _descend(self, target, state, data):
        """One optimizer step, without the bookkeeping at the end of a batch."""
        key = jax.random.fold_in(state.key, state.log.step)
        eps = self.objective.noise(key, self.family, target.dim, target.dtype)

        def value_fn(params):
            return self.loss(target, state.frame, params, eps, data)[0]

        (loss, info), grad = jax.value_and_grad(
            lambda p: self.loss(target, state.frame, p, eps, data), has_aux=True
        )(state.params)
        updates, opt_state = self._optax().update(
            grad, state.opt_state, state.params, value=loss, grad=grad, value_fn=value_fn
        )
        params = jax.tree.map(lambda p, u: p + state.rate * u, state.params, updates)
        # Usable scores are too small to overflow, so only a foreign optimizer needs the look.
        ok = info.usable if self.optimizer is None else info.usable & all_finite(params)
        params = tree_where(ok, params, state.params)
        opt_state = tree_where(ok, opt_state, state.opt_state)

        bad = jnp.where(ok, 0, state.bad + 1)
        status = state.log.status
        if self.tolerance == 0:
            planned = state.log.step + 1 >= self.max_steps
            status = jnp.where(planned, int(Status.COMPLETED), status)
        status = jnp.where(bad >= _BAD_STEPS, int(Status.NONFINITE), status)
        log = state.log._replace(
            step=state.log.step + 1,
            num_gradients=state.log.num_gradients + self.objective.draws,
            num_skipped=state.log.num_skipped + info.num_skipped.astype(jnp.int32),
            status=status.astype(jnp.int32),
        )
        elbo = jnp.where(ok, info.elbo, 0)
        window = state.window._replace(
            batch_sum=jax.tree.map(jnp.add, state.window.batch_sum, params),
            elbo_sum=state.window.elbo_sum + jnp.stack([elbo, elbo**2, ok.astype(elbo.dtype)]),
        )
        state = state._replace(log=log, params=params, opt_state=opt_state, bad=bad, window=window)
        return state, info.elbo

    def _end_batch(self, state):
        """Record the batch; at the end of a window judge progress."""
        w = state.window
        total, squared, number = w.elbo_sum
        number = jnp.maximum(number, 1)
        elbo = total / number
        elbo_se = jnp.sqrt(jnp.maximum(squared / number - elbo**2, 0) / number)
        log = state.log._replace(history=record(state.log.history, state.log.step, elbo, elbo_se))
        mean = jax.tree.map(lambda x: x / w.batch_length.astype(x.dtype), w.batch_sum)
        jump = tree_sq_norm(jax.tree.map(jnp.subtract, mean, w.previous))
        window = w._replace(
            batch=w.batch + 1,
            batch_end=w.batch_end + w.batch_length,
            batch_sum=jax.tree.map(jnp.zeros_like, mean),
            elbo_sum=jnp.zeros_like(w.elbo_sum),
            previous=mean,
            total=jax.tree.map(jnp.add, w.total, mean),
            squares=jax.tree.map(lambda s, x: s + x**2, w.squares, mean),
            jumps=w.jumps + jnp.where(w.batch > 0, jump, 0),
        )
        state = state._replace(log=log, window=window)
        return jax.lax.cond(window.batch == _BATCHES, self._end_window, lambda s: s, state)

    def _end_window(self, state):
        """Average; if stalled, compare with the average before, decay the rate, maybe stop."""
        w, n = state.window, _BATCHES
        average = jax.tree.map(lambda x: x / n, w.total)
        variance = jax.tree.map(
            lambda s, m: jnp.maximum(s / n - m**2, 0) / (n - 1), w.squares, average
        )
        noise = jnp.sqrt(tree_max_abs(variance))
        spread = n * (n - 1) * jnp.sum(jnp.stack([jnp.sum(v) for v in jax.tree.leaves(variance)]))
        # <=, so that a window that did not move at all counts as stalled
        stalled = w.jumps / (n - 1) >= _STALL_RATIO * spread / n
        drift = tree_max_abs(jax.tree.map(jnp.subtract, average, state.reference))
        settled = stalled & state.comparable & (drift <= self.tolerance)
        settled = settled & (noise <= self.tolerance) & (self.tolerance > 0)

        estimate = tree_where(stalled, average, state.params)
        frame, estimate, average = self._new_units(state.frame, estimate, average)
        decay = stalled & (self.optimizer is None)
        length = jnp.where(decay, w.batch_length * _DECAY**-0.5, w.batch_length).astype(jnp.int32)
        window = _new_window(estimate, state.log.step, state.log.step + length, noise.dtype)
        log = state.log._replace(
            status=jnp.where(
                settled & (state.log.status == Status.RUNNING),
                int(Status.CONVERGED),
                state.log.status,
            ).astype(jnp.int32)
        )
        # An optimizer of the user's goes on from where it is: only the averages are ours.
        params = estimate if self.optimizer is None else state.params
        return state._replace(
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

    def _new_units(self, frame, estimate, average):
        """Units in which `estimate` is standard; with the user's optimizer, the old ones."""
        if self.optimizer is not None:
            return frame, estimate, average
        plain = self.family.from_frame(estimate, frame)
        average = self.family.from_frame(average, frame)
        frame = self.family.frame(plain)
        return frame, self.family.to_frame(plain, frame), self.family.to_frame(average, frame)


def _default_optimizer() -> optax.GradientTransformationExtraArgs:
    """Adam's direction, to be multiplied by the state's rate."""
    adam = optax.scale_by_adam(b1=0.9, b2=0.99, eps=_ADAM_FLOOR)
    # One vector instead of a leaf at a time: fewer kernels, which is what small problems pay.
    return optax.with_extra_args_support(optax.flatten(optax.chain(adam, optax.scale(-1.0))))


def _new_window(params: PyTree, step: Array, batch_end: Array, dtype: Any) -> Window:
    zeros = jax.tree.map(jnp.zeros_like, params)
    return Window(
        batch=jnp.zeros((), jnp.int32),
        batch_end=batch_end.astype(jnp.int32),
        batch_length=(batch_end - step).astype(jnp.int32),
        batch_sum=zeros,
        elbo_sum=jnp.zeros(3, dtype),
        previous=zeros,
        total=zeros,
        squares=zeros,
        jumps=jnp.zeros((), dtype),
    )
