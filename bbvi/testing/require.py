"""What all checks ask with: an `AssertionError` that says which promise is broken."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._types import PyTree
from bbvi.bijectors.base import tolerance


def require(condition: bool, message: str) -> None:
    """Raise unless it holds."""
    # Not `assert`: that is left out under `python -O`.
    if not condition:
        raise AssertionError(message)


def close(found: np.ndarray, expected: np.ndarray, factor: float) -> bool:
    """Whether two arrays agree to so many times the rounding of the larger."""
    scale = 1 + np.max(np.abs(expected), initial=0)
    error = np.max(np.abs(found - expected), initial=0)
    return bool(error <= factor * tolerance(expected) * scale)  # False if either is NaN


def require_close(found: np.ndarray, expected: np.ndarray, factor: float, message: str) -> None:
    """Raise unless they are `close`."""
    require(close(found, expected, factor), f"{message}: {found} and not {expected}.")


def require_near(found: Any, expected: Any, error: Any, message: str) -> None:
    """Raise unless they agree to five standard errors, and rounding."""
    found, expected = np.asarray(found), np.asarray(expected)
    allowed = 5 * error + tolerance(jnp.asarray(found)) * (1 + np.abs(expected))
    require(
        bool(np.all(np.abs(found - expected) <= allowed)),
        f"{message}: {found} and not {expected}, by the draws.",
    )


def require_same_leaves(message: str, found: PyTree, expected: PyTree, factor: float) -> None:
    """Raise unless all leaves are `close`."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        require_close(np.asarray(a), np.asarray(b), factor, message)
