"""The posterior approximation in the user's own structure."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._arrays import is_traced, namespace, put
from bbvi._compile import draws_jit, plain_jit
from bbvi._linalg import dot
from bbvi._tree import as_arrays, as_key
from bbvi._types import AnyArray, Array, Key, PyTree
from bbvi.families import Family
from bbvi.status import InputError
from bbvi.target import Leaf, Target

# Draws behind moments and quantiles: a mean is then good to 0.01 sd, an sd to 0.7%.
MOMENT_DRAWS = 10_000


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("params", "data", "draws", "log_weights"),
    meta_fields=("target", "family"),
)
@dataclass(frozen=True)
class Posterior:
    """An approximate posterior; a pytree, so it passes through `jit` and `vmap`.

    Attributes:
        params: the family's parameters, on the unconstrained space.
        data: the user's data where a bound depends on them, else None.
        target: what was fitted.
        family: the family of the approximation.
        draws: unconstrained draws (S', D) of the family that stand for the posterior together
            with `log_weights`, where importance weights correct the approximation; else None.
        log_weights: their Pareto-smoothed log weights (S',), or None.

    Example:
        >>> import bbvi, jax.numpy as jnp
        >>> result = bbvi.fit(lambda p: -0.5 * jnp.sum((p["x"] - 3.0) ** 2), {"x": jnp.zeros(2)})
        >>> result.posterior.sample(0, 5)["x"].shape
        (5, 2)
        >>> result.posterior.mean()["x"].round(2).tolist()
        [3.0, 3.0]
    """

    params: PyTree
    data: PyTree
    target: Target
    family: Family
    draws: Array | None = None
    log_weights: Array | None = None

    def sample(self, key: Key, num_draws: int) -> PyTree:
        """Draws in the user's structure, with a leading axis S.

        Where importance weights correct the approximation, these are resampled by weight from
        `draws`: asking for more of them than there are effective draws repeats some.

        Args:
            key: an int or a JAX random key.
            num_draws: S.
        """
        return _sample(_essentials(self), as_key(key), num_draws)

    def sample_and_log_prob(self, key: Key, num_draws: int) -> tuple[PyTree, Array]:
        """Draws as from `sample`, and their log density (S,) under the family.

        The family's density is that before a correction by importance weights.
        """
        return _sample_and_log_prob(self, as_key(key), num_draws)

    def log_prob(self, params: PyTree) -> Array:
        """Log density of the family's member at one point in the user's structure, a scalar.

        This is the density before a correction by importance weights.
        """
        given = as_arrays(params, "params")
        if jax.tree.structure(given) != self.target.treedef:
            raise InputError(
                f"params must have the structure {self.target.treedef}, "
                f"not {jax.tree.structure(given)}."
            )
        shapes = [x.shape for x in jax.tree.leaves(given)]
        if shapes != [leaf.shape for leaf in self.target.leaves]:
            raise InputError(f"params must be one point; use jax.vmap for many (shapes {shapes}).")
        return _log_prob(self, given)

    def mean(self) -> PyTree:
        """Posterior means, from 10,000 draws where they have no closed form."""
        return self.target.treedef.unflatten(self._split(_moments(self)[0]))

    def sd(self) -> PyTree:
        """Posterior standard deviations, from 10,000 draws where they have no closed form."""
        return self.target.treedef.unflatten(self._split(_moments(self)[1]))

    def cov(self) -> Array:
        """Covariance matrix (C, C) of all scalars, in the order of `target.scalar_names`."""
        return _covariance(self)

    def quantile(self, q: Any) -> PyTree:
        """Quantiles of each scalar parameter from 10,000 draws.

        Args:
            q: probabilities, a number or an array (Q,); each leaf gets the leading axis Q.
        """
        q = np.asarray(q, dtype=self.target.dtype)
        if ((q < 0) | (q > 1)).any():
            raise InputError(f"quantiles are asked for at probabilities in [0, 1], not {q}.")
        return self.target.treedef.unflatten(self._split(_quantile(self, q)))

    def _split(self, scalars: AnyArray) -> list[Array]:
        """Scalars (..., C) cut into arrays of the leaves' shapes behind the leading axes."""
        sizes = np.cumsum([int(np.prod(leaf.shape)) for leaf in self.target.leaves])[:-1]
        parts = namespace(scalars).split(scalars, sizes, axis=-1)
        lead = scalars.shape[:-1]
        shaped = (
            x.reshape(lead + leaf.shape) for x, leaf in zip(parts, self.target.leaves, strict=True)
        )
        return [jnp.asarray(x) for x in shaped]


def _essentials(posterior: Posterior) -> Posterior:
    """What draws are of: of corrected ones no family, whose programs would all be others."""
    if posterior.draws is None:
        return posterior
    nothing: Any = None
    return replace(posterior, params=nothing, family=nothing)


def _numbers(posterior: Posterior, num_draws: int = MOMENT_DRAWS) -> int:
    return num_draws * posterior.target.dim


_few = draws_jit(lambda posterior, key, num_draws: _numbers(posterior, num_draws), (2,))


@_few
def _sample(posterior: Posterior, key: Array, num_draws: int) -> PyTree:
    z, target = _unconstrained(posterior, key, num_draws)[0], posterior.target
    return jax.vmap(lambda z: target.constrain(z, posterior.data))(z)


@_few
def _sample_and_log_prob(posterior: Posterior, key: Array, num_draws: int) -> tuple[PyTree, Array]:
    z, log_q = _unconstrained(posterior, key, num_draws)
    if log_q is None:
        log_q = posterior.family.log_prob(posterior.params, z)
    target = posterior.target
    constrain = jax.vmap(lambda z: target.constrain_and_log_det(z, posterior.data))
    constrained, log_det = constrain(z)
    return constrained, log_q - log_det


def _unconstrained(posterior: Posterior, key: Array, num_draws: int) -> tuple[Array, Array | None]:
    """Draws (S, D), and their log density where that comes with them."""
    if posterior.draws is None or posterior.log_weights is None:
        return posterior.family.sample_and_log_prob(posterior.params, key, num_draws)
    # by the cumulated weights: a Gumbel each for every pair of draws would be 10^8 of them
    weights = jax.nn.softmax(posterior.log_weights)
    return jax.random.choice(key, posterior.draws, (num_draws,), p=weights), None


@plain_jit()
def _log_prob(posterior: Posterior, params: PyTree) -> Array:
    target = posterior.target
    z = target.unconstrain(params, posterior.data)
    _, log_det = target.constrain_and_log_det(z, posterior.data)
    return posterior.family.log_prob(posterior.params, z[None])[0] - log_det


def _weighted_scalars(posterior: Posterior) -> tuple[Array, Array]:
    """Draws of all scalars (S, C) and their weights (S,), which sum to one.

    Arrays of numpy, but inside a user's own `jit` or `vmap`: of double precision, since squares of
    the draws far out, which count for little or nothing, need not be numbers of a single one.
    """
    found = _draw_scalars(_essentials(posterior))
    draws, weights = found if is_traced(found) else jax.device_get(found)
    if posterior.draws is not None:
        xp = namespace(draws)
        draws = xp.where(weights[:, None] > 0, draws, 0)
    if is_traced(found):
        return draws, weights
    return draws.astype(float), weights.astype(float)


@draws_jit(_numbers)
def _draw_scalars(posterior: Posterior) -> tuple[Array, Array]:
    target = posterior.target
    if posterior.draws is None or posterior.log_weights is None:
        # The same key at every call: a summary printed twice reads the same.
        sample = posterior.family.sample_and_log_prob
        zs, _ = sample(posterior.params, jax.random.key(0), MOMENT_DRAWS)
        weights = jnp.full((MOMENT_DRAWS,), 1 / MOMENT_DRAWS, zs.dtype)
    else:
        zs, weights = posterior.draws, jax.nn.softmax(posterior.log_weights)
    constrain = lambda z: target.scalars(target.constrain(z, posterior.data))  # noqa: E731
    return jax.vmap(constrain)(zs), weights


def _moments(posterior: Posterior) -> tuple[AnyArray, AnyArray]:
    target, family, params = posterior.target, posterior.family, posterior.params
    if posterior.draws is None:
        params = params if is_traced(params) else jax.device_get(params)
        exact = _closed_forms(family, params)
        if exact is not None and all(map(_is_real, target.leaves)):
            return exact
    draws, weights = _weighted_scalars(posterior)
    xp = namespace(draws)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is infinite
        mean = dot(weights, draws)
        sd = xp.sqrt(dot(weights, (draws - mean) ** 2))
        mean, sd = mean.astype(target.dtype), sd.astype(target.dtype)
    if posterior.draws is None:
        mean, sd = with_closed_forms(target, family, params, mean, sd)
    return mean, sd


def with_closed_forms(
    target: Target, family: Family, params: PyTree, mean: Array, sd: Array
) -> tuple[Array, Array]:
    """Means and sds of the scalars, both (C,), exact where the family knows them.

    Real leaves are their own unconstrained coordinates, whose moments may have closed forms.
    """
    exact = _closed_forms(family, params)
    if exact is None:
        return mean, sd
    start = 0
    for leaf in target.leaves:
        size = int(np.prod(leaf.shape))
        if _is_real(leaf):
            here, there = slice(start, start + size), slice(leaf.start, leaf.start + size)
            mean, sd = (put(x, here, y[there]) for x, y in zip((mean, sd), exact, strict=True))
        start += size
    return mean, sd


def _closed_forms(family: Family, params: PyTree) -> tuple[Array, Array] | None:
    """Mean and sds (D,) of the unconstrained coordinates, where the family knows them."""
    try:
        return family.mean(params), family.sd(params)
    except NotImplementedError:
        return None


def _is_real(leaf: Leaf) -> bool:
    return leaf.bijector.name == "real"


def _covariance(posterior: Posterior) -> Array:
    draws, weights = _weighted_scalars(posterior)
    centred = draws - dot(weights, draws)
    return jnp.asarray(dot(centred.T * weights, centred), posterior.target.dtype)


def _quantile(posterior: Posterior, q: np.ndarray) -> AnyArray:
    """Quantiles (*q.shape, C): inverted distribution functions of the weighted draws."""
    draws, weights = _weighted_scalars(posterior)
    xp = namespace(draws)

    def one(values):
        order = xp.argsort(values)
        # the middle of each draw's step, so that equal weights give the usual midpoint rule
        level = xp.cumsum(weights[order]) - 0.5 * weights[order]
        return xp.interp(q, level, values[order])

    if xp is np:
        return np.stack([one(values) for values in draws.T], axis=-1).astype(posterior.target.dtype)
    return jnp.moveaxis(jax.vmap(one, in_axes=1)(draws), 0, -1)
