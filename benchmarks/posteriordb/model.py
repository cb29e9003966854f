"""What one ported Stan program consists of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

Data = dict[str, np.ndarray]


def numbers(raw: dict[str, Any]) -> Data:
    """Everything in a data file as arrays of floats, so that all of it can be traced."""
    return {name: np.asarray(value, float) for name, value in raw.items()}


@dataclass(frozen=True)
class Model:
    """One Stan program.

    Attributes:
        log_joint: `log_joint(params, data)` on the natural space, without Jacobians. One function
            of a module, since compiled programs are kept by its identity.
        parameters: `parameters(data)`, {name: (support, shape)} of the parameters block, each
            after those that its bounds need.
        prepare: from the data file to what `log_joint` reads, all arrays of floats: Stan's
            transformed data.
        from_reference: from published draws {name: (S, ...)} and data to draws of the parameters
            block, where the names differ; in NumPy, hence in float64 whatever JAX is set to.
    """

    log_joint: Callable
    parameters: Callable[[Data], dict]
    prepare: Callable[[dict[str, Any]], Data] = numbers
    from_reference: Callable[[dict, Data], dict] | None = None

    def support(self, data: Data) -> dict:
        """The supports as `bbvi.fit` takes them."""
        return {name: support for name, (support, _) in self.parameters(data).items()}

    def init(self, data: Data) -> dict[str, np.ndarray]:
        """The point a user writes who knows nothing.

        It is where every unconstrained number is zero: 0 for real parameters, 1 for positive ones,
        the centre of an interval, a uniform simplex, 0, 1, ... in order.
        """
        point: dict[str, np.ndarray] = {}
        for name, (support, shape) in self.parameters(data).items():
            zeros = jnp.zeros(support.unconstrained_shape(shape))
            point[name] = np.asarray(support.bind(point, data).forward(zeros))
        return point


def problem(posterior: Any) -> tuple:
    """Log joint, init, data and support of a model with data, as `bbvi.make_target` takes them."""
    model, data = posterior.model, posterior.data()
    return model.log_joint, model.init(data), data, model.support(data)
