"""What the user gives, checked before anything is compiled, as a target."""

import inspect
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._compile import count_work, make_room
from bbvi._tree import as_arrays, path_name
from bbvi._types import LogJoint, PyTree
from bbvi.bijectors import Bijector, real
from bbvi.status import BBVIWarning, InputError
from bbvi.target import Leaf, Target

# Closed-over arrays are baked into the compiled program: past this size they cost compile
# time and memory, and a refit with other data compiles again.
_LARGE_CONSTANT_BYTES = 1 << 20


def make_target(
    log_joint: LogJoint, init: PyTree, data: PyTree, support: PyTree
) -> tuple[Target, PyTree, PyTree]:
    """Check the user's input and build its target, before anything is compiled.

    Args:
        log_joint: `log_joint(params, data)`, or `log_joint(params)` when there are no data.
        init: an example point in the user's structure.
        data: anything made of arrays and numbers, or None.
        support: supports by name or position; what is left out is real.

    Returns:
        the target, `init` and `data` with every leaf an array.

    Raises:
        InputError: with one sentence that names the leaf and what to do.
    """
    if not callable(log_joint):
        raise InputError(
            f"log_joint must be a function of (params, data), not a {type(log_joint).__name__}."
        )
    try:
        hash(log_joint)
    except TypeError as error:
        raise InputError(
            "log_joint must be hashable, since compiled programs are kept by its identity: "
            "wrap it in a plain function."
        ) from error
    if data is not None and _takes_one_argument(log_joint):
        raise InputError(
            "log_joint takes the parameters alone, but data were given: make it "
            "log_joint(params, data), or leave the data out."
        )
    init = as_arrays(init, "init")
    data = as_arrays(data, "data")
    paths, treedef = jax.tree_util.tree_flatten_with_path(init)
    if not paths:
        raise InputError("init has no arrays: give one example point of the parameters.")
    specs = tuple((path_name("init", p), _leaf_name(p), x.shape, x.dtype) for p, x in paths)
    bijectors = tuple(match_support(support, init))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), data)
    flat_shapes, data_def = jax.tree.flatten(shapes)
    key = tuple((s.shape, s.dtype) for s in flat_shapes)
    x64 = jax.config.jax_enable_x64  # part of the key: it changes what is traced
    return _cached_target(log_joint, treedef, specs, bijectors, data_def, key, x64), init, data


@lru_cache(maxsize=256)
def _cached_target(log_joint, treedef, specs, bijectors, data_def, data_leaves, x64) -> Target:
    """Everything about a target that depends on shapes alone, so a refit pays none of it."""
    make_room()
    leaves, start = [], 0
    for (where, name, shape, dtype), bijector in zip(specs, bijectors, strict=True):
        if not jnp.issubdtype(dtype, jnp.floating):
            raise InputError(
                f"{where} has dtype {dtype}; parameters must be floating point: write 0.0 for 0, "
                "and sum discrete parameters out of the log joint."
            )
        if math.prod(shape) == 0:
            raise InputError(f"{where} is empty (shape {shape}): leave it out.")
        try:
            free_shape = bijector.unconstrained_shape(shape)
        except ValueError as error:
            raise InputError(f"{where}: {error}") from error
        leaves.append(Leaf(name, shape, dtype, bijector, tuple(free_shape), start))
        start += math.prod(free_shape)
    if start == 0:
        raise InputError("init has no free parameters: every leaf is fixed by its support.")
    data = data_def.unflatten([jax.ShapeDtypeStruct(*leaf) for leaf in data_leaves])
    takes_data = data is not None or not _takes_one_argument(log_joint)
    order = _dependency_order(tuple(leaves), treedef, data)
    target = Target(log_joint, treedef, tuple(leaves), order, takes_data)
    target = replace(target, work=_check_log_joint(target, data))
    return _choose_mapping(target, data)


def _choose_mapping(target: Target, data: PyTree) -> Target:
    """Map draws one by one where the log joint has no batching rule (a plain callback)."""
    zs = jax.ShapeDtypeStruct((2, target.dim), target.dtype)
    try:
        # the score and not the density alone: a hand-written gradient may have a callback too
        jax.eval_shape(target.score, zs, data)
    except NotImplementedError:
        pass
    except ValueError as error:
        # `jax.pure_callback` without a vmap_method says so with a ValueError
        if "vmap" not in str(error):
            raise
    else:
        return target
    return replace(target, sequential=True)


