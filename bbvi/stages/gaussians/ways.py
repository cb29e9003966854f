"""Ways between modes: on a bent ridge, where a straight line leaves it, there is one."""

import jax
import numpy as np

from bbvi._linalg import dot
from bbvi._types import AnyArray, PyTree
from bbvi.evaluate import scores
from bbvi.families import Frame
from bbvi.stages.gaussians.modes import VALLEY_NATS, WAYPOINTS, depth
from bbvi.target import Target

# Steps uphill of all points of a way, and how many between two looks at it. Of ridges of which a
# sd along is 5 to 20 across, ways were found in 8 to 24.
_STEPS, _BETWEEN = 64, 8
# Of what a point steps, where its last step led up, and where it led down.
_LONGER, _SHORTER = 1.3, 0.4
_FIRST_STEP = 0.1


def joined(target: Target, frames: Frame, data: PyTree) -> tuple[bool, int]:
    """Whether ways lead from the first of some modes to all others, and gradients spent.

    Modes of which a straight line has a valley between them may lie on one ridge that bends. A way
    on which the log density does not fall shows that they do; where none is found, that shows
    nothing.

    Args:
        target: the target.
        frames: units of Gaussians around the modes, with a leading axis.
        data: the user's data.
    """
    loc, scale = map(np.asarray, frames)
    spent = 0
    for other in range(1, len(loc)):
        ends = Frame(loc[[0, other]], scale[[0, other]])
        found, gradients = _is_way(target, ends, data)
        spent += gradients
        if not found:
            return False, spent
    return True, spent


def most_gradients(modes: int) -> int:
    """What `joined` spends at most."""
    return (modes - 1) * WAYPOINTS * (_STEPS + 2 * _STEPS // _BETWEEN + 1)


def _is_way(target: Target, ends: Frame, data: PyTree) -> tuple[bool, int]:
    r"""A straight way between two modes, moved uphill and kept evenly spaced: has it a valley?

    Each point goes up the gradient across the way, in steps of its own, in units of the mean of
    both precisions,

        u <- u + a (I - t t') grad log p(u),

    and now and then all are spread evenly again along the way.

    Source: the string method of E, Ren and Vanden-Eijnden 2007 (J. Chemical Physics 126).
    """
    eye = np.eye(ends.loc.shape[1])
    inverses: list[AnyArray] = [np.linalg.solve(scale, eye) for scale in ends.scale]
    factor = np.linalg.cholesky(sum(x.T @ x for x in inverses) / 2)  # u = factor' z
    back: AnyArray = np.linalg.solve(factor.T, eye)
    spent = 0

    def density(u):
        nonlocal spent
        spent += len(u)
        with np.errstate(all="ignore"):
            points = dot(u, back.T).astype(target.dtype)
            log_p, slope, ok = jax.device_get(scores(target, points, data))
        log_p = np.where(ok, log_p, -np.inf).astype(float)
        return log_p, np.where(ok[:, None], dot(slope.astype(float), back), 0)

    t = np.linspace(0, 1, WAYPOINTS)
    u = (1 - t[:, None]) * (ends.loc[0] @ factor) + t[:, None] * (ends.loc[1] @ factor)
    log_p, slope = density(u)
    step = np.full((WAYPOINTS, 1), _FIRST_STEP)
    for number in range(1, _STEPS + 1):
        ahead = np.gradient(u, axis=0)
        ahead /= np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), np.finfo(float).tiny)
        across = slope - np.sum(slope * ahead, axis=1, keepdims=True) * ahead
        across[[0, -1]] = 0
        moved = step * across
        moved /= np.maximum(1, np.linalg.norm(moved, axis=1, keepdims=True))
        tried, slope_there = density(u + moved)
        up = tried >= log_p
        step *= np.where(up, _LONGER, _SHORTER)[:, None]
        u = np.where(up[:, None], u + moved, u)
        log_p, slope = np.where(up, tried, log_p), np.where(up[:, None], slope_there, slope)
        if number % _BETWEEN:
            continue
        u = _evenly(u, t)
        log_p, slope = density(u)
        if depth(log_p) < VALLEY_NATS:
            between = _evenly(u, np.clip(t + 0.5 / (WAYPOINTS - 1), 0, 1))
            lows = np.stack([log_p, density(between)[0]], axis=1).ravel()
            if depth(lows) < VALLEY_NATS:
                return True, spent
    return False, spent


def _evenly(u: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Points at shares t (n,) of the length of a way through points (N, D)."""
    lengths = np.linalg.norm(np.diff(u, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    return np.stack([np.interp(t * along[-1], along, x) for x in u.T], axis=1)
