"""One full-rank Gaussian: matched to scores from a start, or moved to the moments of draws."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._arrays import softmax
from bbvi._linalg import cholesky, dot
from bbvi._types import AnyArray, Array, PyTree
from bbvi.evaluate import generator, paired_normals, scores
from bbvi.families import Family, Frame
from bbvi.solvers import BatchAndMatch
from bbvi.solvers.base import RunLog
from bbvi.solvers.starts import made_of_rounding, roundings
from bbvi.status import Status
from bbvi.target import Target


class Match(NamedTuple):
    """Parameters of a full-rank Gaussian, its bound, and the run that led to it."""

    params: PyTree
    elbo: float
    log: RunLog


def match_target(
    target: Target, start: Frame, key: Array, data: PyTree, steps: int, high: float = np.inf
) -> Match:
    """`match_to` the target; a bound of more than `high` nats must not be rounding alone.

    A first step is huge. Of counts that scatter more than Poisson's do one match had gone to a size
    of 10^49, where log Gamma(y + size) - log Gamma(size) comes out as up to 10^36.
    """

    def score(points):
        return jax.device_get(scores(target, points, data))

    match = match_to(score, start, target.dtype, key, steps)
    if not match.elbo > high:
        return match
    loc = np.asarray(BatchAndMatch().family.frame(match.params).loc, target.dtype)
    eps = generator(key).standard_normal((BatchAndMatch().draws(target.dim), target.dim))
    near, *_ = score(np.asarray(loc + roundings(loc) * eps, target.dtype))
    rough = made_of_rounding(near[None])[0]
    log = match.log._replace(num_gradients=match.log.num_gradients + np.int32(len(eps)))
    return match._replace(elbo=-np.inf if rough else match.elbo, log=log)


def match_to(score: Callable, start: Frame, dtype: np.dtype, key: Array, steps: int) -> Match:
    """`BatchAndMatch` from one start, on the host but for the scores.

    Args:
        score: log densities (S,), scores (S, D) and whether they are finite, of points (S, D).
        start: units to start in.
        dtype: floating type of the points.
        key: a typed random key.
        steps: at most.
    """
    solver = BatchAndMatch()
    dim = len(start.loc)
    eps = paired_normals(generator(key), solver.draws(dim), dim)
    with np.errstate(all="ignore"):
        state = solver.begin(*(np.asarray(x, dtype) for x in (*start, eps)))
        while state.log.step < steps and state.log.status == Status.RUNNING:
            state, _ = solver.take(state, *score(state.points))
        elbo = float(state.best.elbo)
        params = solver.output(state)
    return Match(params, elbo if np.isfinite(elbo) else -np.inf, state.log)


def on_device(target: Target, params: PyTree) -> PyTree:
    """Parameters that the host has computed, as arrays of JAX; floats are of the target's type."""

    def put(x):
        x = np.asarray(x)
        return jnp.asarray(x, target.dtype if np.issubdtype(x.dtype, np.floating) else x.dtype)

    with np.errstate(over="ignore"):
        return jax.tree.map(put, params)


def as_run(target: Target, params: PyTree, log: RunLog) -> tuple[PyTree, RunLog]:
    """What `bbvi.stages.judged.judged_stage` runs where the host has the parameters already."""
    return on_device(target, params), log


def move(family: Family, draws: AnyArray, log_weights: AnyArray) -> PyTree:
    """The full-rank Gaussian with the moments of weighted draws (S, D): stage 3 of `Auto`.

    Of all Gaussians it is the closest in forward KL(p || q), so it covers the posterior where
    a match, like reverse KL, stays inside.
    """
    weights = softmax(log_weights)
    with np.errstate(all="ignore"):
        loc = dot(weights, draws)
        centred = draws - loc
        return family.init(loc, cholesky(dot(centred.T * weights, centred)))
