"""Checks for people who add their own parts to the framework."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._types import Array, Key, PyTree
from bbvi.bijectors import Bijector
from bbvi.bijectors.base import tolerance
from bbvi.families import Family
from bbvi.solvers import Info, Solver
from bbvi.solvers.base import RunLog
from bbvi.status import Status
from bbvi.target import Target, make_target


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
        _require(
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
        _require(finite[:3].all(), f"{name}: {label} is not finite.")
        _require(finite.all(), f"{name}: {label} is not finite at entries of +-50.")
    near = {label: values[:3] for label, values in everywhere.items()}
    y, found = near["y"], near["log_det"]
    _require_close(found, near["expected"], 1, f"{name}: log_det is off")
    _require(near["inside"].all(), f"{name}: contains() is false of forward(x).")
    _require(not inside_nan, f"{name}: contains() is true of NaN.")
    _require_close(batch["y"], y, 1, f"{name}: y is another one in a batch")
    _require_close(batch["log_det"], found.sum(), 1, f"{name}: log_det is not summed over a batch")
    _require_close(batch["forward"], batch["y"], 1, f"{name}: forward gives another y")
    _check_inverse(bijector, xs, y, near["back"])
    _require_close(batch["back"], near["back"], 10, f"{name}: inverse differs in a batch")


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


def _require(condition: bool, message: str) -> None:
    # Not `assert`: that is left out under `python -O`.
    if not condition:
        raise AssertionError(message)


def _close(found: np.ndarray, expected: np.ndarray, factor: float) -> bool:
    scale = 1 + np.max(np.abs(expected), initial=0)
    error = np.max(np.abs(found - expected), initial=0)
    return bool(error <= factor * tolerance(expected) * scale)  # False if either is NaN


def _require_close(found: np.ndarray, expected: np.ndarray, factor: float, message: str) -> None:
    _require(_close(found, expected, factor), f"{message}: {found} and not {expected}.")


def _check_specification(bijector: Bijector) -> None:
    # An undecorated subclass would inherit an equality that looks at none of its own attributes.
    _require(
        "__dataclass_fields__" in vars(type(bijector)),
        f"{type(bijector).__name__} must be decorated with @dataclass(frozen=True).",
    )
    hash(bijector)
    _require(not bijector.functions, f"{bijector.name}: check it with a number for each function.")
    _require(bijector.event_ndim in (0, 1, 2), f"{bijector.name}: event_ndim is not 0, 1 or 2.")
    _require(bijector.bind({}, None) is bijector, f"{bijector.name}: bind() made a copy.")


def _check_types(bijector: Bijector, shape: tuple[int, ...], x: Array) -> None:
    y, log_det = jax.eval_shape(bijector.forward_and_log_det, x)
    back = jax.eval_shape(bijector.inverse, y)
    expected = {"y": (y, shape), "log_det": (log_det, ()), "inverse": (back, x.shape)}
    for label, (found, wanted) in expected.items():
        _require(
            found.shape == wanted,
            f"{bijector.name}: {label} has shape {found.shape} and not {wanted}.",
        )
        _require(
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
        if _close(back, x, 10):
            continue
        # Where y has fewer degrees of freedom than x, as on a sphere, several x share one y.
        jacobian = jax.jit(lambda x: _jacobian(bijector.forward, x))(x)
        _require(
            np.linalg.matrix_rank(jacobian) < x.size,
            f"{bijector.name}: inverse(forward(x)) is {back} and not x = {x}.",
        )
        again = np.asarray(jax.jit(bijector.forward)(back))
        _require_close(again, y, 10, f"{bijector.name}: forward(inverse(y)) is not y")


def check_family(family: Family, dim: int = 3, key: Key = 0, *, spread: float = 0.3) -> None:
    r"""Check that a family keeps its promises.

    At random members: hash and equality by value; shapes and dtypes (no weak types); that
    `init` is centred where it is told and as wide; that `log_prob` agrees with the log q of
    `reparam`, and both with the draws: by the Jacobian of `reparam` where it is square or
    constant, else by importance weights that must average to one; that `reparam_held` is
    `log_prob` along the draws; `entropy`, `mean`, `sd` and `covariance` if there are any;
    frames; `jax.vmap` and `jax.lax.scan`. All in the default dtype: run it a second time with
    64-bit types enabled. Random errors are allowed five standard errors.

    Args:
        family: the family. Any finite values of its parameters must be a member.
        dim: D, the dimension of its members.
        key: an int or a JAX key, for the members and the draws.
        spread: members are `init` plus this much normal noise on each parameter; less where
            that makes densities that no float can follow, as for the weights of a network.

    Raises:
        AssertionError: if a promise is broken; the message says which.

    Example:
        >>> from bbvi.families import MeanFieldGaussian
        >>> check_family(MeanFieldGaussian(), dim=2)
    """
    name = type(family).__name__
    _require(
        "__dataclass_fields__" in vars(type(family)),
        f"{name} must be decorated with @dataclass(frozen=True).",
    )
    hash(family)
    key = jax.random.key(key) if isinstance(key, int) else key
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    dtype = jnp.result_type(float)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(dtype)

    loc, scale = normal(dim), np.exp(0.5 * normal(dim))
    factors = [np.tril(0.3 * normal(dim, dim), -1) + np.diag(np.exp(0.3 * normal(dim)))] * 2
    like = _check_family_types(family, dim)
    changes = [jax.tree.map(lambda x: spread * normal(*x.shape), like) for _ in factors]
    noise = normal(_FAMILY_DRAWS, family.noise_size(dim))
    # One program: operation by operation, most of the time would go into compiling.
    evaluate = jax.jit(lambda *inputs: _evaluate_family(family, *inputs))
    seen = jax.tree.map(np.asarray, evaluate(loc, scale, factors, changes, noise))

    draws = {label: z for label, (z, _) in seen["members"].items()}
    z, log_q, log_prob = seen["scan"]
    _require_moments(f"{name}: init is not centred at loc", loc, draws["start"], 0, 0)
    message = f"{name}: init does not have the scale asked for"
    _require_moments(message, scale, draws["start"], 1, 0.1)
    _require_close(log_prob, log_q, 10, f"{name}: log_prob and reparam differ")
    for i, what in enumerate(("z", "log q", "log_prob")):
        message = f"{name}: {what} is another one under vmap"
        _require_close(seen["vmap"][i], seen["scan"][i], 1, message)
    _check_density(name, seen["jacobian"], z, log_q, noise)
    for found, expected in zip(*map(jax.tree.leaves, seen["held"]), strict=True):
        _require_close(found, expected, 10, f"{name}: reparam_held is not reparam, or its gradient")
    _check_closed_forms(name, seen["closed"], z, log_q)
    _check_frames(name, seen)
    if type(family).frame is not Family.frame:
        mean, sd = draws["standard"].mean(0), draws["standard"].std(0)
        _require(
            bool((np.abs(mean) < 1).all() and (np.abs(np.log(sd)) < np.log(3)).all()),
            f"{name}: in its own frame a member is far from standard: means {mean}, sds {sd}.",
        )


_FAMILY_DRAWS = 4096


def _check_family_types(family: Family, dim: int) -> PyTree:
    """Shapes and dtypes of everything that a family makes; returns those of its parameters."""
    name, dtype, size = type(family).__name__, jnp.result_type(float), family.noise_size(dim)

    def like(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    scales = [like(), like(dim), like(dim, dim)]
    number, vector, params = [jax.eval_shape(family.init, like(dim), scale) for scale in scales]
    for leaf in jax.tree.leaves(params):
        _require(
            leaf.dtype == dtype and not leaf.weak_type,
            f"{name}: init gives {'weak ' * leaf.weak_type}{leaf.dtype} for a loc of {dtype}.",
        )
    _require(number == vector == params, f"{name}: parameters differ in shape with the scale's.")
    _require(family.event(params) == (size, dtype), f"{name}: event is {family.event(params)}.")
    draw = jax.eval_shape(
        lambda p, seed: family.sample_and_log_prob(p, jax.random.key(seed), 5), params, 0
    )
    found = {
        "reparam": jax.eval_shape(family.reparam, params, like(5, size)),
        "sample_and_log_prob": draw,
        "log_prob": (draw[0], jax.eval_shape(family.log_prob, params, like(5, dim))),
    }
    for label, (z, log_q) in found.items():
        for x, shape in ((z, (5, dim)), (log_q, (5,))):
            _require(
                (x.shape, x.dtype, x.weak_type) == (shape, dtype, False),
                f"{name}: {label} gives {'weak ' * x.weak_type}{x.dtype}{x.shape} "
                f"and not {dtype}{shape}.",
            )
    return params


def _evaluate_family(
    family: Family,
    loc: Array,
    scale: Array,
    factors: list[Array],
    changes: list[PyTree],
    noise: Array,
) -> dict[str, PyTree]:
    """One member from all sides; a second one lends its frame."""
    member, other = (
        jax.tree.map(jnp.add, family.init(sign * loc, factor), change)
        for sign, factor, change in zip((1, -1), factors, changes, strict=True)
    )
    frame = family.frame(other)
    framed = family.to_frame(member, frame)
    members = {
        "start": family.init(loc, scale),
        "member": member,
        "framed": framed,
        "round trip": family.from_frame(framed, frame),
        "standard": family.to_frame(member, family.frame(member)),
    }
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members.values())

    def everything(params: PyTree) -> tuple[Array, ...]:
        z, log_q = family.reparam(params, noise)
        return z, log_q, family.log_prob(params, z)

    def one_draw(eps: Array) -> Array:
        return family.reparam(member, eps[None])[0][0]

    def held(draw: Callable) -> PyTree:
        """Draws, their log q, and its gradient along the draws."""

        def total(params: PyTree) -> Any:
            z, log_q = draw(params, noise[:8])
            return jnp.mean(log_q), (z, log_q)

        return jax.grad(total, has_aux=True)(member)

    batch = jax.vmap(everything)(stack)
    each = {name: jax.tree.map(lambda x, i=i: x[i], batch)[:2] for i, name in enumerate(members)}
    closed = {}
    for label in ("entropy", "mean", "sd", "covariance"):
        try:
            closed[label] = getattr(family, label)(member)
        except (AttributeError, NotImplementedError):
            continue
    return {
        "vmap": jax.tree.map(lambda x: x[1], batch),
        "scan": jax.tree.map(lambda x: x[1], jax.lax.map(everything, stack)),
        "members": each,
        "unframed": frame.apply(each["framed"][0]),
        "frame_log_det": frame.log_det,
        "jacobian": jax.vmap(jax.jacfwd(one_draw))(noise[:8]),
        "closed": closed,
        "held": (held(family.reparam_held), held(lambda *args: Family.reparam_held(family, *args))),
    }


def _require_near(found: Any, expected: Any, error: Any, message: str) -> None:
    found, expected = np.asarray(found), np.asarray(expected)
    allowed = 5 * error + tolerance(jnp.asarray(found)) * (1 + np.abs(expected))
    _require(
        bool(np.all(np.abs(found - expected) <= allowed)),
        f"{message}: {found} and not {expected}, by the draws.",
    )


def _require_moments(
    message: str, expected: np.ndarray, draws: np.ndarray, power: int, slack: float
) -> None:
    """Means (power 0) or standard deviations (power 1) of draws (S, D), give or take a share."""
    mean, sd = draws.mean(0), draws.std(0)
    error = sd / len(draws) ** 0.5
    if power:
        error = ((draws - mean) ** 2).std(0) / len(draws) ** 0.5 / (2 * sd)
    _require_near((mean, sd)[power], expected, error + slack / 5 * np.abs(expected), message)


def _check_density(
    name: str, jacobian: np.ndarray, z: np.ndarray, log_q: np.ndarray, noise: np.ndarray
) -> None:
    """log q at the draws, against the map that made them."""
    few, dim, size = jacobian.shape
    constant = _close(jacobian, jacobian[:1], 1)
    if constant or dim == size:
        # With more base normals than dimensions, the covariance J J' stands for the square of J.
        log_volume = 0.5 * np.linalg.slogdet(jacobian @ jacobian.swapaxes(1, 2))[1]
        eps = noise[:few]
        if dim != size:
            mean = z[:few] - np.einsum("sdk,sk->sd", jacobian, eps)
            root = np.linalg.cholesky(jacobian @ jacobian.swapaxes(1, 2))
            eps = np.linalg.solve(root, (z[:few] - mean)[..., None])[..., 0]
        expected = -0.5 * np.sum(eps**2, -1) - log_volume - 0.5 * dim * math.log(2 * math.pi)
        _require_close(log_q[:few], expected, 10, f"{name}: log q is not that of the draws")
        return
    # The density of any narrow Gaussian beside q has mean one under q. float64, as some draws are
    # far out.
    z, log_q = z.astype(np.float64), log_q.astype(np.float64)
    root = 0.5 * np.linalg.cholesky(np.cov(z.T).reshape(dim, dim))
    for centre in z[:8]:
        eps = np.linalg.solve(root, (z - centre).T)
        log_g = -0.5 * np.sum(eps**2, 0) - np.linalg.slogdet(root)[1]
        ratio = np.exp(log_g - 0.5 * dim * math.log(2 * math.pi) - log_q)
        error = ratio.std() / len(ratio) ** 0.5
        _require_near(ratio.mean(), np.ones(()), error, f"{name}: log q is not that of the draws")


def _check_closed_forms(
    name: str, closed: dict[str, np.ndarray], z: np.ndarray, log_q: np.ndarray
) -> None:
    centred = z - z.mean(0)
    products = centred[:, :, None] * centred[:, None]
    if "entropy" in closed:
        error = log_q.std() / len(z) ** 0.5
        _require_near(closed["entropy"], -log_q.mean(), error, f"{name}: entropy is off")
    if "mean" in closed:
        _require_moments(f"{name}: mean is off", closed["mean"], z, 0, 0)
    if "sd" in closed:
        _require_moments(f"{name}: sd is off", closed["sd"], z, 1, 0)
    if "covariance" in closed:
        error = products.std(0) / len(z) ** 0.5
        message = f"{name}: covariance is off"
        _require_near(closed["covariance"], products.mean(0), error, message)


def _check_frames(name: str, seen: dict[str, Any]) -> None:
    z, log_q = seen["members"]["member"]
    z_back, log_q_back = seen["members"]["round trip"]
    _require_close(z_back, z, 10, f"{name}: from_frame(to_frame(...)) is another member")
    _require_close(log_q_back, log_q, 10, f"{name}: log q differs after from_frame(to_frame(...))")
    _require_close(seen["unframed"], z, 10, f"{name}: to_frame does not follow the frame")
    log_unframed = seen["members"]["framed"][1] - seen["frame_log_det"]
    _require_close(log_unframed, log_q, 10, f"{name}: log q in a frame is not off by log_det")


def check_solver(solver: Solver, *, key: Key = 0, reaches: bool = True) -> None:
    r"""Check that a solver keeps its promises.

    On a Gaussian of two independent coordinates: hash; that `init`, `init_at`, `step`, `advance`
    and `output` agree on structure, shapes and dtypes (no weak types), and `output` with the
    family; that each step is counted, with its gradients; that `advance` does what steps by hand
    do, stops at its limit and leaves a state that has ended alone; `jax.jit`, `jax.lax.scan`, and
    `jax.vmap` over keys and data; that a step on which every draw is NaN changes the counts and
    nothing else, and that nothing but such steps ends in `Status.NONFINITE`. All in the default
    dtype: run it a second time with 64-bit types enabled.

    Args:
        solver: the solver.
        key: an int or a JAX key, for the runs.
        reaches: whether the solver should get to the Gaussian within its own step limit, to 0.1
            standard deviations in the means and 10% in the standard deviations.

    Raises:
        AssertionError: if a promise is broken; the message says which.

    Example:
        >>> from bbvi.solvers import BatchAndMatch
        >>> check_solver(BatchAndMatch())
    """
    name = type(solver).__name__
    _require(isinstance(solver, Solver), f"{name} is not a subclass of bbvi.Solver.")
    _require(
        "__dataclass_fields__" in vars(type(solver)),
        f"{name} must be decorated with @dataclass(frozen=True).",
    )
    hash(solver)
    key = jax.random.key(key) if isinstance(key, int) else key
    dtype = jnp.result_type(float)
    problems = [
        {"mean": jnp.array(mean, dtype), "sd": jnp.array(sd, dtype), "usable": jnp.ones((), bool)}
        for mean, sd in (([1.0, -2.0], [0.5, 2.0]), ([-1.5, 0.5], [1.5, 0.7]))
    ]
    good, bad = problems[0], problems[0] | {"usable": jnp.zeros((), bool)}
    target, start, _ = make_target(_independent_gaussian, np.zeros(2, dtype), good, None)
    limit = solver.limit(target)
    _require(isinstance(limit, int) and limit > 0, f"{name}: limit is {limit!r}.")
    _check_solver_types(solver, target, good)

    init = jax.jit(lambda key, data: solver.init(target, start, jnp.ones_like(start), key, data))
    advance = jax.jit(lambda state, data, limit: solver.advance(target, state, data, limit))
    output = jax.jit(solver.output)

    @jax.jit
    def step(state: Any, data: PyTree) -> Any:
        # as a scan over one, which asks for a state that keeps its types
        return jax.lax.scan(lambda s, _: solver.step(target, s, data), state, length=1)[0]

    def require_same_run(message: str, found: Any, expected: Any, factor: float) -> None:
        """The same counts, and the same output up to rounding."""
        a, b = ([int(x) for x in state.log[:4]] for state in (found, expected))
        _require(a == b, f"{name}: {message}: the log is {a} and not {b}.")
        _require_same_leaves(f"{name}: {message}", output(found), output(expected), factor)

    state = init(key, good)
    counts = jax.tree.map(int, state.log[:4])
    _require(counts == (0, Status.RUNNING, 0, 0), f"{name}: the log of init is {counts}.")
    first = state
    for number in range(1, _SOLVER_STEPS + 1):
        if state.log.status != Status.RUNNING:
            break
        before, state = state.log, step(state, good)
        _require(int(state.log.step) == number, f"{name}: step {number} is not counted.")
        more = state.log.num_gradients > before.num_gradients
        _require(bool(more), f"{name}: num_gradients does not count the gradients of a step.")
        _require(int(state.log.num_skipped) == 0, f"{name}: num_skipped counts good draws.")
    by_hand = state
    ran = advance(first, good, _SOLVER_STEPS)
    require_same_run("advance differs from steps by hand", ran, by_hand, 100)
    again = advance(ran, good, _SOLVER_STEPS)
    require_same_run("advance goes on after the steps asked for", again, ran, 0)

    keys = jax.random.split(key, 2)
    datas = jax.tree.map(lambda *x: jnp.stack(x), *problems)
    batch = jax.jit(
        jax.vmap(
            lambda key, data: solver.advance(
                target,
                solver.init(target, start, jnp.ones_like(start), key, data),
                data,
                jnp.int32(_SOLVER_STEPS),
            )
        )
    )(keys, datas)
    for i, data in enumerate(problems):
        found = jax.tree.map(lambda x, i=i: x[i], batch)
        single = advance(init(keys[i], data), data, _SOLVER_STEPS)
        require_same_run("a run is another one under vmap", found, single, 100)

    after = step(by_hand, bad)
    steps, skipped = int(after.log.step - by_hand.log.step), int(after.log.num_skipped)
    _require(steps == 1, f"{name}: a step without a usable draw is not counted.")
    _require(skipped > 0, f"{name}: num_skipped does not count draws that are NaN.")
    message = f"{name}: a step without a usable draw changes the output"
    _require_same_leaves(message, output(after), output(by_hand), 0)
    failed = advance(first, bad, limit)
    status = Status(int(failed.log.status))
    _require(
        status is Status.NONFINITE, f"{name}: without a usable draw the run ends as {status.name}."
    )
    message = f"{name}: a run without a usable draw changes the output"
    _require_same_leaves(message, output(failed), output(first), 10)

    ended = advance(first, good, limit)
    status = Status(int(ended.log.status))
    _require(int(ended.log.step) <= limit, f"{name}: advance goes beyond its limit.")
    _require(not status.failed, f"{name}: the run ends as {status.name}.")
    again = advance(ended, good, limit)
    require_same_run("advance changes a state that has ended", again, ended, 0)
    if not reaches:
        return
    family = solver.family_for(target)
    draws = jax.jit(lambda p, key: family.sample_and_log_prob(p, key, _SOLVER_DRAWS)[0])
    z = np.asarray(draws(output(ended), key))
    mean, sd = (np.asarray(good[label]) for label in ("mean", "sd"))
    error = sd / _SOLVER_DRAWS**0.5
    message = f"{name}: the run misses the {{}} of a Gaussian"
    _require_near(z.mean(0), mean, error + 0.1 / 5 * sd, message.format("means"))
    message = message.format("standard deviations")
    _require_near(z.std(0), sd, error + 0.1 / 5 * sd, message)


_SOLVER_STEPS = 5
_SOLVER_DRAWS = 4096


def _independent_gaussian(x: Array, data: dict[str, Array]) -> Array:
    value = -0.5 * jnp.sum(((x - data["mean"]) / data["sd"]) ** 2)
    return jnp.where(data["usable"], value, jnp.nan)


def _check_solver_types(solver: Solver, target: Target, data: PyTree) -> None:
    """Structures, shapes and dtypes of all that a solver makes, without running it."""
    name = type(solver).__name__
    vector = jax.ShapeDtypeStruct((target.dim,), target.dtype)
    key = jax.eval_shape(lambda: jax.random.key(0))

    def types(tree: PyTree) -> tuple[Any, list[tuple]]:
        leaves, structure = jax.tree.flatten(tree)
        return structure, [(x.shape, x.dtype, x.weak_type) for x in leaves]

    state = jax.eval_shape(lambda *x: solver.init(target, *x), vector, vector, key, data)
    _require(
        isinstance(getattr(state, "log", None), RunLog), f"{name}: the state has no log: RunLog."
    )
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        _require(not leaf.weak_type, f"{name}: state{jax.tree_util.keystr(path)} has a weak dtype.")
    after, info = jax.eval_shape(lambda *x: solver.step(target, *x), state, data)
    expected = types(state)
    _require(types(after) == expected, f"{name}: step changes {_first_change(state, after)}.")
    end = jax.eval_shape(lambda s, d: solver.advance(target, s, d, jnp.int32(3)), state, data)
    _require(types(end) == expected, f"{name}: advance changes {_first_change(state, end)}.")
    _require(
        isinstance(info, Info) and all(x.shape == () for x in info),
        f"{name}: step must return a state and an Info of scalars.",
    )
    found = jax.eval_shape(solver.output, state)
    params = jax.eval_shape(solver.family_for(target).init, vector, vector)
    _require(
        types(found) == types(params),
        f"{name}: output gives {found} and not {params}, the family's.",
    )
    warm = jax.eval_shape(lambda *x: solver.init_at(target, *x), params, key, data)
    _require(
        types(warm) == expected, f"{name}: init_at and init differ: {_first_change(state, warm)}."
    )


def _first_change(before: PyTree, after: PyTree) -> str:
    """The first leaf of a state that another one has differently."""
    others = jax.tree_util.tree_flatten_with_path(after)[0]
    paths = jax.tree_util.tree_flatten_with_path(before)[0]
    for (path, leaf), (other_path, other) in zip(paths, others, strict=False):
        same = (leaf.shape, leaf.dtype, leaf.weak_type) == (
            other.shape,
            other.dtype,
            other.weak_type,
        )
        if path != other_path or not same:
            return f"state{jax.tree_util.keystr(path)}, {leaf}, to {other}"
    return "the structure of the state"


def _require_same_leaves(message: str, found: PyTree, expected: PyTree, factor: float) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        _require_close(np.asarray(a), np.asarray(b), factor, message)
