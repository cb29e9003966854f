"""Stages of the default where all else is normal given a few hyperparameters."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from bbvi._tree import split
from bbvi._types import AnyArray, Array, PyTree
from bbvi.diagnostics.chains import expected_gradients
from bbvi.diagnostics.evidence import efficiency, squares_heavy
from bbvi.diagnostics.figures import Diagnostics
from bbvi.evaluate import generator, scalars
from bbvi.families import Frame, FullRankGaussian, LatentGaussian
from bbvi.solvers import BatchAndMatch
from bbvi.solvers.base import RunLog
from bbvi.stages.chain_stages import chain_stage
from bbvi.stages.coordinates import Coordinates
from bbvi.stages.gaussians.match import on_device
from bbvi.stages.judged import judged_closer, judged_stage
from bbvi.stages.latent.conditionals import Conditionals
from bbvi.stages.latent.hyperparameters import hyperparameters, most_gradients
from bbvi.stages.latent.nested_laplace import Explored, explore, explore_at, tails_of
from bbvi.stages.latent.round import SHORT, TELLING, Round
from bbvi.stages.population import and_met, fit_mixture, weighted_points
from bbvi.stages.stage import Fitted, Job
from bbvi.stages.unseen import (
    Space,
    affine_space,
    log_mixture_of,
    most_unseen_gradients,
    unseen_mass,
)
from bbvi.status import Status
from bbvi.target import Target

FAMILY, OF_CHAINS = LatentGaussian(), LatentGaussian(FullRankGaussian())
_NAME = "latent gaussian"
# Dimensions up to which normal distributions at a hundred points cost less than a flow.
_MOST_DIM = 512
# Rounds of points where weights are heaviest; how many may bring no more effective draws; of how
# many draws these points are; and the effective draws, as a share of an exact fit's, below which
# nothing comes of them; after as many rounds as may bring nothing these are to tell something.
# (Walks in 165 dimensions took one round, from 26% to 84%, curves of animals nine.)
_ROUNDS, _WAIT, _HEAVIEST, _USEFUL = 10, 3, 64, 0.005
# Values beside the heaviest draws that count most in the variances of hyperparameters, where draws
# may have settled without.
_COUNTING = 32
# How many nats from what was foreseen a normal distribution is that was not, and how many of these
# are worth a round: of the heaviest draws where all else is not normal most were 0.03 nats off,
# where points were too few 0.1 to 70.
_FORESEEN, _SURPRISES = 0.1, 4
# With how many effective draws, as a share of an exact fit's, chains begin in coordinates in which
# all else is standard, and how often they go on for as long again. (Of two curves, of a mean and of
# its log noise, in 125 dimensions they settled in 200,000 gradients; in others 2.4 million did not.
# Where a neck is left they do not settle in eight times as many.)
_STRAIGHT, _DOUBLINGS = 0.02, 2
_POINTS = 4096  # by weights, of which the covariance is known
# How many times as long as short chains looks at more draws may take. Scales and lengths have heavy
# squares, which 16,384 draws do not settle; the chains that come next took 230 s for a curve with a
# length of its own, 65,536 draws five.
_PATIENCE = 32


def latent_stages(gaussian: Fitted, job: Job, key: Array) -> tuple[list[Fitted], int]:
    """A mixture of Gaussians of hyperparameters, and all else normal given these.

    What is known at some points, and by splines in between, is least known where draws weigh most:
    points there follow, and where trajectories have met what no draw has, until draws answer. Of
    sixteen models with hidden processes, fields or curves five were rejected after 0.5 to 1.8
    million gradients, and the others took 400,000 on average. With this nearly all settle here, at
    10,000 to 300,000 gradients, of which most look for what no draw has met.

    Args:
        gaussian: a Gaussian in plain coordinates.
        job: what stages share.
        key: a typed random key.

    Returns:
        the stage, if there is one, and gradients that are in no stage's account.
    """
    target, purse = job.target, job.purse
    if target.dim > _MOST_DIM or not purse.allows(most_gradients(target.dim)):
        return [], 0
    find_key, judge_key = split(key, 2)
    random = generator(find_key)
    at = Coordinates(target, job.data, BatchAndMatch().draws(target.dim))
    began = time.perf_counter()
    frame = Frame(*(np.asarray(x, float) for x in gaussian.frame))
    explored = _or_none(lambda: _explored(at, frame, None, random, purse.gradients))
    if explored is None:
        purse.spend(at.num_gradients)
        return [], at.num_gradients

    def rounds() -> Fitted:
        best, looking = _rounds(gaussian, job, at, explored, judge_key, random)
        purse.spend(at.num_gradients)
        seconds = (time.perf_counter() - began, 0.0)
        spent = at.num_gradients + looking
        params = on_device(target, best.params)
        return best._replace(params=params, num_gradients=spent, seconds=seconds)

    return [job.show(_NAME, rounds)], 0


def latent_chains(stages: list[Fitted], job: Job, key: Array) -> list[Fitted]:
    """Short chains in coordinates in which all else is standard, where it is nearly so.

    Weights may be uneven for what is a little skewed in each of many dimensions; trajectories pass
    over that.

    Args:
        stages: the one of hyperparameters, with all else normal given these, if there is one.
        job: what stages share.
        key: a typed random key.
    """
    target = job.target
    near = [stage for stage in stages if efficiency(stage.diagnostics) >= _STRAIGHT]
    if not near or not job.purse.allows(expected_gradients(target.dim)):
        return []
    (stage,) = near
    _, _, points_key, chains_key = split(key, 4)  # the first two are those of the stage

    def straight() -> PyTree:
        points = weighted_points([stage], job, _POINTS, generator(points_key), tails=True)
        theta = points[:, stage.params["latent"]["hyper"]]
        covariance = np.atleast_2d(np.cov(theta.T))
        base = OF_CHAINS.base.init(theta.mean(axis=0), np.linalg.cholesky(covariance))
        return on_device(target, stage.params | {"base": base})

    params = _or_none(straight)
    if params is None:
        return []
    job = job._replace(doublings=_DOUBLINGS)
    stage = stage._replace(unseen=0.0)  # by its draws, and now chains go where these do not
    where = OF_CHAINS, params
    run = partial(chain_stage, stage, job, chains_key, begin_at=stage, where=where)
    return [job.look(job.show(f"chains {_NAME}", run))]


def _rounds(gaussian, job, at, explored: Explored, key: Array, random) -> tuple[Fitted, int]:
    """The best of fits by more and more points, those where weights were heaviest.

    Draws that settle must know the sds of hyperparameters that their density between points has:
    weights of next to nothing do not tell a tail where all else lies elsewhere from one where
    nothing is. Values that count most there follow, and a fit that stays short misses mass.

    Returns:
        the fit, and gradients spent on what it misses, which are paid for.
    """
    target, data, purse = job.target, job.data, job.purse
    best: Round | None = None
    closely, looking = False, 0

    def seen(z):
        return np.asarray(scalars(target, z.astype(target.dtype), data), float)

    def judged(number: int, now: Explored) -> Round:
        # on the host, where draws of other knots need no other program
        log = gaussian.log._replace(status=np.int32(Status.COMPLETED))
        run = partial(_found, _joined(now), log)
        stage = judged_stage(_NAME, gaussian.solver, FAMILY, target, run, key, data)
        tails = tails_of(now, seen, len(stage.diagnostics.draws), random)
        return Round(number, stage, tails).but(num_gradients=0, num_skipped=0)

    def nearer(now: Explored, this: Round, **where: Any) -> Explored | None:
        if purse.allows(at.num_gradients):
            return _or_none(lambda: _nearer(job, at, now, this, random, **where))
        return None

    now = explored
    for number in range(_ROUNDS):
        this = judged(number, now)
        if best is None or this.rank > best.rank:
            best = this
        least = TELLING if number >= _WAIT else _USEFUL
        enough = number == _ROUNDS - 1 or number - best.number == _WAIT
        last = enough or not efficiency(best.stage.diagnostics) >= least
        following = None
        # once: where more draws do not settle it, other points may
        nearly = bool(number) and not closely and best.nearly
        if not (last or this.whole or nearly):
            following = nearer(now, this, ask=number == 0)
        if following is None:
            closely = True
            # one of several that settles may have done so by chance
            chosen = bool(number) and bool(squares_heavy(best.stage.diagnostics))
            closer = judged_closer(target, key, data, best.stage, _PATIENCE, surely=chosen)
            best = best._replace(stage=closer, looked=best.looked and closer is best.stage)
            if (this.stage.settled or nearly) and not (best.stage.settled or last):
                following = nearer(now, best)
        if best.stage.settled and best.short > SHORT:
            best = best.but(unseen=best.short)
        if best.stage.settled:
            best, cost = best.looked_at(job)
            looking += cost
        if best.stage.settled and purse.allows(most_unseen_gradients(target.dim)):
            space = _space(target, best.stage.params, data)
            unseen = unseen_mass(target, space, best.stage.diagnostics, key, data)
            purse.spend(unseen.num_gradients)
            looking += unseen.num_gradients
            if not unseen.moves:
                break
            best = best.but(unseen=unseen.moves)
            following = None if last else nearer(now, this, met=unseen.points)
        if following is None:
            break
        now = following
    assert best is not None, "there is a first round"
    best, cost = best.looked_at(job)
    return best.stage, looking + cost


def _found(params: PyTree, log: RunLog) -> tuple[PyTree, RunLog]:
    return params, log


def _heaviest(d: Diagnostics) -> AnyArray:
    """The draws (N, D) that weigh most."""
    log_weights = np.nan_to_num(d.log_weights, nan=-np.inf)
    return d.draws[np.argsort(-log_weights)[:_HEAVIEST]]


def _explored(at, frame: Frame, but_for, random, gradients: float) -> Explored | None:
    """What is known of hyperparameters, if there are any, and not just those that are known."""
    hyper = hyperparameters(at, frame.loc, frame.scale, random)
    if hyper is None or not len(hyper) or np.array_equal(hyper, but_for):
        return None
    return explore(Conditionals(at, hyper, frame), random, gradients)


def _nearer(
    job,
    at,
    explored: Explored,
    this: Round,
    random,
    met: AnyArray | None = None,
    ask: bool = False,
) -> Explored | None:
    """What is known by points where some draws are too; None where these tell nothing more.

    Where what all else is there was foreseen, and weights are uneven all the same, it is not
    normal: there may be more hyperparameters, which a Gaussian that was far from some of the
    posterior has not shown. Where they are not that uneven, what points say of hyperparameters
    themselves may settle it. (Of 20 fits of five models, one of which has tails that no draws
    tell, 13 settled so, and 9 where nothing followed what was foreseen.)
    """
    hyper, stage = explored.conditionals.hyper, this.stage
    draws = _heaviest(stage.diagnostics) if met is None else met
    theta = np.asarray(draws[:, hyper], float)
    beside = this.tails.theta[: _COUNTING * stage.settled]
    found, surprise = explore_at(explored, theta, beside, random)
    by_weights = efficiency(stage.diagnostics) >= TELLING
    more = met is not None or np.sum(surprise > _FORESEEN) >= _SURPRISES
    tells = more or by_weights and found is not explored
    if not tells and (by_weights or not ask):
        return None
    points = weighted_points([stage], job, _POINTS, random, tails=True)
    if not tells:
        whole = Frame(points.mean(axis=0), np.linalg.cholesky(np.cov(points.T)))
        return _explored(at, whole, hyper, random, job.purse.gradients)
    if met is not None:
        points = and_met(points, met, random)
    if not by_weights:
        return found
    # a density between points and weights at draws err in other ways
    eps = random.standard_normal((1, _POINTS, len(hyper)))
    said = FAMILY.base.at_normals(found.mixture, random.random(_POINTS), eps)
    theta = np.concatenate([points[:, hyper], said])
    return found._replace(mixture=fit_mixture(theta, random))


def _or_none(make: Callable[[], Any]) -> Any:
    """What it makes, if there is a density."""
    try:
        with np.errstate(all="ignore"):
            return make()
    except np.linalg.LinAlgError:
        return None


def _joined(explored: Explored) -> PyTree:
    return FAMILY.join(explored.mixture, explored.interpolated.latent)


def _space(target: Target, params: PyTree, data: PyTree) -> Space:
    """Units of a fit's own covariance."""
    frame = FAMILY.frame(jax.device_get(params))
    log_mixture = log_mixture_of(target, FAMILY, on_device(target, params))
    return affine_space(target, frame, log_mixture, data)
