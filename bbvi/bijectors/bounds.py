"""Bounds: a number, an array or a function, and what constraints between bounds share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._types import Array, PyTree
from bbvi.bijectors.base import Bijector, spread

# A number, an array, or a function (params, data) -> number or array.
Bound = Any


@dataclass(frozen=True)
class ArrayBound:
    """The values of an array bound, kept as bytes so that they hash and compare by value."""

    shape: tuple[int, ...]
    buffer: bytes

    @property
    def value(self) -> np.ndarray:
        """The bound as an array."""
        return np.frombuffer(self.buffer, np.float64).reshape(self.shape)


class EvaluatedBound:
    """What a bound function returned: perhaps a tracer, hence no hash."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: Any):
        self.value = jnp.asarray(value)


def _store(bound: Bound) -> Bound:
    """Bring a user's bound into the form a frozen dataclass can hold."""
    if isinstance(bound, (ArrayBound, EvaluatedBound)) or callable(bound):
        return bound
    if isinstance(bound, jax.core.Tracer):
        return EvaluatedBound(bound)
    try:
        value = np.asarray(bound, np.float64) + 0.0  # -0.0 and 0.0 are one bound: one hash
    except (TypeError, ValueError):
        raise TypeError(
            "A bound must be a number, an array or a function (params, data) -> bound, "
            f"not {bound!r}."
        ) from None
    return float(value) if value.ndim == 0 else ArrayBound(value.shape, value.tobytes())


def fixed(bound: Bound) -> np.ndarray | None:
    """The values of a stored bound, or None where only a trace knows them."""
    if isinstance(bound, float):
        return np.asarray(bound)
    return bound.value if isinstance(bound, ArrayBound) else None


def _words(bound: Bound) -> str:
    if isinstance(bound, float):
        return str(bound)
    if isinstance(bound, ArrayBound):
        value = bound.value
        return str(value.tolist()) if value.size <= 8 else f"<array of shape {bound.shape}>"
    if isinstance(bound, EvaluatedBound):
        return f"<evaluated, shape {bound.value.shape}>"
    return getattr(bound, "__name__", type(bound).__name__)


@dataclass(frozen=True)
class Bounded(Bijector):
    """What the half-lines and the interval share: every dataclass field is a bound."""

    constructor: ClassVar[str]

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _store(getattr(self, field.name)))
        for bound in self._bounds:
            value = fixed(bound)
            if value is not None and np.isnan(value).any():
                raise ValueError(f"{self.name}: a bound is NaN.")
            if value is not None and np.isinf(value).any():
                raise ValueError(f"{self.name}: a bound is infinite; {self._infinite_advice()}.")

    @property
    def _bounds(self) -> list[Bound]:
        return [getattr(self, field.name) for field in fields(self)]

    def _infinite_advice(self) -> str:
        """What to use instead of an infinite bound, for the message."""
        return "use `real` for a parameter without a bound"

    @property
    def name(self) -> str:
        return f"{self.constructor}({', '.join(map(_words, self._bounds))})"

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        return tuple(bound for bound in self._bounds if callable(bound))

    def bind(self, params: PyTree, data: PyTree) -> Bijector:
        if not self.functions:
            return self
        changes = {
            field.name: EvaluatedBound(getattr(self, field.name)(params, data))
            for field in fields(self)
            if callable(getattr(self, field.name))
        }
        return replace(self, **changes)

    def unconstrained_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        shape = tuple(shape)
        for bound in self._bounds:
            if not isinstance(bound, float) and not callable(bound):
                self._check_broadcast(bound.value.shape, shape)
        return shape

    def _check_broadcast(self, bound_shape: tuple[int, ...], shape: tuple[int, ...]) -> None:
        try:
            fits = np.broadcast_shapes(bound_shape, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"{self.name}: a bound of shape {bound_shape} does not broadcast to the "
                f"parameter's shape {shape}."
            )

    def _values(self, x: Array) -> list[Array]:
        """The bounds as arrays of x's shape and dtype."""
        if self.functions:
            raise ValueError(
                f"{self.name} has a bound that is a function; call bind(params, data) first."
            )
        self.unconstrained_shape(x.shape)
        return [
            spread(bound if isinstance(bound, float) else bound.value, x) for bound in self._bounds
        ]
