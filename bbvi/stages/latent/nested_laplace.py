"""Hyperparameters explored: where their density is, and what all else is given them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bbvi._arrays import softmax
from bbvi._types import PyTree
from bbvi.families import Frame, GaussianMixture
from bbvi.families.proposals import TAIL_DF
from bbvi.stages.latent.conditionals import Conditionals, Points
from bbvi.stages.latent.interpolation import Interpolated, interpolate
from bbvi.stages.population import fit_mixture
from bbvi.stages.tempering import tempered

FAMILY = GaussianMixture()
# Rounds of points: hidden processes with a neck took eight to sixteen, curves and fields four.
_ROUNDS = 16
# Points of a round beyond the coefficients of a quadratic; the first one has twice these.
_MORE = 6
# Values to look at later, for each coefficient; and coefficients for each value beside these.
_AT_ONCE, _FEWER = 3, 3
# What the weights of points are worth, tempered, beside these coefficients.
_WORTH = 1.2
# Draws by which the density of hyperparameters is known, rounds of fits to these, how many they are
# to be worth, in all and for each hyperparameter, and points of a fit. They take no gradients.
_DRAWS, _FITS, _LEAST, _LEAST_EACH, _FITTED = 4096, 4, 300, 20, 2048
# How near a knot the density is believed, in sds: where it was wherever draws are, log determinants
# that had gone on as splines do made up mass.
_NEAR = 1.2
# Knots are as far apart, in sds, at least.
_APART = 0.1
# Where the next points may be: so many nats below the highest, so many sds from a knot, among draws
# that are so much wider. (Of points among the draws themselves a long tail took twelve rounds.)
_DEPTH, _FAR, _WIDER, _WIDE_DF, _CANDIDATES = 6.0, 3.0, 1.4, 2, 4096
# Means and sds that so many rounds in a row have moved by no more, in sds, are known.
_ENOUGH, _CALM = 0.1, 2


class Explored(NamedTuple):
    """What is known of hyperparameters.

    Attributes:
        conditionals: distributions of all else.
        points: of them, at some values.
        interpolated: what all else is given these, and their density.
        mixture: parameters of a mixture of Gaussians of them.
        near: how near a point the density is believed, in sds: of six hyperparameters half of all
            lies farther from any than of two.
    """

    conditionals: Conditionals
    points: Points
    interpolated: Interpolated
    mixture: PyTree
    near: float


class Tails(NamedTuple):
    """What the density between points says of scalars of hyperparameters alone.

    Attributes:
        alone: (C,) which scalars these are.
        sd: (T,) of them.
        theta: (N, H) values, those first that count most in the variances.
    """

    alone: np.ndarray
    sd: np.ndarray
    theta: np.ndarray


def explore(
    conditionals: Conditionals, random: np.random.Generator, gradients: float
) -> Explored | None:
    r"""Where the density of hyperparameters is, and what all else is given them there.

    At a value theta all else is about normal, q(x), and with draws of that

        log p(theta) = log mean_s p(theta, x_s) / q(x_s) + const,

    where Laplace's method takes the mode alone.

    Both are known at a few points, and in between by splines; what these say is fitted by a
    mixture. The next points are plausible, and as far as can be from those so far, until they no
    longer move it.

    Args:
        conditionals: distributions of all else.
        random: of the host.
        gradients: evaluations that may be spent, roughly.

    Returns:
        what is known; None where there are too few values given which all else is normal.

    Raises:
        numpy.linalg.LinAlgError: where what is known is no density.

    Source: Rue, Martino and Chopin 2009 (Journal of the Royal Statistical Society B 71), with a
    design of Johnson, Moore and Ylvisaker 1990 (Journal of Statistical Planning and Inference 26);
    the draws are those of Shephard and Pitt 1997 (Biometrika 84).
    """
    frame = conditionals.frame
    size, few = len(frame.loc), _quadratic(conditionals)
    mixture = {
        "log_weights": np.zeros(1),
        "loc": frame.loc[None],
        "factor": frame.scale[None],
    }
    half = random.standard_normal((few, size))
    theta = frame.apply(np.concatenate([half, -half]))
    points: Points | None = None
    found: Interpolated | None = None
    near, calm = _NEAR, 0
    for _ in range(_ROUNDS):
        before = FAMILY.frame(mixture)
        if points is None or found is None:
            points = conditionals.at(theta, *conditionals.first(theta))
        else:
            points = points.and_others(_solved(conditionals, points, found, theta))
        if len(points.log_p) < 1.5 * few:
            return None
        found = _between(conditionals, points, before)
        mixture, whole = _fitted(found, mixture, near, random)
        moved = _moved(before, FAMILY.frame(mixture))
        calm = calm + 1 if whole and moved < _ENOUGH else 0
        if calm == _CALM or conditionals.num_gradients > gradients:
            break
        theta, away = _next(found, mixture, few + _MORE, random)
        if not len(theta):
            break
        near = max(away, _NEAR)
    assert points is not None and found is not None, "there is a first round"
    return Explored(conditionals, points, found, mixture, near)


def explore_at(
    explored: Explored, theta: np.ndarray, beside: np.ndarray, random: np.random.Generator
) -> tuple[Explored, np.ndarray]:
    """What is known with more values too: of some those that are farthest from all so far.

    Args:
        explored: what is known.
        theta: (N, H) values.
        beside: (M, H) others, of which fewer are taken.
        random: of the host.

    Returns:
        what is known then; and for each new value given which all else is normal by how many nats
        (M,) that normal distribution is from what was foreseen.

    Raises:
        numpy.linalg.LinAlgError: where what is known is no density.
    """
    conditionals, points, found, mixture, near = explored
    few = _quadratic(conditionals)
    parts = ((theta, _AT_ONCE * few), (beside, few // _FEWER))
    theta = np.concatenate([_apart(found, values, number)[0] for values, number in parts])
    if not len(theta):
        return explored, np.zeros(0)
    new = _solved(conditionals, points, found, theta)
    surprise = new.divergence_from(*found.given(conditionals, new.theta))
    points = points.and_others(new)
    found = _between(conditionals, points, FAMILY.frame(mixture))
    mixture, _ = _fitted(found, mixture, near, random)
    more = explored._replace(points=points, interpolated=found, mixture=mixture)
    return more, surprise


def tails_of(
    explored: Explored, scalars: Callable[[np.ndarray], np.ndarray], number: int, random
) -> Tails:
    """Scalars of hyperparameters alone, and their moments by the density between points.

    Where all else is not what splines say, draws weigh next to nothing, as if no mass were there:
    of a tail with 0.15% of the mass and 11% of a variance they had a tenth, weights were even, and
    the sd was 13% short. The density between points does not depend on such draws.

    Args:
        explored: what is known.
        scalars: (S, C) of points z (S, D).
        number: of draws. They take no gradients.
        random: of the host.
    """
    conditionals, _, found, mixture, most = explored
    theta = _draws(mixture, number, random)
    z = np.zeros((number, theta.shape[1] + len(conditionals.latent)))
    z[:, conditionals.hyper] = theta
    z[:, conditionals.latent] = conditionals.origin
    x = scalars(z)
    z[:, conditionals.latent] += conditionals.units @ np.ones(len(conditionals.latent))
    alone = (x == scalars(z)).all(axis=0) & (np.ptp(x, axis=0) > 0)
    x = x[:, alone]
    log_weights = found.log_density(theta) - FAMILY.log_mixture(mixture, theta)
    away = np.where(np.isfinite(log_weights), found.distance(theta), np.inf)
    near, far = (
        softmax(np.where(away < reach, log_weights, -np.inf)) for reach in (most, max(most, _FAR))
    )
    squares = (x - near @ x) ** 2
    sd = np.sqrt(near @ squares)
    counts = far * np.max(squares / np.maximum(sd, 1e-300) ** 2, axis=1, initial=0)
    return Tails(alone, sd, theta[np.argsort(-counts)])


def _solved(
    conditionals: Conditionals, points: Points, found: Interpolated, theta: np.ndarray
) -> Points:
    """All else given new values (N, H), from what splines say there or, if higher, a point has."""
    away = found.units(theta)[:, None] - found.units(points.theta)
    nearest = points.pick(np.argmin(np.sum(away**2, axis=-1), axis=1))
    said = found.given(conditionals, theta)
    near = nearest.mean, np.linalg.cholesky(nearest.precision)
    heights = []
    for mean, _ in (said, near):
        value, _, ok = conditionals.score_at(theta, mean)
        heights.append(np.where(ok, value, -np.inf))
    higher = heights[0] >= heights[1]
    mean = np.where(higher[:, None], said[0], near[0])
    factor = np.where(higher[:, None, None], said[1], near[1])
    return conditionals.at(theta, mean, factor)


def _quadratic(conditionals: Conditionals) -> int:
    """Coefficients of a quadratic of hyperparameters."""
    size = len(conditionals.hyper)
    return (size + 1) * (size + 2) // 2


def _between(conditionals: Conditionals, points: Points, frame: Frame) -> Interpolated:
    weights, _ = tempered(points.log_p / 2, _WORTH * _quadratic(conditionals))
    return interpolate(conditionals, points, weights, frame)


def _moved(one: Frame, other: Frame) -> float:
    """How far apart two frames' means and sds are, in sds."""
    sds = [np.linalg.norm(frame.scale, axis=1) for frame in (one, other)]
    apart = np.abs(one.loc - other.loc) / sds[1]
    return float(np.max(np.maximum(apart, np.abs(np.log(sds[0] / sds[1])))))


