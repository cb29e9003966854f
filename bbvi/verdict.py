"""The verdict: whether a fit can be trusted, why, and what to do next."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bbvi.chains import Chains, num_independent, share_left
from bbvi.diagnostics import Diagnostics
from bbvi.pareto import USABLE
from bbvi.status import Status

Level = Literal["trusted", "caution", "rejected"]

# Weights with a finite variance: what is missing from the draws is then missing from nothing.
KHAT_FINITE = 0.5
# Importance weights can be averaged up to here.
KHAT_USABLE = USABLE
# The tail's shape says nothing of its size: where the weights hardly vary, heavier is fine.
KHAT_USABLE_IF_EVEN = 1.0
EVEN_SHARE = 0.75  # of the effective draws of an exact fit, from which weights count as even
EXACT_SHARE = 0.98  # of the same, from which the approximation may be exact
EFFICIENT = 0.5  # of the same, from which an approximation counts as close
# Past one the weights have no mean: draws and target have little to do with each other.
KHAT_HOPELESS = 1.0
# What "right" means: a mean within this many posterior sds, an sd within this share.
MEAN_TOLERANCE = 0.1
SD_TOLERANCE = 0.1
# Monte Carlo error of a moment, in sds, below which more draws or stages change little.
SETTLED_NOISE = MEAN_TOLERANCE / 4
# ... and above which it is not known: right within two standard errors only is not right.
MOST_NOISE = MEAN_TOLERANCE / 2
# A larger share of lost draws biases the fit visibly: a normal cut off at its 1% quantile has
# its mean moved by 0.03 sd.
BAD_SHARE = 0.01
DRIFT_TOLERANCE = 0.1
# Of a few draws, whose spread is still some sds.
_ROUNDINGS, _FEW = 8, 256
# Shares of the evidence that may be missing before a fit of one mode is no answer at all.
MODE_SHARE = 0.05
# Chains that forget have correlations of 1/sqrt(512) = 0.04 by chance alone.
MEMORY = 0.25
# Of the trajectories: where Hamiltonian dynamics is unstable, a part of the posterior is not seen.
DIVERGENT_SHARE = 1e-3
# ... unless the importance weights speak for the approximation too, and either have a variance or
# know every moment: the neck of a funnel holds little and is near (k-hat 0.9, moments within 0.03);
# the far tail of a curve that levels off late is not, and its sd was 12 to 22% short.
DIVERGENT_SHARE_IF_CLOSE, CLOSE = 1e-2, 0.25
LEAST_ACCEPTANCE = 0.5
# A correction smaller than this is not worth the Monte Carlo noise it brings.
_VISIBLE = 0.02
_RICHER = (
    "Try a richer family, a reparameterisation (non-centred for hierarchies), or MCMC started "
    "from this fit."
)


@dataclass(frozen=True)
class Verdict:
    """Whether to use a fit, as data.

    Attributes:
        level: "trusted", "caution" (read the reasons) or "rejected" (do not use).
        reasons: what was found, a sentence each.
        actions: what to do next, a sentence each.
        flagged: names of the scalar parameters that the weights contradict.
    """

    level: Level
    reasons: tuple[str, ...]
    actions: tuple[str, ...]
    flagged: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"verdict: {self.level}"]
        lines += [f"  - {reason}" for reason in self.reasons]
        lines += [f"  next: {action}" for action in self.actions]
        return "\n".join(lines)


def judge(
    diagnostics: Diagnostics,
    status: Status,
    names: Sequence[str],
    drift: float = 0.0,
    skipped_share: float = 0.0,
    corrected: bool = False,
    mode_weights: Sequence[float] = (),
    chains: Chains | None = None,
    doubted_by: Chains | None = None,
    budget_ended: bool = False,
    unbounded: Sequence[str] = (),
    left_out: bool = False,
    seam: float = 0.0,
) -> Verdict:
    """Turn figures into a verdict.

    Args:
        diagnostics: of the fit, as NumPy arrays.
        status: how the run ended.
        names: C names of the scalar parameters.
        drift: how far the averaged parameters last moved, in posterior sds.
        skipped_share: share of the draws during the run that were not finite.
        corrected: whether the posterior is corrected by the importance weights.
        mode_weights: estimated shares of the modes found, if this fit is but the first of them.
        chains: short chains that stand in for weights that cannot be believed; the corrected
            moments are then theirs.
        doubted_by: short chains that were to stand in for them, and have faults of their own.
        budget_ended: whether the budget ended the fit before a stage had settled it.
        unbounded: names of the leaves along which the log joint does not fall.
        left_out: whether visible mass around a start is missing from the fit.
        seam: how far moments move, in sds, where chains leave the flow's coordinates.
    """
    findings = [
        _about_run(status, drift),
        _about_budget(budget_ended),
        _about_lost_draws(diagnostics, skipped_share),
        _about_width(diagnostics),
        *_about_fit(diagnostics, names, corrected, chains, doubted_by),
        _about_modes(mode_weights),
        _about_propriety(unbounded),
        _about_starts(left_out),
        _about_seam(seam),
    ]
    level: Level = "trusted"
    reasons: list[str] = []
    actions: list[str] = []
    flagged: tuple[str, ...] = ()
    for found in findings:
        level = max(level, found.level, key=("trusted", "caution", "rejected").index)
        reasons += found.reasons
        actions += [a for a in found.actions if a not in actions]
        flagged = flagged or found.flagged
    return Verdict(level, tuple(reasons), tuple(actions), flagged)


def _about_fit(d, names, corrected, chains, doubted_by) -> list[Verdict]:
    """Whether the approximation, or what corrects it, stands for the posterior."""
    if chains is not None and chain_faults(chains, d):
        chains, doubted_by = None, chains
    if chains is not None:
        return [_about_chains(chains, d), _about_noise(d, names)]
    if not weights_usable(d):
        doubts = [] if doubted_by is None else [_about_doubts(doubted_by, d)]
        return [_about_weights(d, corrected), *doubts]
    moments = _about_corrected(d) if corrected else _about_parameters(d, names)
    return [_about_weights(d), moments, _about_noise(d, names)]


def is_settled(diagnostics: Diagnostics, status: Status, chains: Chains | None = None) -> bool:
    """Whether a stage needs no richer one after it.

    Its weighted draws, or its chains, must answer for the posterior by themselves, with no
    draw lost, and every moment known to a quarter of what counts as right. Where the weights'
    variance may be infinite, their effective number must be large all the same.
    """
    d = diagnostics
    if status.failed or max(float(d.bad_share), float(d.outside_share)) > 0 or is_a_point(d):
        return False
    if chains is not None:
        if chain_faults(chains, d):
            return False
    elif not weights_usable(d) or (float(d.khat) > KHAT_FINITE and efficiency(d) < EFFICIENT):
        return False
    return bool(moment_noise(d).max() <= SETTLED_NOISE)


def chain_faults(chains: Chains, d: Diagnostics) -> list[str]:
    """Why the states of short chains may not stand for the posterior, in words; none if they do."""
    faults = []
    memory = float(np.max(np.abs(chains.memory)))
    if memory > MEMORY:
        faults.append(f"chains remember where they began (correlation {memory:.2f})")
    drift = np.abs(chains.drift)
    chance = _by_chance(drift.size) * np.asarray(chains.drift_se)
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
    left, after = _left(chains), _left(chains, doublings)
    # the way from the start is what they have come and what is left of it
    way = np.maximum(np.where(left > 0, _moved(chains, d), 0) / (1 - left), chains.start_error)
    missing = np.where(left > 0, after * way, 0.0)
    return np.where(_fixed(d), 0.0, missing)


def contradiction(draws: np.ndarray, weights: np.ndarray, states: np.ndarray) -> float:
    """By how many sds chains differ from weighted draws, if by more than noise and tolerance.

    Means are compared, and mean distances from them: of sds, a few states of heavy tails decide.

    Args:
        draws: (S, D), unconstrained.
        weights: (S,), summing to one; equal ones are of chains, whose states are not independent.
        states: (W, chains, D) of chains that began from some of the draws.
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
    far = gap > np.maximum(MEAN_TOLERANCE / 2, _by_chance(gap.size) * error)
    return float(np.max(np.where(far, gap, 0), initial=0))


