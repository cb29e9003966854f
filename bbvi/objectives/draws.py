"""Base normals: independent, antithetic, quasi-random."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from bbvi._types import Array

# Above this the component-by-component search is no longer instant.
_MAX_LATTICE_POINTS = 1024


def normals(
    key: Array, num_draws: int, size: int, dtype: Any, *, antithetic: bool, quasi: bool
) -> Array:
    """Base normals (S, K), each row N(0, I) whatever the flags.

    Args:
        key: a random key.
        num_draws: S, even when `antithetic`.
        size: K.
        dtype: floating type.
        antithetic: the second half is the first one negated, which makes averages of odd
            functions exact (Hammersley and Morton 1956).
        quasi: points of a randomly shifted lattice instead of independent ones.
    """
    half = num_draws // 2 if antithetic else num_draws
    if quasi:
        eps = ndtri(shifted_lattice(key, half, size, dtype))
    else:
        eps = jax.random.normal(key, (half, size), dtype)
    return jnp.concatenate([eps, -eps]) if antithetic else eps


def shifted_lattice(key: Array, num_points: int, size: int, dtype: Any) -> Array:
    """Points (S, K) of the open unit cube that cover it more evenly than independent ones.

    The first coordinates are those of a rank-1 lattice with one random shift each; the rest,
    for which a lattice of so few points has no good generators left, are a Latin hypercube.
    Each point alone is uniform, so averages are unbiased.

    Source: Dick, Kuo and Sloan 2013, Acta Numerica 22, sections 4 and 5; McKay, Beckman and
    Conover 1979 for the hypercube.
    """
    shift_key, shuffle_key, jitter_key = jax.random.split(key, 3)
    in_lattice = 0
    if num_points <= _MAX_LATTICE_POINTS:
        in_lattice = min(size, num_points // 4, len(_generators(num_points)))
    blocks: list[Array] = []
    if in_lattice:
        grid = jnp.asarray(_lattice(num_points, in_lattice), dtype)
        blocks.append((grid + jax.random.uniform(shift_key, (in_lattice,), dtype)) % 1)
    if size > in_lattice:
        keys = jax.random.split(shuffle_key, size - in_lattice)
        cells = jax.vmap(lambda k: jax.random.permutation(k, num_points))(keys).T
        jitter = jax.random.uniform(jitter_key, cells.shape, dtype)
        blocks.append((cells.astype(dtype) + jitter) / num_points)
    points = jnp.concatenate(blocks, axis=1)
    edge = float(jnp.finfo(dtype).eps) / 2
    return jnp.clip(points, edge, 1 - edge)


def _generators(n: int) -> np.ndarray:
    """Integers that generate a lattice of n points: n - z gives the mirror image of z."""
    half = np.arange(1, n // 2 + 1)
    return half[np.gcd(half, n) == 1]


@lru_cache(maxsize=16)
def _lattice(n: int, size: int) -> np.ndarray:
    """Points i z / n mod 1 (n, size), each z_j the best after those before it.

    Component-by-component search for the worst-case error in the space of once differentiable
    periodic functions with weights 1/j^2.
    """
    index = np.arange(n)
    candidates = _generators(n)
    x = np.outer(candidates, index) % n / n
    kernel = 2 * np.pi**2 * (x**2 - x + 1 / 6)
    product = np.ones(n)
    chosen: list[int] = []
    for j in range(size):
        weight = 1.0 / (1 + j) ** 2
        errors = (1 + weight * kernel) @ product
        # a generator used twice would tie two coordinates together
        errors[np.isin(candidates, chosen)] = np.inf
        best = int(np.argmin(errors))
        chosen.append(int(candidates[best]))
        product = product * (1 + weight * kernel[best])
    return np.outer(index, chosen) % n / n
