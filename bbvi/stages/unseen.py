"""Mass that no draw of a fit has met, found by trajectories from its heaviest draws."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from bbvi._compile import once_jit
from bbvi._linalg import dot
from bbvi._types import AnyArray, Array, PyTree
from bbvi.diagnostics.base_space import compiled, enter
from bbvi.diagnostics.evidence import SETTLED_NOISE
from bbvi.diagnostics.figures import Diagnostics
from bbvi.diagnostics.moments import Moments
from bbvi.diagnostics.trajectories import ACCEPTANCE, LENGTH
from bbvi.evaluate import generator, scalars, scores
from bbvi.families import CouplingFlow, Family, Frame, LatentGaussian
from bbvi.families.proposals import with_tails
from bbvi.solvers import BatchAndMatch
from bbvi.target import Target

# Chains, in calls of the program that the match has compiled, and their trajectories, in the second
# half of which they are looked at.
_CHAINS, _TRAJECTORIES = 256, 16
_MOST_LEAPS = 32  # of a trajectory: where steps have to be shorter still, it sees what it may
# More mass than the tail of the weights promises by so many standard errors, of a share that is at
# least so large. Of three fits with sds 10 to 12% off this found 35 of 36 (by twelve keys each) and
# said 6% to 20%; of seven that were right to 5% it took two of 84 for such.
_FAR, _LEAST = 2.0, 1e-3


class Space(NamedTuple):
    """Units in which a fit is about standard, and trajectories run.

    Attributes:
        enter: x (S, D) at z (S, D).
        density: z (S, D), the log density of x up to a constant, and its gradient, at x (S, D).
        log_ratio: log weights (S,) up to a constant, of x, z and the log density of x.
    """

    enter: Callable[[AnyArray], AnyArray]
    density: Callable[[AnyArray], tuple[AnyArray, AnyArray, AnyArray]]
    log_ratio: Callable[[AnyArray, AnyArray, AnyArray], AnyArray]


def affine_space(
    target: Target, frame: Frame, log_mixture: Callable[[AnyArray], AnyArray], data: PyTree
) -> Space:
    """Space of a frame, on the host.

    Args:
        target: the target.
        frame: the frame.
        log_mixture: the log density (S,) that the draws of the fit are of, at points (S, D); see
            `bbvi.families.base.Proposal`.
        data: the user's data.
    """

    def density(x):
        z = frame.apply(x)
        with np.errstate(all="ignore"):
            log_p, slope, ok = jax.device_get(scores(target, z, data))
        return z, np.where(ok, log_p, -np.inf), dot(slope, frame.scale)

    return Space(frame.invert, density, lambda x, z, log_p: log_p - log_mixture(z))


def base_space(target: Target, family: Family, params: PyTree, data: PyTree) -> Space:
    """The base space of a family whose draws are a one-to-one function of base normals."""

    def density(x):
        args = (target, family, params, x.astype(target.dtype), data)
        return jax.device_get(compiled(*args))

    def log_ratio(x, z, log_p):
        squares = np.sum(x**2, axis=1)
        return log_p + squares / 2 - with_tails(0.0, squares, target.dim)

    return Space(lambda z: np.asarray(enter(family, params, z)), density, log_ratio)


class Unseen(NamedTuple):
    """What trajectories have found.

    Attributes:
        moves: by how many sds it moves a mean or an sd at most; zero where its mass is no more than
            the weights promise and chance adds, or where that is little.
        num_gradients: evaluations spent.
        points: (N, D) where they were beyond the largest weight.
    """

    moves: float
    num_gradients: int
    points: AnyArray


def unseen_mass(
    target: Target,
    space: Space,
    d: Diagnostics,
    key: Array,
    data: PyTree,
) -> Unseen:
    r"""How far moments may be off for mass that is heavier than all draws of a fit.

    Weights say nothing of where no draw is. Where a posterior narrows in one direction as it goes
    on in another (the effects of a scale that is known by their product), a Gaussian's draws far
    out lie beside it: their weights are small, those of 3% of the posterior are missing, and k-hat
    is 0.4. The draws with the largest weights lie where it leaves the Gaussian, and Hamiltonian
    trajectories in the units of the fit go on from there. Beyond the largest of S weights, of
    which the tail has the shape k, there should be a mass of about

        k/(1 - k) w_max / sum_s w_s.

    Where there is more, it counts by what it does to a mean or an sd: of a scale that goes to zero
    with its logarithm going on for ever, 1.5% of the logarithms are unseen and move it by 0.02 sd.

    Args:
        target: the target.
        space: units in which the fit is about standard.
        d: its diagnostics, with draws and weights.
        key: a typed random key.
        data: the user's data.

    Returns:
        what they have found.
    """
    dim, random = target.dim, generator(key)
    size = BatchAndMatch().draws(dim)

    log_weights = np.asarray(d.log_weights)
    calls = _calls(size)
    heaviest = np.argsort(-log_weights, kind="stable")[: calls * size]
    starts: Any = space.enter(d.draws[heaviest]).astype(target.dtype)
    if len(starts) < calls * size or not np.isfinite(starts).all():
        return Unseen(0.0, 0, starts[:0])
    largest, spent, states, beyond = -np.inf, 0, [], []
    for x in (starts[i::calls] for i in range(calls)):
        z, value, slope = space.density(x)
        spent += size
        # the heaviest of all is the first of the first
        largest = max(largest, space.log_ratio(x, z, value).max())
        step = dim**-0.25
        for number in range(_TRAJECTORIES):
            first = random.standard_normal(x.shape).astype(x.dtype)
            y, v, g, momentum = x, value, slope, first
            leaps = int(np.ceil(LENGTH * random.uniform(0.5, 1.5) / step))
            for _ in range(min(leaps, _MOST_LEAPS)):
                momentum = momentum + 0.5 * step * g
                y = y + step * momentum
                there, v, g = space.density(y)
                momentum = momentum + 0.5 * step * g
                spent += size
            with np.errstate(all="ignore"):
                change: Any = v - value - 0.5 * np.sum(momentum**2 - first**2, axis=1)
                chance = np.nan_to_num(np.exp(np.minimum(change, 0)))
            taken = random.random(size) < chance
            pairs = ((there, z), (y, x), (g, slope))
            z, x, slope = (np.where(taken[:, None], new, old) for new, old in pairs)
            value = np.where(taken, v, value)
            step *= np.exp(np.mean(chance) - ACCEPTANCE)
            if number >= _TRAJECTORIES // 2:
                states.append(z)
                beyond.append(space.log_ratio(x, z, value) > largest)
    share = float(np.mean(beyond))
    shape = np.clip(float(d.khat), 0, 0.9)
    promised = shape / (1 - shape) * np.exp(float(log_weights.max()))
    chance_alone = _FAR * np.sqrt(max(promised, _LEAST) / (calls * size))
    points, which = np.concatenate(states), np.concatenate(beyond)
    if not share > promised + chance_alone:
        return Unseen(0.0, spent, points[which])
    # all of them, since a program is for one shape
    found = np.asarray(scalars(target, points.astype(target.dtype), data), float)[which]
    moves = _moves(found, share, d.corrected)
    return Unseen(moves if moves > SETTLED_NOISE else 0.0, spent, points[which])


def log_gaussian(frame: Frame) -> Callable[[AnyArray], AnyArray]:
    """What draws of a Gaussian that is standard in such units are of, with heavier tails."""

    def log_mixture(z):
        return with_tails(*frame.log_normal(z), len(frame.loc))

    return log_mixture


@once_jit((0,))
def _log_mixture(family: CouplingFlow | LatentGaussian, params: PyTree, z: Array) -> Array:
    return family.log_mixture(params, z)


def log_mixture_of(
    target: Target, family: CouplingFlow | LatentGaussian, params: PyTree
) -> Callable[[AnyArray], AnyArray]:
    """What draws of such a fit are of, with heavier tails, compiled."""

    def log_mixture(z):
        return np.asarray(_log_mixture(family, params, z.astype(target.dtype)), float)

    return log_mixture


@np.errstate(all="ignore")  # a scalar that does not vary, or overflows, says nothing
def _moves(x: np.ndarray, share: float, moments: Moments) -> float:
    """By how many sds points (S, C) move a mean or an sd, if they are such a share of all."""
    u = (x - moments.mean) / moments.sd
    mean = share * np.abs(np.mean(u, axis=0))
    sd = share * np.abs(np.mean(u**2, axis=0) - 1) / 2
    return float(np.nanmax(np.maximum(mean, sd), initial=0.0))


def most_unseen_gradients(dim: int) -> int:
    """What `unseen_mass` spends, roughly."""
    size = BatchAndMatch().draws(dim)
    leaps = np.ceil(1.5 * LENGTH * dim**0.25)
    return int(_calls(size) * size * _TRAJECTORIES * leaps)


def _calls(size: int) -> int:
    """Calls of a program of so many points for all chains."""
    return max(1, round(_CHAINS / size))
