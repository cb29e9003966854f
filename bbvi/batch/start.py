"""Where one of many problems starts: a race that costs a tenth of the default's."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bbvi._types import Array, PyTree
from bbvi.objectives.draws import normals
from bbvi.solvers.lbfgs import lbfgs_path
from bbvi.solvers.starts import FAMILY
from bbvi.stages.coverage import COVERED_NATS
from bbvi.target import Target

_PATH_EVALUATIONS = 40
_DRAWS = 16
_PEAK_DRAWS = 128
_RANDOM_RADIUS = 2.0
# Of a path, the points after 4 and 16 iterations and its end.
_KEPT = (0, 1, 3)
# A peak whose share of the evidence is below e^-6 moves nothing visibly.
_VISIBLE_NATS = 6.0


class QuickStart(NamedTuple):
    """Where to begin, and what was seen on the way.

    Attributes:
        loc: (D,) centre.
        scale: (D,) standard deviations.
        usable: whether the user's point lies in the support, with a finite density and gradient.
        peaks: (3, D) where the paths ended.
        widths: (3, D) standard deviations by the curvature there.
        mass: (3,) what a Gaussian of those widths says of the log evidence there, from below.
        num_gradients: evaluations spent on gradients.
    """

    loc: Array
    scale: Array
    usable: Array
    peaks: Array
    widths: Array
    mass: Array
    num_gradients: Array


def quick_start(target: Target, init: PyTree, key: Array, data: PyTree) -> QuickStart:
    """Rank the user's point, zero, and points on three short paths uphill by their bounds.

    The paths start at the user's point, at a random one, and at its mirror image: of two modes
    that differ by a sign, these find one each. All ends are kept, since a peak that the fit
    does not cover later tells that there is more than one.

    Args:
        target: the target.
        init: the user's point.
        key: a typed random key.
        data: the user's data.
    """
    dim, dtype = target.dim, target.dtype
    values = target.treedef.flatten_up_to(init)
    bound = [leaf.bijector.bind(init, data) for leaf in target.leaves]
    inside = jnp.stack([b.contains(x) for b, x in zip(bound, values, strict=True)])
    loc = target.unconstrain(init, data)
    log_density, gradient = jax.value_and_grad(target.log_density)(loc, data)
    finite = jnp.isfinite(log_density) & jnp.all(jnp.isfinite(loc) & jnp.isfinite(gradient))
    usable = jnp.all(inside) & finite

    point_key, draw_key = jax.random.split(key)
    zero = jnp.zeros((dim,), dtype)
    loc = jnp.where(usable, loc, zero)
    far = jax.random.uniform(point_key, (dim,), dtype, -_RANDOM_RADIUS, _RANDOM_RADIUS)
    paths = jax.vmap(lambda x: lbfgs_path(target, x, data, _PATH_EVALUATIONS))(
        jnp.stack([loc, far, -far])
    )
    kept = jnp.array(_KEPT)
    unit = jnp.ones((2, dim), dtype)
    locs = jnp.concatenate([jnp.stack([loc, zero]), paths.points[:, kept].reshape(-1, dim)])
    scales = jnp.concatenate([unit, paths.curvature_scale[:, kept].reshape(-1, dim)])
    elbo = _bounds(target, locs, scales, draw_key, _DRAWS, data)
    best = jnp.argmax(jnp.where(jnp.isnan(elbo), -jnp.inf, elbo))
    return QuickStart(
        loc=locs[best],
        scale=scales[best],
        usable=usable,
        peaks=paths.points[:, -1],
        widths=paths.curvature_scale[:, -1],
        # the last of the points kept of each path
        mass=elbo[2:].reshape(-1, len(_KEPT))[:, -1],
        num_gradients=1 + jnp.sum(paths.num_gradients),
    )


def _bounds(
    target: Target, locs: Array, scales: Array, key: Array, draws: int, data: PyTree
) -> Array:
    """Bounds on the log evidence (P,) by the factorised Gaussians at `locs`, on common draws."""
    dim = target.dim
    eps = normals(key, draws, dim, target.dtype, antithetic=True, quasi=False)
    zs = locs[:, None] + scales[:, None] * eps
    log_p = target.log_densities(zs.reshape(-1, dim), data).reshape(-1, draws)
    ok = jnp.isfinite(log_p)
    count = jnp.sum(ok, axis=1)
    mean = jnp.sum(jnp.where(ok, log_p, 0), axis=1) / jnp.maximum(count, 1)
    entropy = jax.vmap(lambda loc, scale: FAMILY.entropy(FAMILY.init(loc, scale)))(locs, scales)
    return jnp.where(count > draws // 2, mean + entropy, -jnp.inf)


def weigh_peaks(target: Target, start: QuickStart, key: Array, data: PyTree) -> QuickStart:
    """The start with the mass of its peaks from more draws.

    On the few of the race one bound in some thousands is three nats too high.
    """
    mass = _bounds(target, start.peaks, start.widths, key, _PEAK_DRAWS, data)
    return start._replace(mass=mass)


def uncovered_peak(
    target: Target, log_q: Array, start: QuickStart, log_evidence: Array, data: PyTree
) -> Array:
    """Whether some path ended on a peak with mass of its own that the fit does not cover.

    The mass is a lower bound, with little noise on top: a curvature that tells nothing of the
    width, as at the end of a path that was cut off, makes it small and no alarm.

    Args:
        target: the target.
        log_q: (3,) log densities of the fit's proposal at the peaks.
        start: where the paths ended.
        log_evidence: the estimate of it that the fit's draws give, nats.
        data: the user's data.
    """
    log_p = target.log_densities(start.peaks, data)
    matters = jnp.isfinite(log_p) & (start.mass > log_evidence - _VISIBLE_NATS)
    return jnp.any(matters & ~(log_p - log_q < log_evidence + COVERED_NATS))
