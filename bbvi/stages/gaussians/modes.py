"""Telling modes apart: far from each other, and with a valley between them."""

from typing import Any

import numpy as np

from bbvi._arrays import namespace
from bbvi._types import AnyArray, PyTree
from bbvi.evaluate import densities, in_blocks
from bbvi.families import Frame
from bbvi.solvers.starts import DRAWS, Starts
from bbvi.target import Target

# Starts and modes are separate beyond so many of their standard deviations.
FAR = 6.0
# ... and the log density falls by so many nats on the straight way from either to the other: on
# a funnel or a ridge, starts end far apart with no valley between them.
VALLEY_NATS = 1.0
# As many as a start of the race has draws: one program evaluates both.
WAYPOINTS = DRAWS
# A mode with a share of the evidence below e^-5.3 = 0.5% moves no mean by 0.1 sd unless it lies
# 20 sds away.
VISIBLE_NATS = 5.3
# What 10,000 draws would hardly meet is no mode at all; points of one that is.
LEAST_NATS, _POINTS = 9.2, 32


def valley(target: Target, a: AnyArray, b: AnyArray, data: PyTree) -> float:
    """By how many nats the log density falls on the way between two points (D,).

    Counted from the lower of both ends; a point outside the support is an infinite fall.
    """
    return float(valleys(target, a, np.asarray(b)[None], data)[0])


def valleys(target: Target, a: AnyArray, bs: AnyArray, data: PyTree) -> np.ndarray:
    """`valley` (N,) between one point (D,) and many (N, D)."""
    a, bs = np.asarray(a), np.asarray(bs)

    def log_densities(bs):
        return densities(target, between(a, bs[:, None]), data)

    log_p = in_blocks(log_densities, WAYPOINTS * a.size, bs).astype(float)
    return depth(log_p)


def depth(log_p: AnyArray) -> AnyArray:
    """By how much log densities (..., n) along a line fall below the lower of both ends."""
    xp = namespace(log_p)
    log_p = xp.where(xp.isnan(log_p), -xp.inf, log_p)
    with np.errstate(invalid="ignore"):
        return xp.minimum(log_p[..., 0], log_p[..., -1]) - xp.min(log_p, axis=-1)


def between(a: AnyArray, b: AnyArray) -> AnyArray:
    """Points (n, D) on the straight way from one point (D,) to another, ends included."""
    t = np.linspace(0, 1, WAYPOINTS, dtype=a.dtype)[:, None]
    return (1 - t) * a + t * b


def separate_modes(target: Target, frames: Frame, elbo: AnyArray, data: PyTree) -> list[int]:
    """Which of some matched Gaussians, best first, are modes of their own that matter.

    Two Gaussians are modes of their own when the centre of one lies beyond a few standard
    deviations of the other and the log density has a valley between them; a mode matters when
    its share of the evidence, by its bound, is visible.

    Args:
        target: the target.
        frames: their units, with a leading axis.
        elbo: their bounds, nats.
        data: the user's data.
    """
    loc, scale = map(np.asarray, frames)

    def far(i, j):
        gap = (loc[i] - loc[j])[None]
        return max(_distances(scale[k], gap)[0] for k in (i, j)) > FAR

    modes: list[int] = []
    for i in range(len(loc)):
        visible = elbo[i] > elbo[0] - VISIBLE_NATS
        if visible and all(
            far(i, j) and valley(target, loc[i], loc[j], data) > VALLEY_NATS for j in modes
        ):
            modes.append(i)
    return modes


def elsewhere(frames: Frame, elbo: AnyArray, random: np.random.Generator) -> AnyArray:
    """Points (N, D) of those Gaussians, the best first, that lie far from the best; none, maybe.

    Their shares, by their bounds, may be so small that no draw of a fit comes there: one of a
    thousandth 20 sds away makes a fifth of a variance.

    Args:
        frames: their units, with a leading axis.
        elbo: (K,) their bounds, nats.
        random: of the host.
    """
    locs, scales = map(np.asarray, frames)
    counts = np.asarray(elbo) > elbo[0] - LEAST_NATS
    gaps = np.where(np.isfinite(locs), locs - locs[0], 0)
    there = np.flatnonzero(counts & (_distances(scales[0], gaps) > FAR))
    shape = _POINTS, locs.shape[1]
    points = [Frame(locs[i], scales[i]).apply(random.standard_normal(shape)) for i in there]
    return np.concatenate([np.zeros((0, locs.shape[1])), *points])


def apart(starts: Starts, frames: Frame, elbo: Any) -> np.ndarray:
    """Which starts lie beyond a few standard deviations of all Gaussians, in either's units.

    Args:
        starts: P starts.
        frames: units of K Gaussians, with a leading axis.
        elbo: (K,) their bounds; those of -inf do not count.
    """
    found = np.ones(len(starts.elbo), bool)
    for loc, scale in zip(*(x[~np.isneginf(elbo)] for x in map(np.asarray, frames)), strict=True):
        gaps = np.asarray(starts.loc) - loc
        with np.errstate(all="ignore"):
            widths = np.linalg.norm(gaps / np.asarray(starts.scale), axis=1)
            found &= np.maximum(_distances(scale, gaps), widths) > FAR
    return found


def _distances(scale: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Lengths (P,) of gaps (P, D) in a Gaussian's units: sds (D,), or a factor (D, D)."""
    units: Any = Frame(np.zeros(()), scale)
    with np.errstate(all="ignore"):
        try:
            return np.linalg.norm(units.unscale(gaps.T), axis=0)
        except np.linalg.LinAlgError:  # a match of no extent tells no distances
            return np.zeros(len(gaps))
