"""bbvi: black-box variational inference on JAX, right by default and honest when not."""

from importlib import import_module
from typing import TYPE_CHECKING

from bbvi.auto import Auto
from bbvi.bijectors import (
    Bijector,
    Chain,
    corr_cholesky,
    correlation,
    cov_cholesky,
    covariance,
    greater_than,
    interval,
    less_than,
    negative,
    ordered,
    positive,
    positive_ordered,
    real,
    simplex,
    unit_interval,
    unit_vector,
    zero_sum,
)
from bbvi.budget import Budget
from bbvi.diagnostics.figures import Diagnostics
from bbvi.diagnostics.pareto import psis
from bbvi.diagnostics.verdict import Verdict
from bbvi.families import (
    BentGaussian,
    CouplingFlow,
    Family,
    FullRankGaussian,
    GaussianMixture,
    GivenScales,
    LatentGaussian,
    LowRankGaussian,
    MeanFieldGaussian,
    Noncentred,
    SinhArcsinhGaussian,
    StudentT,
    TriangularGaussian,
)
from bbvi.fit import fit
from bbvi.inputs import make_target
from bbvi.objectives import ELBO, Objective
from bbvi.observers import Snapshot
from bbvi.posterior import Posterior
from bbvi.result import FitResult, load
from bbvi.run import run
from bbvi.solvers import (
    BatchAndMatch,
    FixedDraws,
    Pathfinder,
    Solver,
    StochasticGradient,
    linear_response,
)
from bbvi.status import BBVIWarning, FitError, InputError, Status
from bbvi.target import Target

if TYPE_CHECKING:
    from bbvi import bridges
    from bbvi.batch import BatchResult, Ragged, fit_batch, ragged  # type: ignore[no-redef]

__version__ = "0.1.0"

__all__ = [
    "Auto",
    "BBVIWarning",
    "BatchAndMatch",
    "BatchResult",
    "BentGaussian",
    "Bijector",
    "Budget",
    "Chain",
    "CouplingFlow",
    "Diagnostics",
    "ELBO",
    "Family",
    "FitError",
    "FitResult",
    "FixedDraws",
    "FullRankGaussian",
    "GaussianMixture",
    "GivenScales",
    "InputError",
    "LatentGaussian",
    "LowRankGaussian",
    "MeanFieldGaussian",
    "Noncentred",
    "Objective",
    "Pathfinder",
    "Posterior",
    "Ragged",
    "SinhArcsinhGaussian",
    "Snapshot",
    "Solver",
    "Status",
    "StochasticGradient",
    "StudentT",
    "Target",
    "TriangularGaussian",
    "Verdict",
    "bridges",
    "corr_cholesky",
    "correlation",
    "cov_cholesky",
    "covariance",
    "fit",
    "fit_batch",
    "greater_than",
    "interval",
    "less_than",
    "linear_response",
    "load",
    "make_target",
    "negative",
    "ordered",
    "positive",
    "positive_ordered",
    "psis",
    "ragged",
    "real",
    "run",
    "simplex",
    "unit_interval",
    "unit_vector",
    "zero_sum",
]


def __getattr__(name: str) -> object:
    # The batch engine and the bridges are a third of the package's import time, and most
    # scripts use neither: they are read when first asked for.
    if name == "bridges":
        return import_module("bbvi.bridges")
    if name in {"BatchResult", "Ragged", "fit_batch", "ragged"}:
        return getattr(import_module("bbvi.batch"), name)
    raise AttributeError(f"module 'bbvi' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
