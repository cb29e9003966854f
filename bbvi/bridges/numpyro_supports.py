"""Supports of the sites of a NumPyro model: bbvi's own for sets that it has, else NumPyro's map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import bbvi.bijectors as supports
from bbvi._types import Array, PyTree
from bbvi.bijectors import Bijector
from bbvi.bridges.base import HomeSupport, Maps, depends

# (params, data) -> all sites of one run of the model; it counts by identity.
Trace = Callable[[PyTree, PyTree], dict[str, dict]]


def site_supports(
    trace: Trace,
    constraints: dict[str, Any],
    free: dict[str, Array],
    values: dict[str, Array],
    data: PyTree,
) -> dict[str, Bijector]:
    """The support of each latent site by its name.

    Args:
        trace: `trace(params, data)` gives all sites of the model, latent ones at `params`.
        constraints: NumPyro's constraint of each site.
        free: an unconstrained value of each.
        values: the constrained values of these.
        data: the arrays among the model's arguments.
    """

    def bounds(params, data):
        sites = trace(params, data)
        return [jax.tree.leaves(sites[k]["fn"].support) for k in free]

    maps = {}
    for name, moves in zip(free, depends(bounds, (values, data)), strict=True):
        own = None if moves else _own_support(constraints[name])
        words = f"numpyro's support of {name}"
        shapes = values[name].shape, free[name].shape
        maps[name] = own or HomeSupport(words, _Find(trace, name), *shapes)
    return maps


@dataclass(frozen=True)
class _Find:
    """NumPyro's map for one site, where the other sites have given values."""

    trace: Trace
    name: str

    def __call__(self, params: PyTree, data: PyTree) -> Maps:
        from numpyro.distributions import biject_to

        constraint = self.trace(params, data)[self.name]["fn"].support
        transform = biject_to(constraint)
        return Maps(
            transform,
            lambda x: jnp.sum(transform.log_abs_det_jacobian(x, transform(x))),
            transform.inv,
            lambda y: jnp.all(constraint(y)),
        )


def _own_support(constraint: Any) -> Bijector | None:
    """bbvi's support for a constraint that depends on nothing, or None if it has none."""
    from numpyro.distributions import constraints as c

    while isinstance(constraint, c.independent):
        constraint = constraint.base_constraint
    named = [
        (c.real, supports.real),
        (c.positive, supports.positive),
        (c.nonnegative, supports.positive),
        (c.unit_interval, supports.unit_interval),
        (c.simplex, supports.simplex),
        (c.ordered_vector, supports.ordered),
        (c.positive_ordered_vector, supports.positive_ordered),
        (c.corr_cholesky, supports.corr_cholesky),
        (c.corr_matrix, supports.correlation),
        (c.lower_cholesky, supports.cov_cholesky),
        (c.positive_definite, supports.covariance),
    ]
    for known, own in named:
        if type(constraint) is type(known):
            return own
    if type(constraint) in (c.greater_than, c.greater_than_eq):
        return supports.greater_than(np.asarray(constraint.lower_bound))
    if type(constraint) in (c.less_than, c.less_than_eq):
        return supports.less_than(np.asarray(constraint.upper_bound))
    if type(constraint) in (c.interval, c.open_interval):
        bounds = np.asarray(constraint.lower_bound), np.asarray(constraint.upper_bound)
        return supports.interval(*bounds)
    return None
