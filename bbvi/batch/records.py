"""What is kept of every problem of a batch."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from bbvi._tree import pick, rows
from bbvi._types import PyTree
from bbvi.batch.judging import Facts
from bbvi.batch.programs import End, Look
from bbvi.diagnostics.figures import LIKE
from bbvi.status import Status


class Records(NamedTuple):
    """What is kept of every problem; every array has the problem axis in front.

    Attributes:
        params: the family's parameters.
        look: the last look.
        end: how the run ended.
        looks: looks after the first.
        corrected: whether moments and draws are corrected by the importance weights.
        level: the verdict, as a number into `bbvi.batch.judging.LEVELS`.
    """

    params: PyTree
    look: Look
    end: End
    looks: Any
    corrected: Any
    level: Any

    def facts(self, i: int) -> Facts:
        """What the verdict on problem `i` is made from."""
        return _facts(*pick((self.look, self.end, self.looks, self.corrected), i))

    def all_facts(self) -> Iterator[Facts]:
        """The same for every problem, one after the other."""
        seen = (self.look, self.end, self.looks, self.corrected)
        return (_facts(*one) for one in rows(seen, len(self.level)))


def facts_of_many(look: Look, end: End, looks: Any, corrected: Any) -> Facts:
    """What verdicts on many problems are made from: arrays with the problem axis in front."""
    return Facts(
        look.diagnostics,
        end.status,
        end.usable,
        look.uncovered,
        look.apart,
        looks,
        corrected,
        end.drift,
        # the match tries far-out points on purpose: what it skips biases nothing
        0.0,
    )


def _facts(look: Look, end: End, looks: Any, corrected: Any) -> Facts:
    found = facts_of_many(look, end, looks, corrected)
    return found._replace(
        status=Status.of_ended(end.status),
        usable=bool(end.usable),
        uncovered=bool(look.uncovered),
        apart=bool(look.apart),
        looks=int(looks),
        corrected=bool(corrected),
        drift=float(end.drift),
    )


class Found(NamedTuple):
    """Some problems that are done.

    Attributes:
        numbers: their numbers in the batch.
        records: what is kept of them.
        mixtures: parameters of their mixtures, for those that were refined to one, by number.
    """

    numbers: np.ndarray
    records: Records
    mixtures: dict[int, PyTree]


def records_like(params: PyTree) -> Records:
    """The structure of records, with anything as leaves."""
    look = Look(LIKE, *[0] * 4)  # type: ignore[arg-type]
    return Records(params, look, End(*[0] * 6), 0, 0, 0)  # type: ignore[arg-type]
