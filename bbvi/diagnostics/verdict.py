"""The verdict: whether a fit can be trusted, why, and what to do next, finding by finding."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bbvi.diagnostics.chain_checks import chain_faults
from bbvi.diagnostics.chains import Chains
from bbvi.diagnostics.evidence import (
    EFFICIENT,
    KHAT_FINITE,
    KHAT_HOPELESS,
    MEAN_TOLERANCE,
    MOST_NOISE,
    SD_TOLERANCE,
    Aside,
    agree,
    efficiency,
    moment_errors,
    moment_noise,
    weights_usable,
)
from bbvi.diagnostics.figures import Diagnostics
from bbvi.status import Status

Level = Literal["trusted", "caution", "rejected"]
# A larger share of lost draws biases the fit visibly: a normal cut off at its 1% quantile has
# its mean moved by 0.03 sd.
BAD_SHARE = 0.01
DRIFT_TOLERANCE = 0.1
# Shares of the evidence that may be missing before a fit of one mode is no answer at all.
MODE_SHARE = 0.05
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


def about_modes(weights: Sequence[float]) -> Verdict:
    """What separate modes leave of a fit of the first."""
    if not weights:
        return Verdict("trusted", (), ())
    shares = ", ".join(f"{w:.2f}" for w in weights)
    reason = (
        f"The starts led to {len(weights)} separate modes with estimated shares {shares} of the "
        "evidence; this fit describes the first."
    )
    action = "Fit each mode from its own init and combine them, or remove a symmetry of the model."
    level: Level = "rejected" if 1 - weights[0] > MODE_SHARE else "caution"
    return Verdict(level, (reason,), (action,))


def about_propriety(unbounded: Sequence[str]) -> Verdict:
    """Leaves along which nothing holds the posterior."""
    if not unbounded:
        return Verdict("trusted", (), ())
    names = ", ".join(unbounded)
    reason = f"The log joint does not fall along {names}: the posterior looks improper."
    action = f"Give {names} a proper prior, or remove what the data cannot tell apart."
    return Verdict("rejected", (reason,), (action,))


def about_starts(left_out: bool) -> Verdict:
    """Visible mass around a start that the fit leaves out."""
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


def about_neck(neck: str) -> Verdict:
    """The neck of a funnel that the fit does not reach."""
    if not neck:
        return Verdict("trusted", (), ())
    reason = (
        f"Far out along {neck}, where all that it scales is narrow, a bound finds more mass than "
        "the fit's draws: they do not reach into the neck of a funnel."
    )
    action = f"Reparameterise what {neck} scales (non-centred for hierarchies)."
    return Verdict("rejected", (reason,), (action,))


def about_seam(seam: float) -> Verdict:
    """A seam of the flow's coordinates that its draws do not cross."""
    if not seam:
        return Verdict("trusted", (), ())
    reason = (
        f"Chains that leave the flow's coordinates move its moments by up to {seam:.2f} sd: it has "
        "a seam that its own draws do not cross."
    )
    return Verdict("rejected", (reason,), (_RICHER,))


def about_unseen(unseen: float) -> Verdict:
    """Mass that no draw has met."""
    if not unseen:
        return Verdict("trusted", (), ())
    reason = (
        "Mass to which no draw of the fit comes was found, by trajectories from the draws with the "
        "largest weights or by the density of hyperparameters: moments may be "
        f"{unseen:.2f} sd off."
    )
    return Verdict("caution", (reason,), (_RICHER,))


def about_evidence(short: float) -> Verdict:
    """Evidence that an earlier stage has proven and this fit lacks."""
    if not short:
        return Verdict("trusted", (), ())
    reason = (
        f"The bound of an earlier stage lies {short:.2f} nats above what this fit sees of the "
        f"evidence: at least {-math.expm1(-short):.0%} of the posterior is missing from it."
    )
    return Verdict("rejected", (reason,), (_RICHER,))


def about_aside(aside: Aside | None) -> Verdict:
    """A small mode far away that the fit leaves out."""
    if aside is None:
        return Verdict("trusted", (), ())
    reason = (
        f"A mode with about {aside.share:.1g} of the evidence, in which the fit has no share, lies "
        f"{aside.distance:.0f} sd away along {aside.scalar}, whose sd is about {aside.times:.1f} "
        "times as large with it."
    )
    action = "Use the fit as that of its mode, or give a prior that decides between them."
    return Verdict("caution", (reason,), (action,))


def about_budget(ended: bool) -> Verdict:
    """Whether the budget ended the fit."""
    if not ended:
        return Verdict("trusted", (), ())
    reason = "The budget ended before a stage could settle the fit."
    return Verdict("caution", (reason,), ("Give the fit a larger budget, or none.",))


def about_run(status: Status, drift: float) -> Verdict:
    """How the run ended."""
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


def about_lost_draws(d: Diagnostics, skipped_share: float) -> Verdict:
    """Draws lost to NaN or to walls."""
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


def about_width(is_none: bool) -> Verdict:
    """The verdict on a fit that is no wider than rounding."""
    if not is_none:
        return Verdict("trusted", (), ())
    reason = "The fit has shrunk to a point, no wider than numbers can be told apart."
    action = (
        "Look for log densities that grow without bound, or that rounding makes up: of a "
        "covariance matrix, work with its Cholesky factor (bbvi.cov_cholesky), without inverses."
    )
    return Verdict("rejected", (reason,), (action,))


def about_weights(d: Diagnostics, corrected: bool = False) -> Verdict:
    """Whether the draws fit the posterior, by their weights."""
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


def about_chains(chains: Chains, d: Diagnostics) -> Verdict:
    """What short chains that answer for the fit say of it."""
    reason = (
        "Short Hamiltonian chains from the fit's draws forgot where they began; their "
        f"{chains.draws.shape[0]} states answer for the moments (Pareto k-hat of the fit itself "
        f"{float(d.khat):.2f})."
    )
    return Verdict("trusted", (reason,), ())


def about_doubts(chains: Chains, d: Diagnostics) -> Verdict:
    """Where neither weights nor chains can be averaged, nothing speaks for the fit."""
    faults = "; ".join(chain_faults(chains, d))
    reason = f"Short Hamiltonian chains cannot answer for it either{': ' * bool(faults)}{faults}."
    return Verdict("rejected", (reason,), (_RICHER,))


def about_corrected(d: Diagnostics) -> Verdict:
    """Whether the importance weights may stand for the posterior."""
    reason = "Moments and draws are corrected by the importance weights"
    infinite = float(d.khat) > KHAT_FINITE and efficiency(d) < EFFICIENT
    if infinite and not agree(d, 0.5):
        reason = f"{reason}, whose variance may be infinite (k-hat {float(d.khat):.2f})."
        return Verdict("caution", (reason,), ("Compare with MCMC started from this fit.",))
    return Verdict("trusted", (f"{reason}.",), ())


def about_noise(d: Diagnostics, names: Sequence[str]) -> Verdict:
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


def about_parameters(d: Diagnostics, names: Sequence[str]) -> Verdict:
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
