"""Mixtures of full-rank Gaussians, for posteriors with several modes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._arrays import logsumexp, namespace
from bbvi._linalg import cholesky, dot, einsum, solve_lower
from bbvi._types import AnyArray, Array, PyTree
from bbvi.families.base import LOG_2PI, Family, Frame, broadcast_scale
from bbvi.families.fullrank import directions_of
from bbvi.families.proposals import (
    Noise,
    Proposal,
    far_normals,
    log_far_ratio,
    with_tails,
)


@dataclass(frozen=True)
class GaussianMixture(Family):
    r"""sum_k w_k N(loc_k, L_k L_k').

    Put together from fits of single modes rather than optimised: draws are not a smooth
    function of the weights, so there is no `reparam`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> family = GaussianMixture()
        >>> params = family.join(
        ...     jnp.log(jnp.array([0.3, 0.7])), jnp.array([[-5.0], [5.0]]), jnp.ones((2, 1, 1))
        ... )
        >>> z, log_q = family.sample_and_log_prob(params, jax.random.key(0), 1000)
        >>> bool(abs(jnp.mean(z > 0) - 0.7) < 0.05)
        True

    Source: Bishop 2006, Pattern Recognition and Machine Learning, section 2.3.9.
    """

    def init(self, loc: Array, scale: Array) -> PyTree:
        scale = broadcast_scale(loc, scale)
        factor = jnp.diag(scale) if scale.ndim == 1 else scale
        return self.join(jnp.zeros(1, loc.dtype), loc[None], factor[None])

    def join(self, log_weights: Array, loc: Array, factor: Array) -> PyTree:
        """Parameters from log weights (K,), centres (K, D) and lower factors (K, D, D)."""
        return {"log_weights": jax.nn.log_softmax(log_weights), "loc": loc, "factor": factor}

    def reparam(self, params: PyTree, eps: Array) -> tuple[Array, Array]:
        raise NotImplementedError("a mixture has no reparameterised draws: fit its modes singly.")

    def sample_and_log_prob(
        self, params: PyTree, key: Array, num_draws: int
    ) -> tuple[Array, Array]:
        choice_key, noise_key = jax.random.split(key)
        size, dtype = self.event(params)
        eps = jax.random.normal(noise_key, (num_draws, size), dtype)
        z = self.at_normals(params, jax.random.uniform(choice_key, (num_draws,), dtype), eps[None])
        return z, self.log_prob(params, z)

    def propose_at(self, params: PyTree, noise: Noise) -> Proposal:
        z = self.at_normals(params, noise.choice, noise.widened[None])
        by_component, squares = self.by_component(params, z)
        mixed = with_tails(by_component, squares, z.shape[1])
        return Proposal(z, logsumexp(by_component.T), logsumexp(mixed.T), noise.own)

    def propose_along(self, params: PyTree, noise: Noise, directions: Array) -> Proposal:
        eps = by_direction(lambda u: far_normals(noise, u), directions)
        z = self.at_normals(params, noise.choice, eps)
        eps, by_component = self.base_normals(params, z)
        mixed = by_component + by_direction(log_far_ratio, eps, directions)
        return Proposal(z, logsumexp(by_component.T), logsumexp(mixed.T), noise.own)

    def directions(self, params: PyTree) -> Array:
        """Those of each component (K, D, D)."""
        return directions_of(params["factor"])

    def log_prob(self, params: PyTree, z: Array) -> Array:
        return logsumexp(self.by_component(params, z)[0].T)

    def log_mixture(self, params: PyTree, z: Array) -> Array:
        """log density (S,) of what `propose_at` draws, half of it with heavier tails."""
        by_component, squares = self.by_component(params, z)
        return logsumexp(with_tails(by_component, squares, z.shape[1]).T)

    def at_normals(self, params: PyTree, choice: Array, eps: Array) -> Array:
        """Draws (S, D) of components that uniforms (S,) choose, at base noise (K or 1, S, D)."""
        xp = namespace(params["loc"])
        ends = xp.cumsum(xp.exp(params["log_weights"]))[:-1]
        component = xp.sum(choice[:, None] >= ends, axis=1)
        # every component's draw and then the chosen one: a gather of factors would take (S, D, D)
        moved = params["loc"][:, None] + dot(eps, xp.swapaxes(params["factor"], 1, 2))
        return xp.take_along_axis(moved, component[None, :, None], axis=0)[0]

    def by_component(self, params: PyTree, z: Array) -> tuple[Array, Array]:
        """log w_k N_k(z) and squared distances in units of component k, both (K, S)."""
        eps, log_q = self.base_normals(params, z)
        return log_q, namespace(eps).sum(eps**2, axis=2)

    def base_normals(self, params: PyTree, z: Array) -> tuple[Array, Array]:
        """Base normals of points (S, D) in each component (K, S, D), and log w_k N_k(z) (K, S)."""
        loc, factor = params["loc"], params["factor"]
        xp = namespace(loc)
        solve = solve_lower if xp is np else jax.vmap(solve_lower)
        eps = xp.swapaxes(solve(factor, xp.swapaxes(z - loc[:, None], 1, 2)), 1, 2)
        log_det = xp.sum(xp.log(xp.diagonal(factor, axis1=1, axis2=2)), axis=1)
        log_q = -0.5 * xp.sum(eps**2, axis=2) - log_det[:, None] - 0.5 * loc.shape[1] * LOG_2PI
        return eps, log_q + params["log_weights"][:, None]

    def event(self, params: PyTree) -> tuple[int, Any]:
        return params["loc"].shape[1], params["loc"].dtype

    def mean(self, params: PyTree) -> Array:
        """The mean (D,)."""
        return einsum("k,kd->d", jnp.exp(params["log_weights"]), params["loc"])

    def sd(self, params: PyTree) -> Array:
        """The standard deviations (D,)."""
        weights = jnp.exp(params["log_weights"])
        variance = jnp.sum(params["factor"] ** 2, axis=-1)
        centred = params["loc"] - self.mean(params)
        return jnp.sqrt(einsum("k,kd->d", weights, variance + centred**2))

    def frame(self, params: PyTree) -> Frame:
        weights, loc, factor = params["log_weights"], params["loc"], params["factor"]
        xp = namespace(loc)
        weights = xp.exp(weights)
        mean = dot(weights, loc)
        centred = loc - mean
        spread = dot(factor, xp.swapaxes(factor, 1, 2)) + centred[:, :, None] * centred[:, None]
        covariance = dot(weights, spread.reshape(len(loc), -1)).reshape(spread.shape[1:])
        return Frame(mean, cholesky(covariance))

    def to_frame(self, params: PyTree, frame: Frame) -> PyTree:
        factor = jax.vmap(frame.unscale)(params["factor"])
        return params | {"loc": frame.invert(params["loc"]), "factor": factor}

    def from_frame(self, params: PyTree, frame: Frame) -> PyTree:
        factor = jax.vmap(frame.rescale)(params["factor"])
        return params | {"loc": frame.apply(params["loc"]), "factor": factor}


def by_direction(function: Callable, *stacked: AnyArray) -> AnyArray:
    """A function of each component's (K, ...), results stacked."""
    if namespace(stacked[0]) is np:
        return np.stack([function(*x) for x in zip(*stacked, strict=True)])
    return jax.vmap(function)(*stacked)
