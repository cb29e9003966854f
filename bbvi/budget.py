"""What a fit may cost, and what it has cost so far."""

import math
import time
from dataclasses import dataclass

import numpy as np

from bbvi.status import InputError


@dataclass(frozen=True)
class Budget:
    """A limit on a fit: gradient evaluations of the log joint, seconds, or both.

    A stage that would go beyond it is not begun, or is cut short; what was found until then
    is judged and returned, and the verdict says that the budget ended it. The first stage
    always runs, if need be with few steps. Seconds include compilation.

    Args:
        gradients: gradient evaluations, all stages together.
        seconds: wall time.

    Example:
        >>> import bbvi, jax.numpy as jnp
        >>> log_joint = lambda x: -jnp.sum(jnp.log1p(x**2))
        >>> budget = bbvi.Budget(gradients=2000)
        >>> result = bbvi.fit(log_joint, jnp.zeros(2), budget=budget, throw=False)
        >>> result.num_gradients <= 2000
        True
    """

    gradients: int | None = None
    seconds: float | None = None

    def __post_init__(self):
        for name, value in (("gradients", self.gradients), ("seconds", self.seconds)):
            if value is not None and not (isinstance(value, (int, float, np.number)) and value > 0):
                raise InputError(f"a budget's {name} must be a positive number, not {value!r}.")


class Purse:
    """A budget with its clock running.

    Attributes:
        ended: whether something had to be left out for want of budget.
    """

    def __init__(self, budget: Budget | None, began: float):
        self._budget = Budget() if budget is None else budget
        self._began = began
        self._spent = 0
        self.ended = False

    def spend(self, gradients: int) -> None:
        """Count gradients."""
        self._spent += gradients

    @property
    def gradients(self) -> float:
        """Gradients left, infinity without a limit."""
        limit = self._budget.gradients
        return math.inf if limit is None else max(0, limit - self._spent)

    @property
    def seconds(self) -> float:
        """Seconds left, infinity without a limit."""
        limit = self._budget.seconds
        return math.inf if limit is None else limit - (time.perf_counter() - self._began)

    def allows(self, gradients: float) -> bool:
        """Whether so many gradients more can be paid for; if not, that is remembered."""
        allowed = gradients <= self.gradients and self.seconds > 0
        self.ended = self.ended or not allowed
        return allowed
