"""The posteriors by name, and the database's files."""

import json
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import hierarchical, nonlinear, regressions, timeseries
from .model import Data, Model

MISSING = (
    "POSTERIORDB is not set: give it the path of a clone of github.com/stan-dev/posteriordb, "
    "the folder that holds posterior_database/."
)

MODELS: dict[str, Model] = {
    **hierarchical.MODELS,
    **nonlinear.MODELS,
    **regressions.MODELS,
    **timeseries.MODELS,
}


def find_database() -> Path | None:
    """The folder of the database, or None where POSTERIORDB is not set."""
    clone = os.environ.get("POSTERIORDB")
    if not clone:
        return None
    folder = Path(clone) / "posterior_database"
    if not folder.is_dir():
        raise FileNotFoundError(f"POSTERIORDB is {clone}, where there is no posterior_database/.")
    return folder


def is_there() -> bool:
    """Whether there is a database to measure on; says so where there is none."""
    found = find_database() is not None
    if not found:
        print(f"{MISSING} Nothing was measured.")
    return found


def _read(*parts: str) -> Any:
    """A file of the database, JSON or zipped JSON."""
    folder = find_database()
    if folder is None:
        raise FileNotFoundError(MISSING)
    path = folder.joinpath(*parts)
    if not path.exists():
        raise FileNotFoundError(f"POSTERIORDB has no {path.relative_to(folder)}; is it a part?")
    if path.suffix != ".zip":
        return json.loads(path.read_text())
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(archive.namelist()[0]))


@dataclass(frozen=True)
class Posed:
    """A model with data; `name` is that of the data, a dash, the model's."""

    name: str
    model: Model

    def data(self) -> Data:
        """What the log joint reads, as arrays of floats."""
        name = self.name.partition("-")[0]
        return self.model.prepare(_read("data", "data", f"{name}.json.zip"))


def pose(kind: type[Posed], names: str, models: dict[str, Model]) -> dict[str, Any]:
    """Each of the names with its model."""
    return {name: kind(name, models[name.partition("-")[2]]) for name in names.split()}


@dataclass(frozen=True)
class Posterior(Posed):
    """A model with data and reference draws."""

    def reference(self) -> dict[str, np.ndarray]:
        """Reference draws of the parameters block, {name: (S, ...)}, one chain after the other."""
        about = _read("posteriors", f"{self.name}.json")
        file = f"{about['reference_posterior_name']}.json.zip"
        chains = _read("reference_posteriors", "draws", "draws", file)
        draws = _group({key: np.concatenate([c[key] for c in chains]) for key in chains[0]})
        data = self.data()
        names = list(self.model.parameters(data))
        if not set(names) <= set(draws):
            draws = self.model.from_reference(draws, data)
        return {name: draws[name] for name in names}

    def moments(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Means and sds of the reference draws."""
        draws = self.reference()
        mean = {name: np.asarray(x.mean(0)) for name, x in draws.items()}
        return mean, {name: np.asarray(x.std(0, ddof=1)) for name, x in draws.items()}


def _group(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """{"theta[1]": x, "theta[2]": y, "mu": z} to {"theta": (S, 2), "mu": (S,)}."""
    cells: dict[str, dict[tuple, np.ndarray]] = {}
    for key, values in columns.items():
        name, indices = re.fullmatch(r"([^\[]+)(?:\[([\d,]+)\])?", key).groups()
        where = tuple(int(i) - 1 for i in indices.split(",")) if indices else ()
        cells.setdefault(name, {})[where] = values
    grouped = {}
    for name, entries in cells.items():
        shape = tuple(1 + max(axis) for axis in zip(*entries, strict=True))
        grouped[name] = np.empty((len(next(iter(entries.values()))), *shape))
        for where, values in entries.items():
            grouped[name][(slice(None), *where)] = values
    return grouped


_NAMES = """
arK-arK arma-arma11 bball_drive_event_0-hmm_drive_0 bball_drive_event_1-hmm_drive_1
diamonds-diamonds earnings-earn_height earnings-log10earn_height earnings-logearn_height
earnings-logearn_height_male earnings-logearn_interaction earnings-logearn_interaction_z
earnings-logearn_logheight_male eight_schools-eight_schools_centered
eight_schools-eight_schools_noncentered garch-garch11 gp_pois_regr-gp_pois_regr
gp_pois_regr-gp_regr hmm_example-hmm_example hudson_lynx_hare-lotka_volterra
kidiq-kidscore_interaction kidiq-kidscore_momhs kidiq-kidscore_momhsiq kidiq-kidscore_momiq
kidiq_with_mom_work-kidscore_interaction_c kidiq_with_mom_work-kidscore_interaction_c2
kidiq_with_mom_work-kidscore_interaction_z kidiq_with_mom_work-kidscore_mom_work
kilpisjarvi_mod-kilpisjarvi low_dim_gauss_mix-low_dim_gauss_mix mesquite-logmesquite
mesquite-logmesquite_logva mesquite-logmesquite_logvas mesquite-logmesquite_logvash
mesquite-logmesquite_logvolume mesquite-mesquite nes1972-nes nes1976-nes nes1980-nes nes1984-nes
nes1988-nes nes1992-nes nes1996-nes nes2000-nes one_comp_mm_elim_abs-one_comp_mm_elim_abs
sblrc-blr sblri-blr
"""

POSTERIORS: dict[str, Posterior] = pose(Posterior, _NAMES, MODELS)