def _check_log_joint(target: Target, data: PyTree) -> int:
    """Trace the log joint once: it must give one real scalar and capture nothing large.

    Returns:
        the elements that one evaluation computes.
    """
    params = target.treedef.unflatten(
        [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in target.leaves]
    )
    args = (params, data) if target.takes_data else (params,)
    jaxpr = jax.make_jaxpr(target.log_joint)(*args)
    if len(jaxpr.out_avals) != 1:
        raise InputError(
            f"log_joint must return one scalar, but it returned {len(jaxpr.out_avals)} values."
        )
    (out,) = jaxpr.out_avals
    if out.shape not in ((), (1,)):
        raise InputError(
            f"log_joint must return a scalar, but it returned shape {out.shape}: sum over the "
            "terms with jnp.sum."
        )
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise InputError(f"log_joint must return a real number, but it returned {out.dtype}.")
    large = [c for c in _constants(jaxpr) if getattr(c, "nbytes", 0) > _LARGE_CONSTANT_BYTES]
    if large:
        shapes = ", ".join(str(np.shape(c)) for c in large)
        size = sum(c.nbytes for c in large) / 2**20
        warnings.warn(
            f"log_joint captures large arrays (shape {shapes}, {size:.0f} MiB in all), which are "
            "compiled into the program: pass them as data, so that new data need no new compile.",
            BBVIWarning,
            # make_target, _cached_target and this are between here and `fit`, which is called
            stacklevel=5,
        )
    return count_work(jaxpr.jaxpr)


def _constants(closed: Any) -> list[Any]:
    """Arrays closed over by a jaxpr or by a jitted function called in it."""
    found = list(closed.consts)
    for eqn in closed.jaxpr.eqns:
        for value in eqn.params.values():
            if hasattr(value, "consts") and hasattr(value, "jaxpr"):
                found += _constants(value)
    return found


def _takes_one_argument(function: Callable) -> bool:
    """Whether `function` can only be called with the parameters alone."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(positional) == 1


def _leaf_name(path) -> str:
    """`mu`, `layer.w`, `0.b`: a short name for tables."""
    parts = [
        str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", getattr(k, "key", k)))))
        for k in path
    ]
    return ".".join(parts) if parts else "x"


def _children(node: PyTree) -> dict:
    """The children of one pytree node, by key."""
    pairs, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    return {path[0]: child for path, child in pairs if path}


def match_support(
    support: PyTree, init: PyTree, where: str = "support", default: Bijector | None = real
) -> list[Bijector | None]:
    """One bijector for each leaf of `init`; `support` may stop early or leave keys out."""
    leaves = jax.tree.leaves(init)
    if support is None:
        return [default] * len(leaves)
    if isinstance(support, Bijector):
        return [support] * len(leaves)
    given, known = _children(support), _children(init)
    empty = isinstance(support, (dict, list, tuple)) and len(support) == 0
    if not given and not empty:
        raise InputError(
            f"{where} must be a support such as bbvi.positive, or a structure of them, "
            f"not {support!r}."
        )
    if not known and given:
        raise InputError(f"{where} has the keys {_names(given)}, but init has an array there.")
    if isinstance(support, (list, tuple)) and len(given) != len(known):
        raise InputError(
            f"{where} has {len(given)} entries, but init has {len(known)} there: "
            "give one for each, None for real ones."
        )
    unknown = [k for k in given if k not in known]
    if unknown:
        raise InputError(
            f"{where} names {_names(unknown)}, which init does not have; it has {_names(known)}."
        )
    return [
        bijector
        for k, child in known.items()
        for bijector in match_support(given.get(k), child, path_name(where, (k,)), default)
    ]


def _names(keys) -> str:
    return ", ".join(_leaf_name((k,)) for k in keys)


def _dependency_order(leaves: tuple[Leaf, ...], treedef, data: PyTree) -> tuple[int, ...]:
    """Leaves sorted so that each comes after those its bounds are computed from."""
    params = treedef.unflatten([jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves])
    needs = []
    for i, leaf in enumerate(leaves):
        used: set[int] = set()
        for bound in leaf.bijector.functions:
            used |= _leaves_read(bound, params, data, leaf)
        if i in used:
            raise InputError(f"the bounds of {leaf.name} depend on {leaf.name} itself.")
        needs.append(used)
    order: list[int] = []
    while len(order) < len(leaves):
        ready = [i for i in range(len(leaves)) if i not in order and needs[i] <= set(order)]
        if not ready:
            left = [leaf.name for i, leaf in enumerate(leaves) if i not in order]
            raise InputError(f"the bounds of {', '.join(left)} depend on each other in a circle.")
        order += ready
    return tuple(order)


def _leaves_read(bound: Callable, params: PyTree, data: PyTree, leaf: Leaf) -> set[int]:
    """Which leaves of `params` the result of `bound(params, data)` is computed from."""
    closed = jax.make_jaxpr(bound)(params, data)
    for out in closed.out_avals:
        try:
            fits = np.broadcast_shapes(out.shape, leaf.shape) == leaf.shape
        except ValueError:
            fits = False
        if not fits:
            raise InputError(
                f"a bound of {leaf.name} has shape {out.shape}, which does not broadcast to its "
                f"shape {leaf.shape}."
            )
    jaxpr = closed.jaxpr
    live = {id(v) for v in jaxpr.outvars}
    for eqn in reversed(jaxpr.eqns):
        if any(id(v) in live for v in eqn.outvars):
            live |= {id(v) for v in eqn.invars}
    count = len(jax.tree.leaves(params))
    return {i for i, v in enumerate(jaxpr.invars[:count]) if id(v) in live}
