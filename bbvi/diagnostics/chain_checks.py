"""Whether short chains may stand for the posterior."""

import math

import numpy as np

from bbvi.diagnostics.chains import Chains, share_left
from bbvi.diagnostics.evidence import (
    KHAT_FINITE,
    MEAN_TOLERANCE,
    MOST_NOISE,
    SD_TOLERANCE,
    efficiency,
    fixed,
)
from bbvi.diagnostics.figures import Diagnostics
from bbvi.diagnostics.moments import Moments

# Chains that forget have correlations of 1/sqrt(512) = 0.04 by chance alone; of few chains and many
# scalars the largest may be more.
MEMORY = 0.25
# Of the trajectories: where Hamiltonian dynamics is unstable, a part of the posterior is not seen.
DIVERGENT_SHARE = 1e-3
# ... unless the importance weights speak for the approximation too, and either have a variance or
# know every moment: the neck of a funnel holds little and is near (k-hat 0.9, moments within 0.03);
# the far tail of a curve that levels off late is not, and its sd was 12 to 22% short.
DIVERGENT_SHARE_IF_CLOSE, CLOSE = 1e-2, 0.25
# ... and up to where shorter steps may mend it. Curves of a mean and of its log noise had 1.1% on
# two keys of four, and 0.03% in steps of half the length; with 4% and more nothing came of it.
_MENDED = 0.03
LEAST_ACCEPTANCE = 0.5


def chain_faults(chains: Chains, d: Diagnostics) -> list[str]:
    """Why the states of short chains may not stand for the posterior, in words; none if they do."""
    faults = []
    memory = float(np.max(np.abs(chains.memory)))
    if memory > _memorable(chains):
        faults.append(f"chains remember where they began (correlation {memory:.2f})")
    drift = np.abs(chains.drift)
    largest = _by_chance(drift.size)
    largest += (largest**3 + largest) / (4 * chains.number)  # of a Student-t, where they are few
    chance = largest * np.asarray(chains.drift_se)
    if np.any(drift > np.maximum(MEAN_TOLERANCE / 2, chance)):
        faults.append(f"moments still move by up to {drift.max():.2f} sd")
    missing = float(still_missing(chains, d).max())
    if missing > MEAN_TOLERANCE:
        faults.append(f"they forget slowly, and moments may be {missing:.2f} sd from their end")
    return faults + _unstable(chains, d)


def _unstable(chains: Chains, d: Diagnostics) -> list[str]:
    """Faults that time does not mend."""
    faults = []
    known = float(d.khat) < KHAT_FINITE or chains.weighted_noise <= MOST_NOISE
    close = efficiency(d) > CLOSE and known
    most = DIVERGENT_SHARE_IF_CLOSE if close else DIVERGENT_SHARE
    if float(chains.divergent_share) > most:
        faults.append(f"{float(chains.divergent_share):.2%} of the trajectories diverge")
    if float(chains.acceptance) < LEAST_ACCEPTANCE:
        faults.append(f"only {float(chains.acceptance):.0%} of the trajectories are accepted")
    return faults


def still_missing(chains: Chains, d: Diagnostics, doublings: int = 0) -> np.ndarray:
    """How far the chains' moments may be from where they are going (C,), in posterior sds.

    A drift too slow to stand out from its noise shows in the persistence of each chain: chains
    in a funnel passed all other checks with a sd 15% short.

    Args:
        chains: the chains.
        d: what they began from.
        doublings: once they have gone on so often, for as long again as until then.
    """
    moved = _moved(chains, d)
    # by chance alone few of many are correlated that have moved as far
    rank = np.argsort(np.argsort(-moved)) + 1
    left, after = (_left(chains, rank, times) for times in (0, doublings))
    with np.errstate(invalid="ignore"):  # nothing left of a way that overflows
        # the way from the start is what they have come and what is left of it
        missing = np.where(left > 0, after * moved / (1 - left), 0.0)
    missing = np.maximum(missing, _left(chains, moved.size, doublings) * chains.start_error)
    return np.where(fixed(d), 0.0, np.where(np.isnan(missing), np.inf, missing))


def would_forget(chains: Chains, d: Diagnostics, doublings: int) -> bool:
    """Whether chains that are at fault may be at fault for their length alone.

    Args:
        chains: the chains.
        d: what they began from.
        doublings: how often they could go on for as long again.
    """
    if _unstable(chains, d):
        return False
    if float(np.max(np.abs(chains.memory))) ** 2**doublings > _memorable(chains):
        return False
    return bool(still_missing(chains, d, doublings).max() <= MEAN_TOLERANCE)


def steps_too_long(chains: Chains, d: Diagnostics, doublings: int) -> bool:
    """Whether chains are at fault for diverging, and but for that could forget in time."""
    share = float(chains.divergent_share)
    steady = chains._replace(divergent_share=0.0)
    mended = share <= _MENDED and would_forget(steady, d, doublings)
    return bool(_unstable(chains, d)) and mended


