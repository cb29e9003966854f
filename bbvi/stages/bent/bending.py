"""Bent Gaussians fitted to draws: which coordinates drive the others, and how."""

from typing import NamedTuple

import numpy as np

from bbvi._types import PyTree
from bbvi.families import BentGaussian
from bbvi.families.bent import CURVED, KNOTS, MOST_DRIVERS, features, most_drivers

# A coordinate drives others if squares of correlations sum to this: its own with the logarithms of
# their squares, its square's with them, and its products' with them with those that drive already.
_DRIVES = 0.1
_CLIPPED, _SMALL = 3.0, 1e-2  # for these correlations, in sds and their squares
_SOME = 4096  # draws, by which the drivers are chosen
_ROUNDS, _STEPS = 3, 2  # of means and widths in turn, and of Newton's method for the widths
_WORTH = 4.0  # draws of chains that are worth one
# Of a residual over its width, squared: what one draw may say of the width at most.
_MOST = 25.0
_LONGEST = 0.5  # step of a log width
_SMOOTH = 1e-4  # of the roughness of a curve, in draws; ten times less or more change little
# A kink, and nearly a parabola: effects of a hundred groups were 10% short with a parabola,
# which leaves the neck of their funnel, and ridges that are parabolas were wrong without. And any
# curve: of exact draws of five sharp ridges the other two had 81%, 11%, 29%, nothing and nothing of
# the effective draws of an exact fit, with it they have 80% to 98%.
_SHAPES = ((1.0, False), (0.25, False), (0.25, True))
# Where log widths fall by so much with a driver, on average and in the end, means come to rest at
# about twice that rate, as the mean of an effect does with the square of its scale. Of four rates
# the one that fits best is taken, unless it fits worse than none, by so many nats: where draws are,
# that need not show.
_NARROWS, _RATES, _AS_GOOD = 0.1, (0.7, 1.0, 1.5, 2.2), 0.5
FAMILY = BentGaussian()


