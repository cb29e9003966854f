r"""Stan models, through BridgeStan.

The parameters are Stan's own unconstrained ones, with `_unc` behind their names (`tau_unc`), since
that is the space its density and gradient are given on; `postprocess` gives parameters,
transformed parameters and generated quantities under Stan's names in constrained values. Density
and gradient come from Stan in one callback for all draws, one gradient for each; there are no
second derivatives.

JAX calls back from threads of its own. Stan's tape is not made for that unless the model was
compiled with STAN_THREADS, so a lock lets one call in at a time.

The data are part of BridgeStan's model object. Which object is meant is an argument of the compiled
program, so the same Stan program with other data of the same shapes compiles nothing.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._types import Array, PyTree
from bbvi.bridges.base import Bridged, require
from bbvi.status import InputError

_SUFFIX = "_unc"
_lock = threading.Lock()
# Models by the number that stands for them in a compiled program; kept while the process lives,
# as a posterior may ask for its density at any time.
_models: list[Any] = []


def from_model(model: Any, data: Mapping[str, Any] | None = None, *, seed: int = 0) -> Bridged:
    """A Stan model as `bbvi.fit` takes it.

    Args:
        model: a `bridgestan.StanModel`, or the path of a `.stan` file or of a compiled model,
            which needs BridgeStan and a C++ compiler.
        data: Stan's data by name, where `model` is a path.
        seed: of the generated quantities.

    Returns:
        log joint, start at zero on the unconstrained space, a number for the model as data, and
        `postprocess`, which runs on the host.

    Raises:
        ImportError: if bridgestan is not installed.
        InputError: if there are no parameters, or data are given twice.

    Example:
        >>> import bbvi                                                    # doctest: +SKIP
        >>> data = {"J": 8, "y": y, "sigma": sigma}                        # doctest: +SKIP
        >>> b = bbvi.bridges.stan.from_model("schools.stan", data)          # doctest: +SKIP
        >>> result = bbvi.fit(b.log_joint, b.init, b.data)                  # doctest: +SKIP
        >>> b.postprocess(result.posterior.sample(0, 1000))["theta"]        # doctest: +SKIP

    Source: Roualdes, Ward, Carpenter, Seyboldt and Axen 2023, JOSS 8(87).
    """
    if isinstance(model, (str, os.PathLike)):
        bridgestan = require("bridgestan", "stan", "bbvi.bridges.stan.from_model")
        text = json.dumps(dict(data or {}), default=lambda x: np.asarray(x).tolist())
        model = bridgestan.StanModel(os.fspath(model), data=text)
    elif data is not None:
        raise InputError("a bridgestan.StanModel holds its data: give data with a path only.")
    layout = tuple((name, shape) for name, shape in _shapes(model.param_unc_names()).items())
    if not layout:
        raise InputError("the model has no parameters: nothing is left to fit.")
    if model not in _models:
        _models.append(model)
    density = _Density(layout)
    init = {name + _SUFFIX: np.zeros(shape) for name, shape in layout}
    handle = {"model": np.int32(_models.index(model))}
    return Bridged(density, init, handle, None, lambda draws: _report(model, density, draws, seed))


@dataclass(frozen=True)
class _Density:
    """The log joint of every Stan model with these unconstrained parameters; equal by value."""

    layout: tuple[tuple[str, tuple[int, ...]], ...]

    def __call__(self, params: PyTree, data: PyTree) -> Array:
        return _log_density(self.flatten(params), data["model"])

    def flatten(self, params: PyTree) -> Array:
        """The vector (D,) that Stan takes, in Stan's order."""
        return jnp.concatenate([jnp.ravel(params[name + _SUFFIX]) for name, _ in self.layout])


@jax.custom_vjp
def _log_density(u: Array, handle: Array) -> Array:
    return _value_and_gradient(u, handle)[0]


def _forward(u, handle):
    return _value_and_gradient(u, handle)


def _backward(gradient, cotangent):
    return cotangent * gradient, None


_log_density.defvjp(_forward, _backward)


def _value_and_gradient(u: Array, handle: Array) -> tuple[Array, Array]:
    """Stan's log density with its Jacobian at `u` (D,), and its gradient (D,)."""
    shapes = jax.ShapeDtypeStruct((), u.dtype), jax.ShapeDtypeStruct(u.shape, u.dtype)
    # all draws of a batch in one call
    return jax.pure_callback(_ask_stan, shapes, u, handle, vmap_method="broadcast_all")


def _ask_stan(u: Any, handle: Any) -> tuple[np.ndarray, np.ndarray]:
    points = np.asarray(u)
    rows = points.reshape(-1, points.shape[-1]).astype(np.float64)
    model = _models[int(np.ravel(np.asarray(handle))[0])]
    values, gradients = np.empty(len(rows)), np.zeros(rows.shape)
    with _lock:
        for i, row in enumerate(rows):
            try:
                values[i], gradients[i] = model.log_density_gradient(
                    row, propto=True, jacobian=True
                )
            except RuntimeError:  # what Stan's own samplers take for a point outside
                values[i] = -np.inf
    shape = points.shape[:-1]
    with np.errstate(over="ignore"):  # too large for float32 is infinite, which is masked
        values, gradients = values.astype(points.dtype), gradients.astype(points.dtype)
    return values.reshape(shape), gradients.reshape(points.shape)


def _report(model: Any, density: _Density, draws: PyTree, seed: int) -> dict[str, np.ndarray]:
    """All of Stan's values for draws with a leading axis S."""
    rows = np.asarray(jax.vmap(density.flatten)(draws), np.float64)
    names = model.param_names(include_tp=True, include_gq=True)
    shapes = _shapes(names)
    found = {name: np.empty((len(rows), *shape)) for name, shape in shapes.items()}
    with _lock:
        rng = model.new_rng(seed)
        for i, row in enumerate(rows):
            values = model.param_constrain(row, include_tp=True, include_gq=True, rng=rng)
            for name, value in zip(names, values, strict=True):
                base, index = _split_name(name)
                found[base][(i, *index)] = value
    return found


def _split_name(name: str) -> tuple[str, tuple[int, ...]]:
    """`theta.2.1` as `theta` and the index (1, 0)."""
    base, *parts = name.split(".")
    if all(part.isdigit() for part in parts):
        return base, tuple(int(part) - 1 for part in parts)
    return name, ()  # a part of a complex number or of a tuple


def _shapes(names: list[str]) -> dict[str, tuple[int, ...]]:
    """The shape of each variable, from Stan's names of its entries."""
    shapes: dict[str, tuple[int, ...]] = {}
    for base, index in map(_split_name, names):
        size = tuple(i + 1 for i in index)
        shapes[base] = tuple(map(max, size, shapes.get(base, size)))
    return shapes
