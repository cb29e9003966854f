"""Families of approximations: one a file, each a hashable spec beside its parameters."""

from bbvi.families.base import Family, Frame
from bbvi.families.bent import BentGaussian
from bbvi.families.coupling import CouplingFlow
from bbvi.families.fullrank import FullRankGaussian
from bbvi.families.given_scales import GivenScales
from bbvi.families.latent_gaussian import LatentGaussian
from bbvi.families.lowrank import LowRankGaussian
from bbvi.families.marginal import SinhArcsinhGaussian
from bbvi.families.meanfield import MeanFieldGaussian
from bbvi.families.mixture import GaussianMixture
from bbvi.families.noncentred import Noncentred
from bbvi.families.proposals import Proposal
from bbvi.families.student_t import StudentT
from bbvi.families.triangular import TriangularGaussian

__all__ = [
    "BentGaussian",
    "CouplingFlow",
    "Family",
    "Frame",
    "FullRankGaussian",
    "GaussianMixture",
    "GivenScales",
    "LatentGaussian",
    "LowRankGaussian",
    "MeanFieldGaussian",
    "Noncentred",
    "Proposal",
    "SinhArcsinhGaussian",
    "StudentT",
    "TriangularGaussian",
]
