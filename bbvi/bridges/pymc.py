r"""PyMC models, and Bambi's, which are PyMC models.

The parameters are PyMC's own unconstrained value variables (`tau_log__`, `w_simplex__`, ...): one
density for every transform PyMC has, those with bounds that depend on other variables included,
equal to PyMC's to the last digit, and with names that say which scale they are on. `postprocess`
gives the variables and deterministics themselves. `pm.Data` containers are data.

PyTensor computes in `pytensor.config.floatX`, 64 bits unless you say otherwise, and switches JAX
to that precision when its JAX backend is loaded.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._compile import plain_jit
from bbvi._types import Array, PyTree
from bbvi.bridges.base import Bridged, require
from bbvi.status import InputError


def from_model(model: Any) -> Bridged:
    """A PyMC model as `bbvi.fit` takes it.

    After `pm.set_data` call this again: with data of the same shapes the next fit compiles
    nothing.

    Args:
        model: a `pymc.Model` whose free variables are all continuous.

    Returns:
        log joint, start, data and `postprocess`, which gives all free variables and
        deterministics in constrained values.

    Raises:
        ImportError: if pymc is not installed.
        InputError: if the model has discrete or no free variables.

    Example:
        >>> import bbvi, pymc as pm                                        # doctest: +SKIP
        >>> with pm.Model() as model:                                      # doctest: +SKIP
        ...     sigma = pm.HalfNormal("sigma", 1)
        ...     pm.Normal("y", 0, sigma, observed=pm.Data("data", [1.0, -2.0]))
        >>> b = bbvi.bridges.pymc.from_model(model)                         # doctest: +SKIP
        >>> result = bbvi.fit(b.log_joint, b.init, b.data)                  # doctest: +SKIP
        >>> b.postprocess(result.posterior.sample(0, 1000))["sigma"]        # doctest: +SKIP
    """
    require("pymc", "pymc", "bbvi.bridges.pymc.from_model")
    if model.discrete_value_vars:
        names = ", ".join(v.name for v in model.discrete_value_vars)
        raise InputError(f"{names} is discrete: sum it out, for example with pymc.Mixture.")
    if not model.value_vars:
        raise InputError("the model has no free variable: nothing is left to fit.")
    # a model may grow after it was bridged
    parts = tuple(v.name for v in [*model.basic_RVs, *model.potentials, *model.deterministics])
    # lengths of dimensions become constants
    parts += tuple((name, _number(length)) for name, length in model.dim_lengths.items())
    problem = _problem(model, parts)
    data = {v.name: v.get_value() for v in problem.shared} or None
    return Bridged(
        problem,
        problem.start(data),
        data,
        None,
        lambda draws: _all_variables(problem, draws, data),
    )


def from_bambi(model: Any) -> Bridged:
    """A Bambi model as `bbvi.fit` takes it, through the PyMC model that it builds.

    Args:
        model: a `bambi.Model`; it is built if it was not.

    Returns:
        as `from_model`, under Bambi's names.

    Raises:
        ImportError: if bambi is not installed.

    Example:
        >>> import bambi, bbvi                                             # doctest: +SKIP
        >>> model = bambi.Model("y ~ x + (1|group)", frame)                 # doctest: +SKIP
        >>> b = bbvi.bridges.pymc.from_bambi(model)                         # doctest: +SKIP
    """
    require("bambi", "bambi", "bbvi.bridges.pymc.from_bambi")
    if not model.built:
        model.build()
    return from_model(model.backend.model)


class _Problem:
    """One PyMC model in JAX; the log joint. It counts by identity and is made once."""

    def __init__(self, model: Any):
        from pymc.sampling.jax import get_jaxified_graph
        from pytensor.graph.replace import clone_replace

        self._model = model
        self.shared = [v for v in model.data_vars if hasattr(v, "get_value")]
        self.values = tuple(v.name for v in model.value_vars)
        self.reported = tuple(v.name for v in model.unobserved_RVs)
        stands = {v: v.type() for v in self.shared}
        inputs = [*model.value_vars, *stands.values()]
        log_density = clone_replace([model.logp()], replace=stands)
        reported = clone_replace(model.replace_rvs_by_values(model.unobserved_RVs), replace=stands)
        self._log_density = get_jaxified_graph(inputs, log_density)
        self._reported = get_jaxified_graph(inputs, reported)
        self._starts: dict[tuple, dict[str, np.ndarray]] = {}

    def __call__(self, params: PyTree, data: PyTree = None) -> Array:
        return jnp.asarray(self._log_density(*self._arguments(params, data))[0])

    def report(self, params: PyTree, data: PyTree) -> dict[str, Array]:
        """Free variables and deterministics by name."""
        values = self._reported(*self._arguments(params, data))
        return dict(zip(self.reported, values, strict=True))

    def start(self, data: PyTree) -> dict[str, np.ndarray]:
        """PyMC's initial point; it is compiled once for data of the same shapes."""
        shapes = tuple((name, x.shape) for name, x in (data or {}).items())
        if shapes not in self._starts:
            point = self._model.initial_point(random_seed=0)
            # an ordered vector whose prior means are equal starts at log(0)
            self._starts[shapes] = {
                name: np.nan_to_num(np.asarray(point[name]), posinf=0.0, neginf=0.0)
                for name in self.values
            }
        return dict(self._starts[shapes])

    def _arguments(self, params: PyTree, data: PyTree) -> list[Array]:
        return [params[name] for name in self.values] + [data[v.name] for v in self.shared]


def _number(length: Any) -> Any:
    """The length of a dimension, which is a shared variable or a constant."""
    return int(length.get_value()) if hasattr(length, "get_value") else int(length.data)


@lru_cache(maxsize=64)
def _problem(model: Any, parts: tuple) -> _Problem:
    del parts  # part of the key
    return _Problem(model)


@plain_jit((0,))
def _all_variables(problem: _Problem, draws: PyTree, data: PyTree) -> dict[str, Array]:
    return jax.vmap(lambda params: problem.report(params, data))(draws)
