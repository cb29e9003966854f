r"""A fit handed on to MCMC: where chains start, and in which units they move.

NUTS spends most of its warm-up on finding the bulk of the posterior and its scales. A fit knows
both: chains start at draws, the covariance of the approximation is the inverse mass matrix, and
what is left to adapt is one step size. Chains move on the flat unconstrained space of the target,
or on the base space of the fitted family, where a good fit makes the posterior a standard normal;
`constrain` leads back from either.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from bbvi._compile import plain_jit
from bbvi._linalg import dot
from bbvi._tree import as_arrays, as_key
from bbvi._types import Array, Key, PyTree
from bbvi.bridges.base import require
from bbvi.bridges.mcmc import blackjax, numpyro, nutpie
from bbvi.bridges.mcmc.chains import Chains
from bbvi.bridges.mcmc.space import BaseSpace, constrain, log_density
from bbvi.families import (
    BentGaussian,
    CouplingFlow,
    FullRankGaussian,
    GaussianMixture,
    GivenScales,
    MeanFieldGaussian,
    Noncentred,
    TriangularGaussian,
)
from bbvi.posterior import MOMENT_DRAWS, Posterior
from bbvi.status import InputError
from bbvi.target import Target

if TYPE_CHECKING:
    from bbvi.result import FitResult

# A dense mass matrix costs D^2 a leapfrog step, and its inverse is a matrix of as many draws.
_LARGEST_DENSE = 200
# In the base spaces of these a posterior is straighter than in its own.
_STRAIGHTENING = (BentGaussian, CouplingFlow, GivenScales, Noncentred, TriangularGaussian)


@dataclass(frozen=True)
class McmcStart:
    """All that an MCMC sampler needs of a fit.

    Attributes:
        z: starts on the flat space that chains move on, (chains, D).
        params: the same in the user's structure, each leaf with a leading axis of chains.
        inverse_mass_matrix: covariance (D, D) of the approximation there, or its diagonal (D,).
        target: the target.
        data: the data of the fit.
        base: the base space that chains move on; None where it is the unconstrained space.
        key: the random key that the samplers below start from.
    """

    z: Array
    params: PyTree
    inverse_mass_matrix: Array
    target: Target
    data: PyTree = field(repr=False)
    base: BaseSpace | None
    key: Array = field(repr=False)

    def log_density(self, z: Array) -> Array:
        """The log density at one flat vector (D,), a scalar; for any sampler that takes one."""
        return log_density(self.target, z, self.data, self.base)

    def constrain(self, zs: Array) -> PyTree:
        """Flat draws (..., D) in the user's structure, with the same leading axes."""
        return constrain(self.target, zs, self.data, self.base)

    def whitened(self) -> McmcStart:
        """The same start in units in which the fit is standard: the mass matrix is the identity.

        For a sampler that cannot be given a mass matrix. In float32 also for one that can: far
        out, where a step that is too long leads, r' M r of a dense matrix may come out negative.
        """
        if self.base is not None:
            return self
        matrix, loc = self.inverse_mass_matrix, jnp.mean(self.z, axis=0)
        dense = matrix.ndim == 2
        family = FullRankGaussian() if dense else MeanFieldGaussian()
        params = family.init(loc, jnp.linalg.cholesky(matrix) if dense else jnp.sqrt(matrix))
        eps = family.frame(params).invert(self.z)
        ones = jnp.ones_like(loc)
        return replace(self, z=eps, inverse_mass_matrix=ones, base=BaseSpace(family, params))

    def blackjax_nuts(self, num_draws: int = 1000, num_warmup: int = 100) -> Chains:
        """Run BlackJAX's NUTS on all chains: a warm-up of the step size alone, then draws.

        Args:
            num_draws: draws of each chain.
            num_warmup: steps of each chain in which its step size is adapted.

        Raises:
            ImportError: if blackjax is not installed.
        """
        require("blackjax", "blackjax", "to_mcmc().blackjax_nuts()")
        return blackjax.run(self, num_draws, num_warmup)

    def numpyro_nuts(
        self, num_draws: int = 1000, num_warmup: int = 100, progress_bar: bool = False
    ) -> Chains:
        """Run NumPyro's NUTS on all chains, with the mass matrix held.

        Args:
            num_draws: draws of each chain.
            num_warmup: steps of each chain in which its step size is adapted.
            progress_bar: whether NumPyro shows its progress.

        Raises:
            ImportError: if numpyro is not installed.
        """
        require("numpyro", "numpyro", "to_mcmc().numpyro_nuts()")
        return numpyro.run(self.whitened(), num_draws, num_warmup, progress_bar)

    def numpyro_kernel(self, **options: Any) -> Any:
        """NumPyro's NUTS with this mass matrix, for a `numpyro.infer.MCMC` of your own.

        Args:
            options: further arguments of `numpyro.infer.NUTS`. Give `z` to
                `MCMC.run(key, init_params=...)`.

        Raises:
            ImportError: if numpyro is not installed.
        """
        require("numpyro", "numpyro", "to_mcmc().numpyro_kernel()")
        return numpyro.kernel(self, options)

    def nutpie_nuts(
        self, num_draws: int = 1000, num_warmup: int = 100, progress_bar: bool = False
    ) -> Chains:
        """Run nutpie's NUTS on all chains, in units in which the fit is standard.

        Args:
            num_draws: draws of each chain.
            num_warmup: steps of each chain in which it adapts.
            progress_bar: whether nutpie shows its progress.

        Raises:
            ImportError: if nutpie is not installed.
        """
        require("nutpie", "nutpie", "to_mcmc().nutpie_nuts()")
        return nutpie.run(self.whitened(), num_draws, num_warmup, progress_bar)


