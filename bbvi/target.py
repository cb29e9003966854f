"""The target: a user's log joint as a density on a flat, unconstrained vector."""

import inspect
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._compile import count_work, make_room
from bbvi._linalg import at_full_precision
from bbvi._tree import as_arrays, path_name
from bbvi._types import Array, LogJoint, PyTree
from bbvi.bijectors import Bijector, Ordered, Real, ZeroSum, real
from bbvi.status import BBVIWarning, InputError

# Closed-over arrays are baked into the compiled program: past this size they cost compile
# time and memory, and a refit with other data compiles again.
_LARGE_CONSTANT_BYTES = 1 << 20
# Elements that draws evaluated together may compute: 1 GiB in float32 if all were kept. Where there
# are more the draws are taken in chunks of a sixteenth of that, which also suit a cache: scores of
# a regression on 40,000 rows take a quarter of the time. Fewer than 8 draws make slow products
# of matrices. A program in chunks costs 0.1 s more of the compiler, so few are.
_AT_ONCE = 1 << 28
_CHUNK = 1 << 24
_LEAST_CHUNK = 8


@dataclass(frozen=True)
class Leaf:
    """One array of the user's parameters, and its place in the flat vector."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    bijector: Bijector
    free_shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        """How many entries of the flat vector the leaf takes."""
        return math.prod(self.free_shape)

    def take(self, z: Array) -> Array:
        """The leaf's entries of `z` (D,), in its unconstrained shape and its dtype."""
        return z[self.start : self.start + self.size].reshape(self.free_shape).astype(self.dtype)

    def scalar_names(self) -> list[str]:
        """`theta[0]`, `theta[1]`, ...: one name for each scalar of the leaf."""
        if not self.shape:
            return [self.name]
        return [f"{self.name}[{','.join(map(str, i))}]" for i in np.ndindex(*self.shape)]


