"""Does an approximation have its share wherever the race of starts has seen some?"""

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._compile import quick_jit
from bbvi._types import Array, PyTree
from bbvi.diagnostics.evidence import Aside, own_moments
from bbvi.diagnostics.figures import Diagnostics
from bbvi.diagnostics.moments import Moments
from bbvi.evaluate import scalars
from bbvi.families import Family, Frame
from bbvi.objectives.draws import normals
from bbvi.solvers.starts import FAMILY, Starts
from bbvi.stages.gaussians.matching import Matches
from bbvi.stages.gaussians.modes import LEAST_NATS, VISIBLE_NATS, apart
from bbvi.target import Target

# A family that covers a place has a density there within a few nats of the target's.
COVERED_NATS = 5.0
# A Gaussian around a start whose bound is within 4.6 nats of the evidence has 1% of the mass.
_VISIBLE_NATS = 4.6
# A mode of less than that moves the sd of what it lies far away along: by a tenth from this share
# times squared distance on.
# One is apart whose centre and the fit's lie so many sds of their difference from each other: a
# start as wide as that distance lies about the fit.
_MATTERS, _APART = 0.2, 3.0
_DRAWS = 64
# Draws of a D-dimensional standard normal lie near sqrt(D) from its centre.
_REACH = 2.0


def missed_modes(
    target: Target,
    family: Family,
    params: PyTree,
    matches: Matches,
    modes: list[int],
    elbo: float,
    data: PyTree,
) -> tuple[list[int], list[int]]:
    """Which modes matter beside an approximation, and at which of their centres it has no share.

    A richer approximation's bound is above those of matched Gaussians for its shape alone: beside
    one that covers modes of these, others are measured by their Gaussians; beside one that has
    found a place of its own, by its bound.
    """
    centres = jnp.asarray(matches.frame.loc[np.array(modes)])
    log_ratio = np.asarray(_log_ratios(target, family, params, centres, data))
    covered = log_ratio < elbo + COVERED_NATS
    bounds = np.asarray(matches.elbo)[modes]
    best = bounds[covered].max() if covered.any() else elbo
    near = bounds > best - VISIBLE_NATS
    at = np.array(modes)
    return at[near].tolist(), at[near & ~covered].tolist()


def visits(draws: Array, frames: Frame) -> bool:
    """Whether some of the states of chains (S, D) are in each of several Gaussians (M, ...)."""
    return all(
        bool((np.linalg.norm(mode.invert(draws), axis=1) < _reach(draws.shape[1])).any())
        for mode in map(Frame, np.asarray(frames.loc), np.asarray(frames.scale))
    )


