"""Log densities written for BlackJAX: any function of one position, a pytree, to a number.

The position is the parameters as it is: BlackJAX knows no constraints, so all leaves are real. The
way back, a fit handed to BlackJAX's samplers, is `FitResult.to_mcmc`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bbvi._types import Array, PyTree
from bbvi.bridges.base import Bridged
from bbvi.status import InputError


def from_logdensity(logdensity_fn: Callable[[PyTree], Array], init: PyTree) -> Bridged:
    """A BlackJAX log density as `bbvi.fit` takes it.

    Needs no package. Data that the function closes over are compiled into the program.

    Args:
        logdensity_fn: the log density of one position, on the unconstrained space.
        init: a position.

    Returns:
        log joint, start and, as `postprocess`, the identity: draws keep the position's structure.

    Raises:
        InputError: if `logdensity_fn` is not a function.

    Example:
        >>> import bbvi, jax.numpy as jnp
        >>> def logdensity_fn(position):
        ...     return -0.5 * jnp.sum((position["x"] - 3.0) ** 2)
        >>> b = bbvi.bridges.blackjax.from_logdensity(logdensity_fn, {"x": jnp.zeros(2)})
        >>> result = bbvi.fit(b.log_joint, b.init, b.data, support=b.support)
        >>> b.postprocess(result.posterior.sample(0, 5))["x"].shape
        (5, 2)
    """
    if not callable(logdensity_fn):
        raise InputError(
            "logdensity_fn must be a function of one position, not a "
            f"{type(logdensity_fn).__name__}: give blackjax.nuts's own, not a sampler."
        )
    return Bridged(_LogDensity(logdensity_fn), init, None, None, lambda draws: draws)


@dataclass(frozen=True)
class _LogDensity:
    """The function with one argument only, whatever optional ones it has; equal for equal ones."""

    function: Callable[[PyTree], Any]

    def __call__(self, position: PyTree) -> Array:
        return self.function(position)