@dataclass(frozen=True)
class Target:
    r"""A log joint seen on the whole of R^D.

    With T the map from the flat vector z to the user's parameters, built from the supports,

        log density(z) = log joint(T(z), data) + log |det dT/dz|.

    A target is hashable: the log joint counts by identity, all else by value, so it can be a
    static argument of `jax.jit`. It holds no data.

    Attributes:
        log_joint: the user's function.
        treedef: structure of the parameters.
        leaves: the arrays of the parameters, in the structure's order.
        order: the order in which leaves are constrained, so that a bound that depends on
            other leaves finds them ready.
        takes_data: whether `log_joint` takes the data as a second argument.
        sequential: whether `log_joint` cannot be batched by `jax.vmap`; draws are then
            mapped one after another.
        work: elements that one evaluation computes, roughly; it decides how programs are
            compiled and how many draws they take at once, not what they compute.
    """

    log_joint: LogJoint
    treedef: Any
    leaves: tuple[Leaf, ...]
    order: tuple[int, ...]
    takes_data: bool = True
    sequential: bool = False
    work: int = field(default=0, compare=False)

    @property
    def dim(self) -> int:
        """D, the length of the flat vector."""
        return sum(leaf.size for leaf in self.leaves)

    @property
    def owners(self) -> np.ndarray:
        """Which of the leaves each coordinate of the flat vector belongs to, (D,)."""
        return np.repeat(np.arange(len(self.leaves)), [leaf.size for leaf in self.leaves])

    @property
    def logarithmic(self) -> np.ndarray:
        """Which coordinates (D,) are no numbers of the user's, but about logarithms of such."""
        plain = [isinstance(leaf.bijector, Real | Ordered | ZeroSum) for leaf in self.leaves]
        return ~np.array(plain, bool)[self.owners]

    @property
    def dtype(self) -> np.dtype:
        """The floating type of the flat vector: the widest among the leaves."""
        return jnp.result_type(*(leaf.dtype for leaf in self.leaves))

    @property
    def scalar_names(self) -> list[str]:
        """C names, one for each scalar of the constrained parameters."""
        return [name for leaf in self.leaves for name in leaf.scalar_names()]

    def constrain(self, z: Array, data: PyTree) -> PyTree:
        """The user's parameters at the flat vector `z` (D,)."""
        return self.constrain_and_log_det(z, data)[0]

    def constrain_and_log_det(self, z: Array, data: PyTree) -> tuple[PyTree, Array]:
        """The user's parameters at `z` (D,), and log |det dT/dz|, a scalar."""
        # Placeholders stand in for leaves not made yet; `order` makes sure none is read.
        values = [jnp.ones(leaf.shape, leaf.dtype) for leaf in self.leaves]
        log_det = jnp.zeros((), z.dtype)
        for i in self.order:
            leaf = self.leaves[i]
            bijector = leaf.bijector.bind(self.treedef.unflatten(values), data)
            values[i], term = bijector.forward_and_log_det(leaf.take(z))
            log_det = log_det + term.astype(z.dtype)
        return self.treedef.unflatten(values), log_det

    def unconstrain(self, params: PyTree, data: PyTree) -> Array:
        """The flat vector (D,) of the user's parameters: the inverse of `constrain`."""
        parts = [
            jnp.ravel(leaf.bijector.bind(params, data).inverse(value)).astype(self.dtype)
            for leaf, value in zip(self.leaves, self.treedef.flatten_up_to(params), strict=True)
        ]
        return jnp.concatenate(parts)

    def scalars(self, params: PyTree) -> Array:
        """The constrained parameters as one vector (C,), in the order of `scalar_names`."""
        return jnp.concatenate([jnp.ravel(x).astype(self.dtype) for x in jax.tree.leaves(params)])

    def log_density(self, z: Array, data: PyTree) -> Array:
        """The log density at one flat vector `z` (D,), a scalar."""
        params, log_det = self.constrain_and_log_det(z, data)
        return self.evaluate(params, data).astype(z.dtype) + log_det

    @at_full_precision
    def evaluate(self, params: PyTree, data: PyTree) -> Array:
        """The log joint at one point of the user's parameters, a scalar."""
        args = (params, data) if self.takes_data else (params,)
        return jnp.asarray(self.log_joint(*args)).reshape(())

    @at_full_precision  # of gradients written by hand, which are traced after the log joint
    def score(
        self, zs: Array, data: PyTree, chunk_size: int | None = None
    ) -> tuple[Array, Array, Array]:
        """Log density and score of many draws, with the bad ones set to zero and marked.

        One reverse pass through the log joint for all draws; no forward mode and no second
        derivatives, so a log joint behind a callback works.

        Args:
            zs: draws (S, D).
            data: the user's data.
            chunk_size: at most so many draws at a time; None bounds them by the work of one.

        Returns:
            log densities (S,), scores (S, D) and a mask (S,) of draws at which both are
            finite; where they are not, both are zero.
        """
        # Of the negative: where the reverse pass starts from one, XLA finds that data which enter
        # linearly are broadcast in both passes, and stores them once for each draw.
        energy = lambda z, data: -self.log_density(z, data)  # noqa: E731
        energies, slopes = self._map(jax.value_and_grad(energy), zs, data, chunk_size)
        log_p, score = -energies, -slopes
        # A score whose square would overflow is as good as infinite.
        largest = float(jnp.finfo(score.dtype).max) ** 0.5 * 1e-3
        ok = jnp.isfinite(log_p) & jnp.all(jnp.abs(score) < largest, axis=-1)
        return jnp.where(ok, log_p, 0), jnp.where(ok[:, None], score, 0), ok

    def log_densities(self, zs: Array, data: PyTree, chunk_size: int | None = None) -> Array:
        """Log densities (S,) of many draws (S, D), as they are."""
        return self._map(self.log_density, zs, data, chunk_size)

    def _map(self, function, zs, data, chunk_size):
        one = lambda z: function(z, data)  # noqa: E731
        if self.sequential:
            return jax.lax.map(one, zs)
        size = len(zs)
        if chunk_size is None:
            chunk_size = size if size * self.work <= _AT_ONCE else _CHUNK // self.work
            chunk_size = max(chunk_size, _LEAST_CHUNK)
        chunks = -(-size // chunk_size)
        if chunks == 1:
            return jax.vmap(one)(zs)
        # chunks of one size, for which the first draws are taken again: a remainder of another
        # would be a second program
        per_chunk = -(-size // chunks)
        zs = jnp.concatenate([zs, zs[: chunks * per_chunk - size]])
        found = jax.lax.map(jax.vmap(one), zs.reshape(chunks, per_chunk, -1))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:size], found)


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
