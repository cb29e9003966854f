"""When a problem of a batch is settled, and the verdict on it."""

from typing import Any, NamedTuple

import numpy as np

from bbvi.diagnostics.evidence import (
    EVEN_SHARE,
    KHAT_FINITE,
    KHAT_USABLE,
    KHAT_USABLE_IF_EVEN,
    MEAN_TOLERANCE,
    SD_TOLERANCE,
    efficiency,
    is_rounding,
    moment_errors,
    moment_noise,
    weights_usable,
)
from bbvi.diagnostics.figures import Diagnostics
from bbvi.diagnostics.judging import judge
from bbvi.diagnostics.moments import Moments
from bbvi.diagnostics.verdict import BAD_SHARE, Verdict, about_width
from bbvi.status import Status

LEVELS = ("trusted", "caution", "rejected")
# Fresh draws of the first look. With the effective share e, the chi-square divergence is about
# 1/e - 1, and a moment's distance from the family's is known up to sqrt((1/e - 1)/S) sds: 0.015
# at the least share, a third of what it may be.
FIRST_DRAWS = 512
CLEAR_SHARE = 0.9
# Fresh draws of a further look, as many as a single fit gets.
MORE_DRAWS = 16_384
# Of thousands of problems, some have an error of several standard errors, and more where a
# skewed scalar's sd rests on its largest draws: corrected moments have to be known better than
# for a single fit, to a fifth of what counts as right.
_NOISE = MEAN_TOLERANCE / 5
# Looks whose moments are averaged until they are; a fit by itself costs as much as hundreds.
_MOST_POOLED = 16
_FAILED = [status for status in Status if status.failed]
_ENDED = (Status.CONVERGED, Status.COMPLETED)


class Facts(NamedTuple):
    """What the verdict on a problem is made from; of many, every array has a leading axis B.

    Attributes:
        diagnostics: of its last look.
        status: how its run ended.
        usable: whether the user's point could be used.
        uncovered: whether a peak is left that the fit does not cover.
        apart: whether the fit consists of separate modes.
        looks: number of looks after the first.
        corrected: whether moments and draws are corrected by the importance weights.
        drift: how far the averaged parameters last moved, in posterior sds.
        skipped_share: share of the draws during the run that were not finite.
    """

    diagnostics: Diagnostics
    status: Any
    usable: Any
    uncovered: Any
    apart: Any
    looks: Any
    corrected: Any
    drift: Any
    skipped_share: float


def is_clear(d: Diagnostics, status: Any, uncovered: Any) -> np.ndarray:
    """Whether the few draws of a first look are enough to trust the family's own moments.

    Args:
        d: diagnostics of one problem, or of many with a leading axis B.
        status: `Status` codes, () or (B,).
        uncovered: whether a peak is left that the fit does not cover, () or (B,).
    """
    share = np.asarray(d.ess) / np.maximum(d.best_ess, 1)
    even = (share >= EVEN_SHARE) & (d.khat < KHAT_USABLE_IF_EVEN)
    usable = (share >= CLEAR_SHARE) & ((d.khat < KHAT_USABLE) | even)
    lost = np.maximum(d.bad_share, d.outside_share) > 0
    with np.errstate(all="ignore"):  # a NaN is not clear
        shift, ratio = moment_errors(d)
        near = (np.abs(np.log(ratio)) <= np.log1p(0.5 * SD_TOLERANCE)) & (
            shift <= 0.5 * MEAN_TOLERANCE
        )
    found = np.isin(status, _ENDED) & usable & ~lost & ~np.asarray(uncovered) & near.all(axis=-1)
    return found & ~is_rounding(d)


def is_hopeless(facts: Facts) -> Any:
    """Whether no richer family would help, () or (B,): the log joint itself is at fault."""
    lost = np.maximum(facts.diagnostics.bad_share, facts.diagnostics.outside_share)
    return ~np.asarray(facts.usable) | np.isin(facts.status, _FAILED) | (lost > BAD_SHARE)