def _by_chance(number: int) -> float:
    """The largest of so many standard normals, but for one time in twenty, roughly."""
    return math.sqrt(2 * math.log(20 * number))


def would_forget(chains: Chains, d: Diagnostics, doublings: int) -> bool:
    """Whether chains that are at fault may be at fault for their length alone.

    Args:
        chains: the chains.
        d: what they began from.
        doublings: how often they could go on for as long again.
    """
    if _unstable(chains, d):
        return False
    if float(np.max(np.abs(chains.memory))) ** 2**doublings > MEMORY:
        return False
    return bool(still_missing(chains, d, doublings).max() <= MEAN_TOLERANCE)


def _moved(chains: Chains, d: Diagnostics) -> np.ndarray:
    """How far the moments of chains are from those of what they began from (C,), in sds."""
    moments = chains.moments
    tiny = np.finfo(np.asarray(moments.sd).dtype).tiny
    sd, raw_sd = np.maximum(moments.sd, tiny), np.maximum(d.raw.sd, tiny)
    with np.errstate(all="ignore"):
        moved = np.maximum(np.abs(moments.mean - d.raw.mean) / sd, np.abs(np.log(sd / raw_sd)))
    # a way that overflows is as long as can be
    return np.where(np.isnan(moved), np.inf, moved)


