"""pymc-extras: Pathfinder and DADVI."""

import numpy as np
import pymc_extras as pmx

from .base import DRAWS, Fit, Problem, Run
from .pymc_model import flat_draws, pymc_model


def pathfinder(problem: Problem, **settings) -> Run:
    # a process a path, its default, cannot take the JAX density along
    settings |= {"parallel": False, "num_draws": DRAWS, "num_draws_per_path": DRAWS}
    model = pymc_model(problem)

    def run(key: int) -> Fit:
        tree = pmx.fit("pathfinder", model=model, random_seed=key, progressbar=False, **settings)
        path = tree.pathfinder
        khat = float(path.pareto_k) if "pareto_k" in path else np.nan
        said = [] if khat <= 0.7 else [f"k-hat {khat:.2f}"]
        said += path.attrs.get("warnings", [])
        return Fit(flat_draws(tree, problem.dim).reshape(-1, problem.dim), None, "; ".join(said))

    return run


def dadvi(problem: Problem, **settings) -> Run:
    settings |= {"n_draws": DRAWS}
    model = pymc_model(problem)

    def run(key: int) -> Fit:
        tree = pmx.fit("dadvi", model=model, random_seed=key, progressbar=False, **settings)
        return Fit(flat_draws(tree, problem.dim).reshape(-1, problem.dim), None)

    return run
