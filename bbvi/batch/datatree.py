"""A batch of fits as an `xarray.DataTree`."""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bbvi._types import Key
from bbvi.status import InputError

if TYPE_CHECKING:
    from bbvi.batch.result import BatchResult


def to_datatree(results: "BatchResult", num_draws: int, key: Key, dim: str, coords: Any):
    """What `BatchResult.to_datatree` returns."""
    try:
        import xarray
    except ImportError as error:
        raise ImportError("to_datatree needs xarray: pip install 'bbvi[arviz]'.") from error
    label = np.arange(len(results)) if coords is None else np.asarray(coords)
    if len(label) != len(results):
        raise InputError(f"{len(label)} coords were given for {len(results)} problems.")
    draws = results.sample(key, num_draws)
    named = zip(results.plan.target.leaves, jax.tree.leaves(draws), strict=True)
    posterior = {}
    for leaf, x in named:
        axes = [f"{leaf.name}_dim_{i}" for i in range(len(leaf.shape))]
        # one chain, since draws are independent; ArviZ wants both names
        value = np.moveaxis(x, 0, 1)[None]
        posterior[leaf.name] = (("chain", "draw", dim, *axes), value)
    where = {dim: label, "chain": [0], "draw": np.arange(num_draws)}
    table = {name: ((dim,), values) for name, values in results.table().columns.items()}
    attributes = {"inference_library": "bbvi"}
    return xarray.DataTree.from_dict(
        {
            "posterior": xarray.Dataset(posterior, where, attributes),
            "fit": xarray.Dataset(table, {dim: label}, attributes),
        }
    )
