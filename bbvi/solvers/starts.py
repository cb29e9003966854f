"""Where to start: a race between points, the ends of uphill paths, and points on the way."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bbvi._types import Array, PyTree
from bbvi.families import MeanFieldGaussian
from bbvi.objectives.draws import normals
from bbvi.solvers.lbfgs import SNAPSHOTS, lbfgs_path
from bbvi.target import Target

# Half-widths of the uniform random starts, a pair x, -x each. One near: the usual choice for MCMC
# in unconstrained units (Stan). Four far, whose paths look for modes that have no near point in
# their basin: without them a mode of weight 0.3, 8 sds away, was missed on most keys.
_RANDOM_RADII = (2.0, 10.0, 10.0, 10.0, 10.0)
ORIGINS = 2 * len(_RANDOM_RADII) + 2
PATH_EVALUATIONS = 150
_DRAWS = 32  # a candidate; the bound only has to rank them
# Draws of a race held at once, in numbers: 64 MiB in float32.
_CHUNK_ELEMENTS = 1 << 24


FAMILY = MeanFieldGaussian()  # of a candidate


class Starts(NamedTuple):
    """Candidates of a race, best first.

    Attributes:
        loc: (P, D) centres.
        scale: (P, D) standard deviations.
        elbo: (P,) estimated bounds of the factorised Gaussians, nats, -inf where none.
        num_gradients: evaluations spent on gradients.
        num_densities: evaluations spent on densities alone.
    """

    loc: Array
    scale: Array
    elbo: Array
    num_gradients: Array
    num_densities: Array


def race(
    target: Target,
    loc: Array,
    key: Array,
    data: PyTree,
    path_evaluations: Array | int = PATH_EVALUATIONS,
) -> Starts:
    """Rank possible starts by their bound on common draws.

    A mode is never trusted: in a funnel the paths end in a spike where no posterior mass is,
    and the points they began from win; with badly scaled data it is the other way round.

    Args:
        target: the target.
        loc: the user's point (D,).
        key: a typed random key.
        data: the user's data.
        path_evaluations: limit on the gradient evaluations of each path.
    """
    dim, dtype = target.dim, target.dtype
    point_key, draw_key = jax.random.split(key)
    radii = jnp.array(_RANDOM_RADII, dtype)[:, None]
    noise = jax.random.uniform(point_key, (radii.size, dim), dtype, -1, 1)
    pairs = [radii * noise, -radii * noise]
    origins = jnp.concatenate([loc[None], jnp.zeros((1, dim), dtype), *pairs])
    paths = batched(lambda x: lbfgs_path(target, x, data, path_evaluations), origins, target)
    number = origins.shape[0]
    locs = jnp.concatenate([origins, paths.points.reshape(-1, dim)])
    scales = jnp.concatenate([jnp.ones_like(origins), paths.curvature_scale.reshape(-1, dim)])
    eps = normals(draw_key, _DRAWS, dim, dtype, antithetic=True, quasi=False)

    def bound(candidate):
        loc, scale = candidate
        log_p = target.log_densities(loc + scale * eps, data)
        ok = jnp.isfinite(log_p)
        count = jnp.sum(ok)
        mean = jnp.sum(jnp.where(ok, log_p, 0)) / jnp.maximum(count, 1)
        entropy = FAMILY.entropy(FAMILY.init(loc, scale))
        # a candidate with many draws outside the support is no start
        elbo = jnp.where(count > _DRAWS // 2, mean + entropy, -jnp.inf)
        return jnp.where(jnp.isnan(elbo), -jnp.inf, elbo)

    elbo = batched(bound, (locs, scales), target, _DRAWS)
    order = jnp.argsort(-elbo)
    spent = jnp.sum(paths.num_gradients)
    assert locs.shape[0] == number * (2 + len(SNAPSHOTS))
    densities = jnp.asarray(locs.shape[0] * _DRAWS, jnp.int32)
    return Starts(locs[order], scales[order], elbo[order], spent, densities)


def batched(function, inputs: PyTree, target: Target, draws: int = 1) -> PyTree:
    """`function` over the leading axis, as many at once as memory and the target allow."""
    if target.sequential:
        return jax.lax.map(function, inputs)
    size = max(1, _CHUNK_ELEMENTS // (draws * target.dim))
    if jax.tree.leaves(inputs)[0].shape[0] <= size:
        return jax.vmap(function)(inputs)
    return jax.lax.map(function, inputs, batch_size=size)