def _left(chains: Chains, doublings: int = 0) -> np.ndarray:
    """What is left of the way from the start, as a share (C,), once chains went on so often."""
    persistence = np.asarray(chains.persistence)
    # correlations of independent numbers are not zero either, least the largest of many
    chance = math.sqrt(2 * math.log(4 * persistence.size) / num_independent(chains))
    return share_left(persistence - chance, doublings)


def is_sharp(diagnostics: Diagnostics) -> bool:
    """Whether little is to be won by moving the approximation."""
    return efficiency(diagnostics) >= EFFICIENT


def efficiency(d: Diagnostics) -> float:
    """Effective draws as a share of those of an exact approximation."""
    return float(d.ess) / max(float(d.best_ess), 1.0)


def _agree(d: Diagnostics, share: float) -> bool:
    """Whether raw and corrected moments agree to a share of what counts as right."""
    shift, ratio = moment_errors(d)
    far = np.abs(np.log(ratio)) > np.log1p(share * SD_TOLERANCE)
    return not (far | (shift > share * MEAN_TOLERANCE)).any()


def needs_correction(d: Diagnostics) -> bool:
    """Whether the weighted draws say more of the moments than the approximation itself.

    Uneven weights say by themselves that there is something to correct. Where they are as even as
    those of an exact approximation, means and sds of all scalars are compared: both are of the
    same draws, so that what sets them apart is not their noise.
    """
    if efficiency(d) < EXACT_SHARE:
        return True
    shift, ratio = moment_errors(d)
    return bool((np.maximum(shift, np.abs(ratio - 1)) > _VISIBLE).any())


def _about_modes(weights: Sequence[float]) -> Verdict:
    if not weights:
        return Verdict("trusted", (), ())
    shares = ", ".join(f"{w:.2f}" for w in weights)
    reason = (
        f"The starts led to {len(weights)} separate modes with estimated shares {shares} of the "
        "evidence; this fit describes the first."
    )
    action = "Fit each mode from its own init and combine them, or remove a symmetry of the model."
    level: Level = "rejected" if 1 - max(weights) > MODE_SHARE else "caution"
    return Verdict(level, (reason,), (action,))


def _about_propriety(unbounded: Sequence[str]) -> Verdict:
    if not unbounded:
        return Verdict("trusted", (), ())
    names = ", ".join(unbounded)
    reason = f"The log joint does not fall along {names}: the posterior looks improper."
    action = f"Give {names} a proper prior, or remove what the data cannot tell apart."
    return Verdict("rejected", (reason,), (action,))


def _about_starts(left_out: bool) -> Verdict:
    if not left_out:
        return Verdict("trusted", (), ())
    reason = (
        "Around a point that the race of starts passed there is visible mass that the fit does "
        "not cover: another mode, or a funnel whose neck has no end."
    )
    action = (
        "Check that the posterior is proper (a prior such as 1/tau on the scale of effects is "
        "not), or reparameterise (non-centred for hierarchies)."
    )
    return Verdict("rejected", (reason,), (action,))


def _about_seam(seam: float) -> Verdict:
    if not seam:
        return Verdict("trusted", (), ())
    reason = (
        f"Chains that leave the flow's coordinates move its moments by up to {seam:.2f} sd: it has "
        "a seam that its own draws do not cross."
    )
    return Verdict("rejected", (reason,), (_RICHER,))


def _about_budget(ended: bool) -> Verdict:
    if not ended:
        return Verdict("trusted", (), ())
    reason = "The budget ended before a stage could settle the fit."
    return Verdict("caution", (reason,), ("Give the fit a larger budget, or none.",))


