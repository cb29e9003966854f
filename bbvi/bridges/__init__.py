"""Models of other systems as log joints, and results for them: one file for each system.

Nothing here imports the other system before a function is called.
"""

from bbvi.bridges import arviz, blackjax, mcmc, numpyro, pymc, stan, tfp
from bbvi.bridges.base import Bridged

__all__ = ["Bridged", "arviz", "blackjax", "mcmc", "numpyro", "pymc", "stan", "tfp"]
