r"""Joint distributions of TensorFlow Probability on JAX.

The parameters are the unpinned variables by name in constrained values, so that
`result.summary()` reads as the model does. Each has TFP's own default bijector as its support,
bounds that depend on other variables included, so densities on the unconstrained space are TFP's
to the last digit. The pinned values are data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._compile import plain_jit
from bbvi._tree import as_arrays
from bbvi._types import Array, PyTree
from bbvi.bijectors import Bijector
from bbvi.bridges.base import Bridged, HomeSupport, Maps, require
from bbvi.status import InputError


def from_joint_distribution(joint: Any, *args: Any, **observed: Any) -> Bridged:
    """A TFP joint distribution, pinned at observed values, as `bbvi.fit` takes it.

    Args:
        joint: a joint distribution with named variables, or a function that makes one from
            `args`. Compiled programs are kept by its identity: define it once.
        args: arrays for the function, such as covariates; they are data.
        observed: the values of the observed variables by name; they are data.

    Returns:
        log joint, start, data, supports and `postprocess`, which gives the unpinned variables:
        a joint distribution has no others.

    Raises:
        ImportError: if TFP is not installed.
        InputError: if the variables have no names, one is discrete, or `args` are given with a
            joint distribution.

    Example:
        >>> import bbvi, numpy as np                                         # doctest: +SKIP
        >>> from tensorflow_probability.substrates.jax import distributions as tfd  # doctest: +SKIP
        >>> def model():                                                     # doctest: +SKIP
        ...     scale = yield tfd.HalfNormal(1.0, name="scale")
        ...     yield tfd.Sample(tfd.Normal(0.0, scale), 3, name="y")
        >>> joint = tfd.JointDistributionCoroutineAutoBatched(model)          # doctest: +SKIP
        >>> y = np.array([1.0, -2.0, 0.5], np.float32)                        # doctest: +SKIP
        >>> b = bbvi.bridges.tfp.from_joint_distribution(joint, y=y)          # doctest: +SKIP
    """
    who = "bbvi.bridges.tfp.from_joint_distribution"
    require("tensorflow_probability.substrates.jax", "tfp", who)
    if args and not _is_function(joint):
        raise InputError("args are for a function that makes a joint distribution: leave them out.")
    problem = _problem(joint, jax.config.jax_enable_x64)
    data = as_arrays({"args": list(args), "observed": observed}, "data")
    plan = problem.plan(data)
    return Bridged(
        problem,
        _constrain(problem, plan.start, data),
        data,
        plan.support,
        lambda draws: dict(draws),
    )


class _Plan(NamedTuple):
    """What the shapes of the data fix: unconstrained starts and supports, by name."""

    start: dict[str, np.ndarray]
    support: Mapping[str, Bijector]


class _Problem:
    """One joint distribution; the log joint. It counts by identity and is made once."""

    def __init__(self, joint: Any):
        self._joint = joint
        self._plans: dict[tuple, _Plan] = {}

    def __call__(self, params: PyTree, data: PyTree) -> Array:
        return self.pinned(data).unnormalized_log_prob(**params)

    def joint(self, data: PyTree) -> Any:
        """The joint distribution for these data."""
        return self._joint(*data["args"]) if _is_function(self._joint) else self._joint

    def pinned(self, data: PyTree) -> Any:
        """The joint distribution with its observed variables held."""
        return self.joint(data).experimental_pin(**data["observed"])

    def parts(self, params: PyTree, data: PyTree) -> dict[str, Any]:
        """The distribution of each variable where the variables before it are as in `params`."""
        values = {**params, **data["observed"]}
        parts, _ = self.joint(data).sample_distributions(seed=jax.random.PRNGKey(0), **values)
        return _by_name(parts)

    def plan(self, data: PyTree) -> _Plan:
        """The plan for these data: made once for their shapes."""
        leaves, structure = jax.tree.flatten(data)
        shapes = (structure, tuple((x.shape, x.dtype.name) for x in leaves))
        if shapes not in self._plans:
            self._plans[shapes] = _make_plan(self, data)
        return self._plans[shapes]


@lru_cache(maxsize=256)
def _problem(joint: Any, x64: bool) -> _Problem:
    del x64  # part of the key: plans hold values of one precision
    return _Problem(joint)


def _is_function(joint: Any) -> bool:
    return callable(joint) and not hasattr(joint, "experimental_pin")


def _by_name(structure: Any) -> dict[str, Any]:
    """The entries of a dictionary or of a tuple with names."""
    if hasattr(structure, "_asdict"):
        return dict(structure._asdict())
    if isinstance(structure, dict):
        return dict(structure)
    raise InputError(
        "the joint distribution has no names for its variables: use JointDistributionNamed, or a "
        "coroutine whose distributions have name=."
    )


def _make_plan(problem: _Problem, data: PyTree) -> _Plan:
    # shapes alone: to draw from a prior may take long to compile
    shapes = _by_name(jax.eval_shape(partial(_prior_draw, problem), data))
    if not shapes:
        raise InputError("every variable is pinned: nothing is left to fit.")
    for name, value in shapes.items():
        if not jnp.issubdtype(value.dtype, jnp.floating):
            raise InputError(f"{name} is discrete: sum it out, for example with tfd.Mixture.")
    free = jax.eval_shape(partial(_free_draw, problem), data)
    start = {k: np.zeros(x.shape, x.dtype) for k, x in sorted(_by_name(free).items())}
    real = jax.device_get(_which_are_real(problem, start, data))
    support = {
        name: HomeSupport(
            f"tfp's support of {name}", _Find(problem, name), shapes[name].shape, x.shape
        )
        for name, x in start.items()
        if not real[name]
    }
    return _Plan(start, support)


def _prior_draw(problem: _Problem, data: PyTree) -> Any:
    """A draw of the unpinned variables."""
    return problem.pinned(data).sample_unpinned(seed=jax.random.PRNGKey(0))


def _free_draw(problem: _Problem, data: PyTree) -> Any:
    """Its unconstrained value."""
    bijector = problem.pinned(data).experimental_default_event_space_bijector()
    return bijector.inverse(_prior_draw(problem, data))


@plain_jit((0,))
def _which_are_real(problem: _Problem, free: dict[str, Array], data: PyTree) -> dict[str, Array]:
    """Whether the bijector of each variable is the identity."""
    parts = problem.parts(_constrain(problem, free, data), data)
    return {
        name: _is_identity(parts[name].experimental_default_event_space_bijector(), x)
        for name, x in free.items()
    }


def _is_identity(bijector: Any, like: Array) -> Array:
    probe = jnp.linspace(-1, 1, like.size + 2, dtype=like.dtype)[:-2].reshape(like.shape)
    value = bijector.forward(probe)
    same = value.shape == probe.shape
    return jnp.all(value == probe) if same else jnp.array(False)


@dataclass(frozen=True)
class _Find:
    """TFP's bijector for one variable, where the other variables have given values."""

    problem: _Problem
    name: str

    def __call__(self, params: PyTree, data: PyTree) -> Maps:
        part = self.problem.parts(params, data)[self.name]
        bijector = part.experimental_default_event_space_bijector()
        return Maps(
            bijector.forward,
            lambda x: jnp.sum(bijector.forward_log_det_jacobian(x)),
            bijector.inverse,
            lambda y: jnp.all(jnp.isfinite(bijector.inverse(y))),
        )


@plain_jit((0,))
def _constrain(problem: _Problem, free: dict[str, Array], data: PyTree) -> dict[str, Array]:
    """Constrained values of unconstrained ones, at bounds that may depend on the data."""
    pinned = problem.pinned(data)
    like = jax.eval_shape(partial(_free_draw, problem), data)
    made = {**free} if isinstance(like, dict) else type(like)(**free)
    return _by_name(pinned.experimental_default_event_space_bijector().forward(made))
