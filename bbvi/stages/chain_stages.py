"""Stages whose moments are those of short chains, from the draws of another stage."""

import time
from typing import Any

import jax.numpy as jnp
import numpy as np

from bbvi._arrays import at_levels, softmax
from bbvi._tree import split
from bbvi._types import Array, PyTree
from bbvi.diagnostics.base_space import enter
from bbvi.diagnostics.chain_checks import (
    contradiction,
    sds_apart,
    steps_too_long,
    still_missing,
    would_forget,
)
from bbvi.diagnostics.chains import (
    Chains,
    affordable_leaps,
    expected_gradients,
    go_on,
    pool,
    run_chains,
)
from bbvi.diagnostics.evidence import SETTLED_NOISE, moment_noise
from bbvi.diagnostics.trajectories import LONG, Extent, many
from bbvi.evaluate import generator
from bbvi.families import Family, FullRankGaussian
from bbvi.stages.gaussians.match import move, on_device
from bbvi.stages.stage import Fitted, Job
from bbvi.stages.tempering import resampled

# How far off, in sds, chains may begin where nothing says so. How far they have moved does not: of
# a line through points with errors on both axes they had moved by 0.11, which is narrow in forty
# dimensions where the scatter goes to zero, and a mean was 0.17 sd from its end.
_START_ERROR = 1.0


class _Runner:
    """Runs chains of a stage, pays for them, and keeps what they found so far."""

    def __init__(self, stage, job, where, start_error, extent, began=None):
        self.began = time.perf_counter()
        self._stage = stage
        self._target, self._data, self._purse = job.target, job.data, job.purse
        self._where, self.extent = where, extent
        self._known = {
            "weighted_noise": float(moment_noise(stage.diagnostics).max()),
            "start_error": start_error,
            "began": began,
        }
        self._spent = 0

    def _pay(self, run, *args, calls=1, before=0, **more):
        dim, gradients = self._target.dim, self._purse.gradients / calls
        leaps = affordable_leaps(dim, gradients, self.extent)
        chains = run(self._target, *self._where, *args, self._data, leaps, **more)
        cost = int(chains.num_gradients) - before
        self._purse.spend(cost)
        self._spent += cost
        self._last = chains._replace(**self._known)
        return self._last

    def _put(self, found):
        self.found = found
        self.fitted = _with_chains(self._stage, found)

    def begin(self, key, **more):
        self._put(self._pay(run_chains, key, extent=self.extent, **more))

    def resume(self, chains):
        self._last = chains
        self._put(chains)

    def again(self, keys):
        """As many chains again and again, where that can settle it."""
        rounds = len(keys) + 1
        for done, key in enumerate(keys, 1):
            # noise that all rounds together would not remove
            most = (rounds / done) ** 0.5 * SETTLED_NOISE
            hopeless = moment_noise(self.fitted.diagnostics).max() > most
            if self.fitted.settled or not self.fitted.sound or hopeless:
                break
            if not self._purse.allows(expected_gradients(self._target.dim)):
                break
            self._put(pool(self.found, self._pay(run_chains, key, extent=self.extent)))

    def longer(self, keys):
        """Chains for as long again and again, where that can settle it."""
        for left, key in zip(range(len(keys), 0, -1), keys, strict=True):
            d = self._stage.diagnostics
            shorter = steps_too_long(self.found, d, left)
            in_time = shorter or would_forget(self.found, d, left)
            if self.fitted.settled or not in_time or not self.further(key, shorter):
                break

    def further(self, key, shorter=False):
        """Chains for as long again, if that can be paid for."""
        before, calls = int(self._last.num_gradients), self._last.course.apart
        if not self._purse.allows(before):
            return False
        more = {"calls": calls, "before": before, "shorter": shorter}
        self._put(self._pay(go_on, self._last, key, **more))
        return True

    def end(self, name):
        seconds = (time.perf_counter() - self.began, 0.0)
        return self.fitted._replace(name=name, num_gradients=self._spent, seconds=seconds)


