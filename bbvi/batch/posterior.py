"""Moments of all problems of a batch."""

from dataclasses import dataclass

import numpy as np

from bbvi._types import PyTree
from bbvi.target import Target


@dataclass(frozen=True)
class BatchPosterior:
    """Means and standard deviations of all problems in the user's structure.

    Attributes:
        means: (B, C) means of the scalar parameters.
        sds: (B, C) their standard deviations.
        target: what was fitted.
    """

    means: np.ndarray
    sds: np.ndarray
    target: Target

    def mean(self) -> PyTree:
        """Posterior means, each leaf with the leading axis B."""
        return self._split(self.means)

    def sd(self) -> PyTree:
        """Posterior standard deviations, each leaf with the leading axis B."""
        return self._split(self.sds)

    def _split(self, scalars: np.ndarray) -> PyTree:
        leaves = self.target.leaves
        ends = np.cumsum([int(np.prod(leaf.shape)) for leaf in leaves])[:-1]
        parts = np.split(scalars, ends, axis=1)
        shaped = [
            x.reshape(-1, *leaf.shape).astype(leaf.dtype)
            for x, leaf in zip(parts, leaves, strict=True)
        ]
        return self.target.treedef.unflatten(shaped)