def is_plain(facts: Facts) -> np.ndarray:
    """Whether nothing at all speaks against many corrected fits (B,): `verdict_of` trusts these.

    Verdicts in words are made one by one, which for thousands of problems takes the host longer
    than an accelerator takes to fit them; this finds those that need no words.
    """
    d = facts.diagnostics
    ended = np.isin(facts.status, _ENDED)
    lost = np.maximum(np.maximum(d.bad_share, d.outside_share), facts.skipped_share) > 0
    sound = weights_usable(d) & (np.asarray(d.khat) <= KHAT_FINITE) & ~is_rounding(d)
    doubted = np.asarray(facts.uncovered) | facts.apart | is_noisy(facts) | lost
    return ended & sound & facts.usable & facts.corrected & (np.asarray(facts.looks) > 0) & ~doubted


def is_noisy(facts: Facts) -> Any:
    """Whether usable weights leave a moment less certain than it has to be, () or (B,)."""
    d = facts.diagnostics
    uncertain = np.max(moment_noise(d), axis=-1) > _NOISE
    return (np.asarray(facts.looks) > 0) & weights_usable(d) & uncertain


def more_draws_settle(facts: Facts, pooled: Any) -> Any:
    """Whether noise alone keeps from trust, and some more looks would remove it, () or (B,).

    Args:
        facts: of the last look, whose moments are means over `pooled` looks.
        pooled: how many these are, () or (B,).
    """
    stuck = np.asarray(facts.uncovered) | facts.apart | is_hopeless(facts)
    share = np.max(moment_noise(facts.diagnostics), axis=-1) / _NOISE
    return ~stuck & is_noisy(facts) & (share**2 * pooled <= _MOST_POOLED)


def pool(new: Moments, old: Moments, count: Any) -> Moments:
    """Means over all looks of moments (..., C).

    Args:
        new: of the latest look.
        old: of the looks before, pooled.
        count: how many these were, () or (..., 1).
    """
    total = count + 1
    mean, sd = (count * old.mean + new.mean) / total, (count * old.sd + new.sd) / total
    errors = [(old.mean_se, new.mean_se), (old.sd_se, new.sd_se)]
    pooled: list[Any] = [np.hypot(count * a, b) / total for a, b in errors]
    return Moments(mean, sd, *pooled)


def verdict_of(facts: Facts, names: list[str]) -> Verdict:
    """The verdict on one problem, from what a result keeps of it."""
    d = facts.diagnostics
    if not facts.usable:
        reason = (
            "The start is outside its support, or the log joint or its gradient is not finite "
            "there."
        )
        action = "Start at a point where it is finite, and look for a NaN in the problem's data."
        return Verdict("rejected", (reason,), (action,))
    if facts.looks == 0 and is_clear(d, facts.status, facts.uncovered):
        fits = (
            f"The draws fit the posterior (Pareto k-hat {float(d.khat):.2f}, {int(d.num_draws)} "
            f"draws, {efficiency(d):.0%} as effective as those of an exact fit), and their "
            "weights leave every moment where it is."
        )
        return Verdict("trusted", (facts.status.message, fits), ())
    if is_rounding(d):
        return about_width(True)
    found = judge(
        d, facts.status, names, facts.drift, facts.skipped_share, corrected=facts.corrected
    )
    if found.level == "trusted" and is_noisy(facts):
        noise = moment_noise(d)
        worst = int(np.argmax(noise))
        flagged = tuple(n for n, x in zip(names, noise, strict=True) if x > _NOISE)
        reason = f"The weighted draws leave {names[worst]} uncertain by {noise[worst]:.3f} sd."
        action = "Look at quantiles of these, or use MCMC started from this fit."
        reasons, actions = (*found.reasons, reason), (*found.actions, action)
        found = Verdict("caution", reasons, actions, flagged)
    if facts.apart and found.level == "trusted":
        reason = "There are separate modes, and three short paths may not have seen all of them."
        action = "Fit it by itself, with more starts: bbvi.fit, or fit_batch with escalate=True."
        found = Verdict("caution", (*found.reasons, reason), (*found.actions, action))
    if not facts.uncovered:
        return found
    reason = "A path uphill ended on a peak of its own, which this fit does not cover."
    action = "Fit each mode from its own init and combine them, or remove a symmetry of the model."
    reasons, actions = (*found.reasons, reason), (*found.actions, action)
    return Verdict("rejected", reasons, actions, found.flagged)
