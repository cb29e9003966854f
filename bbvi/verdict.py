"""The verdict: whether a fit can be trusted, why, and what to do next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bbvi.diagnostics import Diagnostics
from bbvi.status import Status

Level = Literal["trusted", "caution", "rejected"]

# Importance weights can be averaged up to here (Vehtari et al. 2024, section 3.2).
KHAT_USABLE = 0.7
# Past one the weights have no mean: draws and target have little to do with each other.
KHAT_HOPELESS = 1.0
# What "right" means: a mean within this many posterior sds, an sd within this share.
MEAN_TOLERANCE = 0.1
SD_TOLERANCE = 0.1
# A larger share of lost draws biases the fit visibly: a normal cut off at its 1% quantile has
# its mean moved by 0.03 sd.
BAD_SHARE = 0.01
DRIFT_TOLERANCE = 0.1


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
) -> Verdict:
    """Turn figures into a verdict.

    Args:
        diagnostics: of the fit, as NumPy arrays.
        status: how the run ended.
        names: C names of the scalar parameters.
        drift: how far the averaged parameters last moved, in posterior sds.
        skipped_share: share of the draws during the run that were not finite.
    """
    findings = [
        _about_run(status, drift),
        _about_lost_draws(diagnostics, skipped_share),
        _about_weights(diagnostics),
        _about_parameters(diagnostics, names),
    ]
    level: Level = "trusted"
    reasons, actions, flagged = [], [], ()
    for found in findings:
        level = max(level, found.level, key=("trusted", "caution", "rejected").index)
        reasons += found.reasons
        actions += [a for a in found.actions if a not in actions]
        flagged = flagged or found.flagged
    return Verdict(level, tuple(reasons), tuple(actions), flagged)


def _about_run(status: Status, drift: float) -> Verdict:
    if status is Status.CONVERGED:
        return Verdict("trusted", (status.message,), ())
    if status is Status.NONFINITE:
        action = "check the log joint for log or sqrt of negative numbers, and declare supports."
        return Verdict("rejected", (status.message,), (action,))
    far = not drift <= DRIFT_TOLERANCE
    moved = (
        f"the averages still moved by {drift:.2g} posterior sd"
        if np.isfinite(drift)
        else ("it was too short to see whether the averages settle")
    )
    reason = f"{status.message[:-1]}; {moved}."
    actions = ["continue it: fit(..., init=result) with a larger max_steps."]
    if far and status is Status.MAX_STEPS:
        actions.append("check that the posterior is proper: a scale that keeps growing never ends.")
    return Verdict("rejected" if far else "caution", (reason,), tuple(actions))


def _about_lost_draws(d: Diagnostics, skipped_share: float) -> Verdict:
    reasons, actions = [], []
    bad, outside = float(d.bad_share), float(d.outside_share)
    if bad > 0:
        reasons.append(f"the log joint is NaN or +inf at {bad:.2%} of the fit's draws.")
        actions.append("make the log joint finite everywhere, or declare the parameter's support.")
    if outside > 0:
        reasons.append(f"{outside:.2%} of the fit's draws have zero density (-inf): a wall.")
        actions.append("declare the parameter's support, so that no draw falls outside.")
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


def _about_weights(d: Diagnostics) -> Verdict:
    khat, ess = float(d.khat), float(d.ess)
    figures = f"Pareto k-hat {khat:.2f}, {ess:.0f} effective of {int(d.num_draws)} draws"
    if khat < KHAT_USABLE:
        return Verdict("trusted", (f"the draws fit the posterior ({figures}).",), ())
    action = (
        "try a richer family, a reparameterisation (non-centred for hierarchies), or MCMC "
        "started from this fit."
    )
    if khat < KHAT_HOPELESS:
        reason = f"the importance weights have a heavy tail ({figures}): no check of the moments."
        return Verdict("caution", (reason,), (action,))
    reason = f"the approximation misses part of the posterior ({figures})."
    return Verdict("rejected", (reason,), (action,))


def _about_parameters(d: Diagnostics, names: Sequence[str]) -> Verdict:
    """Raw against corrected moments: only where the weights can be averaged."""
    if not float(d.khat) < KHAT_USABLE:
        return Verdict("trusted", (), ())
    shift, ratio = moment_errors(d)
    wrong = (shift > MEAN_TOLERANCE) | (np.abs(np.log(ratio)) > np.log1p(SD_TOLERANCE))
    if not wrong.any():
        return Verdict("trusted", (), ())
    flagged = tuple(name for name, bad in zip(names, wrong, strict=True) if bad)
    worst = int(np.argmax(np.where(wrong, np.maximum(shift, np.abs(np.log(ratio))), 0)))
    shown = ", ".join(flagged[:5]) + (", ..." if len(flagged) > 5 else "")
    reason = (
        f"the weights contradict the moments of {shown}: {names[worst]} is off by "
        f"{shift[worst]:.2f} sd in the mean, and its sd should be {ratio[worst]:.2f} times."
    )
    action = "use the corrected moments of summary(), or a richer family."
    return Verdict("caution", (reason,), (action,), flagged)


def moment_errors(d: Diagnostics) -> tuple[np.ndarray, np.ndarray]:
    """Shift of the means in raw sds (C,), and ratio of corrected to raw sds (C,)."""
    tiny = np.finfo(np.asarray(d.raw.sd).dtype).tiny
    raw_sd = np.maximum(d.raw.sd, tiny)
    shift = np.abs(d.corrected.mean - d.raw.mean) / raw_sd
    # A scalar that cannot vary (an entry fixed by its support) is never wrong.
    eps = np.finfo(np.asarray(d.raw.sd).dtype).eps
    fixed = np.asarray(d.raw.sd) <= 8 * eps * np.abs(d.raw.mean)
    ratio = np.where(fixed, 1.0, np.maximum(d.corrected.sd, tiny) / raw_sd)
    return np.where(fixed, 0.0, shift), ratio