def _about_run(status: Status, drift: float) -> Verdict:
    if status in (Status.CONVERGED, Status.COMPLETED):
        return Verdict("trusted", (status.message,), ())
    if status is Status.NONFINITE:
        action = "Check the log joint for log or sqrt of negative numbers, and declare supports."
        return Verdict("rejected", (status.message,), (action,))
    again = "Continue it: fit(..., init=result) with a larger max_steps."
    if not np.isfinite(drift):
        reason = f"{status.message[:-1]}; it was too short to see whether the averages settle."
        return Verdict("rejected", (reason,), (again,))
    reason = f"{status.message[:-1]}; the averages still moved by {drift:.2g} posterior sd."
    if drift <= DRIFT_TOLERANCE:
        return Verdict("caution", (reason,), (again,))
    proper = "Check that the posterior is proper: a scale that keeps growing never settles."
    return Verdict("rejected", (reason,), (again, proper))


def _about_lost_draws(d: Diagnostics, skipped_share: float) -> Verdict:
    reasons: list[str] = []
    actions: list[str] = []
    bad, outside = float(d.bad_share), float(d.outside_share)
    if bad > 0:
        reasons.append(f"The log joint is NaN or +inf at {bad:.2%} of the fit's draws.")
        actions.append("Make the log joint finite everywhere, or declare the parameter's support.")
    if outside > 0:
        reasons.append(f"{outside:.2%} of the fit's draws have zero density (-inf): a wall.")
        actions.append("Declare the parameter's support, so that no draw falls outside.")
    if skipped_share > BAD_SHARE:
        reasons.append(
            f"{skipped_share:.2%} of the draws were skipped during the run, which biases it."
        )
    worst = max(bad, outside, skipped_share)
    if worst == 0:
        return Verdict("trusted", (), ())
    rejected = max(bad, outside) > BAD_SHARE
    level: Level = "rejected" if rejected else "caution" if reasons else "trusted"
    return Verdict(level, tuple(reasons), tuple(actions))


def is_a_point(d: Diagnostics) -> bool:
    """Whether the draws are no wider than rounding: what is higher there is made of it."""
    draws = np.asarray(d.draws[:_FEW])[np.asarray(d.own[:_FEW])]
    if len(draws) < 2:
        return False
    width, size = np.ptp(draws, axis=0), np.abs(draws).max(axis=0)
    return bool((width <= _ROUNDINGS * np.finfo(draws.dtype).eps * size).any())


def _about_width(d: Diagnostics) -> Verdict:
    if not is_a_point(d):
        return Verdict("trusted", (), ())
    reason = "The fit has shrunk to a point, no wider than numbers can be told apart."
    action = (
        "Look for log densities that grow without bound, or that rounding makes up: of a "
        "covariance matrix, work with its Cholesky factor (bbvi.cov_cholesky), without inverses."
    )
    return Verdict("rejected", (reason,), (action,))


def weights_even(d: Diagnostics) -> bool:
    """Whether the importance weights vary hardly more than those of an exact approximation."""
    return efficiency(d) >= EVEN_SHARE


def weights_usable(d: Diagnostics) -> bool:
    """Whether averages under the importance weights can be believed.

    Where they are as even as those of an exact approximation, a tail fitted to them is a tail of
    rounding errors, of any shape.
    """
    if efficiency(d) >= EXACT_SHARE:
        return True
    return float(d.khat) < (KHAT_USABLE_IF_EVEN if weights_even(d) else KHAT_USABLE)


def _about_weights(d: Diagnostics, corrected: bool = False) -> Verdict:
    khat, ess = float(d.khat), float(d.ess)
    figures = f"Pareto k-hat {khat:.2f}, {ess:.0f} effective of {int(d.num_draws)} draws"
    if weights_usable(d):
        return Verdict("trusted", (f"The draws fit the posterior ({figures}).",), ())
    action = _RICHER
    if khat < KHAT_HOPELESS:
        reason = f"The importance weights have a heavy tail ({figures}): no check of the moments"
        reason += ", which they correct all the same." if corrected else "."
        return Verdict("caution", (reason,), (action,))
    reason = f"The approximation misses part of the posterior ({figures})."
    return Verdict("rejected", (reason,), (action,))


