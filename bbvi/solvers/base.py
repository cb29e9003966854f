"""What a solver is: `init`, `step`, `output`, and the log every state carries."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from bbvi._arrays import put
from bbvi._types import AnyArray, Array, PyTree
from bbvi.families import Family, Frame
from bbvi.status import Status
from bbvi.target import Target

HISTORY_LENGTH = 512


class History(NamedTuple):
    """ELBO by step, in a buffer of fixed length that is thinned by two whenever it is full.

    Attributes:
        step: (H,) last step of each entry.
        elbo: (H,) mean ELBO over the entry's steps, nats.
        elbo_se: (H,) its standard error.
        entries: entries in use.
        stride: how many records one entry averages.
        pending: records gathered for the next entry: their number, sum of means and sum of
            squared standard errors.
    """

    step: AnyArray
    elbo: AnyArray
    elbo_se: AnyArray
    entries: AnyArray
    stride: AnyArray
    pending: AnyArray


def empty_history(dtype: Any, xp: Any = jnp) -> History:
    """A history without entries, of arrays of JAX or of numpy."""
    zeros = xp.zeros(HISTORY_LENGTH, dtype)
    zero = xp.zeros((), xp.int32)
    steps = xp.zeros(HISTORY_LENGTH, xp.int32)
    return History(steps, zeros, zeros, zero, zero + 1, xp.zeros(3, dtype))


def record(history: History, step: Array, elbo: Array, elbo_se: Array) -> History:
    """`history` with one more record."""
    dtype = history.elbo.dtype
    pending = history.pending + jnp.stack([jnp.ones((), dtype), elbo, elbo_se**2])
    number = pending[0]
    complete = number >= history.stride
    at = jnp.where(complete, history.entries, HISTORY_LENGTH)  # out of range is dropped
    history = history._replace(
        step=history.step.at[at].set(step, mode="drop"),
        elbo=history.elbo.at[at].set(pending[1] / number, mode="drop"),
        elbo_se=history.elbo_se.at[at].set(jnp.sqrt(pending[2]) / number, mode="drop"),
        entries=history.entries + complete,
        pending=jnp.where(complete, 0, pending),
    )
    full = history.entries >= HISTORY_LENGTH
    return jax.tree.map(lambda a, b: jnp.where(full, a, b), _thinned(history), history)


def append(history: History, step: Array, elbo: Array, elbo_se: Array) -> History:
    """`history` with one more entry, for runs that are known to be shorter than the buffer."""
    at = history.entries
    return history._replace(
        step=put(history.step, at, step),
        elbo=put(history.elbo, at, elbo),
        elbo_se=put(history.elbo_se, at, elbo_se),
        entries=at + 1,
    )


def _thinned(history: History) -> History:
    """Every two entries made one."""
    half = HISTORY_LENGTH // 2

    def halve(x):
        return jnp.concatenate([x, jnp.zeros_like(x)])

    return history._replace(
        step=halve(history.step[1::2]),
        elbo=halve(history.elbo.reshape(half, 2).mean(1)),
        elbo_se=halve(jnp.sqrt(jnp.sum(history.elbo_se.reshape(half, 2) ** 2, 1)) / 2),
        entries=jnp.full_like(history.entries, half),
        stride=history.stride * 2,
    )


class RunLog(NamedTuple):
    """What every state says of its run so far.

    Attributes:
        step: steps taken.
        status: a `Status` code.
        num_gradients: gradient evaluations of the log joint.
        num_skipped: draws left out because they were not finite.
        history: the ELBO by step.
    """

    step: AnyArray
    status: AnyArray
    num_gradients: AnyArray
    num_skipped: AnyArray
    history: History


def empty_log(dtype: Any, xp: Any = jnp) -> RunLog:
    """The log of a run that has not begun, of arrays of JAX or of numpy."""
    zero = xp.zeros((), xp.int32)
    return RunLog(zero, zero + int(Status.RUNNING), zero, zero, empty_history(dtype, xp))


def unravel_in(family: Family, frame: Frame) -> Callable[[Array], PyTree]:
    """From a flat vector (P,) to the family's parameters, for a target as long as `frame`."""
    like = jax.eval_shape(family.init, frame.loc, frame.loc)
    return ravel_pytree(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like))[1]


class Info(NamedTuple):
    """What a person may want to see of one step; the solver itself needs none of it.

    Attributes:
        elbo: the step's estimate of the bound, nats.
        drift: how far the averaged parameters last moved, in posterior standard deviations.
        rate: the step size in use.
    """

    elbo: Array
    drift: Array
    rate: Array


@dataclass(frozen=True)
class Solver:
    """How a family is fitted to a target, as a hashable spec.

    `init`, `step` and `output` are pure, keep shapes and dtypes, and never raise on values,
    so they work inside `jit`, `vmap`, `scan` and `shard_map`. A state carries its `log`.
    """

    def init(self, target: Target, loc: Array, scale: Array, key: Array, data: PyTree) -> Any:
        """The state at a start.

        Args:
            target: the target.
            loc: centre (D,) in the unconstrained space.
            scale: a scalar, standard deviations (D,), or a lower triangular factor (D, D).
            key: a typed random key.
            data: the user's data.
        """
        raise NotImplementedError

    def init_at(self, target: Target, params: PyTree, key: Array, data: PyTree) -> Any:
        """The state at given parameters of the family: a warm start."""
        frame = self.family_for(target).frame(params)
        return self.init(target, frame.loc, frame.scale, key, data)

    def step(self, target: Target, state: Any, data: PyTree) -> tuple[Any, Info]:
        """One step: the next state, and what there is to see of it."""
        raise NotImplementedError

    def output(self, state: Any) -> PyTree:
        """The family's parameters that the state stands for."""
        raise NotImplementedError

    def family_for(self, target: Target) -> Family:
        """The family that `output` gives parameters of."""
        raise NotImplementedError

    def limit(self, target: Target) -> int:
        """The step limit when the user gives none."""
        raise NotImplementedError

    def advance(self, target: Target, state: Any, data: PyTree, limit: Array) -> Any:
        """Steps until the state's status says it is done or `limit` steps are taken."""

        def unfinished(state):
            return (state.log.step < limit) & (state.log.status == Status.RUNNING)

        return jax.lax.while_loop(unfinished, lambda s: self.step(target, s, data)[0], state)