def bend(draws: np.ndarray, worth: float = np.inf) -> PyTree | None:
    r"""The bent Gaussian that draws are closest to, or None if nothing bends.

    Drivers are chosen one by one, each as the one on which what is left of the others depends
    most. Given these, every other coordinate is a regression with a width of its own,

        z_j = beta_j0 + f(a)'beta_j + exp(g(a)'c_j) r_j,

    by weighted least squares for beta and Newton's method for c in turn, and the residuals have
    a covariance. For f and g see `bbvi.families.bent.features`: of several f the likeliest is
    taken, less what as many coefficients gain by chance. The fit is for what comes after the draws
    too: where a funnel narrows further than they go, so should it.

    Args:
        draws: (S, D).
        worth: how many independent ones they are worth, where many are the same.

    Raises:
        numpy.linalg.LinAlgError: if the draws have no covariance that can be factorised.

    Source: the regression with log-linear widths is that of Harvey 1976 (Econometrica 44).
    """
    x, centre, unit = in_units(draws)
    some = x[:: -(-len(x) // _SOME)]
    strength = _dependence(some, some, [], worth)
    if not strength.max() > _DRIVES:
        return None
    fits = []
    for roundness, curved in _SHAPES:
        shape = np.zeros((2, most_drivers(x.shape[1])))
        shape[0] = roundness
        drivers = _drivers(some, strength, shape, curved, worth)
        fits.append(_regress(x, drivers, shape, worth, curved=curved))
    fit = max(fits, key=lambda fit: fit.log_likelihood)
    fit = _at_rest(x, fit, worth)
    number = len(fit.drivers)
    order = np.concatenate([fit.drivers, _others(x, fit.drivers)]).astype(np.int32)
    factor = np.zeros((len(order), len(order)))
    factor[:number, :number] = fit.root
    factor[number:, number:] = fit.factor
    loc, means, widths = (
        np.insert(y, [0] * number, 0, axis=-1) for y in (fit.loc, fit.means, fit.widths)
    )
    unit = unit[order]
    loc = centre[order] + unit * loc
    return FAMILY.join(fit.shape, order, loc, factor * unit[:, None], means * unit, widths)


def in_units(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws (S, D) with mean 0 and sd 1, and what these were (D,).

    Raises:
        numpy.linalg.LinAlgError: if they do not vary.
    """
    draws = np.asarray(draws, float)
    with np.errstate(all="ignore"):
        centre, unit = draws.mean(axis=0), draws.std(axis=0)
    if not (np.isfinite(unit).all() and (unit > 0).all()):
        raise np.linalg.LinAlgError("draws that do not vary")
    return (draws - centre) / unit, centre, unit


class _Fit(NamedTuple):
    """Drivers, and regressions of the M other coordinates on them.

    Attributes:
        shape: see `bbvi.families.bent.features`.
        drivers: K indices.
        root: (K, K) factor of the drivers' covariance.
        loc: (M,) intercepts.
        means: (F, M) coefficients.
        widths: (2 K, M) of the log widths.
        rest: (S, M) residuals over their widths.
        factor: (M, M) of the covariance of these.
        log_likelihood: of a draw, but for a constant.
    """

    shape: np.ndarray
    drivers: list[int]
    root: np.ndarray
    loc: np.ndarray
    means: np.ndarray
    widths: np.ndarray
    rest: np.ndarray
    factor: np.ndarray
    log_likelihood: float


def _chance(x: np.ndarray, worth: float) -> float:
    """Squares of correlations that are noise."""
    return _WORTH / min(len(x), worth)


def _drivers(
    x: np.ndarray, strength: np.ndarray, shape: np.ndarray, curved: bool, worth: float
) -> list[int]:
    """Columns of x (S, D) on which the others depend, the first one, by its strength, most."""
    drivers: list[int] = []
    most = min(CURVED if curved else MOST_DRIVERS, x.shape[1] - 1)
    while strength.max() > _DRIVES:
        drivers.append(int(np.argmax(strength)))
        if len(drivers) == most:
            break
        rest = _regress(x, drivers, shape, worth, curved=curved).rest
        strength = _dependence(x, rest, drivers, worth)
    return drivers


def _at_rest(x: np.ndarray, fit: _Fit, worth: float) -> _Fit:
    """The same where means come to rest as fast as widths narrow, if they narrow."""
    few, number = len(fit.widths) // 2, len(fit.drivers)
    slope, turn = (w[:number].mean(axis=1) for w in (fit.widths[:few], fit.widths[few:]))
    down, up = slope - 2 * turn, -slope - 2 * turn
    narrows = np.maximum(down, up) > _NARROWS
    if not narrows.any():
        return fit
    signs = np.where(narrows & (up > down), -1.0, 1.0)
    fits = []
    for rate in _RATES:
        shape = fit.shape.copy()
        shape[1, :number] = np.where(narrows, rate, 0)
        fits.append(_regress(x, fit.drivers, shape, worth, signs))
    new = max(fits, key=lambda fit: fit.log_likelihood)
    return new if new.log_likelihood > fit.log_likelihood - _AS_GOOD else fit


def _others(x: np.ndarray, drivers: list[int]) -> np.ndarray:
    return np.setdiff1d(np.arange(x.shape[1]), drivers)


def _dependence(x: np.ndarray, rest: np.ndarray, drivers: list[int], worth: float) -> np.ndarray:
    """How much what is left of the others, `rest` (S, M), depends on each column of x (S, D)."""
    others = _others(x, drivers)
    chance = _chance(x, worth)
    own, left = _clipped(x), _clipped(rest)
    widths = _standard(np.log(left**2 + _SMALL))
    strength = np.zeros(x.shape[1])
    cubes = own**3 - np.mean(own**4, axis=0) * own
    for by, of in ((own, widths), (_standard(own**2), left), (_standard(cubes), left)):
        squares = (by.T @ of / len(x)) ** 2
        squares[others, np.arange(len(others))] = 0
        strength += np.sum(np.maximum(squares - chance, 0), axis=1)
    for driver in drivers:  # with which correlations change
        squares = (left.T @ (left * own[:, [driver]]) / len(x)) ** 2
        np.fill_diagonal(squares, 0)
        strength[others] += np.sum(np.maximum(squares - chance, 0), axis=1)
    strength[drivers] = 0
    return strength


def _regress(
    x: np.ndarray,
    drivers: list[int],
    shape: np.ndarray,
    worth: float,
    signs: np.ndarray | float = 1.0,
    curved: bool = False,
) -> _Fit:
    root = np.linalg.cholesky(np.cov(x[:, drivers].T).reshape(len(drivers), -1)) * signs
    a = np.zeros((len(x), shape.shape[1]))
    a[:, : len(drivers)] = np.linalg.solve(root, x[:, drivers].T).T
    used = _used(shape, len(drivers), curved)
    of_means, of_widths = (with_one(f * u) for f, u in zip(features(a, shape), used, strict=True))
    smooth = _SMOOTH * roughness(of_means.shape[1], min(CURVED, a.shape[1]))
    y = np.delete(x, drivers, axis=1)
    widths = np.zeros((of_widths.shape[1], y.shape[1]))
    for _ in range(_ROUNDS):
        means = regression(of_means, y, np.exp(-2 * of_widths @ widths), smooth)
        squares = (y - of_means @ means) ** 2
        widths[0] = 0
        widths[0] = 0.5 * np.log(np.mean(squares * np.exp(-2 * of_widths @ widths), axis=0))
        for _ in range(_STEPS):
            scaled = np.minimum(squares * np.exp(-2 * of_widths @ widths), _MOST)
            step = _solve(of_widths, scaled, of_widths.T @ (scaled - 1)) / 2
            widths += np.clip(step, -_LONGEST, _LONGEST)
    widths[0] = 0
    chance = _chance(x, worth)
    widths[1:] = _shrunk(widths[1:], of_widths, shape, chance)
    log_widths = of_widths @ widths
    rest = (y - of_means @ means) * np.exp(-log_widths)
    factor = np.linalg.cholesky(np.cov(rest.T).reshape(y.shape[1], -1))
    log_det = sum(np.sum(np.log(np.abs(np.diagonal(x)))) for x in (root, factor))
    log_likelihood = -float(log_det + np.mean(np.sum(log_widths, axis=1)))
    # what as many coefficients more would gain by chance
    log_likelihood -= np.sum(used[0]) * y.shape[1] * chance
    return _Fit(shape, drivers, root, means[0], means[1:], widths[1:], rest, factor, log_likelihood)


def _used(shape: np.ndarray, number: int, curved: bool) -> tuple[np.ndarray, np.ndarray]:
    """Which features of means (F,) and of log widths (2 K,) so many drivers have."""
    present = np.arange(shape.shape[1]) < number
    plain = present & (shape[1] == 0)
    one, other = np.triu_indices(len(present), 1)
    pairs = present[one] & present[other]
    of_means = [plain, present, present & ~plain, plain[one] & plain[other]]
    for each in (True, False):
        of_means += [pairs & (each | ~plain[i]) for i in (one, other)]
    of_means.append(np.repeat((plain & curved)[:CURVED], len(KNOTS)))
    return np.concatenate(of_means), np.concatenate([present, present])


def _shrunk(
    widths: np.ndarray, of_widths: np.ndarray, shape: np.ndarray, chance: float
) -> np.ndarray:
    """Slopes on the narrowing side nearer their mean, by what is noise of their spread."""
    few = shape.shape[1]
    used = np.flatnonzero(of_widths.any(axis=0))
    information = 2 * of_widths[:, used].T @ of_widths[:, used] / (chance * len(of_widths))
    inverse = np.zeros((of_widths.shape[1],) * 2)
    inverse[np.ix_(used, used)] = np.linalg.inv(information)
    widths = widths.copy()
    for i in np.flatnonzero(shape[1]):
        # left and right of zero, log widths go as (slope - 2 turn) a and as (slope + 2 turn) a
        slope, turn = widths[i], widths[few + i]
        left, right = slope - 2 * turn, slope + 2 * turn
        at = np.zeros(len(inverse))
        at[1 + i], at[1 + few + i] = 1, -2
        noise = float(at @ inverse @ at)
        spread, mean = max(float(np.var(left)) - noise, 0.0), float(np.mean(left))
        left = mean + spread / (spread + noise) * (left - mean)
        widths[i], widths[few + i] = (left + right) / 2, (right - left) / 4
    return widths


def with_one(x: np.ndarray) -> np.ndarray:
    """Features (S, F) with a one before them."""
    return np.hstack([np.ones((len(x), 1)), x])


def roughness(size: int, drivers: int) -> np.ndarray:
    """The matrix (F, F) of squares of third differences of curves, which are the last features.

    Where there are no draws, what has the smallest goes on as a parabola does.
    """
    knots = len(KNOTS)
    differences = np.diff(np.eye(knots), 3, axis=0)
    penalty = np.zeros((size, size))
    for i in range(drivers):
        at = slice(size - (drivers - i) * knots, size - (drivers - i - 1) * knots)
        penalty[at, at] = differences.T @ differences
    return penalty


def regression(
    features: np.ndarray, y: np.ndarray, weights: np.ndarray, penalty: np.ndarray
) -> np.ndarray:
    """Coefficients (F, M) of regressions of y (S, M), each with weights (S, M) of its own.

    The penalty (F, F) counts as much as so many draws as there are.
    """
    weights = weights / weights.mean(axis=0)
    return _solve(features, weights, features.T @ (weights * y), len(y) * penalty)


def _solve(
    features: np.ndarray, weights: np.ndarray, right: np.ndarray, penalty: np.ndarray | float = 0.0
) -> np.ndarray:
    """The (F, M) whose column m solves sum_s w_sm f_s f_s' = right_m; zero where f is."""
    found = np.zeros_like(right)
    used = features.any(axis=0)
    if isinstance(penalty, np.ndarray):
        penalty = penalty[used][:, used]
    features, right = features[:, used], right[used]
    columns = np.ascontiguousarray(features.T)
    one, other = np.tril_indices(len(columns))
    sums = (columns[one] * columns[other]) @ weights
    matrices = np.zeros((weights.shape[1], len(columns), len(columns)))
    matrices[:, one, other] = matrices[:, other, one] = sums.T
    # a weight that is all on a few draws leaves some features without any
    matrices = matrices + 1e-9 * len(features) * np.eye(len(columns)) + penalty
    found[used] = np.linalg.solve(matrices, right.T[..., None])[..., 0].T
    return found


def _clipped(x: np.ndarray) -> np.ndarray:
    return _standard(np.clip(_standard(x), -_CLIPPED, _CLIPPED))


def _standard(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(axis=0)
    return x / np.maximum(x.std(axis=0), np.finfo(float).tiny)
