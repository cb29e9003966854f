"""The same density as a PyMC model: a flat vector and pytensor's JAX op as a potential."""

import pymc as pm
from pytensor import wrap_jax

from .base import Problem


def pymc_model(problem: Problem) -> pm.Model:
    # the start of a flat variable is zero
    with pm.Model() as model:
        z = pm.Flat("z", shape=problem.dim)
        pm.Potential("density", wrap_jax(lambda z: problem.bound(z))(z))
    return model


def flat_draws(tree, dim: int):
    """(chains, draws, D) of the posterior group."""
    return tree.posterior["z"].values.reshape(*tree.posterior["z"].shape[:2], dim)
