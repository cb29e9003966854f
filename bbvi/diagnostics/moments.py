"""Weighted moments of scalars, with their Monte Carlo errors."""

from typing import NamedTuple

import numpy as np

from bbvi._arrays import namespace
from bbvi._linalg import dot
from bbvi._types import AnyArray, Array
from bbvi.diagnostics.pareto import USABLE, rate_lost

# Elements of a block of sums of numpy's: 256 KiB, what a core's own cache holds. Blocks of a
# quarter took twice as long for their calls, whole arrays of 200 scalars as long for new pages.
_BLOCK = 1 << 15


class Moments(NamedTuple):
    """Mean and standard deviation of each scalar parameter, with Monte Carlo errors; all (C,).

    A standard error says nothing of terms that were not drawn: where the weighted squares have a
    heavy tail, that of a corrected sd is larger by `bbvi.diagnostics.pareto.rate_lost`.
    """

    mean: Array
    sd: Array
    mean_se: Array
    sd_se: Array


def sums_and_terms(
    x: AnyArray, sets: AnyArray, origin: AnyArray, unit: AnyArray
) -> tuple[AnyArray, AnyArray]:
    """Of scalars (S, C) and four sets of weights (4, S).

    Returns:
        Sums (4, 5, C) of w (x - origin)^p, p = 0..4, of each set, and the terms (C, S) of the
        third set's second moment, in units.
    """
    xp = namespace(x)
    if xp is np and x.size > _BLOCK:
        size = max(1, _BLOCK // x.shape[1])
        blocks = [slice(i, i + size) for i in range(0, len(x), size)]
        each = [sums_and_terms(x[at], sets[:, at], origin, unit) for at in blocks]
        sums, terms = map(list, zip(*each, strict=True))
        return np.sum(sums, axis=0), np.concatenate(terms, axis=1)
    x = _about(x, origin, xp.any(sets > 0, axis=0)).T
    if xp is np:
        x = np.ascontiguousarray(x)  # draws of a scalar side by side, which are summed
    x2 = x**2
    # a product a power: an array of all five would be the largest of the program
    # (squared and multiplied: numpy takes a logarithm for a third or fourth power)
    sums = [dot(sets, p.T) for p in (xp.ones_like(x), x, x2, x2 * x, x2**2)]
    return xp.stack(sums, 1), sets[2] * (x / unit[:, None]) ** 2


def moments_of(origin: Array, first: Array, second: Array) -> Moments:
    """Moments and their errors from sums of w x^p and of w^2 x^p, p = 0..4, each (5, C).

    The errors are those of self-normalised importance sampling (Owen 2013, section 9.2).
    """
    xp, m = namespace(origin), first[1] / first[0]
    variance = xp.maximum(first[2] / first[0] - m**2, 0)
    s0, s1, s2, s3, s4 = second
    # sums of w^2 (x - m)^2 and of w^2 ((x - m)^2 - variance)^2
    squares = s2 - 2 * m * s1 + m**2 * s0
    fourths = s4 - 4 * m * s3 + 6 * m**2 * s2 - 4 * m**3 * s1 + m**4 * s0
    quartic = fourths - 2 * variance * squares + variance**2 * s0
    sd = xp.sqrt(variance)
    tiny = xp.finfo(m.dtype).tiny
    return Moments(
        origin + m,
        sd,
        xp.sqrt(xp.maximum(squares, 0)),
        xp.sqrt(xp.maximum(quartic, 0)) / xp.maximum(2 * sd, tiny),
    )


def with_tail_errors(moments: Moments, shape: Array, total: int, usable: float = USABLE) -> Moments:
    """Moments whose sds are known as well as the tails of the weighted squares let them be.

    Args:
        moments: with standard errors alone.
        shape: (C,) Pareto shapes of the largest weighted squares.
        total: how many draws there are.
        usable: the shape up to which a standard error is believed.
    """
    with np.errstate(invalid="ignore"):  # no error times an infinite one: nothing is known
        return moments._replace(sd_se=moments.sd_se * rate_lost(shape, total, usable))


def _about(x: AnyArray, origin: AnyArray, used: AnyArray) -> AnyArray:
    """x (S, C) from an origin; 0 where not used (S,), where the parameters may overflow."""
    xp, x = namespace(x), x - origin
    if xp is np and used.all():
        return x  # no copy
    return xp.where(used[:, None], x, 0)


def place(x: Array, weights: Array) -> tuple[Array, Array]:
    """Mean and sd of scalars (S, C) under weights; one of them and 1 where these say nothing."""
    xp = namespace(x)
    share = weights / xp.maximum(xp.sum(weights), xp.finfo(x.dtype).tiny)
    first = x[0]
    x = _about(x, first, weights > 0)
    away = dot(share, x)
    sd = xp.sqrt(dot(share, (x - away) ** 2))
    return first + away, xp.where(sd > 0, sd, 1)
