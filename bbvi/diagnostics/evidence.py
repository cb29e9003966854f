"""What diagnostics say in numbers: of the weights, and of the moments that they correct."""

import math
from typing import Any, NamedTuple

import numpy as np

from bbvi.diagnostics.figures import Diagnostics
from bbvi.diagnostics.pareto import USABLE
from bbvi.solvers.starts import HIGHEST

# Weights with a finite variance: what is missing from the draws is then missing from nothing.
KHAT_FINITE = 0.5
# Importance weights can be averaged up to here.
KHAT_USABLE = USABLE
# The tail's shape says nothing of its size: where the weights hardly vary, heavier is fine.
KHAT_USABLE_IF_EVEN = 1.0
EVEN_SHARE = 0.75  # of the effective draws of an exact fit, from which weights count as even
EXACT_SHARE = 0.98  # of the same, from which the approximation may be exact
EFFICIENT = 0.5  # of the same, from which an approximation counts as close
# ... and below which no number of draws makes up for weights that few of them have: a ridge of
# sines was trusted by 5% of 65,536.
LEAST_SHARE = 0.1
# Past one the weights have no mean: draws and target have little to do with each other.
KHAT_HOPELESS = 1.0
# What "right" means: a mean within this many posterior sds, an sd within this share.
MEAN_TOLERANCE = 0.1
SD_TOLERANCE = 0.1
# Monte Carlo error of a moment, in sds, below which more draws or stages change little.
SETTLED_NOISE = MEAN_TOLERANCE / 4
# ... and above which it is not known: right within two standard errors only is not right.
MOST_NOISE = MEAN_TOLERANCE / 2
# Estimates of the log evidence that differ by less, in nats, are of the same mass.
SAME_EVIDENCE = 0.1
_ERRORS = 3.0  # standard errors that leave no doubt
# Of a few draws, whose spread is still some sds, and of some that tell an sd to 3%.
_ROUNDINGS, _FEW, _SOME = 8, 256, 1024
# A correction smaller than this is not worth the Monte Carlo noise it brings.
_VISIBLE = 0.02


class Aside(NamedTuple):
    """A mode that is too small to be seen, and too far away to be left out.

    Attributes:
        share: of the evidence, by its bound.
        distance: in sds of the fit, of the scalar in which it is farthest.
        scalar: the name of that.
    """

    share: float
    distance: float
    scalar: str

    @property
    def times(self) -> float:
        """By how much the sd of that scalar is larger with it."""
        return float(np.sqrt(1 + self.share * self.distance**2))


def efficiency(d: Diagnostics) -> Any:
    """Effective draws as a share of those of an exact approximation; of many fits (B,)."""
    return np.asarray(d.ess, float) / np.maximum(np.asarray(d.best_ess, float), 1.0)


def is_sharp(diagnostics: Diagnostics) -> bool:
    """Whether little is to be won by moving the approximation."""
    return bool(efficiency(diagnostics) >= EFFICIENT)


def weights_even(d: Diagnostics) -> Any:
    """Whether the importance weights vary hardly more than those of an exact approximation."""
    return efficiency(d) >= EVEN_SHARE


def weights_usable(d: Diagnostics) -> Any:
    """Whether averages under the importance weights can be believed, () or (B,).

    Where they are as even as those of an exact approximation, a tail fitted to them is a tail of
    rounding errors, of any shape.
    """
    most = np.where(weights_even(d), KHAT_USABLE_IF_EVEN, KHAT_USABLE)
    return (efficiency(d) >= EXACT_SHARE) | (np.asarray(d.khat) < most)


def knows_evidence(d: Diagnostics, most_nats: float) -> bool:
    """Whether the log evidence says more of a fit than its bound, so many nats below at most.

    Of mixtures over waves and helices, whose draws between the bends count for nothing, the bound
    was 2 to 4 nats below.
    """
    known = float(d.khat) < KHAT_FINITE and efficiency(d) >= LEAST_SHARE
    return bool(known and float(d.log_evidence) - float(d.elbo) < most_nats)


def proven_evidence(d: Diagnostics) -> float:
    """A lower bound on the log evidence but for noise, nats: that of the usable draws' share.

    Of draws that are rounding, and of bounds that are no number, there is none.
    """
    usable = 1.0 - float(d.bad_share) - float(d.outside_share)
    bound = float(d.elbo) - _ERRORS * float(d.elbo_se)
    if not (usable > 0 and math.isfinite(bound)) or is_rounding(d) or is_a_point(d):
        return -math.inf
    return bound + math.log(usable)


def falls_short(d: Diagnostics, proven: float) -> float:
    """By how many nats a fit's log evidence lies below what another one has proven; zero if not.

    Weights that are even show no more than that a fit is right where it is. A family whose scale
    had an end was trusted where 6% of the mass was: the bound of the first Gaussian said so.
    """
    if not weights_usable(d) or efficiency(d) < LEAST_SHARE:
        return 0.0
    eps = np.finfo(np.asarray(d.log_weights).dtype).eps
    noise = _ERRORS / math.sqrt(float(d.ess)) + _ROUNDINGS * eps * abs(float(d.log_evidence))
    gap = proven - float(d.log_evidence)
    return gap if gap > SAME_EVIDENCE + noise else 0.0


