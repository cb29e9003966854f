"""A fit as the `DataTree` of ArviZ.

Draws carry a chain axis of length one, as ArviZ's own functions expect. They are independent, so
what ArviZ says of their effective number and of r-hat is empty; the verdict and k-hat, in the
attributes, say how good they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

import bbvi.status
from bbvi._compile import plain_jit
from bbvi._tree import as_arrays, as_key
from bbvi._types import Array, Key, PyTree
from bbvi.bridges.base import require
from bbvi.target import Target

if TYPE_CHECKING:
    from xarray import DataTree

    from bbvi.result import FitResult


def to_datatree(
    result: FitResult,
    num_draws: int = 1000,
    key: Key = 0,
    *,
    data: PyTree = None,
    postprocess: Callable[[PyTree], Mapping[str, Array]] | None = None,
    coords: Mapping[str, Sequence] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    observed_data: Mapping[str, Any] | None = None,
    posterior_predictive: Callable[[Array, PyTree, PyTree], Mapping[str, Array]] | None = None,
    log_likelihood: Callable[[PyTree, PyTree], Mapping[str, Array]] | None = None,
) -> DataTree:
    """A fit as a `DataTree`; see `FitResult.to_datatree`, which calls this.

    Raises:
        ImportError: if arviz-base is not installed.
        InputError: if a function returns no dictionary.
    """
    base = require("arviz_base", "arviz", "result.to_datatree()")
    posterior = result.posterior
    target = posterior.target
    data = posterior.data if data is None else as_arrays(data, "data")
    draw_key, predict_key = jax.random.split(as_key(key))
    draws, log_q = posterior.sample_and_log_prob(draw_key, num_draws)

    stats = {"log_q": log_q}
    log_p = _log_p(target, draws, data)
    if log_p is not None:
        stats |= {"log_p": log_p, "log_weight": log_p - log_q}
    if postprocess is None:
        values = {x.name: v for x, v in zip(target.leaves, jax.tree.leaves(draws), strict=True)}
    else:
        values = dict(postprocess(draws))
    groups: dict[str, Mapping[str, Any]] = {"posterior": values, "sample_stats": stats}
    if posterior_predictive is not None:
        keys = jax.random.split(predict_key, num_draws)
        predict = posterior_predictive
        groups["posterior_predictive"] = _each(
            "posterior_predictive", lambda key, params: predict(key, params, data), keys, draws
        )
    if log_likelihood is not None:
        weigh = log_likelihood
        groups["log_likelihood"] = _each(
            "log_likelihood", lambda params: weigh(params, data), draws
        )
    groups = {
        name: {k: np.asarray(v)[None] for k, v in group.items()} for name, group in groups.items()
    }
    if observed_data is not None:
        groups["observed_data"] = {k: np.asarray(v) for k, v in observed_data.items()}
    attrs = _attributes(result)
    tree = base.from_dict(
        groups,
        coords=None if coords is None else dict(coords),
        dims=None if dims is None else {k: list(v) for k, v in dims.items()},
        attrs={"posterior": attrs},
    )
    tree.attrs.update(attrs)
    tree["fit"] = _trace(result)
    return tree


def _each(name: str, function: Callable, *args: Any) -> dict[str, Array]:
    """What the user's function gives for each draw."""
    values = plain_jit()(jax.vmap(function))(*args)
    if not isinstance(values, Mapping):
        raise bbvi.status.InputError(
            f"{name} must return a dictionary of arrays by name, not a {type(values).__name__}."
        )
    return dict(values)


def _log_p(target: Target, draws: PyTree, data: PyTree) -> Array | None:
    """The log joint at draws (S,); None where it cannot be evaluated without the data."""
    if data is None:
        if target.takes_data:
            return None
        try:
            return _log_joints(target, draws, data)
        except bbvi.status.InputError:  # a loaded fit has no log joint
            return None
    return _log_joints(target, draws, data)


@plain_jit((0,))
def _log_joints(target: Target, draws: PyTree, data: PyTree) -> Array:
    one = lambda params: target.evaluate(params, data).astype(target.dtype)  # noqa: E731
    return jax.lax.map(one, draws) if target.sequential else jax.vmap(one)(draws)


def _attributes(result: FitResult) -> dict[str, Any]:
    """What a file of draws should say of where they come from: words and numbers only."""
    return {
        "inference_library": "bbvi",
        "inference_library_version": _version(),
        "verdict": result.verdict.level,
        "verdict_reasons": "\n".join(result.verdict.reasons),
        "verdict_flagged": ", ".join(result.verdict.flagged),
        "status": result.status.name,
        "khat": result.khat,
        "elbo": result.elbo,
        "elbo_se": result.elbo_se,
        "importance_corrected": int(result.posterior.draws is not None),
        "num_gradients": result.num_gradients,
        "fitting_time": float(sum(seconds for _, seconds in result.timings)),
    }


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("bbvi")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"


def _trace(result: FitResult) -> DataTree:
    """The bound along the run, over `step`."""
    from xarray import Dataset, DataTree

    step, elbo, error = (np.asarray(x) for x in result.history)
    return DataTree(
        Dataset({"elbo": ("step", elbo), "elbo_se": ("step", error)}, coords={"step": step})
    )
