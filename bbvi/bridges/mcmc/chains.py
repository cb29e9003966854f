"""What every sampler gives."""

from typing import NamedTuple

import numpy as np

from bbvi._types import PyTree

# What all samplers aim for.
TARGET_ACCEPTANCE = 0.8
# In units of the posterior's sds. Dual averaging tries ten times the first step, and steps far
# above one leave the range in which single precision can tell energies apart.
FIRST_STEP = 0.1


class Chains(NamedTuple):
    """What MCMC gave.

    Attributes:
        draws: in the user's structure, each leaf with leading axes (chains, draws).
        warmup_gradients: gradient evaluations of the warm-up, all chains together.
        num_gradients: those of the draws.
        num_divergent: divergent transitions among the draws.
        step_size: of each chain, (chains,).
    """

    draws: PyTree
    warmup_gradients: int
    num_gradients: int
    num_divergent: int
    step_size: np.ndarray
