"""How a run ended: one code and one sentence for each outcome."""

from enum import IntEnum
from typing import SupportsInt


class Status(IntEnum):
    """Outcome of a solver's run; carried as data inside jitted loops."""

    RUNNING = 0
    CONVERGED = 1
    MAX_STEPS = 2
    NONFINITE = 3
    INTERRUPTED = 4
    COMPLETED = 5
    BUDGET = 6

    @classmethod
    def of_ended(cls, code: SupportsInt) -> "Status":
        """Of a run that has ended: one that its step limit ended still counts as running."""
        status = cls(int(code))
        return cls.MAX_STEPS if status is cls.RUNNING else status

    @property
    def left(self) -> "Status":
        """Of a run that another went on from: that its step limit ended it matters no longer."""
        return Status.COMPLETED if self is Status.MAX_STEPS else self

    @property
    def message(self) -> str:
        """The sentence a person reads."""
        return _MESSAGES[self]

    @property
    def failed(self) -> bool:
        """Whether there is no usable answer at all."""
        return self is Status.NONFINITE


_MESSAGES = {
    Status.RUNNING: "The run has not ended.",
    Status.CONVERGED: "The averaged parameters stopped moving.",
    Status.MAX_STEPS: "The step limit was reached before the parameters stopped moving.",
    Status.NONFINITE: (
        "Every draw gave a NaN or infinite log density or gradient for many steps in a row; "
        "the last finite parameters were kept."
    ),
    Status.COMPLETED: "The planned number of steps was taken.",
    Status.BUDGET: "The budget was spent before the run ended.",
    Status.INTERRUPTED: "The run was interrupted; this is the fit so far.",
}


class FitError(RuntimeError):
    """Raised by `fit(throw=True)` when a run failed; `.result` holds the fit so far."""

    def __init__(self, message: str, result=None):
        super().__init__(message)
        self.result = result


class InputError(ValueError):
    """Raised before any computation when the user's input cannot be used."""


class BBVIWarning(UserWarning):
    """Something about the input or the fit that a person should read."""
