"""What is normal given the scales that gradients have told, and coordinates in which it is."""

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._compile import once_jit
from bbvi._types import Array, PyTree
from bbvi.evaluate import scores
from bbvi.families import Frame, GivenScales
from bbvi.families.given_scales import Given
from bbvi.families.noncentred import Tails, log_scale, untail
from bbvi.stages.coordinates import Coordinates, in_blocks_of
from bbvi.stages.gaussians.match import on_device
from bbvi.stages.hierarchy.scales import PROFILE, is_resolved, marginal
from bbvi.target import Target

FAMILY = GivenScales()
# A draw costs a factorisation of all but the scales: of 128 some 0.2 ms, of more what chains cost.
_MOST_OTHERS = 128


def normal_given_scales(
    coordinates: Coordinates,
    target: Target,
    centre: np.ndarray,
    unit: np.ndarray,
    data: PyTree,
    rows: int,
) -> Given | None:
    r"""The precision of all but the scales: of their effects, and of what is left.

    Layers have the parts of the log density that depend on a scale, -0.5 exp(-2 w) |B theta - c|^2.
    What is left of the second derivatives at the centre depends on none. None where a scale is an
    effect itself, effects have two, or were written non-centred, and where there are too many.

    Args:
        coordinates: in which layers have been taken off.
        target: the target.
        centre: (D,) of what is known of the posterior.
        unit: (D,) sds of that.
        data: the user's data.
        rows: how many points are evaluated at once.
    """
    dim = len(centre)
    layers = coordinates.layers
    scales = np.unique(np.concatenate([layer.scale[layer.power != 0] for layer in layers]))
    others = np.setdiff1d(np.arange(dim), scales)
    if len(others) > _MOST_OTHERS:
        return None
    power, saturates = np.zeros((2, len(scales)))
    precisions, pulls = np.zeros((len(scales), dim, dim)), np.zeros((len(scales), dim))
    taken = np.zeros(dim, bool)
    for layer in layers:
        effects = layer.power != 0
        if layer.divided.any() or taken[layer.hubs].any() or (taken & effects).any():
            return None
        taken |= effects
        residual = np.diag(layer.inverse) if layer.inverse.ndim == 1 else np.array(layer.inverse)
        residual[:, layer.hubs] -= layer.lead
        for k, scale in enumerate(scales):
            own = effects & (layer.scale == scale)
            if not own.any():
                continue
            power[k], saturates[k] = layer.power[own][0], layer.saturates[own][0]
            precisions[k] += residual[own].T @ residual[own]
            pulls[k] += residual[own].T @ (layer.rest[own] - residual[own] @ centre)
    if taken[scales].any():
        return None
    plain = Coordinates(target, data, rows)
    steps = 0.5 * np.diag(unit)[others]
    _, score, ok = plain.score(np.concatenate([centre[None], centre + steps, centre - steps]))
    coordinates.num_gradients += plain.num_gradients
    if not ok.all():
        return None
    up, down = np.split(score[1:, others], 2)
    total = (down - up) / unit[others][:, None]
    times = np.exp(-2 * log_scale(centre[scales], power, saturates))
    within = np.ix_(others, others)
    precisions = np.stack([precision[within] for precision in precisions])
    pulls = pulls[:, others]
    rest = (total + total.T) / 2 - np.tensordot(times, precisions, 1)
    # no precision is negative but for what is not quadratic, and rounding
    own_unit = unit[others]
    values, vectors = np.linalg.eigh(own_unit[:, None] * rest * own_unit)
    root = vectors * np.sqrt(np.maximum(values, 0)) / own_unit[:, None]
    pull = score[0, others] - times @ pulls
    return Given(
        scales=scales.astype(np.int32),
        others=others.astype(np.int32),
        power=power,
        saturates=saturates,
        centre=centre[others],
        rest=root @ root.T,
        pull=pull,
        precisions=precisions,
        pulls=pulls,
    )


class ScaleCoordinates:
    """y of a member of `GivenScales`, and scores there, counted."""

    def __init__(
        self,
        target: Target,
        data: PyTree,
        given: Given,
        centre: np.ndarray,
        sds: np.ndarray,
        rows: int,
    ) -> None:
        """Tails are those of the scales' marginal densities, by Laplace, one after the other."""
        self._target, self._data, self._rows = target, data, rows
        self.num_gradients = 0
        dim = target.dim
        tails = Tails(np.zeros(dim), np.ones(dim), np.zeros(dim))
        self.parts = on_device(target, (tails, given))
        x, unit = np.zeros(dim), np.ones(dim)
        x[given.scales] = centre[given.scales]
        unit[given.scales] = sds[given.scales]
        for i, power in zip(given.scales, given.power, strict=True):
            points = x + np.zeros((len(PROFILE), 1))
            points[:, i] += PROFILE / abs(power)
            log_p, score, ok = self.score(points)
            if not ok.any():
                continue
            with np.errstate(all="ignore"):
                loc, sd, tail = marginal(points[:, i], log_p, score[:, i], ok)
            if is_resolved(points[:, i], sd):  # or it is known better than the points are apart
                x[i], unit[i] = loc, sd
                for each, value in zip(tails, tail, strict=True):
                    each[i] = value
        self.parts = on_device(target, (tails, given))
        self.start = Frame(untail(tails, x[None])[0], unit / np.abs(tails.unit))

    def join(self, base: PyTree) -> PyTree:
        """Parameters of the family from those of its base."""
        return FAMILY.join(base, *self.parts)

    def score(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log density, score and whether both are finite, of y (S, D), on the host."""
        y = np.asarray(y, self._target.dtype)
        self.num_gradients += len(y)
        blocks = in_blocks_of(self._rows, self._score, y)
        log_p, score, ok = (np.concatenate(x) for x in zip(*blocks, strict=True))
        return log_p, score, ok

    def _score(self, y):
        z, log_det = _placed(FAMILY, self.join(None), y)
        log_p, score, ok = scores(self._target, z, self._data)
        score = _pulled_back(FAMILY, self.join(None), y, score)
        log_p, log_det, score, ok = jax.device_get((log_p, log_det, score, ok))
        return log_p + log_det, score, (ok > 0) & np.isfinite(score).all(axis=1)

    def straighten(self, z: np.ndarray) -> np.ndarray:
        """y (S, D) at z (S, D)."""
        at = jnp.asarray(z, self._target.dtype)
        return np.asarray(_straightened(FAMILY, self.join(None), at))


@once_jit((0,))
def _placed(family: GivenScales, params: PyTree, y: Array) -> tuple[Array, Array]:
    return family.place(params, y)


@once_jit((0,))
def _pulled_back(family: GivenScales, params: PyTree, y: Array, score: Array) -> Array:
    """The gradient by y of a log density of y, from that of z."""
    (_, log_det), back = jax.vjp(lambda y: family.place(params, y), y)
    return back((score, jnp.ones_like(log_det)))[0]


@once_jit((0,))
def _straightened(family: GivenScales, params: PyTree, z: Array) -> Array:
    return family.straighten(params, z)[0]
