"""Which of several stages of a fit is kept."""

from collections.abc import Iterable

import numpy as np

from bbvi.diagnostics.evidence import SAME_EVIDENCE, falls_short, moment_noise, proven_evidence
from bbvi.stages.stage import Fitted


def beside(stage: Fitted, proven: float) -> Fitted:
    """The stage, with how much less it sees than others have proven; see `proven_evidence`.

    Of a fit to one of several modes that is known already.
    """
    if stage.mode_weights:
        return stage
    return stage._replace(short=falls_short(stage.diagnostics, proven))


def proven_by(stages: Iterable[Fitted]) -> float:
    """The highest bound on the log evidence that any of them has, nats."""
    return max((proven_evidence(stage.diagnostics) for stage in stages), default=-np.inf)


def better(one: Fitted, other: Fitted) -> Fitted:
    """Which of two stages to keep: moments that are known, modes and mass covered, precision."""
    for first, second in (
        (not one.status.failed, not other.status.failed),
        (one.answers, other.answers),
        # a fit of one of several modes: a draw that strayed into another hides what it lacks
        (not one.mode_weights, not other.mode_weights),
        (one.sees_all, other.sees_all),
        (one.settled, other.settled),
    ):
        if first != second:
            return one if first else other
    if not one.answers:
        if one.params is other.params and one.sound and other.sound:
            return min(one, other, key=lambda stage: moment_noise(stage.diagnostics).max())
        low, high = (np.nan_to_num(s.diagnostics.elbo, nan=-np.inf) for s in (one, other))
        return other if high > low else one
    gain = float(other.diagnostics.log_evidence) - float(one.diagnostics.log_evidence)
    if abs(gain) > SAME_EVIDENCE:  # a stage that misses a mode has less
        return other if gain > 0 else one
    if (one.chains is None) != (other.chains is None):
        return other if one.chains is None else one
    if one.corrects != other.corrects:  # what needs no correction is known without noise
        return other if one.corrects else one
    return other if other.diagnostics.ess > one.diagnostics.ess else one
