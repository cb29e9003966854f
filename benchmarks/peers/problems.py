"""The problems by name: those of posteriordb, and those kept apart."""

from benchmarks.heldout import HELDOUT
from benchmarks.posteriordb import POSTERIORS

from .base import Problem

SETS = {"posteriordb": list(POSTERIORS), "heldout": list(HELDOUT)}
# A hierarchy: what there is time for in some ten minutes.
QUICK = ["eight_schools-eight_schools_noncentered"]


def load(name: str) -> Problem:
    if name in HELDOUT:
        *problem, moments = HELDOUT[name]()
        return Problem(name, *problem, lambda: moments)
    posterior = POSTERIORS[name]
    model, data = posterior.model, posterior.data()
    init, support = model.init(data), model.support(data)
    return Problem(name, model.log_joint, init, data, support, posterior.moments)
