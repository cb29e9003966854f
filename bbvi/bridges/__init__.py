"""Models of other systems as log joints, and results for them: a file that bears its name for each.

Nothing here imports the other system before a function is called.
"""

from bbvi.bridges import arviz, blackjax, mcmc, numpyro, pymc, stan, tfp
from bbvi.bridges.base import Bridged

__all__ = ["Bridged", "arviz", "blackjax", "mcmc", "numpyro", "pymc", "stan", "tfp"]
