"""Constraints on single numbers: the real line, half-lines and intervals."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._types import Array
from bbvi.bijectors.base import Bijector, as_float, tiny
from bbvi.bijectors.bounds import Bound, Bounded, fixed


def _above(bound: Array) -> Array:
    """The next float above a bound; as a function of the bound its derivative is one."""
    value = jax.lax.stop_gradient(bound)
    gap = jnp.nextafter(value, jnp.full_like(value, jnp.inf)) - value
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
        lower, upper = fixed(self.lower), fixed(self.upper)
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
