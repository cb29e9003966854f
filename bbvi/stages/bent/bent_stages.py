"""Stages of the default from bent Gaussians, fitted to draws, or states of chains, that bend."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bbvi._linalg import cholesky
from bbvi._tree import split
from bbvi._types import AnyArray, Array, PyTree
from bbvi.diagnostics.chain_checks import moved_on
from bbvi.diagnostics.chains import expected_gradients
from bbvi.diagnostics.evidence import EFFICIENT, efficiency
from bbvi.diagnostics.figures import Diagnostics
from bbvi.evaluate import generator
from bbvi.families import Family, Frame
from bbvi.stages.bent.bending import FAMILY, bend
from bbvi.stages.bent.chained import FAMILY as CHAIN
from bbvi.stages.bent.chained import chain
from bbvi.stages.bent.following import follow
from bbvi.stages.chain_stages import chain_stage
from bbvi.stages.gaussians.gaussian_stages import and_spent
from bbvi.stages.gaussians.match import on_device
from bbvi.stages.population import MOST_DIM, Kind, population_stage
from bbvi.stages.stage import Fitted, Job
from bbvi.stages.tempering import Resampled, resampled
from bbvi.stages.unseen import Space, base_space
from bbvi.target import Target

# Each to chains that went further than those before; a third one where the second had so many times
# the effective draws of the first. Until then chains go on once: those of a funnel of fifty went on
# for 600,000 gradients, after 40,000 the next fit is nearly exact.
_FITS, _WORTHWHILE, _DOUBLINGS = 3, 1.5, 1
# Nats between bound and evidence. Of twelve fits nearer than that ten settled; of five further off,
# by 5 to 1,100, none: chains began in places from which they diverged.
_NEAR = 4.0
# Effective draws a dimension that may show bends (in up to `MOST_DIM` any), points of each half,
# and nats that they must be worth.
_SHOW, _HALF, _BENDS = 20, 4096, 0.08
# Dimensions of chains of regressions, whose draws are made one coordinate after the other.
_CHAINED = 40
# Rounds of fits to weighted draws: at first, and again where chains know more.
_ROUNDS, _ROUNDS_AGAIN, _ROUNDS_OF_CHAINS = 10, 3, 20


def bends(stage: Fitted, key: Array) -> bool:
    r"""Whether weighted draws show that they bend with a few coordinates, and not by chance.

    What bends, fitted to one half of the draws, must say more of the other half than a Gaussian
    does: on average of both ways round, the median of

        log q_bent(z) - log q_gauss(z)

    must be large. Of fourteen fits of posteriors in 18 to 62 dimensions that do not bend, or whose
    few draws do not show it, it was -0.6 to 0.03 nats, and once 0.1; of fifteen in 2 to 30
    dimensions with bends 0.1 to 1, and twice 0.

    Args:
        stage: a Gaussian, or a mixture.
        key: a typed random key.
    """
    d = stage.diagnostics
    dim = d.draws.shape[1]
    if not (dim <= MOST_DIM or float(d.ess) > _SHOW * dim):
        return False
    return _shows(d, key, bend, FAMILY)


def is_chained(stage: Fitted, key: Array) -> bool:
    """Whether weighted draws show that coordinates follow squares of others, likewise.

    Of bananas in 40 and 60 dimensions it was 0.11 to 0.22 nats by 330 to 2,000 effective draws,
    where what bends with all features of a few drivers had -0.3 to 0.2.
    """
    d = stage.diagnostics
    return d.draws.shape[1] <= _CHAINED and _shows(d, key, chain, CHAIN)


def _shows(d: Diagnostics, key: Array, fit: Callable[..., PyTree | None], family: Family) -> bool:
    random = generator(key)
    halves = np.array_split(random.permutation(len(d.draws)), 2)
    try:
        one, other = (
            resampled(
                d._replace(draws=d.draws[half], log_weights=d.log_weights[half]), _HALF, random
            )
            for half in halves
        )
        return _gain(one, other, fit, family) + _gain(other, one, fit, family) > 2 * _BENDS
    except np.linalg.LinAlgError:
        return False


def _gain(
    one: Resampled, other: Resampled, fit: Callable[..., PyTree | None], family: Family
) -> float:
    """Nats by which what bends, of one half, says more than a Gaussian of most of the other."""
    points, others = one.points, other.points
    # with `worth`, unlike in rounds of fits, where the next mends what bends too much
    params = fit(*one)
    if params is None:
        return 0.0
    frame = Frame(points.mean(axis=0), cholesky(np.cov(points.T)))
    gains: Any = family.log_prob(params, others) - frame.log_normal(others)[0]
    return float(np.median(gains))


def bent_stages(chains: Fitted, job: Job, key: Array) -> tuple[list[Fitted], int]:
    """Bent Gaussians, and chains in the units of these, until one settles.

    In units of a Gaussian chains are slow where a few coordinates bend or narrow all others, as
    the scale of effects does, but they see that. In units of what they have seen such a posterior
    is nearly standard. Of a funnel of fifty, 300,000 to 400,000 gradients went into a flow and
    chains from it; this way it is 120,000 to 170,000. Five fits of parabolas in ten dimensions were
    wrong and are right. Each bent Gaussian is fitted to its own weighted draws in turn, and its
    curve to the ridge: see `bbvi.stages.population` and `bbvi.stages.bent.following`.

    Args:
        chains: a stage with chains.
        job: what stages share.
        key: a typed random key.

    Returns:
        the stages, and gradients that are in the account of none of them.
    """
    stages: list[Fitted] = []
    settled, share, spent = None, 0.0, 0
    for number, fit_key in enumerate(split(key, _FITS)):
        bent_key, chain_key = split(fit_key, 2)
        affordable = job.purse.allows(expected_gradients(job.target.dim))
        if not affordable or chains.chains is None:
            break
        kind = BENT if number == 0 else BENT._replace(rounds=_ROUNDS_AGAIN)
        bent, answers, cost = population_stage(chains, job, kind, bent_key)
        spent += cost
        if bent is chains:  # they do not bend, or have not left a plane
            break
        if answers:
            stages.append(job.look(bent))
            spent = 0
            if stages[-1].settled:
                break
        seconds, d = bent.seconds, bent.diagnostics
        if not float(d.log_evidence) - float(d.elbo) < _NEAR:
            break
        worthwhile = efficiency(d) > _WORTHWHILE * share
        share = efficiency(d)
        again = worthwhile and number < _FITS - 1
        limited = job._replace(doublings=_DOUBLINGS) if again else job
        run = partial(chain_stage, bent, limited, chain_key)
        before, chains = chains, job.look(job.show("chains bent", run))
        if not answers:
            seconds = (chains.seconds[0] + sum(seconds), chains.seconds[1])
            chains = and_spent(chains._replace(seconds=seconds), spent)
            spent = 0
        stages.append(chains)
        settled = chains if chains.settled else settled
        moments = (before.diagnostics.corrected, chains.diagnostics.corrected)
        if settled is not None and not moved_on(d, *moments):
            return [*(stage for stage in stages if stage is not settled), settled], spent
        if not (worthwhile or chains.settled):
            break
    return stages, spent


def _fit_by(
    fit: Callable[..., PyTree | None], points: AnyArray, random: np.random.Generator
) -> PyTree:
    params = fit(points)
    if params is None:
        raise np.linalg.LinAlgError("points that do not bend")
    return params


def _space_of(family: Family, target: Target, params: PyTree, data: PyTree) -> Space:
    return base_space(target, family, on_device(target, params), data)


# For squares of squares, which no few coordinates drive. It takes no gradients, and what is nearly
# exact no longer gains in effective draws: it has all rounds that it needs. What bends in this way
# had 0.95 of an exact fit's draws and more; a wave and a helix, which do not, 0.15, and by these a
# mean 0.18 sd off.
TRIANGULAR = Kind(
    "triangular",
    CHAIN,
    partial(_fit_by, chain),
    partial(_space_of, CHAIN),
    points=8192,
    tails=False,
    rounds=_ROUNDS_OF_CHAINS,
    patience=4,
    most_off=1.0,
    least_share=EFFICIENT,
)
# Weights that settle a fit whose own moments are others have been too few: without that limit three
# of twenty fits of five ridges had sds 11% to 58% off.
BENT = TRIANGULAR._replace(
    name="bent",
    family=FAMILY,
    fit=partial(_fit_by, bend),
    space=partial(_space_of, FAMILY),
    rounds=_ROUNDS,
    patience=2,
    refine=follow,
)
