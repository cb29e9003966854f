"""Stochastic gradient ascent of a bound, with any optax optimizer or none."""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from bbvi._score import with_score
from bbvi._tree import all_finite, as_strong, tie, tree_where
from bbvi._types import Array, PyTree
from bbvi.families import Family, Frame, FullRankGaussian
from bbvi.objectives import ELBO, Objective
from bbvi.objectives.base import MaskedLogDensity
from bbvi.solvers.base import Info, Solver, empty_log, unravel_in
from bbvi.solvers.schedule import (
    FIRST_BATCH,
    FIRST_RATE,
    STRIDE,
    StochasticGradientState,
    end_batch,
    units_of,
)
from bbvi.solvers.windows import new_window
from bbvi.status import Status
from bbvi.target import Target

# Adam's floor, in standardised units. Gradients well below it get a step rate/floor times the
# gradient, a contraction for curvatures up to 2 floor/rate: with sticking-the-landing gradients the
# end game is then geometric, where plain Adam would go on jittering by the rate.
_ADAM_FLOOR = 0.3
_BAD_STEPS = 100  # in a row, after which the run is given up


class Inner(NamedTuple):
    """What a step changes; the rest of the state waits for the end of the batch.

    A step of a cheap log joint is a dozen kernels of a microsecond each, so every array that
    need not be carried through the inner loop is time, and scalars travel together.

    Attributes:
        params: as in the state.
        opt_state: as in the state.
        batch_sum: as in the window.
        tally: (7,) steps taken since the state, bad ones in a row, draws skipped since the
            state, then `elbo_origin` and `elbo_sum` of the window; exact, as floats are up to
            2^24.
    """

    params: Array
    opt_state: PyTree
    batch_sum: Array
    tally: Array


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
        tree = self.family.to_frame(params, frame)
        params = ravel_pytree(tree)[0]
        dtype = target.dtype
        rate = jnp.full((), 1.0 if self.optimizer is not None else FIRST_RATE, dtype)
        log = empty_log(dtype)
        state = StochasticGradientState(
            log=log,
            key=key,
            frame=frame,
            params=params,
            opt_state=as_strong(self._optax().init(params if self.optimizer is None else tree)),
            rate=rate,
            reference=params,
            average=params,
            comparable=jnp.zeros((), bool),
            drift=jnp.full((), jnp.inf, dtype),
            bad=log.step,
            window=new_window(params, log.step, log.step + FIRST_BATCH, 0.0),
        )
        return tie(state, key)

    def step(
        self, target: Target, state: StochasticGradientState, data: PyTree
    ) -> tuple[StochasticGradientState, Info]:
        inner, elbo = self._descent(target, state, data)(_open(state), jnp.array(True))
        state = self._close(state, inner)
        ended = state.log.step == state.window.batch_end
        state = jax.lax.cond(ended, self._end_batch, lambda s: s, state)
        return state, Info(elbo, state.drift, state.rate)

    def advance(
        self, target: Target, state: StochasticGradientState, data: PyTree, limit: Array
    ) -> StochasticGradientState:
        # The same as looping over `step`, with the end of a batch looked for once a batch.
        last = jnp.minimum(limit, self.max_steps) if self.tolerance == 0 else limit

        def unfinished(state):
            return (state.log.step < last) & (state.log.status == Status.RUNNING)

        def one_batch(state):
            stop = jnp.minimum(last, state.window.batch_end)
            left = (stop - state.log.step).astype(state.params.dtype)
            descend = self._descent(target, state, data)

            def on(inner):
                return (inner.tally[0] < left) & (inner.tally[1] < _BAD_STEPS)

            def stride(inner):
                one = lambda _, inner: descend(inner, on(inner))[0]  # noqa: E731
                return jax.lax.fori_loop(0, STRIDE, one, inner)

            inner = jax.lax.while_loop(on, stride, _open(state))
            state = self._close(state, inner)
            ended = state.log.step == state.window.batch_end
            return jax.lax.cond(ended, self._end_batch, lambda s: s, state)

        return jax.lax.while_loop(unfinished, one_batch, state)

    def output(self, state: StochasticGradientState) -> PyTree:
        # before the first window is complete there is no average
        estimate = jnp.where(jnp.isfinite(state.drift), state.average, state.params)
        return self.family.from_frame(unravel_in(self.family, state.frame)(estimate), state.frame)

    def log_density(self, target: Target, frame: Frame, data: PyTree) -> MaskedLogDensity:
        """The target's density of draws in units of `frame`, as an objective takes it."""
        log_det = frame.log_det
        chunk_size = getattr(self.objective, "chunk_size", None)

        def log_density(w):
            z = frame.apply(w)
            log_p, score, ok = target.score(jax.lax.stop_gradient(z), data, chunk_size)
            # bad draws are already out of both
            return with_score(log_p, score, z) + log_det * ok, ok

        return log_density

    def _optax(self) -> optax.GradientTransformationExtraArgs:
        if self.optimizer is not None:
            return optax.with_extra_args_support(self.optimizer)
        return _default_optimizer()

    def _descent(self, target, state, data):
        """One optimizer step in the units and at the rate of `state`, as a function.

        It takes an `Inner` and whether to change it, and gives the next and the ELBO.
        """
        unravel = unravel_in(self.family, state.frame)
        log_density = self.log_density(target, state.frame, data)

        def descend(inner, on):
            taken, bad, skipped, origin, *sums = inner.tally
            step = state.log.step + taken.astype(jnp.int32)
            key = jax.random.fold_in(state.key, step)
            eps = self.objective.noise(key, self.family, target.dim, target.dtype)
            # Once in memory: XLA would work out a base normal again for each product it is in.
            eps = jax.lax.optimization_barrier(eps)

            def loss_of(params):
                tree = unravel(params) if self.optimizer is None else params
                return self.objective.loss(self.family, tree, eps, log_density)

            # An optimizer of the user's sees the family's own parameters, to tell them apart.
            point = inner.params if self.optimizer is None else unravel(inner.params)
            (loss, info), grad = jax.value_and_grad(loss_of, has_aux=True)(point)
            # Made whole once, so that all that follows of it is one kernel, in place.
            grad = jax.lax.optimization_barrier(grad)
            updates, opt_state = self._optax().update(
                grad,
                inner.opt_state,
                point,
                value=loss,
                grad=grad,
                value_fn=lambda p: loss_of(p)[0],
            )
            if self.optimizer is None:
                updates = updates * units_of(self.family, state.frame, inner.params)
            else:
                updates = ravel_pytree(updates)[0]
            params = inner.params + state.rate * updates
            # Usable scores are too small to overflow: only a foreign optimizer needs the look.
            ok = info.usable if self.optimizer is None else info.usable & all_finite(params)
            moves = on & ok
            params = jnp.where(moves, params, inner.params)
            opt_state = tree_where(moves, opt_state, inner.opt_state)
            # some optimizers change a dtype at their first step
            opt_state = jax.tree.map(lambda x, old: x.astype(old.dtype), opt_state, inner.opt_state)

            origin = jnp.where(step == 0, info.elbo, origin)
            above = jnp.where(ok, info.elbo - origin, 0)
            tally = jnp.stack(
                [
                    taken + 1,
                    jnp.where(ok, 0, bad + 1),
                    skipped + info.num_skipped,
                    origin,
                    *map(jnp.add, sums, (above, above**2, ok)),
                ]
            )
            inner = Inner(
                params=params,
                opt_state=opt_state,
                batch_sum=inner.batch_sum + jnp.where(on, params, 0),
                tally=jnp.where(on, tally, inner.tally),
            )
            return tie(inner, state.key), info.elbo

        return descend

    def _close(self, state, inner):
        """The state after the steps of `inner`."""
        status, log = state.log.status, state.log
        taken, bad, skipped = inner.tally[:3].astype(jnp.int32)
        step = log.step + taken
        if self.tolerance == 0:
            status = jnp.where(step >= self.max_steps, int(Status.COMPLETED), status)
        status = jnp.where(bad >= _BAD_STEPS, int(Status.NONFINITE), status)
        log = log._replace(
            step=step,
            num_gradients=log.num_gradients + taken * self.objective.draws,
            num_skipped=log.num_skipped + skipped,
            status=status.astype(jnp.int32),
        )
        window = state.window._replace(
            batch_sum=inner.batch_sum, elbo_origin=inner.tally[3], elbo_sum=inner.tally[4:]
        )
        state = state._replace(
            log=log, params=inner.params, opt_state=inner.opt_state, bad=bad, window=window
        )
        return tie(state, state.key)

    def _end_batch(self, state):
        return end_batch(state, self.family, self.tolerance, adaptive=self.optimizer is None)


def _open(state: StochasticGradientState) -> Inner:
    """The part of a state that a step changes."""
    window, zero = state.window, jnp.zeros_like(state.rate)
    return Inner(
        params=state.params,
        opt_state=state.opt_state,
        batch_sum=window.batch_sum,
        tally=jnp.stack(
            [zero, state.bad.astype(zero.dtype), zero, window.elbo_origin, *window.elbo_sum]
        ),
    )


def _default_optimizer() -> optax.GradientTransformationExtraArgs:
    """Adam's direction, to be multiplied by the state's rate."""
    adam = optax.scale_by_adam(b1=0.9, b2=0.99, eps=_ADAM_FLOOR)
    return optax.with_extra_args_support(optax.chain(adam, optax.scale(-1.0)))
