"""Short Hamiltonian chains from an approximation: a check, and a correction, without weights."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._compile import quick_jit
from bbvi._linalg import einsum
from bbvi._types import Array, PyTree
from bbvi.diagnostics import Moments
from bbvi.families import Family
from bbvi.target import Target

_SETTLING, _KEPT = 8, 16  # trajectories of each chain
# Chains: enough for an error of 0.03 sd in every mean if trajectories were of no use at all.
_MOST_CHAINS, _LEAST_CHAINS = 512, 128
_CHAIN_ELEMENTS = 1 << 20  # at once; all states of all chains are 24 times as many
# A quarter of the period of a standard normal: draws at its ends are independent.
_LENGTH = 1.5707963
# Steps of a trajectory, in those that an exact approximation needs: where even more are asked
# for, the approximation is too far off for chains to be of use.
_MOST_LEAPS = 4
# Near the optimum for many dimensions, and for few a little cautious (Beskos et al. 2013).
_ACCEPTANCE = 0.8
_DIVERGENT = -50.0  # change of log density times momentum density along a trajectory, nats


class Chains(NamedTuple):
    """What short chains found.

    Attributes:
        draws: (S, D) their states after settling, unconstrained.
        moments: of the scalar parameters, with errors from the spread between chains.
        memory: (C,) correlation of each scalar between the first and the last state of a chain.
        persistence: (C,) correlation between the means of a chain's first and second half, after
            settling; what is left of an error of the start falls by as much from one to the other.
        drift: (2, C) how far mean and sd moved between the halves of the kept states, in sds.
        drift_se: (2, C) Monte Carlo error of that.
        acceptance: mean acceptance probability after settling.
        divergent_share: share of the trajectories that left the region where they are stable.
        num_gradients: gradient evaluations of the log joint.
    """

    draws: Array
    moments: Moments
    memory: Array
    persistence: Array
    drift: Array
    drift_se: Array
    acceptance: Array
    divergent_share: Array
    num_gradients: Array


def num_chains(dim: int) -> int:
    """Chains for D = `dim`, as many as memory allows."""
    return max(_LEAST_CHAINS, min(_MOST_CHAINS, _CHAIN_ELEMENTS // dim))


def num_independent(chains: Chains) -> int:
    """How many chains there were, of one round or of several."""
    return len(chains.draws) // _KEPT


def expected_gradients(dim: int) -> int:
    """What `run_chains` spends on an exact approximation, roughly."""
    return _gradients(dim, _leaps(dim) + 1)


def affordable_leaps(dim: int, gradients: float) -> np.int32:
    """The steps of a trajectory with which `run_chains` spends at most so many gradients."""
    most = _MOST_LEAPS * _leaps(dim)
    return np.int32(min(most, max(1, gradients / _gradients(dim, 1) - 1)))


def missing_share(persistence: np.ndarray) -> np.ndarray:
    """How far moments still have to go, as a share of how far they came from the start (C,).

    If the error of the start falls by `persistence` from half to half of what is kept, its shares
    there are known, for settling takes as long as a half does.
    """
    persistence = np.clip(persistence, 0, 0.99)
    half = _KEPT / 2
    early = (_SETTLING + half / 2) / half  # halves from the start to the middle of the first
    left = (persistence**early + persistence ** (early + 1)) / 2
    return left / (1 - left)


def _leaps(dim: int) -> int:
    return math.ceil(_LENGTH * dim**0.25)


def _gradients(dim: int, leaps: int) -> int:
    return num_chains(dim) * leaps * (_SETTLING + _KEPT)


@quick_jit(0, (0, 1))
def run_chains(
    target: Target, family: Family, params: PyTree, key: Array, data: PyTree, most_leaps: Any
) -> Chains:
    r"""Run Hamiltonian chains in the base space of an approximation, from its own draws.

    With z = z(eps) the approximation's map from base normals, the target seen from there is

        log pi(eps) = log p(z(eps)) + log |det dz/deps|,

    the standard normal if the approximation is exact. The nearer it is, the longer are the
    steps that chains can take; the step size follows the acceptance while they settle. Chains
    that forget where they began have left behind what was wrong with the approximation.

    Args:
        target: the target.
        family: a family whose draws are a one-to-one function of D base normals.
        params: its parameters.
        key: a typed random key.
        data: the user's data.
        most_leaps: limit on the steps of a trajectory; see `affordable_leaps`.

    Source: Hoffman et al. 2019 (arXiv:1903.03704) for chains in the base space; Wang, Kasprzak
    and Huggins 2023 (AISTATS, "TADDAA") for short chains as a check.
    """
    dim, dtype = target.dim, target.dtype
    number = num_chains(dim)
    start_key, loop_key = jax.random.split(key)

    def density(eps):
        def total(eps):
            z, log_q = family.reparam(params, eps)
            still = jax.lax.stop_gradient(z)
            log_p, score, ok = target.score(still, data)
            tangent = jnp.sum(score * (z - still), axis=-1)
            value = log_p + tangent - 0.5 * jnp.sum(eps**2, axis=-1) - log_q
            value = jnp.where(ok & jnp.isfinite(value), value, -jnp.inf)
            return jnp.sum(jnp.where(jnp.isfinite(value), value, 0)), value

        (_, value), slope = jax.value_and_grad(total, has_aux=True)(eps)
        return value, jnp.where(jnp.isfinite(slope), slope, 0)

    def trajectory(state, t):
        eps, value, slope, stride, spent = state
        jitter_key, momentum_key, accept_key = jax.random.split(jax.random.fold_in(loop_key, t), 3)
        length = _LENGTH * jax.random.uniform(jitter_key, (), dtype, 0.5, 1.5)
        leaps = jnp.clip(jnp.ceil(length / stride), 1, most_leaps).astype(jnp.int32)
        momentum = jax.random.normal(momentum_key, eps.shape, dtype)

        def leap(carry):
            i, x, p, _, g = carry
            p = p + 0.5 * stride * g
            x = x + stride * p
            v, g = density(x)
            return i + 1, x, p + 0.5 * stride * g, v, g

        begin = (jnp.zeros((), jnp.int32), eps, momentum, value, slope)
        _, x, p, v, g = jax.lax.while_loop(lambda c: c[0] < leaps, leap, begin)
        change = v - value - 0.5 * jnp.sum(p**2, axis=-1) + 0.5 * jnp.sum(momentum**2, axis=-1)
        # a chain that began without density takes whatever it finds
        change = jnp.where(jnp.isnan(change), -jnp.inf, change)
        chance = jnp.exp(jnp.minimum(change, 0))
        accept = jax.random.uniform(accept_key, (number,), dtype) < chance
        eps = jnp.where(accept[:, None], x, eps)
        slope = jnp.where(accept[:, None], g, slope)
        value = jnp.where(accept, v, value)
        mean_chance = jnp.mean(chance)
        settled = t >= _SETTLING
        stride = jnp.where(settled, stride, stride * jnp.exp(mean_chance - _ACCEPTANCE))
        seen = (eps, mean_chance, jnp.mean((change < _DIVERGENT).astype(dtype)))
        return (eps, value, slope, stride, spent + leaps), seen

    first = jax.random.normal(start_key, (number, dim), dtype)
    stride = jnp.full((), dim**-0.25, dtype)
    state = (first, *density(first), stride, jnp.ones((), jnp.int32))
    times = jnp.arange(_SETTLING + _KEPT)
    state, (path, chance, divergent) = jax.lax.scan(trajectory, state, times)
    kept = path[_SETTLING:]

    def place(eps):
        return family.reparam(params, eps)[0]

    def scalars(z):
        return jax.vmap(lambda z: target.scalars(target.constrain(z, data)))(z)

    draws = jax.lax.map(place, kept)
    x, x0 = jax.lax.map(scalars, draws), scalars(place(first))
    moments, persistence, drift, drift_se = _summarise(x)
    return Chains(
        draws=draws.reshape(-1, dim),
        moments=moments,
        memory=_correlation(x0, x[-1]),
        persistence=persistence,
        drift=drift,
        drift_se=drift_se,
        acceptance=jnp.mean(chance[_SETTLING:]),
        divergent_share=jnp.mean(divergent[_SETTLING:]),
        num_gradients=state[-1] * number,
    )


def pool(one: Chains, other: Chains) -> Any:
    """What two independent sets of chains of equal number found together, as NumPy arrays."""
    first, second = one.moments, other.moments
    mean = (first.mean + second.mean) / 2
    apart = (first.mean - second.mean) ** 2 / 4
    hypot: Any = np.hypot
    rest: Any = {"draws": None}
    moments = Moments(
        mean,
        ((first.sd**2 + second.sd**2) / 2 + apart) ** 0.5,
        hypot(first.mean_se, second.mean_se) / 2,
        hypot(first.sd_se, second.sd_se) / 2,
    )
    averaged = jax.tree.map(lambda a, b: (a + b) / 2, one._replace(**rest), other._replace(**rest))
    return averaged._replace(
        draws=np.concatenate([one.draws, other.draws]),
        moments=moments,
        drift_se=hypot(one.drift_se, other.drift_se) / 2,
        num_gradients=one.num_gradients + other.num_gradients,
    )


def _summarise(x: Array) -> tuple[Moments, Array, Array, Array]:
    """Moments, persistence, drift and its error from scalars (W, chains, C)."""
    number = x.shape[1]
    origin = x[0, 0]
    x = x - origin
    mean = jnp.mean(x, axis=(0, 1))
    squares = (x - mean) ** 2
    variance = jnp.mean(squares, axis=(0, 1))
    sd = jnp.sqrt(variance)
    tiny = jnp.finfo(x.dtype).tiny
    safe = jnp.maximum(sd, tiny)

    def error(by_chain):
        return jnp.std(by_chain, axis=0) / jnp.sqrt(number)

    mean_se = error(jnp.mean(x, axis=0))
    sd_se = error(jnp.mean(squares, axis=0)) / (2 * safe)
    half = x.shape[0] // 2
    signs = jnp.where(jnp.arange(x.shape[0]) < half, -1.0, 1.0).astype(x.dtype) / half
    early, late = jnp.mean(x[:half], axis=0), jnp.mean(x[half:], axis=0)
    moved = late - early
    widened = einsum("w,wnc->nc", signs, squares) / (2 * safe)
    drift = jnp.stack([jnp.mean(moved, 0), jnp.mean(widened, 0)]) / safe
    drift_se = jnp.stack([error(moved), error(widened)]) / safe
    moments = Moments(origin + mean, sd, mean_se, sd_se)
    return moments, _correlation(early, late), drift, drift_se


def _correlation(a: Array, b: Array) -> Array:
    """Correlation (C,) over the leading axis; 0 where either does not vary."""
    a, b = a - jnp.mean(a, axis=0), b - jnp.mean(b, axis=0)
    scale = jnp.sqrt(jnp.sum(a**2, axis=0) * jnp.sum(b**2, axis=0))
    return jnp.where(scale > 0, jnp.sum(a * b, axis=0) / jnp.where(scale > 0, scale, 1), 0)