def _about_chains(chains: Chains, d: Diagnostics) -> Verdict:
    reason = (
        "Short Hamiltonian chains from the fit's draws forgot where they began; their "
        f"{chains.draws.shape[0]} states answer for the moments (Pareto k-hat of the fit itself "
        f"{float(d.khat):.2f})."
    )
    return Verdict("trusted", (reason,), ())


def _about_doubts(chains: Chains, d: Diagnostics) -> Verdict:
    """Where neither weights nor chains can be averaged, nothing speaks for the fit."""
    faults = "; ".join(chain_faults(chains, d))
    reason = f"Short Hamiltonian chains cannot answer for it either: {faults}."
    return Verdict("rejected", (reason,), (_RICHER,))


def _about_corrected(d: Diagnostics) -> Verdict:
    """Whether the importance weights may stand for the posterior."""
    reason = "Moments and draws are corrected by the importance weights"
    infinite = float(d.khat) > KHAT_FINITE and efficiency(d) < EFFICIENT
    if infinite and not _agree(d, 0.5):
        reason = f"{reason}, whose variance may be infinite (k-hat {float(d.khat):.2f})."
        return Verdict("caution", (reason,), ("Compare with MCMC started from this fit.",))
    return Verdict("trusted", (f"{reason}.",), ())


def _about_noise(d: Diagnostics, names: Sequence[str]) -> Verdict:
    """Whether there are enough effective draws for every moment.

    A moment that rests on a few draws far out is not known, and may not exist.
    """
    noise = moment_noise(d)
    noisy = noise > MEAN_TOLERANCE / 3
    if not noisy.any():
        return Verdict("trusted", (), ())
    flagged, shown, worst = _name(names, noisy, noise)
    reason = (
        f"The moments of {shown} rest on a few draws far out: those of {names[worst]} are "
        f"uncertain by {noise[worst]:.2f} sd."
    )
    action = (
        "Report quantiles of these or of their logarithm, give them a prior with lighter tails, "
        "or use MCMC started from this fit."
    )
    level: Level = "rejected" if noise.max() > MOST_NOISE else "caution"
    return Verdict(level, (reason,), (action,), flagged)


def _about_parameters(d: Diagnostics, names: Sequence[str]) -> Verdict:
    """Raw against corrected moments: only where the weights can be averaged."""
    shift, ratio = moment_errors(d)
    wrong = (shift > MEAN_TOLERANCE) | (np.abs(np.log(ratio)) > np.log1p(SD_TOLERANCE))
    if not wrong.any():
        return Verdict("trusted", (), ())
    flagged, shown, worst = _name(names, wrong, np.maximum(shift, np.abs(np.log(ratio))))
    reason = (
        f"The weights contradict the moments of {shown}: {names[worst]} is off by "
        f"{shift[worst]:.2f} sd in the mean, and its sd should be {ratio[worst]:.2f} times."
    )
    action = "Use the corrected moments of summary(), or a richer family."
    return Verdict("caution", (reason,), (action,), flagged)


def _name(names: Sequence[str], chosen: np.ndarray, size: np.ndarray) -> tuple:
    """All chosen names, the first of them in words, and the index of the worst."""
    flagged = tuple(name for name, bad in zip(names, chosen, strict=True) if bad)
    shown = ", ".join(flagged[:5]) + (", ..." if len(flagged) > 5 else "")
    return flagged, shown, int(np.argmax(np.where(chosen, size, -1)))


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
    return np.where(_fixed(d), 0.0, np.where(known, error / sds, np.inf))


def _fixed(d: Diagnostics) -> np.ndarray:
    """Scalars (C,) that cannot vary, such as the diagonal of a correlation matrix."""
    eps = np.finfo(np.asarray(d.raw.sd).dtype).eps
    return np.asarray(d.raw.sd) <= 8 * eps * np.abs(d.raw.mean)


def moment_errors(d: Diagnostics) -> tuple[np.ndarray, np.ndarray]:
    """Shift of the means in raw sds (C,), and ratio of corrected to raw sds (C,)."""
    tiny = np.finfo(np.asarray(d.raw.sd).dtype).tiny
    raw_sd = np.maximum(d.raw.sd, tiny)
    shift = np.abs(d.corrected.mean - d.raw.mean) / raw_sd
    fixed = _fixed(d)  # is never wrong
    ratio = np.where(fixed, 1.0, np.maximum(d.corrected.sd, tiny) / raw_sd)
    return np.where(fixed, 0.0, shift), ratio