def to_mcmc(
    result: FitResult,
    num_chains: int = 4,
    key: Key = 0,
    *,
    data: PyTree = None,
    dense: bool | None = None,
    neutra: bool | None = None,
) -> McmcStart:
    """What an MCMC sampler needs of a fit; see `FitResult.to_mcmc`, which calls this.

    Raises:
        InputError: if the data are missing or have other shapes than those of the fit, or if
            there is no base space for `neutra`.
    """
    posterior = result.posterior
    target = posterior.target
    if num_chains < 1:
        raise InputError(f"num_chains must be a positive whole number, not {num_chains!r}.")
    data = posterior.data if data is None else as_arrays(data, "data")
    if data is None and target.takes_data and result.data_spec:
        raise InputError(
            "a result does not hold the data it was fitted to: call "
            "result.to_mcmc(data=...) with them."
        )
    dense = target.dim <= _LARGEST_DENSE if dense is None else dense
    start_key, run_key = jax.random.split(as_key(key))
    base = None
    straight = isinstance(posterior.family, _STRAIGHTENING)
    if neutra or (neutra is None and straight):
        base = _base_space(posterior)
        z = jax.random.normal(start_key, (num_chains, target.dim), target.dtype)
        covariance = jnp.ones(target.dim, target.dtype)
    else:
        z = _starts(posterior, start_key, num_chains)
        covariance = _covariance(posterior, dense)
    params = constrain(target, z, data, base)
    return McmcStart(z, params, covariance, target, data, base, run_key)


def _base_space(posterior: Posterior) -> BaseSpace:
    family, dim = posterior.family, posterior.target.dim
    if isinstance(family, GaussianMixture) or family.noise_size(dim) != dim:
        raise InputError(
            f"neutra=True needs a family whose draws are a one-to-one function of {dim} normals, "
            f"such as CouplingFlow or FullRankGaussian; those of {type(family).__name__} are not."
        )
    return BaseSpace(family, posterior.params)


@plain_jit((2,))
def _starts(posterior: Posterior, key: Array, num_chains: int) -> Array:
    """Unconstrained draws (chains, D): by weight and all different where weights correct them."""
    if posterior.draws is None or posterior.log_weights is None:
        sample = posterior.family.sample_and_log_prob
        return sample(posterior.params, key, num_chains)[0]
    # the largest of log weight + Gumbel noise: draws by weight without replacement
    noise = jax.random.gumbel(key, posterior.log_weights.shape, posterior.log_weights.dtype)
    _, chosen = jax.lax.top_k(posterior.log_weights + noise, num_chains)
    return posterior.draws[chosen]


@plain_jit((1,))
def _covariance(posterior: Posterior, dense: bool) -> Array:
    r"""Covariance (D, D) of the approximation on the unconstrained space, or its diagonal (D,).

    Where importance weights of n effective draws correct it, n / (n + D) times the weighted
    covariance plus D / (n + D) times the plain one: never singular.
    """
    family, params = posterior.family, posterior.params
    if isinstance(family, FullRankGaussian):
        plain = family.covariance(params)
        plain = plain if dense else jnp.diagonal(plain)
    else:
        zs, _ = family.sample_and_log_prob(params, jax.random.key(0), MOMENT_DRAWS)
        plain = _second_moment(zs, jnp.full(zs.shape[:1], 1 / MOMENT_DRAWS, zs.dtype), dense)
    if posterior.draws is None or posterior.log_weights is None:
        return plain
    weights = jax.nn.softmax(posterior.log_weights)
    effective = 1 / jnp.sum(weights**2)
    share = effective / (effective + posterior.target.dim)
    return share * _second_moment(posterior.draws, weights, dense) + (1 - share) * plain


def _second_moment(zs: Array, weights: Array, dense: bool) -> Array:
    centred = zs - dot(weights, zs)
    return dot(centred.T * weights, centred) if dense else dot(weights, centred**2)
