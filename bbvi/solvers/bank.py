"""A bank of draws that stands still: the bound on it, block by block."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.numpy.linalg import cholesky
from jax.scipy.linalg import solve_triangular

from bbvi._linalg import dot
from bbvi._types import Array, PyTree
from bbvi.families import Family, Frame
from bbvi.solvers.base import unravel_in
from bbvi.target import Target


class Sums(NamedTuple):
    """Running means of one evaluation over the blocks of its bank.

    Attributes:
        block: blocks seen.
        usable: usable draws in them.
        skipped: the others.
        value: mean of the negative bound, nats.
        gradient: (P,) its gradient.
        pairs: antithetic pairs with both draws usable.
        ratio: mean over them of log p - log q.
        squares: sum of their squared distances from it.
    """

    block: Array
    usable: Array
    skipped: Array
    value: Array
    gradient: Array
    pairs: Array
    ratio: Array
    squares: Array


def no_sums(flat: Array) -> Sums:
    """The sums at parameters (P,) before the first block."""
    zero, none = jnp.zeros((), flat.dtype), jnp.zeros((), jnp.int32)
    return Sums(none, none, none, zero, jnp.zeros_like(flat), none, zero, zero)


def add_block(
    sums: Sums, target: Target, family: Family, frame: Frame, flat: Array, eps: Array, data: PyTree
) -> tuple[Sums, Array, Array]:
    """The sums with one more block, and the bound and the bad draws of that block.

    Args:
        sums: of the blocks before.
        target: the target.
        family: the family.
        frame: the standardised units.
        flat: (P,) parameters in these units.
        eps: (S, K) base normals of the block, in antithetic pairs.
        data: the user's data.
    """
    value_and_grad = jax.value_and_grad(bank_loss, argnums=3, has_aux=True)
    (value, seen), gradient = value_and_grad(target, family, frame, flat, eps, data)
    half = eps.shape[0] // 2
    usable, share = _shares(sums.usable, jnp.sum(seen.ok), value.dtype)
    skipped = jnp.sum(~seen.ok).astype(jnp.int32)

    both = seen.ok[:half] & seen.ok[half:]
    ratio = 0.5 * (seen.log_ratio[:half] + seen.log_ratio[half:])
    number = jnp.sum(both)
    mean = jnp.sum(jnp.where(both, ratio, 0)) / jnp.maximum(number, 1)
    within = jnp.sum(jnp.where(both, (ratio - mean) ** 2, 0))
    pairs, pair_share = _shares(sums.pairs, number, value.dtype)
    between = (mean - sums.ratio) ** 2 * sums.pairs * pair_share
    sums = Sums(
        block=sums.block + 1,
        usable=usable,
        skipped=sums.skipped + skipped,
        value=sums.value + share * (value - sums.value),
        gradient=sums.gradient + share * (gradient - sums.gradient),
        pairs=pairs,
        ratio=sums.ratio + pair_share * (mean - sums.ratio),
        squares=sums.squares + within + between,
    )
    return sums, -value, skipped


class Seen(NamedTuple):
    """Draw by draw, what `bank_loss` came across.

    Attributes:
        ok: (S,) whether the draw is usable.
        log_ratio: (S,) log p - log q there.
    """

    ok: Array
    log_ratio: Array


def bank_loss(
    target: Target, family: Family, frame: Frame, flat: Array, eps: Array, data: PyTree
) -> tuple[Array, Seen]:
    """The negative bound on given base normals, over the usable draws.

    Args:
        target: the target.
        family: the family.
        frame: the standardised units.
        flat: (P,) parameters in these units; the loss is differentiable in them, once.
        eps: (S, K) base normals.
        data: the user's data.
    """
    params = unravel_in(family, frame)(flat)
    w, log_q = family.reparam(params, eps)
    z = frame.apply(w)
    still = jax.lax.stop_gradient(z)
    log_p, score, ok = target.score(still, data)
    log_p = log_p + frame.log_det * ok
    # the score is known: the tangent plane has the value and the gradient
    terms = log_p + jnp.sum(score * (z - still), axis=-1)
    try:
        terms = terms + family.entropy(params)
    except NotImplementedError:
        terms = terms - log_q
    count = jnp.maximum(jnp.sum(ok), 1).astype(terms.dtype)
    return -jnp.sum(jnp.where(ok, terms, 0)) / count, Seen(ok, log_p - log_q)


def whitened(eps: Array) -> Array:
    """Centred base normals (S, K) with unit covariance; where S is too small, unit variances."""
    number, size = eps.shape
    if number < 2 * size:
        return eps / jnp.sqrt(jnp.mean(eps**2, axis=0))
    root = cholesky(dot(eps.T, eps) / number)
    return solve_triangular(root, eps.T, lower=True).T


def _shares(before: Array, number: Array, dtype: Any) -> tuple[Array, Array]:
    """The new total, and the share in it of what is new."""
    total = (before + number).astype(jnp.int32)
    return total, number.astype(dtype) / jnp.maximum(total, 1)
