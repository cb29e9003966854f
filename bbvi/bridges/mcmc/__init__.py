"""A fit handed on to MCMC: what a sampler starts from, and NUTS of three packages."""

from bbvi.bridges.mcmc.chains import Chains
from bbvi.bridges.mcmc.space import BaseSpace
from bbvi.bridges.mcmc.start import McmcStart, to_mcmc

__all__ = ["BaseSpace", "Chains", "McmcStart", "to_mcmc"]
