"""The target: a user's log joint as a density on a flat, unconstrained vector."""

import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._linalg import at_full_precision
from bbvi._types import Array, LogJoint, PyTree
from bbvi.bijectors import Bijector, Ordered, Real, ZeroSum

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
