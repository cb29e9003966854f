"""What every bridge gives, and supports whose maps are another system's own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._types import Array, LogJoint, PyTree
from bbvi.bijectors import Bijector


class Bridged(NamedTuple):
    """A model of another system as `bbvi.fit` takes it.

    `bbvi.fit(b.log_joint, b.init, b.data, support=b.support)` fits it, and
    `b.postprocess(result.posterior.sample(key, num_draws))` gives draws under the names and in
    the values of the other system.

    Attributes:
        log_joint: `log_joint(params, data)`; the same object for the same model, so that a refit
            with new data of the same shapes compiles nothing.
        init: a point to start from.
        data: the arrays the model was given.
        support: the supports of the parameters, or None where all are real.
        postprocess: draws in the structure of `init`, with a leading axis S, to a dictionary of
            all the model's values by the other system's names, each with the leading axis S.
    """

    log_joint: LogJoint
    init: PyTree
    data: PyTree
    support: PyTree
    postprocess: Callable[[PyTree], dict[str, Any]]


class Maps(NamedTuple):
    """One constraint of another system, as the functions that a support needs.

    Attributes:
        forward: the constrained value of an unconstrained one.
        log_det: log |det| of the derivative at an unconstrained value, a scalar.
        inverse: the unconstrained value of a constrained one.
        contains: whether a constrained value lies inside, a scalar.
    """

    forward: Callable[[Array], Array]
    log_det: Callable[[Array], Array]
    inverse: Callable[[Array], Array]
    contains: Callable[[Array], Array]


@dataclass(frozen=True)
class HomeSupport(Bijector):
    r"""The support of a variable of another system, by that system's own map.

    Densities on the unconstrained space are then the other system's to the last digit, bounds
    that depend on other variables or on the data included.

    Args:
        label: words for messages.
        find: `find(params, data)` gives the `Maps` where the other variables are `params`; it
            counts by identity.
        shape: of the constrained value.
        free_shape: of the unconstrained value.
        maps: what `find` gave, inside a trace; None outside of one.
    """

    label: str
    find: Callable[[PyTree, PyTree], Maps]
    shape: tuple[int, ...]
    free_shape: tuple[int, ...]
    maps: Maps | None = field(default=None, compare=False)

    redundant = True

    @property
    def name(self) -> str:
        return self.label

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        """One value of the support, which is computed from the variables that it depends on."""
        return (lambda params, data: self.find(params, data).forward(jnp.zeros(self.free_shape)),)

    def bind(self, params: PyTree, data: PyTree) -> Bijector:
        return replace(self, maps=self.find(params, data))

    def unconstrained_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        if tuple(shape) != self.shape:
            raise ValueError(f"{self.name} is for shape {self.shape}, not {tuple(shape)}.")
        return self.free_shape

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        maps = self._bound()
        return maps.forward(x).astype(x.dtype), maps.log_det(x).astype(x.dtype)

    def inverse(self, y: Array) -> Array:
        return self._bound().inverse(y)

    def contains(self, y: Array) -> Array:
        return self._bound().contains(y)

    def _bound(self) -> Maps:
        if self.maps is None:
            raise TypeError(f"{self.name} depends on the data: call bind(params, data) first.")
        return self.maps


def require(package: str, extra: str, who: str) -> ModuleType:
    """Import a package of an extra, or say which extra has it.

    Args:
        package: dotted name of the module.
        extra: the extra of bbvi that installs it.
        who: the function that needs it, for the message.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        top = package.split(".")[0]
        raise ImportError(f"{who} needs {top}: pip install 'bbvi[{extra}]'.") from error


class Setting:
    """A value that is part of a compiled program; hashed by value where it can be.

    Args:
        value: anything; arrays are compared by their bytes, what has no hash by identity.
    """

    def __init__(self, value: Any):
        self.value = value
        try:
            # 1, 1.0 and True are equal, but a model may treat them differently
            self._key: tuple = (type(value), value)
            hash(self._key)
        except TypeError:
            if isinstance(value, np.ndarray):
                self._key = (value.shape, value.dtype.str, value.tobytes())
            else:
                self._key = (type(value), id(value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Setting) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def depends(function: Callable[..., list], args: tuple) -> list[bool]:
    """For each entry of the list that `function(*args)` returns, whether it depends on `args`."""
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    moved = {id(v) for v in closed.jaxpr.invars}
    for eqn in closed.jaxpr.eqns:
        if any(id(v) in moved for v in eqn.invars):
            moved |= {id(v) for v in eqn.outvars}
    outputs = [id(v) in moved for v in closed.jaxpr.outvars]
    counts = [len(jax.tree.leaves(entry)) for entry in shape]
    ends = np.cumsum(counts)
    return [any(outputs[end - n : end]) for n, end in zip(counts, ends, strict=True)]


def is_array(x: Any) -> bool:
    """Whether a model's argument is data; numbers, words and functions are settings."""
    return hasattr(x, "dtype") and hasattr(x, "shape") and x.dtype.kind in "biufcV"
