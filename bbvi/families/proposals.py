"""Draws for importance sampling: from a family's member, and from twins with heavier tails."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._arrays import logsumexp, namespace
from bbvi._linalg import dot
from bbvi._types import AnyArray, Array

# Degrees of freedom of the heavy-tailed half of a `Proposal`: tails of a power, so that they are
# over any posterior's whose scalars have a kurtosis, and still near the family in its bulk.
TAIL_DF = 5
# A tail that falls like r^(-nu - D) has weighted squares with a variance if the proposal has fewer
# than 2 nu - 4 degrees of freedom: with one, for all nu over 2.5, where a variance is known at all.
FAR_DF = 1


class Proposal(NamedTuple):
    """Draws for importance sampling: half from a family's member, half with heavier tails.

    What a member's own tails do not reach, its own draws cannot miss: the weights of a density
    that is too narrow look best of all. Half of the draws are therefore widened to a
    Student-t, and all count as draws of the mixture of both.

    Attributes:
        z: (S, D) draws.
        log_q: (S,) log density of the member.
        log_mixture: (S,) log density of the mixture that the draws come from.
        own: (S,) which draws are the member's own.
    """

    z: Array
    log_q: Array
    log_mixture: Array
    own: Array


class Noise(NamedTuple):
    """What a proposal is made of.

    Attributes:
        eps: (S, K) base normals.
        length: (S,) what makes those of the second half spherical Student-t; one for the first.
        own: (S,) which half that is.
        choice: (S,) uniforms, by which a mixture chooses components.
    """

    eps: AnyArray
    length: AnyArray
    own: AnyArray
    choice: AnyArray

    @property
    def widened(self) -> AnyArray:
        """The normals (S, K), the second half made Student-t."""
        return self.length[:, None] * self.eps


def own_draws(z: Array, log_q: Array) -> Proposal:
    """The proposal of a family's own draws alone."""
    return Proposal(z, log_q, log_q, jnp.ones(log_q.shape, bool))


def draw_noise(key: Array, number: int, size: int, dtype: Any) -> Noise:
    """Noise of S = `number` draws and K = `size`."""
    normal_key, tail_key, choice_key = jax.random.split(key, 3)
    eps = jax.random.normal(normal_key, (number, size), dtype)
    # a sum of squares of few normals is a chi-square that compiles at once
    squares = jnp.sum(jax.random.normal(tail_key, (number, TAIL_DF), dtype) ** 2, axis=-1)
    return _noise(eps, squares, jax.random.uniform(choice_key, (number,), dtype))


def host_noise(
    random: np.random.Generator, number: int, size: int, dtype: Any, df: float = TAIL_DF
) -> Noise:
    """The same, arrays of numpy from a generator of the host."""
    eps = random.standard_normal((number, size)).astype(dtype)
    squares = random.chisquare(df, number).astype(dtype)
    return _noise(eps, squares, random.random(number).astype(dtype), df)


def noise_shapes(number: int, size: int, dtype: Any) -> Noise:
    """Its shapes, to prepare a program for."""
    shapes = Noise((number, size), (number,), (number,), (number,))
    kinds = Noise(dtype, dtype, bool, dtype)
    return Noise(*map(jax.ShapeDtypeStruct, shapes, kinds))


def _noise(eps: AnyArray, squares: AnyArray, choice: AnyArray, df: float = TAIL_DF) -> Noise:
    xp, number = namespace(eps), eps.shape[0]
    own = xp.arange(number) < (number + 1) // 2
    length = xp.sqrt(df / squares)
    return Noise(eps, xp.where(own, 1, length), own, choice)


def with_tails(log_q: AnyArray, squares: AnyArray, dim: int) -> AnyArray:
    """log density of half the member and half its heavy-tailed twin, at squared radii."""
    return log_q + namespace(squares).logaddexp(0.0, log_tail_ratio(squares, dim)) - math.log(2)


def log_tail_ratio(squares: AnyArray, dim: int, df: float = TAIL_DF) -> AnyArray:
    """log of a spherical Student-t density over the standard normal one, at squared radii."""
    log_norm = math.lgamma((df + dim) / 2) - math.lgamma(df / 2) - dim / 2 * math.log(df / 2)
    return log_norm - (df + dim) / 2 * namespace(squares).log1p(squares / df) + squares / 2


def far_normals(noise: Noise, directions: AnyArray) -> AnyArray:
    """Base normals (S, K), a quarter of them Cauchy and a quarter Cauchy along one direction.

    Where scalars have heavy tails of their own, the spherical quarter comes near none of them in
    many dimensions: what it reaches has all scalars far out at once.

    Args:
        noise: of `host_noise`, with `FAR_DF` degrees of freedom.
        directions: unit vectors u_j (J, K).
    """
    xp, number = namespace(noise.eps), len(noise.eps)
    at = xp.arange(number)
    along = directions[at % len(directions)]
    moved = (noise.length - 1) * xp.sum(noise.eps * along, axis=1)
    single = noise.eps + moved[:, None] * along
    return xp.where((4 * at >= 3 * number)[:, None], single, noise.widened)


def log_far_ratio(
    eps: AnyArray, directions: AnyArray, squares: AnyArray | float = 0.0, beside: int = 0
) -> AnyArray:
    r"""log density (S,) of what `far_normals` gives, over that of standard normals.

    With y_j = u_j . eps, the Cauchy density t and the normal one phi it is

        log(1/2 + 1/4 t(eps) / phi(eps) + 1/4 mean_j t(y_j) / phi(y_j)).

    Args:
        eps: (S, K).
        directions: unit vectors u_j (J, K).
        squares: (S,) of other normals that are Cauchy with them, but along no direction.
        beside: how many those are.

    Source: Hesterberg 1995, Technometrics 37(2), on defensive mixtures.
    """
    xp, size = namespace(eps), eps.shape[1] + beside
    spherical = log_tail_ratio(xp.sum(eps**2, axis=1) + squares, size, FAR_DF)
    along = log_tail_ratio(dot(eps, directions.T) ** 2, 1, FAR_DF)
    singly = logsumexp(along) - math.log(len(directions))
    own = xp.full_like(spherical, math.log(2))
    return logsumexp(xp.stack([own, spherical, singly], axis=1)) - math.log(4)
