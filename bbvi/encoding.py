"""Targets and families as JSON, for files."""

import os
from dataclasses import fields

import jax
import numpy as np

import bbvi.families
from bbvi import storage
from bbvi._types import LogJoint, PyTree
from bbvi.families import Family
from bbvi.inputs import match_support
from bbvi.status import InputError
from bbvi.target import Leaf, Target


def encode_target(target: Target) -> dict:
    """All of a target but its log joint, as JSON."""
    return {
        "structure": storage.encode_structure(target.treedef.unflatten(range(len(target.leaves)))),
        "leaves": [
            {
                "name": x.name,
                "shape": x.shape,
                "dtype": np.dtype(x.dtype).name,
                "support": storage.encode_support(x.bijector),
            }
            for x in target.leaves
        ],
        "order": target.order,
        "takes_data": target.takes_data,
    }


def decode_target(header: dict, log_joint: LogJoint | None, support: PyTree) -> Target:
    """The target that `encode_target` wrote."""
    structure = storage.decode_structure(header["structure"])
    # what is left out stays as it was saved
    given = match_support(support, structure, default=None)
    leaves, start = [], 0
    for i, code in enumerate(header["leaves"]):
        bijector = given[i] or storage.decode_support(code["support"])
        if bijector is None:
            raise InputError(
                f"the support of {code['name']} is a function or your own class, which a file "
                "cannot hold: call bbvi.load(path, support=...) with the supports of the fit."
            )
        shape = tuple(code["shape"])
        free_shape = bijector.unconstrained_shape(shape)
        leaves.append(
            Leaf(
                code["name"],
                shape,
                jax.dtypes.canonicalize_dtype(code["dtype"]),
                bijector,
                free_shape,
                start,
            )
        )
        start += leaves[-1].size
    return Target(
        _missing_log_joint if log_joint is None else log_joint,
        jax.tree.structure(structure),
        tuple(leaves),
        tuple(header["order"]),
        header["takes_data"],
    )


def _missing_log_joint(*args):
    raise InputError("a saved fit has no log joint: call bbvi.load(path, log_joint=...).")


def encode_family(family: Family) -> list:
    """Its name and its settings, as JSON; a family of another one holds that likewise.

    Raises:
        InputError: if a file could not say which family it is.
    """
    if getattr(bbvi.families, type(family).__name__, None) is not type(family):
        raise InputError(f"{type(family).__name__} is not a family of bbvi, so it can't be saved.")
    settings = {f.name: getattr(family, f.name) for f in fields(family)}
    encoded = {k: encode_family(v) if isinstance(v, Family) else v for k, v in settings.items()}
    return [type(family).__name__, encoded]


def decode_family(path: str | os.PathLike, code: list) -> Family:
    """The family that `encode_family` wrote to a file."""
    name, settings = code
    kind = getattr(bbvi.families, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Family)):
        raise InputError(f"{path} names the family {name}, which this bbvi does not have.")
    of_families = {f.name for f in fields(kind) if isinstance(f.default, Family)}
    return kind(
        **{k: decode_family(path, v) if k in of_families else v for k, v in settings.items()}
    )