def _draws(mixture: PyTree, number: int, random: np.random.Generator, wider=1.0, df=TAIL_DF):
    """Draws (S, H), half of them with heavier tails."""
    weights = np.exp(mixture["log_weights"])
    chosen = random.choice(len(weights), size=number, p=weights / weights.sum())
    eps = random.standard_normal((number, mixture["loc"].shape[1])) * wider
    eps[number // 2 :] *= np.sqrt(df / random.chisquare(df, (number - number // 2, 1)))
    return mixture["loc"][chosen] + np.einsum("sij,sj->si", mixture["factor"][chosen], eps)


def _fitted(found, mixture, near: float, random) -> tuple[PyTree, bool]:
    """A mixture of the density near knots, and whether it is that and not a tempered one."""
    power = 0.0
    least = _LEAST + _LEAST_EACH * mixture["loc"].shape[1]
    for _ in range(_FITS):
        theta = _draws(mixture, _DRAWS, random)
        log_weights = found.log_density(theta) - FAMILY.log_mixture(mixture, theta)
        known = np.isfinite(log_weights) & (found.distance(theta) < near)
        weights, power = tempered(np.where(known, log_weights, -np.inf), least)
        if power < 1:
            loc = weights @ theta
            away = theta - loc
            factor = np.linalg.cholesky((away.T * weights) @ away)
            mixture = {"log_weights": np.zeros(1), "loc": loc[None], "factor": factor[None]}
        else:
            mixture = fit_mixture(theta[random.choice(_DRAWS, _FITTED, p=weights)], random)
    return mixture, power == 1


def _next(found, mixture, number: int, random) -> tuple[np.ndarray, float]:
    """Plausible values (N, H) as far as can be from knots, and how far all then are."""
    theta = _draws(mixture, _CANDIDATES, random, _WIDER, _WIDE_DF)
    plausible = (found.log_density(theta) > -_DEPTH) & (found.distance(theta) < _FAR)
    return _apart(found, theta[plausible], number)


def _apart(found, theta: np.ndarray, number: int) -> tuple[np.ndarray, float]:
    """Of values those (N, H) as far as can be from knots and each other; and how far all are."""
    away = found.distance(theta)
    t, chosen = found.units(theta), []
    for _ in range(number):
        if not away.max(initial=0.0) > _APART:
            break
        chosen.append(int(np.argmax(away)))
        away = np.minimum(away, np.linalg.norm(t - t[chosen[-1]], axis=1))
    return theta[chosen], float(away.max(initial=0.0))
