"""Constraints on single numbers: the real line, half-lines and intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._types import Array, PyTree
from bbvi.bijectors.base import Bijector, as_float, spread, tiny

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


def _fixed(bound: Bound) -> np.ndarray | None:
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


def _above(bound: Array) -> Array:
    """The next float above a bound; as a function of the bound its derivative is one."""
    fixed = jax.lax.stop_gradient(bound)
    gap = jnp.nextafter(fixed, jnp.full_like(fixed, jnp.inf)) - fixed
    return bound + jnp.maximum(gap, tiny(bound))


def _below(bound: Array) -> Array:
    return -_above(-bound)


@dataclass(frozen=True)
class Real(Bijector):
    """All real numbers: y = x, with log-determinant 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from bbvi.bijectors import real
        >>> print(real.forward(jnp.array([-1.0, 2.0])))
        [-1.  2.]
    """

    name = "real"

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        x = as_float(x)
        return x, jnp.zeros((), x.dtype)

    def inverse(self, y: Array) -> Array:
        return as_float(y)

    def contains(self, y: Array) -> Array:
        return jnp.all(jnp.isfinite(as_float(y)))


@dataclass(frozen=True)
class Bounded(Bijector):
    """What the half-lines and the interval share: every dataclass field is a bound."""

    constructor: ClassVar[str]

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _store(getattr(self, field.name)))
        for bound in self._bounds:
            value = _fixed(bound)
            if value is not None and np.isnan(value).any():
                raise ValueError(f"{self.name}: a bound is NaN.")
            if value is not None and np.isinf(value).any():
                raise ValueError(f"{self.name}: a bound is infinite; {self._infinite_advice()}.")

    @property
    def _bounds(self) -> list[Bound]:
        return [getattr(self, field.name) for field in fields(self)]

    def _infinite_advice(self) -> str:
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


@dataclass(frozen=True)
class GreaterThan(Bounded):
    r"""Numbers above a bound, y = lower + exp(x); built by `greater_than`, or as `positive`.

    log|dy/dx| = x.

    Example:
        >>> import jax.numpy as jnp
        >>> from bbvi.bijectors import positive
        >>> print(positive.forward(jnp.log(jnp.array([1.0, 4.0]))).round(2))
        [1. 4.]
    """

    constructor = "greater_than"
    lower: Bound

    @property
    def name(self) -> str:
        return "positive" if self.lower == 0.0 else super().name

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        x = as_float(x)
        (lower,) = self._values(x)
        # Rounding must not put y on the bound, where most densities are singular.
        return jnp.maximum(lower + jnp.exp(x), _above(lower)), jnp.sum(x)

    def inverse(self, y: Array) -> Array:
        y = as_float(y)
        (lower,) = self._values(y)
        return jnp.log(y - lower)

    def contains(self, y: Array) -> Array:
        y = as_float(y)
        (lower,) = self._values(y)
        return jnp.all((y > lower) & jnp.isfinite(y))


@dataclass(frozen=True)
class LessThan(Bounded):
    r"""Numbers below a bound, y = upper - exp(x); built by `less_than`, or as `negative`.

    log|dy/dx| = x.

    Example:
        >>> import jax.numpy as jnp
        >>> from bbvi.bijectors import negative
        >>> print(negative.forward(jnp.log(jnp.array([1.0, 4.0]))).round(2))
        [-1. -4.]
    """

    constructor = "less_than"
    upper: Bound

    @property
    def name(self) -> str:
        return "negative" if self.upper == 0.0 else super().name

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        x = as_float(x)
        (upper,) = self._values(x)
        return jnp.minimum(upper - jnp.exp(x), _below(upper)), jnp.sum(x)

    def inverse(self, y: Array) -> Array:
        y = as_float(y)
        (upper,) = self._values(y)
        return jnp.log(upper - y)

    def contains(self, y: Array) -> Array:
        y = as_float(y)
        (upper,) = self._values(y)
        return jnp.all((y < upper) & jnp.isfinite(y))


@dataclass(frozen=True)
class Interval(Bounded):
    r"""Numbers between two bounds, y = lower + (upper - lower) sigmoid(x); built by `interval`.

    log|dy/dx| = log(upper - lower) - softplus(x) - softplus(-x). It is NaN where evaluated bounds
    (see `Bijector.bind`) leave an empty interval.

    Example:
        >>> import jax.numpy as jnp
        >>> from bbvi.bijectors import unit_interval
        >>> print(unit_interval.forward(jnp.log(jnp.array([1.0, 3.0]))).round(2))
        [0.5  0.75]
    """

    constructor = "interval"
    lower: Bound
    upper: Bound

    def __post_init__(self) -> None:
        super().__post_init__()
        lower, upper = _fixed(self.lower), _fixed(self.upper)
        if lower is None or upper is None:
            return
        try:
            empty = lower >= upper
        except ValueError:
            raise ValueError(
                f"{self.name}: bounds of shapes {lower.shape} and {upper.shape} do not broadcast."
            ) from None
        if np.any(empty):
            low, high = (np.broadcast_to(bound, empty.shape)[empty][0] for bound in (lower, upper))
            raise ValueError(f"{self.name}: the lower bound {low} is not below the upper {high}.")

    def _infinite_advice(self) -> str:
        return "use `greater_than`, `less_than` or `real` for a parameter with an open side"

    def forward_and_log_det(self, x: Array) -> tuple[Array, Array]:
        x = as_float(x)
        lower, upper = self._values(x)
        width = upper - lower
        # Measured from the nearer bound: a y close to an upper bound of 0 keeps all its digits.
        y = jnp.where(x < 0, lower + width * jax.nn.sigmoid(x), upper - width * jax.nn.sigmoid(-x))
        y = jnp.minimum(jnp.maximum(y, _above(lower)), _below(upper))
        return y, jnp.sum(jnp.log(width) - jax.nn.softplus(x) - jax.nn.softplus(-x))

    def inverse(self, y: Array) -> Array:
        y = as_float(y)
        lower, upper = self._values(y)
        return jnp.log(y - lower) - jnp.log(upper - y)

    def contains(self, y: Array) -> Array:
        y = as_float(y)
        lower, upper = self._values(y)
        return jnp.all((y > lower) & (y < upper))


def greater_than(lower: Bound) -> GreaterThan:
    r"""Numbers above a bound.

    y = lower + exp(x), with log|dy/dx| = x. Where rounding would put y on the bound, y is the
    next float above it.

    Args:
        lower: a finite number, an array that broadcasts to the parameter, or a function
            ``(params, data) -> bound`` (hashed by identity: define it once).

    Returns:
        The bijector.

    Raises:
        ValueError: if the bound is NaN or infinite.

    Example:
        >>> import jax.numpy as jnp
        >>> from bbvi.bijectors import greater_than
        >>> print(greater_than(1.0).forward(jnp.log(jnp.array([1.0, 4.0]))).round(2))
        [2. 5.]

    Source: Stan Reference Manual, "Constraint Transforms", lower bounded scalar.
    """
    return GreaterThan(lower)


def less_than(upper: Bound) -> LessThan:
    r"""Numbers below a bound.

    y = upper - exp(x), with log|dy/dx| = x. Where rounding would put y on the bound, y is the
    next float below it.

    Args:
        upper: a finite number, an array that broadcasts to the parameter, or a function
            ``(params, data) -> bound`` (hashed by identity: define it once).

    Returns:
        The bijector.

    Raises:
        ValueError: if the bound is NaN or infinite.

    Example:
        >>> import jax.numpy as jnp
        >>> from bbvi.bijectors import less_than
        >>> print(less_than(1.0).forward(jnp.log(jnp.array([1.0, 4.0]))).round(2))
        [ 0. -3.]

    Source: Stan Reference Manual, "Constraint Transforms", upper bounded scalar.
    """
    return LessThan(upper)


def interval(lower: Bound, upper: Bound) -> Interval:
    r"""Numbers strictly between two bounds.

    y = lower + (upper - lower) sigmoid(x), with
    log|dy/dx| = log(upper - lower) - softplus(x) - softplus(-x). Where rounding would put y on a
    bound, y is the next float inside.

    Args:
        lower: a finite number, an array that broadcasts to the parameter, or a function
            ``(params, data) -> bound`` (hashed by identity: define it once).
        upper: likewise.

    Returns:
        The bijector.

    Raises:
        ValueError: if a bound is NaN or infinite, or if lower >= upper anywhere.

    Example:
        A bound that depends on another parameter:

        >>> import jax.numpy as jnp
        >>> from bbvi.bijectors import interval
        >>> stationary = interval(0.0, lambda params, data: 1.0 - params["alpha"])
        >>> beta = stationary.bind({"alpha": jnp.array(0.6)}, None)
        >>> print(beta.forward(jnp.array(0.0)).round(3))
        0.2

    Source: Stan Reference Manual, "Constraint Transforms", lower and upper bounded scalar.
    """
    return Interval(lower, upper)


real = Real()
positive = GreaterThan(0.0)
negative = LessThan(0.0)
unit_interval = Interval(0.0, 1.0)
