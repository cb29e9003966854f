"""The protocol every constraint follows, and composition."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from bbvi._types import Array, PyTree


@dataclass(frozen=True)
class Bijector(abc.ABC):
    r"""A smooth map from unconstrained reals x onto a constrained set, y = T(x).

    A density p on the constrained set becomes log p(T(x)) + ``log_det`` on the reals. A bijector
    is a specification: it holds no JAX arrays, and is hashed and compared by value, so it can be
    a static argument of `jax.jit`. Axes of y in front of its last ``event_ndim`` are batch axes:
    an array of shape (3, 4, K) under `simplex` is twelve simplexes.

    To add a constraint, subclass with ``@dataclass(frozen=True)``, give it ``name``,
    ``event_ndim``, ``forward_and_log_det``, ``inverse`` and ``contains`` (and
    ``unconstrained_shape`` where x and y differ in shape), and run `bbvi.testing.check_bijector`.

    Attributes:
        name: words for messages, such as ``"interval(0.0, 1.0)"``.
        event_ndim: how many trailing axes of y one constraint acts on: 0 for elementwise maps,
            1 for vectors, 2 for matrices.
        redundant: True when y has more entries than degrees of freedom (a simplex, a symmetric
            matrix). ``log_det`` then refers to a subset of y, and nothing can follow in a `Chain`.

    Example:
        >>> import jax.numpy as jnp
        >>> from bbvi.bijectors import positive
        >>> y, log_det = positive.forward_and_log_det(jnp.log(jnp.array([1.0, 4.0])))
        >>> print(y.round(2), log_det.round(2))
        [1. 4.] 1.39
    """

    redundant: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Words for messages."""

    @property
    def event_ndim(self) -> int:
        """How many trailing axes of y one constraint acts on."""
        return 0

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        """The bounds given as functions ``(params, data) -> bound``; empty when all are fixed."""
        return ()

    def bind(self, params: PyTree, data: PyTree) -> Bijector:
        """Evaluate the bounds that are functions.

        Args:
            params: the user's parameters in constrained space, as far as they are known.
            data: the user's data.

        Returns:
            A copy that holds the evaluated bounds, for use inside the current trace only (it
            cannot be hashed); the bijector itself when it has no such bounds.
        """
        del params, data
        return self

    def unconstrained_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of x for a y of the given shape.

        Args:
            shape: the shape of y, batch axes included.

        Returns:
            The shape of x.

        Raises:
            ValueError: if an array of this shape cannot carry the constraint.
        """
        shape = tuple(shape)
        if len(shape) < self.event_ndim or 0 in shape[len(shape) - self.event_ndim :]:
            words = ("array", "vector of at least one element", "matrix of at least one row")
            raise ValueError(f"{self.name} needs a {words[self.event_ndim]}, not shape {shape}.")
        return shape

    @abc.abstractmethod
    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        """Map x to the constrained set.

        Args:
            x: unconstrained reals, of shape ``unconstrained_shape(y.shape)``.

        Returns:
            y, and the log of the absolute Jacobian determinant summed over everything, a scalar.
            Both have the dtype of x.
        """

    @abc.abstractmethod
    def inverse(self, y: Array) -> Array:
        """Map y back to unconstrained reals; not finite where y is outside the support."""

    @abc.abstractmethod
    def contains(self, y: Array) -> Array:
        """Whether every entry of y is strictly inside the support: a scalar boolean array.

        Equality constraints (a sum, a length, a symmetry) hold to half the digits of the dtype.
        """

    def forward(self, x: Array) -> Array:
        """Map x to the constrained set, without the log-determinant."""
        return self.forward_and_log_det(x)[0]


@dataclass(frozen=True)
class Chain(Bijector):
    r"""Several bijectors one after the other: y = T_n(... T_2(T_1(x))).

    The log-determinants of the parts add up.

    Args:
        parts: the bijectors, in the order in which the forward map applies them.

    Raises:
        TypeError: if a part is not a `Bijector`.
        ValueError: if there are no parts, or if one before the last is ``redundant``: its
            log-determinant refers to a subset of its output, which the next part would mix up.

    Example:
        >>> import jax.numpy as jnp
        >>> from bbvi.bijectors import Chain, ordered, unit_interval
        >>> ordered_probabilities = Chain((ordered, unit_interval))
        >>> print(ordered_probabilities.forward(jnp.array([0.0, jnp.log(jnp.log(3.0))])).round(2))
        [0.5  0.75]
    """

    parts: tuple[Bijector, ...]

    def __init__(self, parts: Iterable[Bijector]):
        parts = tuple(parts)
        if not parts:
            raise ValueError("Chain needs at least one bijector.")
        for part in parts:
            if not isinstance(part, Bijector):
                raise TypeError(f"Chain is built from bijectors, and {part!r} is not one.")
        for part in parts[:-1]:
            if part.redundant:
                raise ValueError(
                    f"{part.name} has more entries than degrees of freedom, so it can only be "
                    "the last part of a Chain."
                )
        object.__setattr__(self, "parts", parts)

    @property
    def name(self) -> str:
        return " then ".join(part.name for part in self.parts)

    @property
    def event_ndim(self) -> int:
        return max(part.event_ndim for part in self.parts)

    @property
    def redundant(self) -> bool:  # type: ignore[override]
        return self.parts[-1].redundant

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        return tuple(function for part in self.parts for function in part.functions)

    def bind(self, params: PyTree, data: PyTree) -> Bijector:
        if not self.functions:
            return self
        return Chain(part.bind(params, data) for part in self.parts)

    def unconstrained_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        shape = tuple(shape)
        for part in reversed(self.parts):
            shape = part.unconstrained_shape(shape)
        return shape

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        y = as_float(x)
        total = jnp.zeros((), y.dtype)
        for part in self.parts:
            y, log_det = part.forward_and_log_det(y)
            total = total + log_det
        return y, total

    def inverse(self, y: Array) -> Array:
        for part in reversed(self.parts):
            y = part.inverse(y)
        return y

    def contains(self, y: Array) -> Array:
        inside = jnp.asarray(True)
        for part in reversed(self.parts):
            # A y outside one part's support turns into NaN, which the parts before reject too.
            inside = inside & part.contains(y)
            y = part.inverse(y)
        return inside


def as_float(x: Any) -> Array:
    """An array of floats with its dtype kept and no weak type."""
    return jnp.asarray(x, dtype=jnp.result_type(float, x))


def spread(value: Any, x: Array) -> Array:
    """A value broadcast, explicitly, to the shape and dtype of x."""
    return jnp.broadcast_to(jnp.asarray(value, dtype=x.dtype), x.shape)


def tiny(x: Array) -> float:
    """The smallest normal number of x's dtype; smaller ones may be flushed to zero."""
    return float(jnp.finfo(x.dtype).tiny)


def tolerance(x: Array | np.ndarray) -> float:
    """How far an equality constraint may be off: half the digits of x's dtype."""
    return float(np.sqrt(float(jnp.finfo(x.dtype).eps)))
