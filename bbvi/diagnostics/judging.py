"""From all findings on a fit to one verdict, and when a stage is settled."""

from collections.abc import Sequence

from bbvi.diagnostics.chain_checks import chain_faults
from bbvi.diagnostics.chains import Chains
from bbvi.diagnostics.evidence import (
    EFFICIENT,
    KHAT_FINITE,
    SETTLED_NOISE,
    Aside,
    efficiency,
    is_a_point,
    moment_noise,
    weights_usable,
)
from bbvi.diagnostics.figures import Diagnostics
from bbvi.diagnostics.verdict import (
    Level,
    Verdict,
    about_aside,
    about_budget,
    about_chains,
    about_corrected,
    about_doubts,
    about_evidence,
    about_lost_draws,
    about_modes,
    about_neck,
    about_noise,
    about_parameters,
    about_propriety,
    about_run,
    about_seam,
    about_starts,
    about_unseen,
    about_weights,
    about_width,
)
from bbvi.status import Status


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
    neck: str = "",
    seam: float = 0.0,
    unseen: float = 0.0,
    short: float = 0.0,
    aside: Aside | None = None,
) -> Verdict:
    """Turn figures into a verdict.

    Args:
        diagnostics: of the fit, as NumPy arrays.
        status: how the run ended.
        names: C names of the scalar parameters.
        drift: how far the averaged parameters last moved, in posterior sds.
        skipped_share: share of the draws during the run that were not finite.
        corrected: whether the posterior is corrected by the importance weights.
        mode_weights: estimated shares of the modes found: first of what this fit describes, then of
            those that it misses.
        chains: short chains that stand in for weights that cannot be believed; the corrected
            moments are then theirs.
        doubted_by: short chains that were to stand in for them, and have faults of their own.
        budget_ended: whether the budget ended the fit before a stage had settled it.
        unbounded: names of the leaves along which the log joint does not fall.
        left_out: whether visible mass around a start is missing from the fit.
        neck: the scalar along which the fit misses the neck of a funnel, or "".
        seam: how far moments move, in sds, where chains leave the flow's coordinates.
        unseen: by how many sds mass that no draw has met may move moments.
        short: by how many nats the log evidence lies below what another fit has proven.
        aside: a small mode far away that the fit leaves out.
    """
    findings = [
        about_run(status, drift),
        about_budget(budget_ended),
        about_lost_draws(diagnostics, skipped_share),
        about_width(is_a_point(diagnostics)),
        *_about_fit(diagnostics, names, corrected, chains, doubted_by),
        about_modes(mode_weights),
        about_propriety(unbounded),
        about_starts(left_out),
        about_neck(neck),
        about_seam(seam),
        about_unseen(unseen),
        about_evidence(short),
        about_aside(aside),
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
        return [about_chains(chains, d), about_noise(d, names)]
    if not weights_usable(d):
        doubts = [] if doubted_by is None else [about_doubts(doubted_by, d)]
        return [about_weights(d, corrected), *doubts]
    moments = about_corrected(d) if corrected else about_parameters(d, names)
    return [about_weights(d), moments, about_noise(d, names)]


def is_settled(diagnostics: Diagnostics, status: Status, chains: Chains | None = None) -> bool:
    """Whether a stage needs no richer one after it.

    Its weighted draws, or its chains, must answer for the posterior by themselves, with no
    draw lost, and every moment known to a quarter of what counts as right. Where the weights'
    variance may be infinite, their effective number must be large all the same.
    """
    known = bool(moment_noise(diagnostics).max() <= SETTLED_NOISE)
    return known and is_only_noisy(diagnostics, status, chains)


def is_only_noisy(d: Diagnostics, status: Status, chains: Chains | None = None) -> bool:
    """Whether nothing but noise can keep a stage from being settled."""
    if status.failed or max(float(d.bad_share), float(d.outside_share)) > 0 or is_a_point(d):
        return False
    if chains is not None:
        return not chain_faults(chains, d)
    return bool(weights_usable(d)) and (float(d.khat) <= KHAT_FINITE or efficiency(d) >= EFFICIENT)
