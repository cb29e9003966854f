"""nutpie's NUTS on the jitted density and its gradient."""

import jax
import numpy as np
import nutpie
from nutpie.compiled_pyfunc import from_pyfunc

from .base import Fit, Problem, Run, rhat_over


def fit(problem: Problem, **settings) -> Run:
    value_and_grad, dim = jax.jit(jax.value_and_grad(problem.bound)), problem.dim

    def make_density():
        def density(z):
            value, grad = value_and_grad(z)
            return float(value), np.asarray(grad)

        return density

    model = from_pyfunc(
        dim,
        make_density,
        lambda seed, _, chain: lambda z: {"z": z},
        expanded_dtypes=[np.dtype("float64")],
        expanded_shapes=[(dim,)],
        expanded_names=["z"],
    )

    def run(key: int) -> Fit:
        tree = nutpie.sample(model, seed=key, progress_bar=False, **settings)
        stats, z = tree.sample_stats, tree.posterior["z"].values
        steps = stats["n_steps"].values.sum() + tree.warmup_sample_stats["n_steps"].values.sum()
        diverging = int(stats["diverging"].values.sum())
        said = [f"{diverging} divergences"] if diverging else []
        said += filter(None, [rhat_over(z)])
        return Fit(z.reshape(-1, dim), int(steps), ", ".join(said))

    return run