@np.errstate(all="ignore")  # what is not finite contradicts nothing, and is a fault
def contradiction(draws: np.ndarray, weights: np.ndarray, states: np.ndarray) -> tuple:
    """By how many sds chains differ from weighted draws: beyond noise, and at all.

    Means are compared, and mean distances from them; for sds see `sds_apart`.

    Args:
        draws: (S, D), unconstrained.
        weights: (S,), summing to one; equal ones are of chains, whose states are not independent.
        states: (W, chains, D) of chains that began from some of the draws.

    Returns:
        the largest distance beyond noise, and the largest; zero if less than half of what counts
        as right.
    """
    number = states.shape[1]
    mean = weights @ draws
    sd = np.sqrt(weights @ (draws - mean) ** 2)
    used = weights[weights > 0]
    alike = len(used) / (2 * number) if np.ptp(used) < 0.01 * used.max() else 1.0
    gaps, noise = [], []
    for f, g in ((draws - mean, states - mean), (np.abs(draws - mean), np.abs(states - mean))):
        gaps.append(np.abs(g.mean((0, 1)) - weights @ f))
        error = np.sqrt(max(1.0, alike) * (weights**2 @ (f - weights @ f) ** 2))
        noise.append(np.hypot(error, g.mean(0).std(0) / np.sqrt(number)))
    varies = sd > 0
    gap, error = (np.stack(x)[:, varies] / sd[varies] for x in (gaps, noise))
    visible = gap > MEAN_TOLERANCE / 2
    return _largest(gap, visible & (gap > _by_chance(gap.size) * error), visible)


@np.errstate(all="ignore")
def sds_apart(d: Diagnostics, chains: Chains) -> tuple[float, float]:
    """The same of the sds of scalars, which heavy tails decide: by shares, and of what is wrong.

    A flow that was 16% short of one had even weights (k-hat 0.81). Chains from its draws differed
    by 12%, and by 23% once they had gone on, 2 and 4 times their error. From 5% on, right ones too
    went on for three times their cost.

    Args:
        d: the diagnostics of what they began from.
        chains: the chains, whose errors are of chains and not of states.
    """
    ours, theirs = d.corrected, chains.moments
    gap = np.where(fixed(d), 0.0, np.abs(np.log(theirs.sd / ours.sd)))
    error = np.hypot(theirs.sd_se / theirs.sd, ours.sd_se / ours.sd)
    visible = gap > SD_TOLERANCE
    return _largest(gap, visible & (gap > _by_chance(gap.size) * error), visible)


@np.errstate(all="ignore")
def moved_on(d: Diagnostics, before: Moments, after: Moments) -> bool:
    """Whether means or sds moved visibly, and by more than noise, from some chains to others.

    Args:
        d: diagnostics of the fit, for what cannot vary.
        before: moments of chains.
        after: moments of chains in other units.
    """
    number = 2 * len(after.sd)
    mean_gap = np.abs(after.mean - before.mean) / after.sd
    sd_gap = np.abs(np.log(after.sd / before.sd))
    mean_error = np.hypot(before.mean_se, after.mean_se) / after.sd
    sd_error = np.hypot(before.sd_se, after.sd_se) / after.sd
    far = (mean_gap > np.maximum(MEAN_TOLERANCE / 2, _by_chance(number) * mean_error)) | (
        sd_gap > np.maximum(SD_TOLERANCE / 2, _by_chance(number) * sd_error)
    )
    return bool(np.any(far & ~fixed(d)))


def _largest(gap: np.ndarray, *masks: np.ndarray) -> tuple:
    return tuple(float(np.max(np.where(which, gap, 0), initial=0)) for which in masks)


def _by_chance(number: int) -> float:
    """The largest of so many standard normals, but for one time in twenty, roughly."""
    return math.sqrt(2 * math.log(20 * number))


def _memorable(chains: Chains) -> float:
    """A correlation between the ends of chains that is more than chance."""
    return max(MEMORY, _by_chance(chains.memory.size) / math.sqrt(chains.number))


def _moved(chains: Chains, d: Diagnostics) -> np.ndarray:
    """How far the moments of chains are from those of what they began from (C,), in sds."""
    moments, began = chains.moments, d.raw if chains.began is None else chains.began
    tiny = np.finfo(np.asarray(moments.sd).dtype).tiny
    sd, first_sd = np.maximum(moments.sd, tiny), np.maximum(began.sd, tiny)
    with np.errstate(all="ignore"):
        moved = np.maximum(np.abs(moments.mean - began.mean) / sd, np.abs(np.log(sd / first_sd)))
    # a way that overflows is as long as can be
    return np.where(np.isnan(moved), np.inf, moved)


def _left(chains: Chains, number: np.ndarray | int, doublings: int = 0) -> np.ndarray:
    """What is left of the way from the start, as a share (C,), once chains went on so often.

    But for what is left by chance in the largest of so many scalars.
    """
    persistence = np.asarray(chains.persistence)
    chance = np.sqrt(2 * np.log(4 * np.asarray(number)) / chains.number)
    # once is no sign: chains that begin in too narrow a place spread at first, and forget later
    return share_left(persistence - chance, doublings, max(chains.paces))
