"""Population Monte Carlo: fits, each to the weighted draws of the last."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from bbvi._arrays import softmax
from bbvi._tree import split
from bbvi._types import AnyArray, Array, PyTree
from bbvi.diagnostics.evidence import (
    KHAT_FINITE,
    MEAN_TOLERANCE,
    MOST_NOISE,
    agree,
    efficiency,
    moment_noise,
    squares_heavy,
)
from bbvi.diagnostics.figures import Diagnostics
from bbvi.evaluate import generator, scalars
from bbvi.families import Family, GaussianMixture
from bbvi.solvers import BatchAndMatch
from bbvi.stages.gaussians.match import as_run
from bbvi.stages.judged import judged_closer, judged_stage
from bbvi.stages.stage import Fitted, Job
from bbvi.stages.tempering import resampled
from bbvi.stages.unseen import Space, affine_space, most_unseen_gradients, unseen_mass
from bbvi.status import Status
from bbvi.target import Target

# In more dimensions so few Gaussians do not cover what one does not: of 14 fits of 13 to 20 two
# were settled by this, of 68 of up to 11 28.
MOST_DIM = 12
FAMILY = GaussianMixture()
_COMPONENTS = 16
_STEPS = 12  # of expectation maximisation
# Rounds after which weights of so few effective draws are given up, as a share of an exact fit's.
_PATIENCE, _HOPELESS = 4, 0.05
# ... and fits that see to tails are of so many times as many points, and looks at more draws may
# take so many times as long, where moments are known to so many sds: chains and a flow, which come
# next, take longer. (Chains of regressions settled so with an sd 15% short.)
_LATE_POINTS, _LATE_LOOKS, _NEAR = 2, 4, MEAN_TOLERANCE
_MORE = 1.05  # times as many effective draws as before are more
# Of so many points one is from where trajectories have met mass that draws had not, each at most so
# often: of five points as one in eight, no fit came back.
_MET, _OFTEN = 8, 16


class Kind(NamedTuple):
    """What is fitted to weighted draws.

    Attributes:
        name: of the stage.
        family: of the fits.
        fit: parameters from points (N, D) and a generator of the host; raises
            numpy.linalg.LinAlgError where there are none.
        space: units in which a fit is about standard, from target, parameters and data.
        points: N, resampled; in late rounds more.
        tails: whether half of them are by what counts in variances, where that has a heavy tail;
            late rounds then take their time for it.
        rounds: of fits, at most.
        probes: how often trajectories look for mass that draws have not met, at most.
        patience: rounds without more effective draws, after which it ends.
        most_off: how far raw and corrected moments may be apart, in what counts as right.
        least_share: of the effective draws of an exact fit, with fewer of which it does not answer.
        refine: other parameters, and gradients spent, from such a space, parameters, the number of
            its points and a generator of the host; None where there are none.
    """

    name: str
    family: Family
    fit: Callable[[AnyArray, np.random.Generator], PyTree]
    space: Callable[[Target, PyTree, PyTree], Space]
    points: int
    tails: bool
    rounds: int
    probes: int = 4
    patience: float = np.inf
    most_off: float = np.inf
    least_share: float = 0.0
    refine: Callable[[Space, PyTree, int, np.random.Generator], tuple[PyTree, int]] | None = None


class Population(NamedTuple):
    """What the rounds have come to.

    Attributes:
        best: the fit with the most effective draws, or that which answers; without any, the stage
            that the first draws were to be of.
        answers: whether its weighted draws answer for the posterior.
        num_gradients: evaluations spent, all rounds together.
    """

    best: Fitted
    answers: bool
    num_gradients: int


def population_stage(
    stage: Fitted, job: Job, kind: Kind, key: Array, elsewhere: AnyArray | None = None
) -> Population:
    r"""A fit whose weighted draws answer for the posterior, where there is one.

    It is fitted to draws of the stage by their weights, tempered to p^beta q^(1 - beta) until
    enough of them count; then to its own draws, and so on, without gradients. It can also fit
    tightly what is only a part, with weights that look even and a heavy tail: the weights must
    have a variance, and trajectories meet no mass that draws have not; where they do, these points
    join the next fit. (Of an arc four of five were 0.1 to 0.2 sd off where any tail was taken; of a
    long wave the sd was up to 7% short where no trajectories looked, and 2% off with them.)

    Args:
        stage: what its first draws are of.
        job: what stages share.
        kind: what is fitted.
        key: a typed random key.
        elsewhere: points (N, D) of modes that its draws may have missed, of which fits are too.

    Source: Cappé et al. 2008 (Statistics and Computing 18), with the tempering of Koblents and
    Míguez 2015 (Statistics and Computing 25).
    """
    found = None

    def best() -> Fitted:
        nonlocal found
        found = _rounds(stage, job, kind, key, elsewhere)
        return found.best

    job.show(kind.name, best)
    assert found is not None, "a stage that is shown is made"
    return found


def _rounds(stage, job, kind, key, elsewhere) -> Population:
    began = time.perf_counter()
    target, data, purse = job.target, job.data, job.purse
    sources, best = [stage], None
    met = np.zeros((0, target.dim)) if elsewhere is None else elsewhere
    probes = spent = grown = 0
    answers = False
    size = BatchAndMatch().draws(target.dim)

    def judged(params, key, number):
        log = stage.log._replace(step=np.int32(number), status=np.int32(Status.COMPLETED))
        run = partial(as_run, target, params, log)
        args = (kind.name, stage.solver, kind.family, target, run, key, data)
        return judged_stage(*args)._replace(num_gradients=0, num_skipped=0)

    def may_answer(fit):
        d = fit.diagnostics
        return fit.settled and agree(d, kind.most_off) and efficiency(d) >= kind.least_share

    for number, round_key in enumerate(split(key, kind.rounds), 1):
        random, late = generator(round_key), kind.tails and number > _PATIENCE
        wanted = kind.points * (_LATE_POINTS if late else 1)
        try:
            points = weighted_points(sources, job, wanted, random, kind.tails)
            points = and_met(points, met, random)
            params = kind.fit(points, random)
        except np.linalg.LinAlgError:  # the draws lie in a plane, or do not bend
            break
        sources = [judged(params, round_key, number)]
        affordable = purse.allows(most_unseen_gradients(target.dim))
        if kind.refine is not None and affordable:
            space = kind.space(target, params, data)
            refined, cost = kind.refine(space, params, size, random)
            purse.spend(cost)
            spent += cost
            sources.append(judged(refined, round_key, number))
        last = max(sources, key=lambda s: (may_answer(s), efficiency(s.diagnostics)))
        near = bool(moment_noise(last.diagnostics).max() <= _NEAR)
        closer = last
        if efficiency(last.diagnostics) >= kind.least_share:  # else it could not answer
            patience = _LATE_LOOKS if late and near else 1
            closer = judged_closer(target, round_key, data, last, patience)
        sources = [closer if s is last else s for s in sources]
        last, d = closer, closer.diagnostics
        before = 0.0 if best is None else efficiency(best.diagnostics)
        if best is None or efficiency(d) > before:
            if efficiency(d) > _MORE * before:
                grown = number
            best = last
        answering = may_answer(last) and _alike(last, sources)
        able = affordable and probes < kind.probes
        if answering and not able:
            break
        lacks_a_tail = late and last.only_noisy and squares_heavy(d)
        if able and (answering or lacks_a_tail):
            space = kind.space(target, jax.device_get(last.params), data)
            unseen = unseen_mass(target, space, d, round_key, data)
            purse.spend(unseen.num_gradients)
            probes, spent = probes + 1, spent + unseen.num_gradients
            if answering and not unseen.moves and float(d.khat) < KHAT_FINITE:
                best, answers = last, True
                break
            if unseen.moves or not answering:
                met = np.concatenate([met, unseen.points])
        if number >= _PATIENCE and efficiency(d) < _HOPELESS:
            break
        if number - grown >= kind.patience:
            break
    if best is None:
        return Population(stage, False, spent)
    seconds = (time.perf_counter() - began, 0.0)
    best = best._replace(seconds=seconds, num_gradients=spent)
    return Population(best, answers, spent)


def and_met(points: AnyArray, met: AnyArray, random: np.random.Generator) -> AnyArray:
    """Points (N, D), and some (M, D) from where trajectories have met mass that draws had not."""
    if not len(met):
        return points
    more = min(len(points) // _MET, _OFTEN * len(met))
    return np.concatenate([points, met[random.integers(len(met), size=more)]])


def weighted_points(
    sources: list[Fitted], job: Job, wanted: int, random: np.random.Generator, tails: bool
) -> AnyArray:
    """As many points (N, D) by the weights of draws, of each stage as its draws count.

    Args:
        sources: the stages.
        job: what stages share.
        wanted: N, roughly.
        random: of the host.
        tails: whether half of a stage's are by what counts in variances, where these are heavy.

    Raises:
        numpy.linalg.LinAlgError: where there are too few draws.
    """
    sizes = np.nan_to_num([efficiency(s.diagnostics) for s in sources])
    if not sizes.sum() > 0:
        raise np.linalg.LinAlgError("no draws count")
    found = []
    for source, share in zip(sources, sizes / sizes.sum(), strict=True):
        number = round(wanted * share)
        if number and tails and squares_heavy(source.diagnostics):
            tail = _of_squares(source.diagnostics, job)
            found.append(resampled(tail, number // 2, random).points)
            number -= number // 2
        if number:
            found.append(resampled(source.diagnostics, number, random).points)
    return np.concatenate(found)


def _of_squares(d: Diagnostics, job: Job) -> Diagnostics:
    """The draws, weighted as much as they count in the variances that are known the least."""
    x = np.asarray(scalars(job.target, d.draws, job.data), float)
    heavy = d.square_shape > KHAT_FINITE
    with np.errstate(all="ignore"):
        away = (x[:, heavy] - d.corrected.mean[heavy]) / d.corrected.sd[heavy]
        return d._replace(log_weights=d.log_weights + np.log(np.mean(away**2, axis=1)))


def _alike(fit: Fitted, others: list[Fitted]) -> bool:
    """Whether other fits say the same, and those of more effective draws say something.

    Of two fits the one with a better curve, and more draws that count, may be the noisier: it sees
    a tail that the other does not.
    """
    share = efficiency(fit.diagnostics)
    if any(efficiency(s.diagnostics) > share and not s.answers for s in others):
        return False
    moments = [s.diagnostics.corrected for s in others if s.answers]
    this = fit.diagnostics.corrected
    with np.errstate(all="ignore"):
        means = np.array([np.abs(m.mean - this.mean) / this.sd for m in moments])
        sds = np.array([np.abs(np.log(m.sd / this.sd)) for m in moments])
    return not (np.maximum(means, sds) > MOST_NOISE).any()


def fit_mixture(points: AnyArray, random: np.random.Generator) -> PyTree:
    r"""A mixture of Gaussians by expectation maximisation.

        q(z) = sum_k w_k N(z; m_k, C_k)

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


def _space(target: Target, params: PyTree, data: PyTree) -> Space:
    return affine_space(target, FAMILY.frame(params), partial(FAMILY.log_mixture, params), data)


# Rings, waves and bends of few dimensions are no Gaussian, but sixteen cover them. Where a part of
# the model may be empty (one of three normals that overlap), 1% of the mass is wide and makes a
# third of a variance: by 10 rounds of 2,048 points, and trajectories at the end alone, none of
# three fits answered; by these all did.
MIXTURES = Kind("population", FAMILY, fit_mixture, _space, 2048, True, rounds=20, probes=10)
