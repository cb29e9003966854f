"""The check of a family, for people who add their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._types import Array, Key, PyTree
from bbvi.families import Family
from bbvi.testing.require import close, require, require_close, require_near


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
    require(
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
    require_close(log_prob, log_q, 10, f"{name}: log_prob and reparam differ")
    for i, what in enumerate(("z", "log q", "log_prob")):
        message = f"{name}: {what} is another one under vmap"
        require_close(seen["vmap"][i], seen["scan"][i], 1, message)
    _check_density(name, seen["jacobian"], z, log_q, noise)
    require_close(seen["normals"], noise, 10, f"{name}: normals are not those of the draws")
    for found, expected in zip(*map(jax.tree.leaves, seen["held"]), strict=True):
        require_close(found, expected, 10, f"{name}: reparam_held is not reparam, or its gradient")
    _check_closed_forms(name, seen["closed"], z, log_q)
    _check_frames(name, seen)
    if type(family).frame is not Family.frame:
        mean, sd = draws["standard"].mean(0), draws["standard"].std(0)
        require(
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
        require(
            leaf.dtype == dtype and not leaf.weak_type,
            f"{name}: init gives {'weak ' * leaf.weak_type}{leaf.dtype} for a loc of {dtype}.",
        )
    require(number == vector == params, f"{name}: parameters differ in shape with the scale's.")
    require(family.event(params) == (size, dtype), f"{name}: event is {family.event(params)}.")
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
            require(
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
    try:
        normals = family.normals(member, batch[0][1])
    except NotImplementedError:
        normals = noise
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
        "normals": normals,
        "held": (held(family.reparam_held), held(lambda *args: Family.reparam_held(family, *args))),
    }


def _require_moments(
    message: str, expected: np.ndarray, draws: np.ndarray, power: int, slack: float
) -> None:
    """Means (power 0) or standard deviations (power 1) of draws (S, D), give or take a share."""
    mean, sd = draws.mean(0), draws.std(0)
    error = sd / len(draws) ** 0.5
    if power:
        error = ((draws - mean) ** 2).std(0) / len(draws) ** 0.5 / (2 * sd)
    require_near((mean, sd)[power], expected, error + slack / 5 * np.abs(expected), message)


def _check_density(
    name: str, jacobian: np.ndarray, z: np.ndarray, log_q: np.ndarray, noise: np.ndarray
) -> None:
    """log q at the draws, against the map that made them."""
    few, dim, size = jacobian.shape
    constant = close(jacobian, jacobian[:1], 1)
    if constant or dim == size:
        # With more base normals than dimensions, the covariance J J' stands for the square of J.
        log_volume = 0.5 * np.linalg.slogdet(jacobian @ jacobian.swapaxes(1, 2))[1]
        eps = noise[:few]
        if dim != size:
            mean = z[:few] - np.einsum("sdk,sk->sd", jacobian, eps)
            root = np.linalg.cholesky(jacobian @ jacobian.swapaxes(1, 2))
            eps = np.linalg.solve(root, (z[:few] - mean)[..., None])[..., 0]
        expected = -0.5 * np.sum(eps**2, -1) - log_volume - 0.5 * dim * math.log(2 * math.pi)
        require_close(log_q[:few], expected, 10, f"{name}: log q is not that of the draws")
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
        require_near(ratio.mean(), np.ones(()), error, f"{name}: log q is not that of the draws")


def _check_closed_forms(
    name: str, closed: dict[str, np.ndarray], z: np.ndarray, log_q: np.ndarray
) -> None:
    centred = z - z.mean(0)
    products = centred[:, :, None] * centred[:, None]
    if "entropy" in closed:
        error = log_q.std() / len(z) ** 0.5
        require_near(closed["entropy"], -log_q.mean(), error, f"{name}: entropy is off")
    if "mean" in closed:
        _require_moments(f"{name}: mean is off", closed["mean"], z, 0, 0)
    if "sd" in closed:
        _require_moments(f"{name}: sd is off", closed["sd"], z, 1, 0)
    if "covariance" in closed:
        error = products.std(0) / len(z) ** 0.5
        message = f"{name}: covariance is off"
        require_near(closed["covariance"], products.mean(0), error, message)


def _check_frames(name: str, seen: dict[str, Any]) -> None:
    z, log_q = seen["members"]["member"]
    z_back, log_q_back = seen["members"]["round trip"]
    require_close(z_back, z, 10, f"{name}: from_frame(to_frame(...)) is another member")
    require_close(log_q_back, log_q, 10, f"{name}: log q differs after from_frame(to_frame(...))")
    require_close(seen["unframed"], z, 10, f"{name}: to_frame does not follow the frame")
    log_unframed = seen["members"]["framed"][1] - seen["frame_log_det"]
    require_close(log_unframed, log_q, 10, f"{name}: log q in a frame is not off by log_det")
