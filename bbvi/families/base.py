"""What a family is: how noise becomes draws, and in which units its parameters are counted."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._arrays import namespace
from bbvi._linalg import cholesky, dot, solve_lower
from bbvi._types import AnyArray, Array, PyTree
from bbvi.families.proposals import (
    Noise,
    Proposal,
    draw_noise,
    far_normals,
    log_far_ratio,
    own_draws,
    with_tails,
)

LOG_2PI = 1.8378770664093453


class Frame(NamedTuple):
    r"""Standardised units: the affine map z = loc + scale w.

    Solvers work on w, in which the posterior is expected to have mean 0 and scale 1, so that
    a step, a rate or a tolerance means the same for every problem.

    Attributes:
        loc: (D,).
        scale: standard deviations (D,), or a lower triangular factor (D, D).
    """

    loc: AnyArray
    scale: AnyArray

    @property
    def log_det(self) -> AnyArray:
        """log |det dz/dw|, a scalar."""
        xp = namespace(self.scale)
        diagonal = self.scale if self.scale.ndim == 1 else xp.diagonal(self.scale)
        return xp.sum(xp.log(diagonal))

    def apply(self, w: AnyArray) -> AnyArray:
        """z (S, D) at w (S, D)."""
        return self.loc + (w * self.scale if self.scale.ndim == 1 else dot(w, self.scale.T))

    def invert(self, z: Array) -> Array:
        """w (S, D) at z (S, D)."""
        return self.unscale((z - self.loc).T).T

    def log_normal(self, z: AnyArray) -> tuple[AnyArray, AnyArray]:
        """Of the Gaussian that is standard in these units, log density and squared radii (S,)."""
        squares = namespace(z).sum(self.invert(z) ** 2, axis=1)
        return -0.5 * squares - self.log_det - 0.5 * len(self.loc) * LOG_2PI, squares

    def rescale(self, columns: Array) -> Array:
        """scale @ columns, for columns (D, ...)."""
        if self.scale.ndim == 2:
            return dot(self.scale, columns)
        return (columns.T * self.scale).T

    def unscale(self, columns: Array) -> Array:
        """scale^-1 @ columns, for columns (D, ...)."""
        if self.scale.ndim == 2:
            return solve_lower(self.scale, columns)
        return (columns.T / self.scale).T


@dataclass(frozen=True)
class Family:
    """A set of distributions on R^D, as a hashable spec; parameters are a separate pytree.

    A family of your own subclasses this and gives `init`, `reparam` and `log_prob`, all for
    arrays with a leading draw axis, and passes `bbvi.testing.check_family`. `frame`,
    `to_frame` and `from_frame` are optional: without them the family's parameters are
    optimised in the units they have. `entropy`, `mean` and `sd` are optional closed forms.
    """

    def init(self, loc: Array, scale: Array) -> PyTree:
        """Parameters centred at `loc` (D,) with `scale`: a scalar, (D,), or lower (D, D)."""
        raise NotImplementedError

    def reparam(self, params: PyTree, eps: Array) -> tuple[Array, Array]:
        """Draws (S, D) and their log q (S,) from base normals `eps` (S, K)."""
        raise NotImplementedError

    def log_prob(self, params: PyTree, z: Array) -> Array:
        """log q (S,) at points (S, D)."""
        raise NotImplementedError

    def normals(self, params: PyTree, z: Array) -> Array:
        """Base normals (S, D) of draws (S, D), where these are a one-to-one function of them."""
        raise NotImplementedError(f"{type(self).__name__} does not give the normals of its draws")

    def reparam_held(self, params: PyTree, eps: Array) -> tuple[Array, Array]:
        """The same numbers as `reparam`, the parameters of log q held fixed (stuck the landing).

        The derivative of log q by the parameters is then that along the draws alone. A family
        that knows its score at a draw of its own may give it here and save the inverse map.

        Source: Roeder, Wu and Duvenaud 2017 (arXiv:1703.09194).
        """
        z, _ = self.reparam(params, eps)
        return z, self.log_prob(jax.lax.stop_gradient(params), z)

    def noise_size(self, dim: int) -> int:
        """K, the base normals that one draw of dimension D needs."""
        return dim

    def entropy(self, params: PyTree) -> Array:
        """The entropy -E[log q] in nats, where it has a closed form."""
        raise NotImplementedError(f"{type(self).__name__} has no closed-form entropy")

    def mean(self, params: PyTree) -> Array:
        """The mean (D,), where it has a closed form."""
        raise NotImplementedError(f"{type(self).__name__} has no closed-form mean")

    def sd(self, params: PyTree) -> Array:
        """The standard deviations (D,), where they have a closed form."""
        raise NotImplementedError(f"{type(self).__name__} has no closed-form sd")

    def sample_and_log_prob(self, params: PyTree, key: Array, num_draws: int) -> Any:
        """Draws (S, D) and their log q (S,)."""
        dim, dtype = self.event(params)
        return self.reparam(params, jax.random.normal(key, (num_draws, dim), dtype))

    def propose(self, params: PyTree, key: Array, num_draws: int) -> Proposal:
        """Draws for importance sampling, half of them with heavier tails where that can be done.

        Source: Hesterberg 1995, Technometrics 37(2), on defensive mixtures.
        """
        return self.propose_at(params, draw_noise(key, num_draws, *self.event(params)))

    def propose_at(self, params: PyTree, noise: Noise) -> Proposal:
        """The draws of `propose`, given their noise.

        Where draws are a one-to-one function of K = D base normals, the heavy half takes those
        from a spherical Student-t distribution instead, whose density is then that of the
        member times a ratio of the base densities.
        """
        size = noise.eps.shape[1]
        z, log_q = self.reparam(params, noise.widened)
        if z.shape[1] != size:
            return own_draws(*self.reparam(params, noise.eps))
        squares = jnp.sum(noise.widened**2, axis=-1)
        return Proposal(z, log_q, with_tails(log_q, squares, size), noise.own)

    def propose_far_at(self, params: PyTree, noise: Noise) -> Proposal:
        """Draws of which half lie far out, by `far_normals`."""
        directions = self.directions(params)
        assert directions is not None, "draws are made far out where they are affine in normals"
        return self.propose_along(params, noise, directions)

    def propose_along(self, params: PyTree, noise: Noise, directions: Array) -> Proposal:
        """Draws of which half lie far out, along such directions."""
        eps = far_normals(noise, directions)
        z, log_q = self.reparam(params, eps)
        return Proposal(z, log_q, log_q + log_far_ratio(eps, directions), noise.own)

    def directions(self, params: PyTree) -> Array | None:
        """Unit vectors (J, D), in the space of base normals, to make draws far out along.

        None where draws are not affine in normals: a curve far beyond the draws that it was fitted
        to leads anywhere.
        """
        return None

    def event(self, params: PyTree) -> tuple[int, Any]:
        """K and the floating type of the parameters."""
        return self.noise_size(params["loc"].shape[0]), params["loc"].dtype

    def frame(self, params: PyTree) -> Frame:
        """The units in which this member is standard, or plain ones."""
        loc = params["loc"]
        return Frame(jnp.zeros_like(loc), jnp.ones_like(loc))

    def to_frame(self, params: PyTree, frame: Frame) -> PyTree:
        """Parameters of the same member, for w instead of z."""
        return params

    def from_frame(self, params: PyTree, frame: Frame) -> PyTree:
        """Parameters of the same member, for z instead of w."""
        return params

    def units(self, params: PyTree) -> PyTree:
        """What counts as a move by one: a number for all parameters, or a tree of one for each.

        A solver's rate and tolerance are multiplied by it. In standardised units a location
        and a log scale move by one; weights of a network, of which many act together, by less.
        """
        return 1.0


@lru_cache(maxsize=8)
def moment_normals(size: int) -> np.ndarray:
    """Standard normals (4096, K), by which moments are known that have no closed form."""
    return np.random.default_rng(0).standard_normal((4096, size))


def frame_of_draws(z: AnyArray) -> Frame:
    """Units of the mean and the covariance of draws (S, D)."""
    loc = namespace(z).mean(z, axis=0)
    return Frame(loc, cholesky(dot((z - loc).T, z - loc) / len(z)))


def broadcast_scale(loc: Array, scale: Array) -> Array:
    """A scale as (D,) or (D, D)."""
    xp = namespace(loc)
    scale = xp.asarray(scale, loc.dtype)
    return scale if scale.ndim == 2 else xp.broadcast_to(scale, loc.shape)


def conditional_scale(loc: Array, scale: Array) -> Array:
    """The standard deviations (D,) of the factorised Gaussian closest in reverse KL.

    These are 1/sqrt((Sigma^-1)_ii), not the marginal ones (Bishop 2006, section 10.1.2).
    """
    scale = broadcast_scale(loc, scale)
    if scale.ndim == 1:
        return scale
    inverse = solve_lower(scale, jnp.eye(loc.shape[0], dtype=loc.dtype))
    return 1 / jnp.sqrt(jnp.sum(inverse**2, axis=0))
