"""Figures of a fit from weighted draws: bound, Pareto k-hat, importance-corrected moments."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bbvi._arrays import logsumexp, namespace
from bbvi._types import AnyArray, Array
from bbvi.diagnostics.moments import Moments, moments_of, place, sums_and_terms, with_tail_errors
from bbvi.diagnostics.pareto import USABLE, largest_terms, psis, tail_shape

# A draw's share of the member's mass, over that of the mixture, below which it is none.
NOTHING = 1e-9


class Diagnostics(NamedTuple):
    """What fresh draws say of a fit.

    Half of the draws are the approximation's own and half have heavier tails (see
    `bbvi.families.Proposal`): a member whose tails are too light cannot tell by its own draws.

    Attributes:
        elbo: the evidence lower bound, nats, over the finite ones of its own draws.
        elbo_se: its Monte Carlo standard error.
        log_evidence: the importance-sampling estimate of the log evidence, nats.
        khat: Pareto shape of the importance weights' tail; trust in the weights ends near 0.7.
        ess: effective sample size of the smoothed weights.
        best_ess: what `ess` would be if the approximation were exact.
        bad_share: share of its own draws with a NaN, or with +infinity.
        outside_share: share of its own draws with a log density of -infinity.
        raw: moments of the approximation.
        corrected: moments under Pareto-smoothed importance weights.
        square_shape: (C,) Pareto shapes of the largest weighted squares of each scalar: past 1/2
            they have no variance, past 1 no mean; zero where they were too many to keep.
        num_draws: fresh draws used, S.
        draws: the first of them (S', D), unconstrained; fewer than S where they come in chunks.
        log_weights: their smoothed log weights (S',), all S normalised to sum to one.
        own: (S',) which of them are the approximation's own.
    """

    elbo: Array
    elbo_se: Array
    log_evidence: Array
    khat: Array
    ess: Array
    best_ess: Array
    bad_share: Array
    outside_share: Array
    raw: Moments
    corrected: Moments
    square_shape: Array
    num_draws: Array
    draws: Array
    log_weights: Array
    own: Array


# The structure of them, with anything as leaves.
LIKE = Diagnostics(*[0] * 8, Moments(*[0] * 4), Moments(*[0] * 4), *[0] * 5)  # type: ignore


class Plan(NamedTuple):
    """How S draws are made: in chunks, of which the first `kept` draws are kept."""

    chunks: int
    size: int
    kept: int


class Drawn(NamedTuple):
    """Draws of a proposal, as in `bbvi.families.Proposal`, with what the target says of them."""

    z: Array
    log_q: Array
    log_mixture: Array
    own: Array
    log_p: Array
    x: Array  # (S, C), the scalar parameters


def figures(first: Drawn, plan: Plan, over_chunks: Callable, usable: float = USABLE) -> Diagnostics:
    """Figures from draws; `over_chunks` is a function of each chunk of them, results stacked.

    Standard errors of squares are believed up to the shape `usable` of their tails.
    """
    xp, total = namespace(first.z), plan.chunks * plan.size
    logs = over_chunks(lambda drawn: drawn[1:5])
    log_q, log_mixture, own, log_p = (x.reshape(-1) for x in logs)
    log_ratio = log_p - log_q
    outside = xp.isneginf(log_p)
    ok = xp.isfinite(log_ratio)
    judged = ok & own
    count = xp.maximum(xp.sum(judged), 1)
    number = xp.sum(own)
    elbo = xp.sum(xp.where(judged, log_ratio, 0)) / count
    spread = xp.sqrt(xp.sum(xp.where(judged, (log_ratio - elbo) ** 2, 0)) / count)
    log_ratio = xp.where(ok, log_p - log_mixture, -xp.inf)
    log_weights, khat = psis(log_ratio)
    weights = xp.exp(log_weights)
    exact = xp.exp(log_q - log_mixture)
    # what counts for nothing may lie where the map to the parameters overflows
    of_member = xp.where(exact > NOTHING, exact, 0)

    # Where a reported scalar sits at 1e6 with an sd of 1, its squares would lose the sd: it is
    # measured from about its mean, in units of about its sd where only the size counts.
    origin, unit = place(first.x, weights[: plan.size])
    # by the draws of the corrected moments: what sets the two apart is then hardly noise
    even = of_member / xp.sum(of_member)
    sets = xp.stack([even, even**2, weights, weights**2]).reshape(4, plan.chunks, plan.size)

    def sums_and_tail(drawn, sets):
        sums, terms = sums_and_terms(drawn.x, sets, origin, unit)
        return sums, largest_terms(terms, total)

    sums, largest = over_chunks(sums_and_tail, xp.moveaxis(sets, 1, 0))
    sums = xp.sum(sums, axis=0)
    raw, corrected = (moments_of(origin, sums[i], sums[i + 1]) for i in (0, 2))
    shape = tail_shape(largest, total).astype(origin.dtype)
    corrected = with_tail_errors(corrected, shape, total, usable)
    return Diagnostics(
        elbo=elbo,
        elbo_se=spread / xp.sqrt(count),
        log_evidence=logsumexp(log_ratio) - np.log(total),
        khat=khat,
        ess=1 / xp.sum(weights**2),
        best_ess=xp.sum(exact) ** 2 / xp.sum(exact**2),
        bad_share=xp.sum(own & ~ok & ~outside) / number,
        outside_share=xp.sum(own & outside) / number,
        raw=raw,
        corrected=corrected,
        square_shape=shape,
        num_draws=xp.asarray(total, xp.int32),
        draws=first.z[: plan.kept],
        log_weights=log_weights[: plan.kept],
        own=own[: plan.kept],
    )


def of_weight(weighs: AnyArray, draws: AnyArray, log_weights: AnyArray) -> np.ndarray:
    """Draws (S, D), the heaviest one in the place of those that weigh nothing (S,)."""
    return np.where(weighs[:, None], draws, draws[np.argmax(log_weights)])
