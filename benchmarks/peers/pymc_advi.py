"""PyMC's ADVI, mean-field and full-rank."""

import pymc as pm

from .base import DRAWS, Fit, Problem, Run
from .pymc_model import flat_draws, pymc_model


def fit(
    problem: Problem,
    method: str,
    steps: int = 10_000,
    draws: int = 1,
    rate: float | None = None,
) -> Run:
    model = pymc_model(problem)
    more = {} if rate is None else {"obj_optimizer": pm.adam(learning_rate=rate)}

    def run(key: int) -> Fit:
        with model:
            approximation = pm.fit(
                steps, method=method, random_seed=key, obj_n_mc=draws, progressbar=False, **more
            )
            tree = approximation.sample(DRAWS, random_seed=key)
        return Fit(flat_draws(tree, problem.dim)[0], steps * draws)

    return run
