"""Population Monte Carlo: mixtures of Gaussians, each fitted to the weighted draws of the last."""

import time
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bbvi._arrays import at_levels, softmax
from bbvi._tree import split
from bbvi._types import AnyArray, Array, PyTree
from bbvi.budget import Purse
from bbvi.diagnostics import Diagnostics
from bbvi.evaluate import generator
from bbvi.evidence import KHAT_FINITE, efficiency
from bbvi.families import GaussianMixture
from bbvi.matching import as_run
from bbvi.stage import Fitted, judged_stage
from bbvi.status import Status
from bbvi.target import Target
from bbvi.unseen import most_unseen_gradients, unseen_mass

# In more dimensions so few Gaussians do not cover what one does not: of 14 fits of 13 to 20 two
# were settled by this, of 68 of up to 11 28.
MOST_DIM = 12
FAMILY = GaussianMixture()
_COMPONENTS = 16
_ROUNDS, _PROBES = 10, 4
# Rounds after which weights of so few effective draws are given up, as a share of an exact fit's.
_PATIENCE, _HOPELESS = 4, 0.05
_POINTS, _STEPS = 2048, 12  # that expectation maximisation takes, resampled, and its steps
# Weights are tempered until so many draws count, and so many for each dimension.
_LEAST, _LEAST_PER_DIMENSION = 400, 20
_HALVINGS = 30  # of the interval of powers
_MET = 256  # points, among those, where trajectories have met mass that draws had not


class Population(NamedTuple):
    """What the rounds have come to.

    Attributes:
        last: the last mixture.
        answers: whether its weighted draws answer for the posterior.
        num_gradients: evaluations spent, all rounds together.
    """

    last: Fitted
    answers: bool
    num_gradients: int


def population_stage(
    stage: Fitted, target: Target, key: Array, data: PyTree, purse: Purse
) -> Population:
    r"""A mixture whose weighted draws answer for the posterior, where there is one.

    Rings, waves and bends of few dimensions are no Gaussian, but sixteen cover them. The mixture

        q(z) = sum_k w_k N(z; m_k, C_k)

    is fitted to draws of the stage by their weights, tempered to p^beta q^(1 - beta) until enough
    of them count; then to its own draws, and so on, without gradients. A mixture can also fit
    tightly what is only a part, with weights that look even and a heavy tail: the weights must
    have a variance, and trajectories meet no mass that draws have not; where they do, these points
    join the next fit. (Of an arc four of five were 0.1 to 0.2 sd off where any tail was taken; of a
    long wave the sd was up to 7% short where no trajectories looked, and 2% off with them.)

    Args:
        stage: what its first draws are of.
        target: the target.
        key: a typed random key.
        data: the user's data.
        purse: what may be spent, and is.

    Source: Cappé et al. 2008 (Statistics and Computing 18), with the tempering of Koblents and
    Míguez 2015 (Statistics and Computing 25).
    """
    began = time.perf_counter()
    last, met = stage, np.zeros((0, target.dim))
    probes = spent = 0
    for number, round_key in enumerate(split(key, _ROUNDS)):
        random = generator(round_key)
        try:
            points = _resampled(last.diagnostics, target.dim, random)
            if len(met):
                points = np.concatenate([points, met[random.integers(len(met), size=_MET)]])
            params = fit_mixture(points, random)
        except np.linalg.LinAlgError:  # the draws lie in a plane
            break
        log = stage.log._replace(step=np.int32(number + 1), status=np.int32(Status.COMPLETED))
        run = partial(as_run, target, params, log)
        args = ("population", stage.solver, FAMILY, target, run, round_key, data)
        last = judged_stage(*args)._replace(num_gradients=0, num_skipped=0)
        d = last.diagnostics
        if last.settled:
            if probes == _PROBES or not purse.allows(most_unseen_gradients(target.dim)):
                break
            frame, log_mixture = FAMILY.frame(params), partial(FAMILY.log_mixture, params)
            unseen = unseen_mass(target, frame, log_mixture, d, round_key, data)
            purse.spend(unseen.num_gradients)
            probes, spent = probes + 1, spent + unseen.num_gradients
            if not unseen.moves and float(d.khat) < KHAT_FINITE:
                seconds = (time.perf_counter() - began, 0.0)
                last = last._replace(seconds=seconds, num_gradients=spent)
                return Population(last, True, spent)
            met = np.concatenate([met, unseen.points])
        if number + 1 >= _PATIENCE and efficiency(d) < _HOPELESS:
            break
    return Population(last, False, spent)


def _resampled(d: Diagnostics, dim: int, random: np.random.Generator) -> np.ndarray:
    """Points (N, D) by the weights of a judgement's draws, tempered."""
    z, log_weights = (np.asarray(x, float) for x in (d.draws, d.log_weights))
    kept = np.isfinite(log_weights) & np.isfinite(z).all(axis=1)
    z, log_weights = z[kept], log_weights[kept]
    least = _LEAST + _LEAST_PER_DIMENSION * dim
    if len(z) < least:
        raise np.linalg.LinAlgError("too few draws")

    def enough(power):
        return 1 / np.sum(softmax(power * log_weights) ** 2) >= least

    power, low, high = 1.0, 0.0, 1.0
    if not enough(power):
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if enough(middle) else (low, middle)
        power = low
    return z[at_levels(softmax(power * log_weights), _POINTS, random.random())]


def fit_mixture(points: AnyArray, random: np.random.Generator) -> PyTree:
    """A mixture of Gaussians by expectation maximisation.

    Each covariance has, as D + 2 points' worth, that of all points, narrower by the share of space
    that a component has; centres begin as in k-means++ (Arthur and Vassilvitskii 2007).

    Args:
        points: (N, D).
        random: of the host.

    Raises:
        numpy.linalg.LinAlgError: if they have no covariance that can be factorised.
    """
    number, dim = points.shape
    centre = points.mean(axis=0)
    scale = np.linalg.cholesky(np.cov(points.T).reshape(dim, dim))
    x: Any = np.linalg.solve(scale, (points - centre).T).T

    centres = [x[random.integers(number)]]
    nearest = np.full(number, np.inf)
    while len(centres) < _COMPONENTS:
        nearest = np.minimum(nearest, np.sum((x - centres[-1]) ** 2, axis=1))
        centres.append(x[random.choice(number, p=nearest / nearest.sum())])
    gaps = np.sum((x[:, None] - np.stack(centres)) ** 2, axis=-1)
    shares = np.eye(_COMPONENTS)[np.argmin(gaps, axis=1)]  # (N, K)

    worth = dim + 2
    prior = worth * _COMPONENTS ** (-2 / dim) * np.eye(dim)
    squares = x[:, :, None] * x[:, None]
    for _ in range(_STEPS):
        count = shares.sum(axis=0) + 1e-9
        mean = (shares.T @ x) / count[:, None]
        second = (shares.T @ squares.reshape(number, -1)).reshape(-1, dim, dim)
        spread = second - count[:, None, None] * mean[:, :, None] * mean[:, None]
        factor = np.linalg.cholesky((spread + prior) / (count + worth)[:, None, None])
        log_weights = np.log((count + 1) / (number + _COMPONENTS))
        params = {"log_weights": log_weights, "loc": mean, "factor": factor}
        shares = softmax(FAMILY.by_component(params, x)[0].T)
    return {
        "log_weights": log_weights,
        "loc": centre + mean @ scale.T,
        "factor": scale @ factor,
    }
