"""Coordinates of a target in which layers of effects have been taken off, and scores there."""

from collections.abc import Callable

import jax
import numpy as np

from bbvi._types import PyTree
from bbvi.evaluate import scores
from bbvi.families.noncentred import (
    Layer,
    Tails,
    apply,
    invert,
    pull_back,
    pull_back_tails,
    tail,
    untail,
)
from bbvi.target import Target

# Most looks are at a few points. Where a block of as many as a match draws computes so many
# elements (5 milliseconds of a core or so), these have a program of their own: of makes of cars in
# 245 dimensions 27 s of 51 went by on rows that only filled 540 blocks.
_FEW, _COSTLY = 32, 1 << 24


class Coordinates:
    """x of a target, in which layers have been taken off, and its scores, counted."""

    def __init__(self, target: Target, data: PyTree, rows: int):
        self._target, self._data, self._rows = target, data, rows
        self.layers: list[Layer] = []
        dim = target.dim
        self.tails = Tails(np.zeros(dim), np.ones(dim), np.zeros(dim))
        self.num_gradients = 0
        self.centre, self.unit = np.zeros(dim), np.ones(dim)
        self.normal = True  # whether the prior of all effects is
        self.endless: tuple[str, ...] = ()  # names of scales along which the density does not fall

    def straighten(self, z: np.ndarray) -> np.ndarray:
        """y (S, D) at z (S, D)."""
        for layer in self.layers:
            z = invert(layer, z)[0]
        columns, tails = self._tailed()
        z = np.array(z)
        z[:, columns] = untail(tails, z[:, columns])
        return z

    def _tailed(self) -> tuple[np.ndarray, Tails]:
        """Which coordinates have tails, and these: of thousands there are a few."""
        at, unit, bend = self.tails
        columns = np.flatnonzero((at != 0) | (unit != 1) | (bend != 0))
        return columns, Tails(at[columns], unit[columns], bend[columns])

    def score(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log density, score and whether both are finite, of y (S, D), on the host."""
        y = np.asarray(y, float)
        with np.errstate(all="ignore"):
            columns, tails = self._tailed()
            x = np.array(y)
            x[:, columns], log_slopes = tail(tails, y[:, columns])
            stages, log_det = [x], np.sum(log_slopes, axis=1)
            for layer in reversed(self.layers):
                z, more = apply(layer, stages[-1])
                stages.append(z)
                log_det = log_det + more
            log_p, score, ok = self._scores(stages.pop())
            for layer, at in zip(self.layers, reversed(stages), strict=True):
                score = pull_back(layer, at, score)
            score[:, columns] = pull_back_tails(tails, y[:, columns], score[:, columns])
        return log_p + log_det, score, ok & np.isfinite(score).all(axis=1)

    def score_with(self, layer: Layer, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same in coordinates in which one layer more has been taken off."""
        self.layers.append(layer)
        found = self.score(x)
        self.layers.pop()
        return found

    def _scores(self, z):
        """In blocks of a shape for which there is a program already."""
        costly = self._rows * self._target.work > _COSTLY
        rows = min(_FEW, self._rows) if costly and len(z) <= _FEW else self._rows

        def seen(block):
            found = scores(self._target, block.astype(self._target.dtype), self._data)
            return [np.asarray(x, float) for x in jax.device_get(found)]

        found = in_blocks_of(rows, seen, z)
        self.num_gradients += len(z)
        log_p, score, ok = (np.concatenate(x) for x in zip(*found, strict=True))
        return log_p, score, ok > 0


def in_blocks_of(rows: int, function: Callable, points: np.ndarray) -> list[list[np.ndarray]]:
    """Arrays that a function gives for blocks of so many points, the last one padded by itself."""
    found = []
    for start in range(0, len(points), rows):
        block = points[start : start + rows]
        padded = np.concatenate([block, np.repeat(block[-1:], rows - len(block), axis=0)])
        found.append([x[: len(block)] for x in function(padded)])
    return found
