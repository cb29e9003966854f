"""One of the rounds in which a fit by points is made, and judged."""

from typing import Any, NamedTuple

import numpy as np

from bbvi.diagnostics.evidence import SD_TOLERANCE, SETTLED_NOISE, efficiency, moment_noise
from bbvi.stages.latent.nested_laplace import Tails
from bbvi.stages.stage import Fitted, Job

# By what share sds may be below those of the density between points. Of a curve whose height has a
# long tail fits with sds 12 and 13% short, and even weights, were; one 10.5% short was by 7%, since
# that density is short itself of a tail beyond the points.
SHORT = SD_TOLERANCE / 2
# With how many effective draws, as a share of an exact fit's, weights tell something of
# hyperparameters, beside splines of their density; and how much noise four times as many draws
# remove.
TELLING, _LITTLE = 0.25, 2 * SETTLED_NOISE


class Round(NamedTuple):
    """A fit by points so far, and what the density between these says beside its draws.

    Attributes:
        number: how many rounds were before it.
        stage: the fit.
        tails: of hyperparameters.
        looked: whether it is known what other stages have seen that it misses.
    """

    number: int
    stage: Fitted
    tails: Tails
    looked: bool = False

    @property
    def short(self) -> float:
        """By what share sds of hyperparameters are below what the density between points says."""
        sd = np.asarray(self.stage.diagnostics.corrected.sd, float)[self.tails.alone]
        with np.errstate(all="ignore"):
            return float(np.max(np.nan_to_num(self.tails.sd / sd - 1), initial=0.0))

    @property
    def whole(self) -> bool:
        """Whether it settles, and lacks no tail of a hyperparameter."""
        return self.stage.settled and self.short <= SHORT

    @property
    def nearly(self) -> bool:
        """Whether nothing keeps it from settling but noise that some more draws remove."""
        d = self.stage.diagnostics
        noisy = self.stage.only_noisy and bool(moment_noise(d).max() <= _LITTLE)
        return noisy and self.short <= SHORT and bool(efficiency(d) >= TELLING)

    @property
    def rank(self) -> tuple[bool, float]:
        """What of several rounds the best has most of."""
        return self.whole, float(np.nan_to_num(efficiency(self.stage.diagnostics)))

    def but(self, **changed: Any) -> "Round":
        """The round, of whose fit some fields are others."""
        return self._replace(stage=self.stage._replace(**changed))

    def looked_at(self, job: Job) -> tuple["Round", int]:
        """The round, with what others have seen that it misses, and the gradients of a look."""
        if self.looked:
            return self, 0
        seen = job.look(self.stage)
        found = self._replace(stage=seen, looked=True).but(
            num_gradients=0, unseen=self.stage.unseen
        )
        return found, seen.num_gradients
