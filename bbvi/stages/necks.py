"""Necks of funnels: mass that neither draws nor chains of a fit reach, seen by a lower bound."""

import numpy as np

from bbvi._arrays import at_levels, softmax
from bbvi._types import Array, PyTree
from bbvi.diagnostics.evidence import SD_TOLERANCE
from bbvi.diagnostics.figures import Diagnostics
from bbvi.evaluate import generator, paired_normals
from bbvi.families import Frame
from bbvi.solvers.factorised import DRAWS, factorised
from bbvi.target import Target

# Draws by which the coordinate is chosen that the widths of the others depend on.
_FEW = 2048
# Widths depend on a coordinate if the squares of its correlations with their logarithms sum to
# this: twenty effects whose variance changes by half with a move of one sd.
_DEPENDENT = 1.0
_CLIPPED, _SMALL = 3.0, 1e-2  # for these correlations, in sds and their squares
# Where the marginal is bounded, in sds, towards narrower others; and where the tail begins, in
# which draws are few.
_PLACES = np.array([-3.0, -2.0, -1.0, 0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0])
_TAIL = 2.5
_EVALUATIONS = 60
_STEEPEST = 3.0  # how far, in sds, widths are taken to go on shrinking, for a first guess
# A bound that says less of the evidence than that, in nats, is of other things too.
_TIGHT = 1.5
# Share of the variance, which is twice that of the sd: half of what counts as right.
_MISSING = SD_TOLERANCE


def missed_neck(
    target: Target, diagnostics: Diagnostics, key: Array, data: PyTree
) -> tuple[str, int]:
    r"""The scalar along which a fit misses the neck of a funnel, or "", and the gradients spent.

    The scale of many effects makes a funnel, and where it is small all of them are. That neck is
    narrow in hundreds of dimensions at once: draws do not hit it, weights do not miss it, and
    chains are turned back before it. But given the scale the rest is simple, and a factorised
    Gaussian there bounds the marginal density from below,

        log p(z_i = c) >= max_q E_q[log p(c, z_-i) - log q(z_-i)].

    Where these bounds integrate to nearly the evidence that the draws find, they are the marginal,
    and its variance beyond 2.5 sds is compared with that of the draws.

    Args:
        target: the target.
        diagnostics: of the fit, whose weighted draws are compared.
        key: a typed random key.
        data: the user's data.

    Source: the profile is a Laplace approximation of a marginal (Tierney and Kadane 1986, JASA
    81) by bounds.
    """
    z, log_weights = (np.asarray(x, float) for x in (diagnostics.draws, diagnostics.log_weights))
    kept = np.isfinite(z).all(1) & np.isfinite(log_weights)
    if target.dim < 2 or kept.sum() < 2:
        return "", 0
    z, weights = z[kept], softmax(log_weights[kept])
    mean = weights @ z
    with np.errstate(over="ignore", invalid="ignore"):
        sd = np.sqrt(weights @ (z - mean) ** 2)
    if not (np.isfinite(sd).all() and (sd > 0).all()):
        return "", 0
    some = at_levels(weights, _FEW)
    found = _narrowing((z[some] - mean) / sd)
    if found is None:
        return "", 0
    index, side, correlation, slope = found

    steps = side * _PLACES[:, None]
    narrower = np.exp(0.5 * slope * side * np.clip(_PLACES, -_STEEPEST, _STEEPEST)[:, None])
    scale = sd * np.sqrt(np.maximum(1 - correlation**2, 1e-4)) * narrower
    start = Frame(*(x.astype(target.dtype) for x in (mean + sd * correlation * steps, scale)))
    eps = paired_normals(generator(key), DRAWS, target.dim)
    _, bounds, spent = factorised(target, start, eps, data, _EVALUATIONS, held=index)
    known = np.isfinite(bounds)
    if not known.any():
        return "", spent
    grid = np.linspace(_PLACES[0], _PLACES[-1], _FEW)
    log_p = np.interp(grid, _PLACES[known], bounds[known].astype(float))
    density = np.exp(log_p - log_p.max())
    evidence = log_p.max() + np.log(density.mean() * np.ptp(grid) * sd[index])
    if not evidence > float(diagnostics.log_evidence) - _TIGHT:
        return "", spent
    along = side * (z[:, index] - mean[index]) / sd[index]
    in_tail = weights[along > _TAIL] @ along[along > _TAIL] ** 2
    # It may be tight in the neck alone, where all else is narrow, and then holds of the evidence.
    share = min(1.0, float(np.exp(evidence - float(diagnostics.log_evidence))))
    by_bound = share * np.sum(np.where(grid > _TAIL, grid**2 * density, 0)) / density.sum()
    if by_bound - in_tail < _MISSING:
        return "", spent
    return target.leaves[target.owners[index]].name, spent


def most_gradients() -> int:
    """What `missed_neck` spends at most."""
    return len(_PLACES) * DRAWS * _EVALUATIONS


def _narrowing(x: np.ndarray) -> tuple[int, float, np.ndarray, np.ndarray] | None:
    """The coordinate on which the widths of the others depend most, if they do.

    Logarithms of squares tell it, and not squares, of which a few decide in the heavy tails that
    funnels have:

        slope_ij = E[x_i log x_j^2],   and the same over the sd of log x_j^2 is a correlation.

    Args:
        x: (S, D) draws, in sds.

    Returns:
        its index, the direction in which they get narrower, correlations and slopes (D,).
    """
    x = np.clip(x - x.mean(axis=0), -_CLIPPED, _CLIPPED)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    widths = np.log(x**2 + _SMALL)
    sds = widths.std(axis=0)
    related = x.T @ (widths - widths.mean(axis=0)) / len(x) / sds
    np.fill_diagonal(related, 0)
    # chance makes squares of 1/S
    dependence = np.sum(np.maximum(related**2 - 2 / len(x), 0), axis=1)
    index = int(np.argmax(dependence))
    if not dependence[index] > _DEPENDENT:
        return None
    slope = related[index] * sds
    side = -1.0 if np.sum(slope * np.abs(slope)) > 0 else 1.0
    correlation = np.clip(x.T @ x[:, index] / len(x), -1, 1)
    return index, side, correlation, slope