def _visited(draws: np.ndarray, locs: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Which factorised Gaussians (P, D) some draws (S, D) are in, (P,)."""
    around = zip(locs, scales, strict=True)
    reach = _reach(draws.shape[1])
    near = [(np.linalg.norm((draws - loc) / sd, axis=1) < reach).any() for loc, sd in around]
    return np.array(near, bool)


def _reach(dim: int) -> float:
    return _REACH * float(np.sqrt(dim))


def leaves_out(
    target: Target,
    family: Family,
    params: PyTree,
    matches: Matches,
    log_evidence: Array,
    draws: Array | None,
    key: Array,
    data: PyTree,
) -> bool:
    """Whether visible mass around some start of the race is missing from an approximation.

    The bound of a Gaussian around a start is a lower bound on the mass there. Where it is a
    visible share of the evidence, and the target's density is far above the approximation's,
    the estimate of the evidence itself is wrong: as in the neck of a funnel without end, where
    the posterior is improper and every check on the approximation's own draws is content.

    Args:
        target: the target.
        family: the family of the approximation.
        params: its parameters.
        matches: the Gaussians matched; starts near these have had their say.
        log_evidence: what the approximation's draws give, nats.
        draws: (S, D) states of chains, or draws far out, which then count instead of the
            approximation.
        key: a typed random key.
        data: the user's data.
    """
    starts = matches.starts
    if starts is None or not np.isfinite(log_evidence):
        return False
    seen = np.asarray(starts.elbo) > log_evidence - _VISIBLE_NATS
    if not seen.any():
        return False
    seen = seen & apart(starts, matches.frame, matches.elbo)
    if not seen.any():
        return False
    bound, gap = map(np.asarray, _around(target, family, params, starts, key, data))
    missing = (bound > log_evidence - _VISIBLE_NATS) & (gap > log_evidence + COVERED_NATS)
    missing = seen & missing
    if draws is not None:
        locs, scales = np.asarray(starts.loc)[missing], np.asarray(starts.scale)[missing]
        return not _visited(np.asarray(draws), locs, scales).all()
    return bool(missing.any())


def aside(
    target: Target,
    family: Family,
    params: PyTree,
    matches: Matches,
    d: Diagnostics,
    moments: Moments,
    draws: np.ndarray | None,
    data: PyTree,
) -> Aside | None:
    """What a fit's sds leave out the most, of what the race and the matches have seen.

    It counts by what it does to the user's own scalars. The neck of a centred hierarchy is a mode
    18 sds away along the logarithm of a scale that is nearly zero there: with 0.08% of the mass it
    changes nothing of the scale.

    Args:
        target: the target.
        family: the family of the approximation.
        params: its parameters.
        matches: the Gaussians matched, and the starts.
        d: diagnostics of the fit.
        moments: of the scalars (C,), as the fit tells them.
        draws: (S, D) states of chains, which then count instead of the approximation.
        data: the user's data.
    """
    starts, log_evidence = matches.starts, float(d.log_evidence)
    if starts is None or not np.isfinite(log_evidence):
        return None
    loc, sd = own_moments(d)
    locs = np.concatenate([matches.frame.loc, starts.loc])
    below = np.concatenate([matches.elbo, starts.elbo]).astype(float) - log_evidence
    with np.errstate(all="ignore"):
        share = np.where(below > -LEAST_NATS, np.exp(np.minimum(below, 0)), 0)
        away = np.nan_to_num(np.abs(locs - loc) / sd, posinf=0.0)
    matters = share * away.max(axis=1) ** 2 > _MATTERS
    if not matters.any():
        return None
    widths = np.asarray(matches.frame.scale)
    if widths.ndim == 3:
        widths = np.sqrt(np.sum(widths**2, axis=2))
    widths = np.concatenate([widths, starts.scale])
    with np.errstate(all="ignore"):
        matters &= (np.abs(locs - loc) / np.hypot(widths, sd) > _APART).any(axis=1)
    if not matters.any():  # as for most of what is left, with nothing compiled
        return None
    there = np.asarray(scalars(target, jnp.asarray(locs), data), float)
    with np.errstate(all="ignore"):
        away = np.nan_to_num(np.abs(there - moments.mean) / moments.sd, posinf=0.0)
    times = share[:, None] * away**2
    matters &= times.max(axis=1) > _MATTERS
    if not matters.any():
        return None
    log_ratio = np.asarray(_log_ratios(target, family, params, jnp.asarray(locs), data))
    matters &= log_ratio > log_evidence + COVERED_NATS
    if draws is not None:
        matters[matters] = ~_visited(draws, locs[matters], widths[matters])
    if not matters.any():
        return None
    i, at = np.unravel_index(np.argmax(np.where(matters[:, None], times, 0)), times.shape)
    return Aside(float(share[i]), float(away[i, at]), target.scalar_names[at])


@quick_jit(0, (0, 1))
def _around(
    target: Target, family: Family, params: PyTree, starts: Starts, key: Array, data: PyTree
) -> tuple[Array, Array]:
    """Bounds (P,) of Gaussians around starts, and means of log p - log q under them; nats."""
    eps = normals(key, _DRAWS, target.dim, starts.loc.dtype, antithetic=True, quasi=False)

    def one(start):
        loc, scale = start
        z = loc + scale * eps
        log_p = target.log_densities(z, data)
        # one draw outside the support, and there is no bound
        bound = jnp.mean(log_p) + FAMILY.entropy(FAMILY.init(loc, scale))
        return bound, jnp.mean(log_p - family.log_prob(params, z))

    around = (starts.loc, starts.scale)
    return jax.lax.map(one, around) if target.sequential else jax.vmap(one)(around)


@quick_jit(0, (0, 1))
def _log_ratios(target: Target, family: Family, params: PyTree, zs: Array, data: PyTree) -> Array:
    return target.log_densities(zs, data) - family.log_prob(params, zs)
