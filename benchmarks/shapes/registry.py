"""The shapes by name, and their moments."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.posteriordb.model import Data, Model

from . import curved, mixtures, supports, tails, wide

# Numbers drawn for the moments of a shape, and the fewest draws.
_NUMBERS, _LEAST = 2_000_000, 20_000


@dataclass(frozen=True)
class Shape:
    """A density, and exact draws from it.

    Attributes:
        name: of the shape.
        model: its log density; there are no data.
        draw: `draw(rng, number)`, draws {name: (number, ...)}.
    """

    name: str
    model: Model
    draw: Callable[[np.random.Generator, int], dict[str, np.ndarray]]

    def data(self) -> Data:
        return {}

    def draws(self, number: int | None = None) -> dict[str, np.ndarray]:
        """Always the same ones."""
        if number is None:
            size = sum(np.size(x) for x in self.model.init({}).values())
            number = max(_LEAST, min(_NUMBERS // size, _NUMBERS // 4))
        return self.draw(np.random.default_rng(0), number)

    def moments(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        draws = self.draws()
        return {k: x.mean(0) for k, x in draws.items()}, {k: x.std(0) for k, x in draws.items()}


FILES = (curved, mixtures, supports, tails, wide)
SHAPES = {name: Shape(name, *made) for file in FILES for name, made in file.MODELS.items()}
