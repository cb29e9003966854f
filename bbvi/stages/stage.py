"""One stage of a fit: what it found, what it cost, and what stages share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from bbvi._types import PyTree
from bbvi.budget import Purse
from bbvi.diagnostics.chain_checks import chain_faults
from bbvi.diagnostics.chains import Chains
from bbvi.diagnostics.evidence import (
    KHAT_HOPELESS,
    LEAST_SHARE,
    MOST_NOISE,
    Aside,
    efficiency,
    is_a_point,
    mean_noise,
    moment_noise,
    needs_correction,
    weights_usable,
)
from bbvi.diagnostics.figures import Diagnostics
from bbvi.diagnostics.judging import is_only_noisy, is_settled
from bbvi.families import Family, Frame
from bbvi.solvers import Solver
from bbvi.solvers.base import RunLog
from bbvi.status import Status
from bbvi.target import Target


class Trace(NamedTuple):
    """The bound along a run.

    Attributes:
        step: (H,) last step of each entry.
        elbo: (H,) mean ELBO over the entry's steps, nats.
        elbo_se: (H,) its standard error.
    """

    step: np.ndarray
    elbo: np.ndarray
    elbo_se: np.ndarray


class Fitted(NamedTuple):
    """What a stage found, and what it cost.

    Attributes:
        name: of the stage.
        solver: what was run.
        family: the family of the approximation.
        params: its parameters.
        diagnostics: figures from fresh draws.
        status: how the run ended.
        drift: how far the averaged parameters last moved, in posterior sds.
        num_steps: steps taken.
        num_gradients: gradient evaluations spent.
        num_skipped: draws left out because they were not finite.
        history: the bound along the run.
        seconds: wall time, compilation included: of the run, and of the judging.
        log: the solver's own log.
        state: the solver's last state, where there is one to go on from.
        far: whether half of its fresh draws lie far out.
        mode_weights: where several modes were found and this misses some, their estimated shares
            of the evidence: first of what it describes, then of those.
        chains: short chains from its draws, whose moments then are the corrected ones.
        left_out: whether it misses visible mass around a start.
        neck: the scalar along which it misses the neck of a funnel, or "".
        endless: names of scales along which the log density does not fall.
        seam: how far its moments move, in sds, where chains leave the flow's coordinates; zero
            where that is no more than noise.
        unseen: by how many sds mass that none of its draws has met may move moments; zero where
            that is little.
        short: by how many nats its log evidence lies below what another stage has proven.
        aside: the mode that its sds leave out the most.
    """

    name: str
    solver: Solver
    family: Family
    params: PyTree
    diagnostics: Diagnostics
    status: Status
    drift: float
    num_steps: int
    num_gradients: int
    num_skipped: int
    history: Trace
    seconds: tuple[float, float]
    log: RunLog
    state: Any = None
    far: bool = False
    mode_weights: tuple[float, ...] = ()
    chains: Chains | None = None
    left_out: bool = False
    neck: str = ""
    endless: tuple[str, ...] = ()
    seam: float = 0.0
    unseen: float = 0.0
    short: float = 0.0
    aside: Aside | None = None

    @property
    def frame(self) -> Frame:
        """The units in which it is standard, on the host, where they need no programs."""
        with np.errstate(over="ignore"):  # of an improper posterior they may be past all floats
            return self.family.frame(jax.device_get(self.params))

    @property
    def sound(self) -> bool:
        """Whether its weighted draws, or its chains, can be averaged."""
        if is_a_point(self.diagnostics) or self.seam > 0:
            return False
        if self.chains is None:
            return weights_usable(self.diagnostics)
        return not chain_faults(self.chains, self.diagnostics)

    @property
    def answers(self) -> bool:
        """Whether these averages are known, and not a few draws far out."""
        return self.sound and bool(moment_noise(self.diagnostics).max() <= MOST_NOISE)

    @property
    def corrects(self) -> bool:
        """Whether its weighted draws say more of the moments than the approximation itself.

        Weights that cannot be averaged are a guess, and may be the better one. Their noise is
        taken from the means: the errors of the sds count a tail that no draw has reached, of
        which the approximation knows even less.
        """
        d = self.diagnostics
        guess = self.chains is None and float(d.khat) < KHAT_HOPELESS
        known = self.sound or (guess and bool(mean_noise(d).max() <= MOST_NOISE))
        return known and needs_correction(d)

    @property
    def reached(self) -> Any:
        """Where its chains were, or draws far out (S, D); None where there are neither."""
        if self.chains is not None:
            return self.chains.draws
        d = self.diagnostics
        return d.draws[np.isfinite(d.log_weights)] if self.far else None

    @property
    def sees_all(self) -> bool:
        """Whether no mass is known of that it misses."""
        return not (self.left_out or self.neck or self.endless or self.unseen or self.short)

    @property
    def only_noisy(self) -> bool:
        """Whether it is not settled, for nothing but the noise of draws that count."""
        found = self.diagnostics, self.status, self.chains
        noisy = is_only_noisy(*found) and not is_settled(*found)
        return noisy and bool(efficiency(self.diagnostics) >= LEAST_SHARE)

    @property
    def settled(self) -> bool:
        """Whether it needs no richer stage after it."""
        return (
            self.sees_all
            and not self.seam
            and is_settled(self.diagnostics, self.status, self.chains)
        )


# `show(name, make)` is the stage that `make()` gives.
Show = Callable[[str, Callable[[], Fitted]], Fitted]


def plain_stage(name: str, make: Callable[[], Fitted]) -> Fitted:
    """A stage that is made without a word."""
    return make()


class Job(NamedTuple):
    """What the later stages of one fit share.

    Attributes:
        target: the target.
        data: the user's data.
        purse: what may be spent, and is.
        show: shows a stage.
        look: the stage, with what is known of the mass that it misses.
        rounds: as many short chains again are run, so often at most, where that can settle a stage.
        doublings: chains that are slow or diverge go on for as long again, so often at most, where
            that can.
    """

    target: Target
    data: PyTree
    purse: Purse
    show: Show
    look: Callable[[Fitted], Fitted]
    rounds: int
    doublings: int
