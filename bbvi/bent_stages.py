"""Stages of the default from bent Gaussians, fitted to the states of chains that did not settle."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from bbvi._tree import split
from bbvi._types import Array, PyTree
from bbvi.bending import FAMILY, bend
from bbvi.budget import Purse
from bbvi.chain_checks import moved_on
from bbvi.chain_stages import chain_stage
from bbvi.chains import expected_gradients
from bbvi.evidence import efficiency
from bbvi.gaussians import UNEVEN
from bbvi.matching import as_run
from bbvi.stage import Fitted, Show, judged_stage
from bbvi.status import Status
from bbvi.target import Target

# Each to chains that went further than those before; a third one where the second had so many times
# the effective draws of the first. Until then chains go on once: those of a funnel of fifty went on
# for 600,000 gradients, after 40,000 the next fit is nearly exact.
_FITS, _WORTHWHILE, _DOUBLINGS = 3, 1.5, 1
# Nats between bound and evidence. Of twelve fits nearer than that ten settled; of five further off,
# by 5 to 1,100, none: chains began in places from which they diverged.
_NEAR = 4.0


def bent_stages(
    chains: Fitted,
    target: Target,
    key: Array,
    data: PyTree,
    purse: Purse,
    show: Show,
    look: Callable[[Fitted], Fitted],
    rounds: int,
    doublings: int,
) -> list[Fitted]:
    """Bent Gaussians, and chains in the units of these, until one settles.

    In units of a Gaussian chains are slow where a few coordinates bend or narrow all others, as
    the scale of effects does, but they see that. In units of what they have seen such a posterior
    is nearly standard. Of a funnel of fifty, 300,000 to 400,000 gradients went into a flow and
    chains from it; this way it is 120,000 to 170,000. Five fits of parabolas in ten dimensions were
    wrong and are right.

    Args:
        chains: a stage with chains.
        target: its target.
        key: a typed random key.
        data: the user's data.
        purse: what may be spent, and is.
        show: shows a stage.
        look: looks for what a stage misses.
        rounds: see `bbvi.chain_stages.chain_stage`.
        doublings: likewise.
    """
    stages: list[Fitted] = []
    settled, share = None, 0.0
    for number, fit_key in enumerate(split(key, _FITS)):
        judge_key, chain_key = split(fit_key, 2)
        if not purse.allows(expected_gradients(target.dim)) or chains.chains is None:
            break
        began = time.perf_counter()
        try:
            params = bend(chains.chains.draws)
        except np.linalg.LinAlgError:  # they have not left a plane
            break
        if params is None:
            break
        fitting = time.perf_counter() - began
        log = chains.log._replace(status=np.int32(Status.COMPLETED))
        run = partial(as_run, target, params, log)
        judged = partial(judged_stage, "bent", chains.solver, FAMILY, target, run, judge_key, data)
        bent = show("bent", judged)
        seconds = (bent.seconds[0] + fitting, bent.seconds[1])
        bent = bent._replace(num_gradients=0, num_skipped=0, seconds=seconds)
        d = bent.diagnostics
        # Uneven weights would settle what they have not seen: two such fits were 10% off. The
        # chains in its units are kept then, and not it.
        even = efficiency(d) >= UNEVEN
        if even:
            stages.append(look(bent))
            if stages[-1].settled:
                break
        if not float(d.log_evidence) - float(d.elbo) < _NEAR:
            break
        worthwhile = efficiency(d) > _WORTHWHILE * share
        share = efficiency(d)
        most = doublings if number == _FITS - 1 or not worthwhile else _DOUBLINGS
        args = (bent, target, chain_key, data, purse, rounds, most)
        before, chains = chains, look(show("chains bent", partial(chain_stage, *args)))
        if not even:
            seconds = (chains.seconds[0] + sum(seconds), chains.seconds[1])
            chains = chains._replace(seconds=seconds)
        stages.append(chains)
        settled = chains if chains.settled else settled
        moments = (before.diagnostics.corrected, chains.diagnostics.corrected)
        if settled is not None and not moved_on(d, *moments):
            return [*(stage for stage in stages if stage is not settled), settled]
        if not (worthwhile or chains.settled):
            break
    return stages
