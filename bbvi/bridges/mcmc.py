r"""A fit handed on to MCMC: where chains start, and in which units they move.

NUTS spends most of its warm-up on finding the bulk of the posterior and its scales. A fit knows
both: chains start at draws, the covariance of the approximation is the inverse mass matrix, and
what is left to adapt is one step size. MCMC works on the flat unconstrained space of the target;
`constrain` leads back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._linalg import dot
from bbvi._tree import as_arrays, as_key
from bbvi._types import Array, Key, PyTree
from bbvi.bridges.base import require
from bbvi.families import FullRankGaussian
from bbvi.posterior import MOMENT_DRAWS, Posterior
from bbvi.status import InputError
from bbvi.target import Target

if TYPE_CHECKING:
    from bbvi.result import FitResult

# A dense mass matrix costs D^2 a leapfrog step, and its inverse is a matrix of as many draws.
_LARGEST_DENSE = 200
_TARGET_ACCEPTANCE = 0.8
# In units of the posterior's sds. Dual averaging tries ten times the first step, and steps far
# above one leave the range in which single precision can tell energies apart.
_FIRST_STEP = 0.1


class Chains(NamedTuple):
    """What MCMC gave.

    Attributes:
        draws: in the user's structure, each leaf with leading axes (chains, draws).
        warmup_gradients: gradient evaluations of the warm-up, all chains together.
        num_gradients: those of the draws.
        num_divergent: divergent transitions among the draws.
        step_size: of each chain, (chains,).
    """

    draws: PyTree
    warmup_gradients: int
    num_gradients: int
    num_divergent: int
    step_size: np.ndarray


@dataclass(frozen=True)
class McmcStart:
    """All that an MCMC sampler needs of a fit.

    Attributes:
        z: starts on the flat unconstrained space, (chains, D).
        params: the same in the user's structure, each leaf with a leading axis of chains.
        inverse_mass_matrix: covariance (D, D) of the approximation, or its diagonal (D,).
        target: the target.
        data: the data of the fit.
        key: the random key that the samplers below start from.
    """

    z: Array
    params: PyTree
    inverse_mass_matrix: Array
    target: Target
    data: PyTree = field(repr=False)
    key: Array = field(repr=False)

    def log_density(self, z: Array) -> Array:
        """The log density at one flat vector (D,), a scalar; for any sampler that takes one."""
        return self.target.log_density(z, self.data)

    def constrain(self, zs: Array) -> PyTree:
        """Flat draws (..., D) in the user's structure, with the same leading axes."""
        return _constrain(self.target, zs, self.data)

    def blackjax_nuts(self, num_draws: int = 1000, num_warmup: int = 100) -> Chains:
        """Run BlackJAX's NUTS on all chains: a warm-up of the step size alone, then draws.

        Args:
            num_draws: draws of each chain.
            num_warmup: steps of each chain in which its step size is adapted.

        Raises:
            ImportError: if blackjax is not installed.
        """
        require("blackjax", "blackjax", "to_mcmc().blackjax_nuts()")
        keys = jax.random.split(self.key, self.z.shape[0])
        found = _blackjax_nuts(
            self.target, num_draws, num_warmup, keys, self.z, self.inverse_mass_matrix, self.data
        )
        zs, step_size, warmup, spent, divergent = jax.device_get(found)
        # one leapfrog step is one gradient
        return Chains(
            jax.device_get(self.constrain(zs)),
            int(warmup.sum()),
            int(spent.sum()),
            int(divergent.sum()),
            step_size,
        )

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
        from numpyro.infer import MCMC

        mcmc = MCMC(
            self.numpyro_kernel(),
            num_warmup=num_warmup,
            num_samples=num_draws,
            num_chains=self.z.shape[0],
            # a log joint that cannot be batched runs one chain after another
            chain_method="sequential" if self.target.sequential else "vectorized",
            progress_bar=progress_bar,
        )
        many = self.z.shape[0] > 1
        starts = self.z if many else self.z[0]
        spent = ("num_steps", "diverging", "adapt_state.step_size")
        mcmc.warmup(self.key, init_params=starts, collect_warmup=True, extra_fields=spent)
        warmup = int(mcmc.get_extra_fields()["num_steps"].sum())
        mcmc.run(mcmc.post_warmup_state.rng_key, extra_fields=spent)
        fields = mcmc.get_extra_fields(group_by_chain=True)
        return Chains(
            jax.device_get(self.constrain(mcmc.get_samples(group_by_chain=True))),
            warmup,
            int(fields["num_steps"].sum()),
            int(fields["diverging"].sum()),
            np.asarray(fields["adapt_state.step_size"])[:, -1],
        )

    def numpyro_kernel(self, **options: Any) -> Any:
        """NumPyro's NUTS with this mass matrix, for a `numpyro.infer.MCMC` of your own.

        Args:
            options: further arguments of `numpyro.infer.NUTS`. Give `z` to
                `MCMC.run(key, init_params=...)`.

        Raises:
            ImportError: if numpyro is not installed.
        """
        require("numpyro", "numpyro", "to_mcmc().numpyro_kernel()")
        from numpyro.infer import NUTS

        settings = {
            "inverse_mass_matrix": self.inverse_mass_matrix,
            "dense_mass": self.inverse_mass_matrix.ndim == 2,
            "adapt_mass_matrix": False,
            "target_accept_prob": _TARGET_ACCEPTANCE,
        }
        return NUTS(potential_fn=lambda z: -self.log_density(z), **{**settings, **options})