def squares_heavy(d: Diagnostics) -> bool:
    """Whether weights have a mean, and the weighted squares of a scalar no variance."""
    return float(d.khat) < KHAT_HOPELESS and bool(np.max(d.square_shape) > KHAT_FINITE)


def needs_correction(d: Diagnostics) -> Any:
    """Whether the weighted draws say more of the moments than the approximation itself, () or (B,).

    Uneven weights say by themselves that there is something to correct. Where they are as even as
    those of an exact approximation, means and sds of all scalars are compared: both are of the
    same draws, so that what sets them apart is not their noise.
    """
    shift, ratio = moment_errors(d)
    visible = (np.maximum(shift, np.abs(ratio - 1)) > _VISIBLE).any(axis=-1)
    return (efficiency(d) < EXACT_SHARE) | visible


def agree(d: Diagnostics, share: float) -> bool:
    """Whether raw and corrected moments agree to a share of what counts as right."""
    shift, ratio = moment_errors(d)
    far = np.abs(np.log(ratio)) > np.log1p(share * SD_TOLERANCE)
    return not (far | (shift > share * MEAN_TOLERANCE)).any()


def may_be_off(d: Diagnostics) -> float:
    """How many sds a mean of an approximation may be off, by its divergence from the posterior.

    The root of twice the divergence, the gap between bound and evidence, as for normal
    distributions and all that are no wider in their tails (Talagrand 1996).
    """
    gap = float(d.log_evidence) - float(d.elbo)
    return math.sqrt(2 * max(gap, 0.0)) if math.isfinite(gap) else math.inf


def is_a_point(d: Diagnostics) -> bool:
    """Whether the draws are no wider than rounding: what is higher there is made of it."""
    draws = _own(d, _FEW)
    if len(draws) < 2:
        return False
    with np.errstate(invalid="ignore"):  # a draw at infinity is another fault
        width, size = np.ptp(draws, axis=0), np.abs(draws).max(axis=0)
        return bool((width <= _ROUNDINGS * np.finfo(draws.dtype).eps * size).any())


def own_moments(d: Diagnostics) -> tuple[np.ndarray, np.ndarray]:
    """Means and sds (D,) of the approximation, unconstrained; a few of its draws tell them."""
    draws = _own(d, _SOME).astype(float)
    draws = draws[np.isfinite(draws).all(axis=1)]
    return draws.mean(axis=0), draws.std(axis=0)


def _own(d: Diagnostics, number: int) -> np.ndarray:
    """Of the first so many draws those of the approximation itself."""
    return np.asarray(d.draws[:number])[np.asarray(d.own[:number])]


def is_rounding(d: Diagnostics) -> np.ndarray:
    """The same without draws, () or (B,): no scalar varies, or the bound is no number."""
    return fixed(d).all(axis=-1) | (np.asarray(d.elbo) > HIGHEST)


def moment_noise(d: Diagnostics) -> np.ndarray:
    """Monte Carlo error of the corrected moments in posterior sds (C,), the larger of the two."""
    return _in_sds(d, np.maximum(d.corrected.mean_se, d.corrected.sd_se))


def mean_noise(d: Diagnostics) -> np.ndarray:
    """Monte Carlo error of the corrected means in posterior sds (C,)."""
    return _in_sds(d, d.corrected.mean_se)


def _in_sds(d: Diagnostics, error: Any) -> np.ndarray:
    """Errors (C,) in posterior sds; of what cannot vary, none, and of what overflows, inf."""
    sd = np.asarray(d.corrected.sd)
    known = np.isfinite(sd) & ~np.isnan(error)
    sds = np.where(known, np.maximum(sd, np.finfo(sd.dtype).tiny), 1.0)
    with np.errstate(over="ignore"):
        return np.where(fixed(d), 0.0, np.where(known, error / sds, np.inf))


def fixed(d: Diagnostics) -> np.ndarray:
    """Scalars (C,) that cannot vary, such as the diagonal of a correlation matrix."""
    eps = np.finfo(np.asarray(d.raw.sd).dtype).eps
    return np.asarray(d.raw.sd) <= 8 * eps * np.abs(d.raw.mean)


def moment_errors(d: Diagnostics) -> tuple[np.ndarray, np.ndarray]:
    """Shift of the means in raw sds (C,), and ratio of corrected to raw sds (C,)."""
    tiny = np.finfo(np.asarray(d.raw.sd).dtype).tiny
    raw_sd = np.maximum(d.raw.sd, tiny)
    still = fixed(d)  # is never wrong
    with np.errstate(over="ignore"):
        shift = np.abs(d.corrected.mean - d.raw.mean) / raw_sd
        ratio = np.where(still, 1.0, np.maximum(d.corrected.sd, tiny) / raw_sd)
    return np.where(still, 0.0, shift), ratio
