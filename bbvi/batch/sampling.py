"""Draws of all problems of a batch."""

from typing import TYPE_CHECKING

import jax
import numpy as np

from bbvi._tree import pick
from bbvi._types import Array, PyTree
from bbvi.batch.engine import blocks, pad, place
from bbvi.batch.problems import Problems
from bbvi.batch.programs import draw_some
from bbvi.batch.refine import FAMILY as MIXTURE

if TYPE_CHECKING:
    from bbvi.batch.result import BatchResult

_POOL = 4096  # weighted draws behind each corrected problem's samples
_WIDTH = 64  # problems at once


def draws_of_all(results: "BatchResult", problems: Problems, root: Array, num_draws: int) -> PyTree:
    """Draws of all problems, each leaf (B, num_draws, ...), as NumPy arrays."""
    plan, records = results.plan, results.records
    number = int(jax.random.bits(root)) & 0x7FFFFFFF
    width = min(_WIDTH, len(results))
    if plan.mesh is not None:  # as many for each device
        width = -(-_WIDTH // plan.mesh.size) * plan.mesh.size
    mixed = np.zeros(len(results), bool)
    mixed[list(results.mixtures)] = True
    order, parts = [], []
    for family, chosen in ((plan.family, ~mixed), (MIXTURE, mixed)):
        for some in blocks(np.flatnonzero(chosen).astype(np.int32), width):
            at = pad(some, width)
            params = pick(records.params, at)
            if family is MIXTURE:
                params = jax.tree.map(lambda *x: np.stack(x), *(results.mixtures[i] for i in at))
            numbers = np.full(width, number, np.int32)
            args = (params, records.corrected[at], numbers, problems.take(at))
            placed = place(plan, args)
            draws = draw_some(plan, family, num_draws, _POOL, *placed, problems.common)
            parts.append(pick(jax.device_get(draws), slice(len(some))))
            order.append(some)
    back = np.argsort(np.concatenate(order))
    draws = jax.tree.map(lambda *x: np.concatenate(x)[back], *parts)
    for i, single in results.singles.items():
        new = single.posterior.sample(jax.random.fold_in(root, i), num_draws)
        jax.tree.map(lambda all_, one, i=i: all_.__setitem__(i, one), draws, new)
    return draws
