"""Moments of the scalar parameters under a family, by quadrature."""

from functools import lru_cache
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._linalg import dot
from bbvi._types import Array, PyTree
from bbvi.families import Family, FullRankGaussian
from bbvi.posterior import with_closed_forms
from bbvi.target import Target

# Exact for polynomials of degree 63, and to six digits for exp(2 z) up to an sd of 2.
_NODES = 32
# Elsewhere, quasi-random points, the same for every problem.
_MOMENT_POINTS = 1024


@lru_cache(maxsize=64)
def is_elementwise(target: Target) -> np.ndarray:
    """Which scalars (C,) are functions of one unconstrained coordinate each."""
    flags = [
        np.full(
            int(np.prod(leaf.shape)), leaf.bijector.event_ndim == 0 and not leaf.bijector.functions
        )
        for leaf in target.leaves
    ]
    return np.concatenate(flags)


def marginal_moments(
    target: Target, weights: Array, loc: Array, sd: Array, data: PyTree
) -> tuple[Array, Array]:
    r"""Means and sds (C,) of elementwise scalars under a mixture of K Gaussians.

    A scalar x = T(z_i) needs the marginal of z_i alone, so one rule serves all coordinates:

        E[x] = sum_k w_k int T(loc_ki + sd_ki e) N(e; 0, 1) de.

    Draws and quasi-random points miss the far tail, in which half of a log-normal variance
    may lie. The entries of other scalars mean nothing; see `is_elementwise`.

    Args:
        target: the target.
        weights: (K,) weights of the components.
        loc: (K, D) their centres.
        sd: (K, D) their marginal standard deviations.
        data: the user's data.

    Source: Gauss-Hermite quadrature, Press et al. 2007, Numerical Recipes, section 4.6.
    """
    rule = np.polynomial.hermite_e.hermegauss(_NODES)
    nodes, share = jnp.asarray(rule[0], loc.dtype), jnp.asarray(rule[1], loc.dtype)
    share = share / jnp.sum(share)
    z = loc[:, None] + sd[:, None] * nodes[:, None]
    x = jax.vmap(jax.vmap(lambda z: target.scalars(target.constrain(z, data))))(z)
    share = (weights[:, None] * share).reshape(-1)
    x = x.reshape(share.shape[0], -1)
    x = jnp.where(jnp.isfinite(x), x, 0)  # 10 sds out, where the weight is 1e-25
    mean = dot(share, x)
    return mean, jnp.sqrt(dot(share, (x - mean) ** 2))


def own_moments(
    target: Target, family: Family, params: PyTree, data: PyTree
) -> tuple[Array, Array]:
    """Means and sds (C,) of the scalars under the family, nearly without Monte Carlo noise."""
    elementwise = is_elementwise(target)
    if isinstance(family, FullRankGaussian):
        loc, sd = family.mean(params), family.sd(params)
        exact = marginal_moments(target, jnp.ones(1, loc.dtype), loc[None], sd[None], data)
        if elementwise.all():
            return exact
    size = family.noise_size(target.dim)
    z, _ = family.reparam(params, jnp.asarray(_moment_points(size), target.dtype))
    x = jax.vmap(lambda z: target.scalars(target.constrain(z, data)))(z)
    mean = jnp.mean(x, axis=0)
    sd = jnp.sqrt(jnp.mean((x - mean) ** 2, axis=0))
    if isinstance(family, FullRankGaussian):
        return (
            jnp.where(elementwise, exact[0], mean),
            jnp.where(elementwise, exact[1], sd),
        )
    return with_closed_forms(target, family, params, mean, sd)


@lru_cache(maxsize=8)
def _moment_points(size: int) -> np.ndarray:
    """Standard normal points (S, K) that cover space evenly, each with its mirror image.

    They are constants of the program: made in it, the compiler would run the generator.

    Source: Roberts 2018, "The unreasonable effectiveness of quasirandom sequences".
    """
    half = _MOMENT_POINTS // 2
    ratio = 1.0
    for _ in range(64):  # the positive root of x^(K+1) = x + 1
        ratio = (1 + ratio) ** (1 / (size + 1))
    steps = ratio ** -np.arange(1.0, size + 1)
    uniform = (0.5 + np.outer(np.arange(half), steps)) % 1
    eps = np.vectorize(NormalDist().inv_cdf)(np.clip(uniform, 0.5 / half, 1 - 0.5 / half))
    eps /= np.sqrt(np.mean(eps**2, axis=0))
    return np.concatenate([eps, -eps])
