"""The models by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import moments
from benchmarks.posteriordb.model import Data, Model

from . import (
    centred,
    economy,
    engineering,
    environment,
    events,
    fields,
    hidden,
    hierarchy,
    kinds,
    latent,
    learning,
    life,
    nature,
    people,
    physics,
    processes,
    psychology,
    regression,
    series,
    signals,
    smooth,
    states,
    structure,
    trials,
    tutorials,
    wide,
    written,
)

REFERENCE = Path(__file__).with_name("reference.json")


@dataclass(frozen=True)
class Practice:
    """A model, how its data are simulated, and its moments where NUTS does not find them."""

    name: str
    model: Model
    data: Callable[[], Data]
    exact: Callable[[Data], tuple] | None = None

    def moments(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]] | None:
        """Means and sds, exact or by NUTS; None where no run of it has settled."""
        if self.exact is not None:
            return self.exact(self.data())
        return moments.settled(REFERENCE, self.name)


FILES = (regression, hierarchy, people, nature, series)
FILES += (economy, events, hidden, learning, physics)
FILES += (psychology, environment, structure, wide, fields, centred)
FILES += (engineering, trials, signals, latent, kinds, smooth, written, tutorials)
FILES += (processes, life, states)
PRACTICE = {name: Practice(name, *made) for file in FILES for name, made in file.MODELS.items()}
