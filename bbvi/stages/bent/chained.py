"""Chains of regressions fitted to draws: in which order, and on what."""

from typing import NamedTuple

import numpy as np

from bbvi._types import PyTree
from bbvi.families import TriangularGaussian
from bbvi.families.triangular import products, quadratics
from bbvi.stages.bent.bending import in_units

FAMILY = TriangularGaussian()
_RIDGE = 1e-6  # draws' worth, of each draw
# Nats of a draw by which a quadratic has to beat a line, beside what its coefficients gain by
# chance: less does not bend.
_BENDS = 0.02


class _Regression(NamedTuple):
    """Coefficients (F,), the variance of what is left, and nats of a draw gained over a line."""

    coefficients: np.ndarray
    variance: float
    gain: float


def chain(draws: np.ndarray, worth: float = np.inf) -> PyTree | None:
    r"""The chain of regressions that draws are closest to, or None if no mean bends.

    The last coordinate is the one for which a quadratic of all others gains the most over a line:
    where x_3 is about the square of x_2, and x_2 of x_1, that is x_3, since of x_2 the linear part
    of x_3 knows nearly as much. Then the last one of the others, and so on. Of each only what gains
    more than by chance is kept.

    Args:
        draws: (S, D).
        worth: how many independent ones they are worth, where many are the same.

    Raises:
        numpy.linalg.LinAlgError: if the draws do not vary.
    """
    x, centre, unit = in_units(draws)
    dim, worth = x.shape[1], min(len(x), worth)
    features = quadratics(x)
    gram = features.T @ features / len(x) + _RIDGE * np.eye(features.shape[1])
    left, tail = list(range(dim)), []
    while len(left) > 1:
        gains = [_regress(gram, dim, j, [k for k in left if k != j], worth).gain for j in left]
        if not max(gains) > _BENDS:
            break  # of what is left any order will do
        tail.append(left.pop(int(np.argmax(gains))))
    if not tail:
        return None
    order = np.array(left + tail[::-1], np.int32)
    fits = [_regress(gram, dim, order[k], order[:k], worth) for k in range(dim)]
    means = np.stack([fit.coefficients for fit in fits], axis=1)
    widths = np.sqrt([fit.variance for fit in fits])
    return FAMILY.join(order, centre[order], unit[order], means[_ordered(order)], np.log(widths))


def _regress(gram: np.ndarray, dim: int, of: int, on, worth: float) -> _Regression:
    """The quadratic of some coordinates, or the line where that is no worse.

    Args:
        gram: (F, F) means of products of quadratics.
        dim: D.
        of: the coordinate.
        on: those that it may follow.
        worth: how many draws the means are worth.
    """
    on = np.asarray(on, int)
    one, other = products(dim)
    line = np.concatenate([[0], 1 + on])
    pairs = np.flatnonzero(np.isin(one, on) & np.isin(other, on))
    found = []
    for some in (line, np.concatenate([line, 1 + dim + pairs])):
        covariances = gram[some, 1 + of]
        coefficients = np.zeros(len(gram))
        coefficients[some] = np.linalg.solve(gram[np.ix_(some, some)], covariances)
        variance = gram[1 + of, 1 + of] - coefficients[some] @ covariances
        found.append((coefficients, max(variance, _RIDGE**2)))
    straight, bent = found
    gain = 0.5 * np.log(straight[1] / bent[1]) - len(pairs) / worth
    return _Regression(*(bent if gain > 0 else straight), float(gain))


def _ordered(order: np.ndarray) -> np.ndarray:
    """Which quadratics (F,) those of coordinates in this order are."""
    dim = len(order)
    one, other = products(dim)
    at = np.zeros((dim, dim), int)
    at[one, other] = at[other, one] = np.arange(len(one))
    return np.concatenate([[0], 1 + order, 1 + dim + at[order[one], order[other]]])
