"""Which scalars a picture shows, and their draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from bbvi._types import PyTree
from bbvi.status import InputError

if TYPE_CHECKING:
    from bbvi.result import FitResult


def choose_names(result: FitResult, most: int) -> list[str]:
    """Names of at most so many scalars: flagged ones first, and none that cannot vary."""
    names, moments = result.posterior.target.scalar_names, result.diagnostics.raw
    # An entry fixed by its support, such as the diagonal of a correlation matrix, says nothing.
    eps = np.finfo(np.asarray(moments.sd).dtype).eps
    varies = ~(np.asarray(moments.sd) <= 8 * eps * np.abs(moments.mean))
    flagged = set(result.verdict.flagged)
    order = sorted(range(len(names)), key=lambda i: (not varies[i], names[i] not in flagged, i))
    return [names[i] for i in order[:most]]


def columns_of(result: FitResult, draws: PyTree, names: Sequence[str]) -> Mapping[str, np.ndarray]:
    """The draws (S,) of some scalars, from draws in the user's structure.

    Raises:
        InputError: if a name is not one of the result's scalars.
    """
    known = result.posterior.target.scalar_names
    flat = [np.asarray(x).reshape(len(x), -1) for x in jax.tree.leaves(draws)]
    number = sum(x.shape[1] for x in flat)
    if number != len(known):
        raise InputError(
            f"the draws have {number} scalars and the fit has {len(known)}: give them in the "
            "structure of the parameters, each leaf with a leading axis of draws."
        )
    scalars = [x[:, i] for x in flat for i in range(x.shape[1])]
    columns = {}
    for name in names:
        if name not in known:
            raise InputError(f"{name!r} is no scalar of this fit; there are {', '.join(known)}.")
        columns[name] = scalars[known.index(name)]
    return columns


def usable_weights(log_weights: np.ndarray) -> np.ndarray | None:
    """Log importance weights (S,), or None if they are unusable."""
    usable = np.isfinite(log_weights).any() and not np.isnan(log_weights).any()
    return log_weights if usable else None