def chain_stage(
    stage: Fitted,
    job: Job,
    key: Array,
    start_error: float = _START_ERROR,
    begin_at: Fitted | None = None,
    where: tuple[Family, PyTree] | None = None,
    begun: Chains | None = None,
    extent: Extent | None = None,
) -> Fitted:
    """A stage whose corrected moments and draws are those of short chains from its draws.

    Args:
        stage: the stage.
        job: what stages share.
        key: a typed random key.
        start_error: how far off they may begin, in sds, whatever they move.
        begin_at: a stage at whose draws they begin instead, by their weights, tempered; or, of
            chains, where these have ended.
        where: another family and its parameters, in whose coordinates they run.
        begun: chains of this very stage, which was ended early; they go on if they can.
        extent: how many they are, and how long; many by default.
    """
    dim, dtype = job.target.dim, job.target.dtype
    family, params = where or (stage.family, stage.params)
    before = began = None
    if begun is not None:
        start_error, began = begun.start_error, begun.began
    if begin_at is not None and begin_at.chains is not None:
        before = begin_at.chains
        start_error = max(start_error, float(still_missing(before, begin_at.diagnostics).max()))
        began = before.moments
    extent = extent or many(dim)
    run = _Runner(stage, job, (family, params), start_error, extent, began)
    first_key, *keys = split(key, 1 + max(job.rounds, job.doublings))
    more = {}
    if begin_at is not None:
        number = extent.chains
        if before is not None:
            draws = before.draws[-number:]
        else:
            draws = resampled(begin_at.diagnostics, number, generator(first_key)).points
        more = {"first": enter(family, params, jnp.asarray(draws, dtype))}
    if begun is not None and begun.course is not None:
        run.resume(begun)
    else:
        run.begin(first_key, **more)
        if extent is not LONG:
            run.again(keys[: job.rounds - 1])
    # noise that other chains are to remove, and long ones alone
    if extent is LONG or not run.fitted.sound:
        run.longer(keys[: job.doublings])
    return run.end(f"chains {stage.name}")


def across_seams(stage: Fitted, job: Job, key: Array) -> tuple[Fitted, Fitted]:
    """A flow, and chains from its draws in coordinates in which these are merely standardised.

    A flow maps all of space, and has to cut a ring, or clusters that touch, somewhere. Its draws
    thin out at the cut, weights know only of what was drawn, and for chains in its coordinates the
    cut lies infinitely far out: three of seven flows on a ring were trusted, a mean 0.15 sd off.

    Args:
        stage: the flow, perhaps with chains in its own coordinates.
        job: what stages share.
        key: a typed random key.

    Returns:
        the stage, with a `seam` if it had settled and these chains contradict its moments or
        know better, and the chains as a stage of their own.
    """
    d, family, target = stage.diagnostics, FullRankGaussian(), job.target
    start_key, first_key, *keys = split(key, 2 + job.doublings)
    moved = move(family, d.draws, d.log_weights)
    weights = softmax(np.asarray(d.log_weights, float))
    extent = many(target.dim)
    number = extent.chains
    which = at_levels(weights, number, generator(start_key).random())
    first = jnp.asarray(family.frame(moved).invert(d.draws[which]), target.dtype)
    run = _Runner(stage, job, (family, on_device(target, moved)), _START_ERROR, extent)
    run.begin(first_key, first=first)
    if not stage.settled:
        if not run.fitted.sound:
            run.longer(keys)
        return stage, run.end("chains across")
    states = np.asarray(run.found.draws, float).reshape(-1, number, target.dim)
    seam, visible = contradiction(np.asarray(d.draws, float), weights, states)
    if not run.fitted.sound:
        run.longer(keys if seam else keys[:1] if visible else [])
    # to contradict an sd they need not forget
    beyond, at_all = sds_apart(d, run.found)
    for key in keys:
        if beyond or not at_all or not run.further(key):
            break
        beyond, at_all = sds_apart(d, run.found)
    seam, visible = max(seam, beyond), max(visible, at_all)
    if run.fitted.answers:  # then they have no seam, and what is visible need not stand out
        seam = visible
    return stage._replace(seam=seam), run.end("chains across")


def _with_chains(stage: Fitted, chains: Chains) -> Fitted:
    d = stage.diagnostics
    number, own = len(chains.draws), np.asarray(d.own)
    log_weights = [np.full(own.sum(), -np.inf), np.full(number, -np.log(number))]
    draws = np.concatenate([np.asarray(d.draws)[own], chains.draws])
    seen: Any = {  # arrays of the host, as all of a stage's
        "corrected": chains.moments,
        "draws": draws,
        "log_weights": np.concatenate(log_weights).astype(draws.dtype),
        "own": np.arange(len(draws)) < own.sum(),
    }
    diagnostics = d._replace(**seen)
    status = stage.status.left
    return stage._replace(diagnostics=diagnostics, chains=chains, num_skipped=0, status=status)
