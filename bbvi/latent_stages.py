"""Stages of the default where all else is normal given a few hyperparameters."""

import time
from functools import partial

import jax
import numpy as np

from bbvi._tree import split
from bbvi._types import AnyArray, Array, PyTree
from bbvi.conditionals import Conditionals
from bbvi.coordinates import Coordinates
from bbvi.evaluate import generator
from bbvi.evidence import efficiency
from bbvi.families import Frame, LatentGaussian
from bbvi.families.latent_gaussian import Latent
from bbvi.gaussians import probed
from bbvi.hyperparameters import hyperparameters, most_gradients
from bbvi.matching import as_run, on_device
from bbvi.nested_laplace import Explored, explore
from bbvi.population import Kind, fit_mixture, population_stage
from bbvi.solvers import BatchAndMatch
from bbvi.stage import Fitted, Job, judged_closer, judged_stage
from bbvi.status import Status
from bbvi.target import Target
from bbvi.unseen import Space, affine_space, log_mixture_of

FAMILY = LatentGaussian()
_NAME = "latent gaussian"
# Dimensions up to which normal distributions at a hundred points cost less than chains.
_MOST_DIM = 256
# Points of a fit to weighted draws, and rounds of these.
_POINTS, _ROUNDS = 4096, 4
# Effective draws, as a share of an exact fit's, below which none of these comes to anything.
_USEFUL = 0.05
# How many times as long as short chains looks at more draws may take. Scales and lengths have heavy
# squares, which 16,384 draws do not settle; the chains that come next took 230 s for a curve with a
# length of its own, 65,536 draws five.
_PATIENCE = 32


def latent_stages(gaussian: Fitted, job: Job, key: Array) -> tuple[list[Fitted], int]:
    """A mixture of Gaussians of hyperparameters, and all else normal given these.

    Of sixteen models with hidden processes, fields or curves five were rejected after 0.5 to 1.8
    million gradients, and the others took 400,000 on average. With this thirteen settle here, at
    10,000 to 140,000 gradients, of which most look for what no draw has met.

    Args:
        gaussian: a Gaussian in plain coordinates.
        job: what stages share.
        key: a typed random key.

    Returns:
        the stages, and gradients that are in the account of none of them.
    """
    target, data, purse, show, look, *_ = job
    if target.dim > _MOST_DIM or not purse.allows(most_gradients(target.dim)):
        return [], 0
    find_key, judge_key, move_key = split(key, 3)
    began = time.perf_counter()
    frame = Frame(*(np.asarray(x, float) for x in gaussian.frame))
    at = Coordinates(target, data, BatchAndMatch().draws(target.dim))
    explored = _explored(at, frame, find_key, purse.gradients)
    purse.spend(at.num_gradients)
    if explored is None:
        return [], at.num_gradients
    latent = explored.interpolated.latent
    found_in = time.perf_counter() - began

    def looked(stage: Fitted) -> Fitted:
        """The stage on as many draws as it takes, and what none of these has met."""
        stage = look(judged_closer(target, judge_key, data, stage, _PATIENCE))
        if not stage.settled:
            return stage
        return probed(target, _space(target, stage.params, data), judge_key, data, purse, stage)

    def join(mixture: PyTree) -> PyTree:
        return FAMILY.join(_embedded(mixture, latent), latent)

    def fit(points: AnyArray, random: np.random.Generator) -> PyTree:
        return join(fit_mixture(points[:, latent.hyper], random))

    log = gaussian.log._replace(status=np.int32(Status.COMPLETED))
    run = partial(as_run, target, join(explored.mixture), log)
    args = (_NAME, gaussian.solver, FAMILY, target, run, judge_key, data)
    first = show(_NAME, partial(judged_stage, *args))
    seconds = (first.seconds[0] + found_in, first.seconds[1])
    first = first._replace(num_gradients=at.num_gradients, num_skipped=0, seconds=seconds)
    first = looked(first)
    if first.settled or not efficiency(first.diagnostics) >= _USEFUL:
        return [first], 0
    kind = Kind(_NAME, FAMILY, fit, _space, _POINTS, tails=True, rounds=_ROUNDS)
    best, answers, spent = population_stage(first, job, kind, move_key)
    if answers:
        return [first, look(best)], 0
    return [first], spent


def _explored(at: Coordinates, frame: Frame, key: Array, gradients: float) -> Explored | None:
    """What is known of hyperparameters, if there are any."""
    random = generator(key)
    try:
        with np.errstate(all="ignore"):
            hyper = hyperparameters(at, frame.loc, frame.scale, random)
            if hyper is None or not len(hyper):
                return None
            return explore(Conditionals(at, hyper, frame), random, gradients)
    except np.linalg.LinAlgError:
        return None


def _space(target: Target, params: PyTree, data: PyTree) -> Space:
    """Units of a fit's own covariance."""
    frame = FAMILY.frame(jax.device_get(params))
    log_mixture = log_mixture_of(target, FAMILY, on_device(target, params))
    return affine_space(target, frame, log_mixture, data)


def _embedded(mixture: PyTree, latent: Latent) -> PyTree:
    """A mixture of hyperparameters as one of all coordinates, of which the others are standard."""
    number, dim = len(mixture["loc"]), len(latent.hyper) + len(latent.latent)
    loc, factor = np.zeros((number, dim)), np.tile(np.eye(dim), (number, 1, 1))
    loc[:, latent.hyper] = mixture["loc"]
    factor[np.ix_(range(number), latent.hyper, latent.hyper)] = mixture["factor"]
    log_weights = mixture["log_weights"] - np.log(np.sum(np.exp(mixture["log_weights"])))
    return {"log_weights": log_weights, "loc": loc, "factor": factor}