def to_mcmc(
    result: FitResult,
    num_chains: int = 4,
    key: Key = 0,
    *,
    data: PyTree = None,
    dense: bool | None = None,
) -> McmcStart:
    """What an MCMC sampler needs of a fit; see `FitResult.to_mcmc`, which calls this.

    Raises:
        InputError: if the data are missing or have other shapes than those of the fit.
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
    z = _starts(posterior, start_key, num_chains)
    covariance = _covariance(posterior, dense)
    return McmcStart(z, _constrain(target, z, data), covariance, target, data, run_key)


@partial(jax.jit, static_argnums=2)
def _starts(posterior: Posterior, key: Array, num_chains: int) -> Array:
    """Unconstrained draws (chains, D): by weight and all different where weights correct them."""
    if posterior.draws is None or posterior.log_weights is None:
        sample = posterior.family.sample_and_log_prob
        return sample(posterior.params, key, num_chains)[0]
    # the largest of log weight + Gumbel noise: draws by weight without replacement
    noise = jax.random.gumbel(key, posterior.log_weights.shape, posterior.log_weights.dtype)
    _, chosen = jax.lax.top_k(posterior.log_weights + noise, num_chains)
    return posterior.draws[chosen]


@partial(jax.jit, static_argnums=1)
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


@partial(jax.jit, static_argnums=0)
def _constrain(target: Target, zs: Array, data: PyTree) -> PyTree:
    constrained = jax.vmap(lambda z: target.constrain(z, data))(zs.reshape(-1, zs.shape[-1]))
    return jax.tree.map(lambda x: x.reshape(zs.shape[:-1] + x.shape[1:]), constrained)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _blackjax_nuts(
    target: Target,
    num_draws: int,
    num_warmup: int,
    keys: Array,
    starts: Array,
    inverse_mass_matrix: Array,
    data: PyTree,
) -> tuple[Array, ...]:
    """Draws (chains, draws, D), step sizes, gradients of warm-up and draws, divergences."""
    import blackjax
    from blackjax.adaptation.step_size import dual_averaging_adaptation

    def log_density(z):
        value = target.log_density(z, data)
        # NaN and +inf are refused; one such point would hold a chain for good
        return jnp.where(value < jnp.inf, value, -jnp.inf)

    first, update, last = dual_averaging_adaptation(_TARGET_ACCEPTANCE)
    step = blackjax.nuts.build_kernel()

    def warm(carry, key):
        state, adaptation = carry
        size = jnp.exp(adaptation.log_step_size)
        state, info = step(key, state, log_density, size, inverse_mass_matrix)
        return (state, update(adaptation, info.acceptance_rate)), info.num_integration_steps

    def chain(key, start):
        warm_key, draw_key = jax.random.split(key)
        state = blackjax.nuts.init(start, log_density)
        carry = state, first(jnp.asarray(_FIRST_STEP, start.dtype))
        (state, adaptation), warmup = jax.lax.scan(
            warm, carry, jax.random.split(warm_key, num_warmup)
        )
        size = last(adaptation)

        def draw(state, key):
            state, info = step(key, state, log_density, size, inverse_mass_matrix)
            return state, (state.position, info.num_integration_steps, info.is_divergent)

        _, (zs, spent, divergent) = jax.lax.scan(draw, state, jax.random.split(draw_key, num_draws))
        return zs, size, warmup.sum(), spent.sum(), divergent.sum()

    if target.sequential:
        return jax.lax.map(lambda args: chain(*args), (keys, starts))
    return jax.vmap(chain)(keys, starts)
