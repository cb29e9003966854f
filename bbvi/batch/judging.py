"""When a problem of a batch is settled, and the verdict on it."""

from typing import Any, NamedTuple

import numpy as np

from bbvi.diagnostics import Diagnostics, Moments
from bbvi.evidence import (
    EVEN_SHARE,
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
from bbvi.status import Status
from bbvi.verdict import BAD_SHARE, Verdict, about_width, judge

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


class Facts(NamedTuple):
    """What the verdict on one problem is made from.

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
    status: Status
    usable: bool
    uncovered: bool
    apart: bool
    looks: int
    corrected: bool
    drift: float
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
    ended = np.isin(status, (Status.CONVERGED, Status.COMPLETED))
    found = ended & usable & ~lost & ~np.asarray(uncovered) & near.all(axis=-1)
    return found & ~is_rounding(d)


def is_hopeless(facts: Facts) -> bool:
    """Whether no richer family would help: the log joint itself is at fault."""
    lost = max(float(facts.diagnostics.bad_share), float(facts.diagnostics.outside_share))
    return not facts.usable or facts.status.failed or lost > BAD_SHARE


def is_noisy(facts: Facts) -> bool:
    """Whether weights that can be used leave a moment less certain than it has to be."""
    d = facts.diagnostics
    return bool(facts.looks and weights_usable(d) and np.max(moment_noise(d)) > _NOISE)


def more_draws_settle(facts: Facts, pooled: int) -> bool:
    """Whether noise alone keeps from trust, and some more looks would remove it.

    Args:
        facts: of the last look, whose moments are means over `pooled` looks.
        pooled: how many these are.
    """
    if facts.uncovered or facts.apart or is_hopeless(facts) or not is_noisy(facts):
        return False
    return (np.max(moment_noise(facts.diagnostics)) / _NOISE) ** 2 * pooled <= _MOST_POOLED


def pool(d: Diagnostics, before: Diagnostics, count: int) -> Diagnostics:
    """The latest diagnostics, with corrected moments that are means over all looks.

    Args:
        d: of the latest look.
        before: of the looks before, pooled.
        count: how many these were.
    """
    old, new, total = before.corrected, d.corrected, count + 1
    mean, sd = (count * old.mean + new.mean) / total, (count * old.sd + new.sd) / total
    errors = [(old.mean_se, new.mean_se), (old.sd_se, new.sd_se)]
    pooled: list[Any] = [np.hypot(count * a, b) / total for a, b in errors]
    return d._replace(corrected=Moments(mean, sd, *pooled))


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
