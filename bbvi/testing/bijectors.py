"""The check of a bijector, for people who add their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._types import Array, Key
from bbvi.bijectors import Bijector
from bbvi.testing.require import close, require, require_close


def check_bijector(
    bijector: Bijector,
    shape: Sequence[int],
    *,
    key: Key = 0,
    log_det: Callable[[Array], Array] | None = None,
) -> None:
    r"""Check that a bijector keeps its promises.

    At random points of both scales met in a fit: hash and equality by value; shapes, dtypes (no
    weak types) and a scalar log-determinant; the log-determinant itself against the Jacobian by
    automatic differentiation; round trips; ``contains``; batches, with and without `jax.vmap`; and
    finite values and derivatives at entries of +-50. All inside `jax.jit` and in the default
    dtype: run it a second time with 64-bit types enabled.

    Args:
        bijector: the bijector, with bounds that are not functions.
        shape: the shape of one y, without batch axes.
        key: an int or a JAX key, for the points.
        log_det: the log-determinant to expect, as a function of one x. By default log |det dy/dx|
            with both flattened, for which x and y must have equally many entries. Where y has
            redundant entries, use `jacobian_log_det` of the map to the free ones.

    Raises:
        AssertionError: if a promise is broken; the message says which.
        ValueError: if the shape cannot carry the constraint.

    Example:
        >>> from bbvi.bijectors import interval, simplex
        >>> check_bijector(interval(0.0, 2.0), (3,))
        >>> def first(x):
        ...     return simplex.forward(x)[:-1]
        >>> check_bijector(simplex, (3,), log_det=lambda x: jacobian_log_det(first, x))
    """
    shape = tuple(shape)
    name = bijector.name
    _check_specification(bijector)
    x_shape = bijector.unconstrained_shape(shape)
    key = jax.random.key(key) if isinstance(key, int) else key
    # NumPy's generator needs no compilation for each shape.
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    xs = rng.standard_normal((3, *x_shape)).astype(jnp.result_type(float))
    ones = np.ones_like(xs[:1])
    all_xs = np.concatenate([xs, 50 * np.sign(xs[:1]), 50 * ones, -50 * ones])
    _check_types(bijector, shape, xs[0])
    if log_det is None:
        require(
            np.prod(shape) == xs[0].size,
            f"{name} maps {xs[0].size} numbers to {np.prod(shape):.0f}: pass log_det=.",
        )

        def log_det(x: Array) -> Array:
            return jacobian_log_det(bijector.forward, x)

    # One program: operation by operation, most of the time would go into compiling.
    evaluate = jax.jit(lambda all_xs: _evaluate(bijector, shape, log_det, all_xs))
    everywhere, batch, inside_nan = jax.tree.map(np.asarray, evaluate(all_xs))
    for label in ("y", "log_det", "derivative"):
        finite = np.isfinite(everywhere[label])
        require(finite[:3].all(), f"{name}: {label} is not finite.")
        require(finite.all(), f"{name}: {label} is not finite at entries of +-50.")
    near = {label: values[:3] for label, values in everywhere.items()}
    y, found = near["y"], near["log_det"]
    require_close(found, near["expected"], 1, f"{name}: log_det is off")
    require(near["inside"].all(), f"{name}: contains() is false of forward(x).")
    require(not inside_nan, f"{name}: contains() is true of NaN.")
    require_close(batch["y"], y, 1, f"{name}: y is another one in a batch")
    require_close(batch["log_det"], found.sum(), 1, f"{name}: log_det is not summed over a batch")
    require_close(batch["forward"], batch["y"], 1, f"{name}: forward gives another y")
    _check_inverse(bijector, xs, y, near["back"])
    require_close(batch["back"], near["back"], 10, f"{name}: inverse differs in a batch")


def jacobian_log_det(function: Callable[[Array], Array], x: Array) -> Array:
    """The log absolute determinant of a function's Jacobian, by automatic differentiation.

    Args:
        function: maps an array to one of equally many entries.
        x: where to take the Jacobian, of any shape.

    Returns:
        log |det df/dx|, a scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> print(jacobian_log_det(jnp.exp, jnp.array([1.0, 2.0])))
        3.0
    """
    # QR compiles faster than the LU of `slogdet`, which also follows the sign.
    triangle = jnp.linalg.qr(_jacobian(function, x), mode="r")
    return jnp.sum(jnp.log(jnp.abs(jnp.diagonal(triangle))))


def _jacobian(function: Callable[[Array], Array], x: Array) -> Array:
    return jax.jacfwd(lambda flat: jnp.ravel(function(flat.reshape(x.shape))))(jnp.ravel(x))


def _check_specification(bijector: Bijector) -> None:
    # An undecorated subclass would inherit an equality that looks at none of its own attributes.
    require(
        "__dataclass_fields__" in vars(type(bijector)),
        f"{type(bijector).__name__} must be decorated with @dataclass(frozen=True).",
    )
    hash(bijector)
    require(not bijector.functions, f"{bijector.name}: check it with a number for each function.")
    require(bijector.event_ndim in (0, 1, 2), f"{bijector.name}: event_ndim is not 0, 1 or 2.")
    require(bijector.bind({}, None) is bijector, f"{bijector.name}: bind() made a copy.")


def _check_types(bijector: Bijector, shape: tuple[int, ...], x: Array) -> None:
    y, log_det = jax.eval_shape(bijector.forward_and_log_det, x)
    back = jax.eval_shape(bijector.inverse, y)
    expected = {"y": (y, shape), "log_det": (log_det, ()), "inverse": (back, x.shape)}
    for label, (found, wanted) in expected.items():
        require(
            found.shape == wanted,
            f"{bijector.name}: {label} has shape {found.shape} and not {wanted}.",
        )
        require(
            found.dtype == x.dtype and not found.weak_type,
            f"{bijector.name}: {label} has {'weak ' * found.weak_type}dtype {found.dtype} "
            f"and not {x.dtype}.",
        )


def _evaluate(
    bijector: Bijector, shape: tuple[int, ...], expected: Callable[[Array], Array], xs: Array
) -> tuple[dict[str, Array], dict[str, Array], Array]:
    """Everything under vmap, the first three points as a batch, and `contains` of NaN."""

    def at_point(x: Array) -> dict[str, Array]:
        (y, log_det), pullback = jax.vjp(bijector.forward_and_log_det, x)
        # Unequal weights: a sum of equal ones hides the derivative of what sums to a constant.
        weights = jnp.linspace(0.5, 1, y.size, dtype=y.dtype).reshape(y.shape)
        (derivative,) = pullback((weights, jnp.ones_like(log_det)))
        return {
            "y": y,
            "log_det": log_det,
            "expected": expected(x),
            "derivative": derivative,
            "back": bijector.inverse(y),
            "inside": bijector.contains(y),
        }

    everywhere = jax.vmap(at_point)(xs)
    y, log_det = bijector.forward_and_log_det(xs[:3])
    back = bijector.inverse(everywhere["y"][:3])
    batch = {"y": y, "log_det": log_det, "forward": bijector.forward(xs[:3]), "back": back}
    return everywhere, batch, bijector.contains(jnp.full(shape, jnp.nan, xs.dtype))


def _check_inverse(bijector: Bijector, xs: np.ndarray, ys: np.ndarray, backs: np.ndarray) -> None:
    for x, y, back in zip(xs, ys, backs, strict=True):
        if close(back, x, 10):
            continue
        # Where y has fewer degrees of freedom than x, as on a sphere, several x share one y.
        jacobian = jax.jit(lambda x: _jacobian(bijector.forward, x))(x)
        require(
            np.linalg.matrix_rank(jacobian) < x.size,
            f"{bijector.name}: inverse(forward(x)) is {back} and not x = {x}.",
        )
        again = np.asarray(jax.jit(bijector.forward)(back))
        require_close(again, y, 10, f"{bijector.name}: forward(inverse(y)) is not y")
