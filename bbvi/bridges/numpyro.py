r"""NumPyro models.

The parameters are the latent sites under their own names in constrained values, so that
`result.summary()` and `result.posterior` read as the model does; the log joint is NumPyro's own
density of them. Sets that bbvi has (positive numbers, simplexes, correlation matrices, ...) get
bbvi's supports, any other NumPyro's own map, also where a bound depends on other sites or on the
data. Arrays among the model's arguments are data; numbers, words, functions and None are settings.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bbvi.bijectors as supports
from bbvi._types import Array, PyTree
from bbvi.bijectors import Bijector
from bbvi.bridges.base import Bridged, HomeSupport, Maps, Setting, depends, is_array, require
from bbvi.status import BBVIWarning, InputError

_WHO = "bbvi.bridges.numpyro.from_model"
# What a model raises that turns a traced argument into a number, a shape or a NumPy array.
_NOT_TRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


def from_model(model: Callable, *args: Any, **kwargs: Any) -> Bridged:
    """A NumPyro model, called with `args` and `kwargs`, as `bbvi.fit` takes it.

    Args:
        model: a function with NumPyro primitives; handlers and reparametrisations are kept.
            Compiled programs are kept by its identity: wrap it once, not anew for each call.
        args: its arguments. Arrays are data: others of the same shapes compile nothing. Numbers,
            words, functions and None are settings: another value compiles again.
        kwargs: its arguments by name.

    Returns:
        log joint, start, data, supports, and `postprocess`, which gives all latent and
        deterministic sites.

    Raises:
        ImportError: if numpyro is not installed.
        InputError: if the model has discrete latent sites, `param` sites, subsampled plates, or
            no latent site.

    Example:
        >>> import bbvi, numpyro, jax.numpy as jnp                           # doctest: +SKIP
        >>> def model(y):
        ...     mu = numpyro.sample("mu", numpyro.distributions.Normal(0, 10))
        ...     numpyro.sample("y", numpyro.distributions.Normal(mu, 1), obs=y)
        >>> b = bbvi.bridges.numpyro.from_model(model, jnp.array([1.0, 2.0]))  # doctest: +SKIP
        >>> result = bbvi.fit(b.log_joint, b.init, b.data, support=b.support)  # doctest: +SKIP

    Source: the densities are `numpyro.infer.util.log_density`.
    """
    require("numpyro", "numpyro", _WHO)
    arrays, settings, structure = _split(model, args, kwargs)
    try:
        problem = _problem(model, structure, settings, jax.config.jax_enable_x64)
        plan = problem.plan(arrays)
    except _NOT_TRACEABLE:
        warnings.warn(
            "the model uses its arguments outside of JAX, so they are compiled into the program "
            "and a refit with others compiles again: compute shapes and indices before the call.",
            BBVIWarning,
            stacklevel=2,
        )
        settings += tuple((name, Setting(np.asarray(x))) for name, x in arrays.items())
        arrays = {}
        problem = _problem(model, structure, settings, jax.config.jax_enable_x64)
        plan = problem.plan(arrays)
    data = arrays or None
    return Bridged(
        problem,
        _constrain(problem, plan.start_values, data),
        data,
        plan.support,
        lambda draws: _all_sites(problem, draws, data),
    )


class _Plan(NamedTuple):
    """What the shapes of the arguments fix: names, starts and supports of the latent sites."""

    names: tuple[str, ...]
    start: tuple[Setting, ...]  # unconstrained values
    maps: tuple[Bijector, ...]

    @property
    def start_values(self) -> dict[str, np.ndarray]:
        return {name: x.value for name, x in zip(self.names, self.start, strict=True)}

    @property
    def support(self) -> dict[str, Bijector]:
        pairs = zip(self.names, self.maps, strict=True)
        return {name: bijector for name, bijector in pairs if bijector.name != "real"}


class _Problem:
    """One model with its settings; the log joint. It counts by identity and is made once."""

    def __init__(self, model: Callable, structure: Any, settings: tuple):
        self.model = model
        self.structure, self.names = structure
        self.settings = dict(settings)
        self._plans: dict[tuple, _Plan] = {}

    def __call__(self, params: PyTree, data: PyTree = None) -> Array:
        from numpyro.handlers import seed
        from numpyro.infer.util import log_density

        args, kwargs = self.arguments(data)
        return log_density(seed(self.model, 0), args, kwargs, params)[0]

    def arguments(self, data: PyTree) -> tuple[tuple, dict]:
        """The model's arguments, with the settings put back in their places."""
        values = {name: setting.value for name, setting in self.settings.items()}
        values |= data or {}
        return jax.tree.unflatten(self.structure, [values[name] for name in self.names])

    def trace(self, params: PyTree, data: PyTree) -> dict[str, dict]:
        """All sites of one run of the model, latent ones at `params`."""
        from numpyro.handlers import seed, substitute, trace

        args, kwargs = self.arguments(data)
        return trace(substitute(seed(self.model, 0), params)).get_trace(*args, **kwargs)

    def plan(self, data: PyTree) -> _Plan:
        """The plan for these data: made once for their shapes."""
        shapes = tuple((name, x.shape, jnp.result_type(x)) for name, x in data.items())
        if shapes not in self._plans:
            self._plans[shapes] = _make_plan(self, data)
        return self._plans[shapes]


@lru_cache(maxsize=256)
def _problem(model, structure, settings, x64) -> _Problem:
    del x64  # part of the key: plans hold values of one precision
    return _Problem(model, structure, settings)


def _split(model: Callable, args: tuple, kwargs: dict) -> tuple[dict, tuple, Any]:
    """Arguments as arrays by name, settings by name, and the structure that holds both."""
    paths, treedef = jax.tree_util.tree_flatten_with_path((args, kwargs), is_leaf=_is_none)
    words = _argument_names(model, len(args))
    arrays, settings, names = {}, [], []
    for path, leaf in paths:
        place, key = path[0].idx, path[1]
        first = words[key.idx] if place == 0 else str(key.key)
        name = first + jax.tree_util.keystr(path[2:])
        names.append(name)
        if is_array(leaf):
            arrays[name] = leaf
        else:
            settings.append((name, Setting(leaf)))
    return arrays, tuple(settings), (treedef, tuple(names))


def _is_none(x: Any) -> bool:
    return x is None


def _argument_names(model: Callable, count: int) -> list[str]:
    """A name for each positional argument, the model's own where it says them."""
    try:
        own = list(inspect.signature(model).parameters.values())
    except (TypeError, ValueError):
        own = []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in own if p.kind in kinds][:count]
    return names + [f"argument {i}" for i in range(len(names), count)]


def _make_plan(problem: _Problem, data: PyTree) -> _Plan:
    from numpyro.distributions import biject_to
    from numpyro.handlers import seed
    from numpyro.infer import init_to_median, init_to_uniform
    from numpyro.infer.util import initialize_model

    # Refused here, in the abstract, before anything is computed: a model that needs concrete
    # arguments, and a site that no gradient can move.
    jax.eval_shape(lambda data: _checked(problem.trace({}, data)), data)
    args, kwargs = problem.arguments(data)
    for strategy in (init_to_median, init_to_uniform):
        try:
            info = initialize_model(
                jax.random.PRNGKey(0),
                seed(problem.model, 0),
                init_strategy=strategy,
                model_args=args,
                model_kwargs=kwargs,
            )
            break
        except RuntimeError as error:
            last = error
    else:
        raise InputError(
            "no point was found at which the model's density and gradient are finite: "
            "give the sites priors that agree with the data."
        ) from last
    free = {k: np.asarray(v) for k, v in sorted(info.param_info.z.items())}
    names = tuple(free)
    values = {k: biject_to(info.model_trace[k]["fn"].support)(free[k]) for k in names}

    def bounds(params, data):
        sites = problem.trace(params, data)
        return [jax.tree.leaves(sites[k]["fn"].support) for k in names]

    fixed = [not moves for moves in depends(bounds, (values, data))]
    maps = []
    for name, is_fixed in zip(names, fixed, strict=True):
        constraint = info.model_trace[name]["fn"].support
        own = _own_support(constraint) if is_fixed else None
        shapes = np.shape(values[name]), free[name].shape
        maps.append(own or HomeSupport(_words(constraint), _Find(problem, name), *shapes))
    return _Plan(names, tuple(map(Setting, free.values())), tuple(maps))


class _Find(NamedTuple):
    """NumPyro's map for one site, where the other sites have given values."""

    problem: _Problem
    name: str

    def __call__(self, params: PyTree, data: PyTree) -> Maps:
        from numpyro.distributions import biject_to

        constraint = self.problem.trace(params, data)[self.name]["fn"].support
        transform = biject_to(constraint)
        return Maps(
            transform,
            lambda x: jnp.sum(transform.log_abs_det_jacobian(x, transform(x))),
            transform.inv,
            lambda y: jnp.all(constraint(y)),
        )


def _checked(sites: dict[str, dict]) -> list:
    """Refuse what has no gradient or is no posterior."""
    latent = {k: s for k, s in sites.items() if s["type"] == "sample" and not s["is_observed"]}
    for name, site in sites.items():
        if site["type"] == "param":
            raise InputError(
                f"the model has the param site {name}, which has no prior: make it a "
                "numpyro.sample, or fix its value with numpyro.handlers.substitute."
            )
        if site["type"] == "plate" and site["args"][0] != len(site["value"]):
            raise InputError(
                f"the plate {name} draws a subsample: a fit needs all its rows, so leave out "
                "subsample_size."
            )
    for name, site in latent.items():
        if site["fn"].support.is_discrete:
            raise InputError(
                f"the latent site {name} is discrete: sum it out of the model, for example with "
                "numpyro.distributions.MixtureSameFamily."
            )
    if not latent:
        raise InputError("the model has no latent site: nothing is left to fit.")
    return []


def _own_support(constraint: Any) -> Bijector | None:
    """bbvi's support for a constraint that depends on nothing, or None if it has none."""
    from numpyro.distributions import constraints as c

    while isinstance(constraint, c.independent):
        constraint = constraint.base_constraint
    named = [
        (c.real, supports.real),
        (c.positive, supports.positive),
        (c.nonnegative, supports.positive),
        (c.unit_interval, supports.unit_interval),
        (c.simplex, supports.simplex),
        (c.ordered_vector, supports.ordered),
        (c.positive_ordered_vector, supports.positive_ordered),
        (c.corr_cholesky, supports.corr_cholesky),
        (c.corr_matrix, supports.correlation),
        (c.lower_cholesky, supports.cov_cholesky),
        (c.positive_definite, supports.covariance),
    ]
    for known, own in named:
        if constraint is known:
            return own
    if type(constraint) is c.greater_than:
        return supports.greater_than(np.asarray(constraint.lower_bound))
    if type(constraint) is c.less_than:
        return supports.less_than(np.asarray(constraint.upper_bound))
    if type(constraint) is c.interval:
        bounds = np.asarray(constraint.lower_bound), np.asarray(constraint.upper_bound)
        return supports.interval(*bounds)
    return None


def _words(constraint: Any) -> str:
    name = type(constraint).__name__.strip("_")
    return f"numpyro's {name}"


@partial(jax.jit, static_argnums=0)
def _constrain(problem: _Problem, free: dict[str, Array], data: PyTree) -> dict[str, Array]:
    """Constrained values of unconstrained ones, at bounds that may depend on the data."""
    from numpyro.handlers import seed
    from numpyro.infer.util import constrain_fn

    args, kwargs = problem.arguments(data)
    return constrain_fn(seed(problem.model, 0), args, kwargs, free)


@partial(jax.jit, static_argnums=0)
def _all_sites(problem: _Problem, draws: PyTree, data: PyTree) -> dict[str, Array]:
    """Latent and deterministic sites for draws with a leading axis S."""

    def one(params):
        sites = problem.trace(params, data)
        return {k: s["value"] for k, s in sites.items() if _is_reported(s)}

    return jax.vmap(one)(draws)


def _is_reported(site: dict) -> bool:
    latent = site["type"] == "sample" and not site["is_observed"]
    return latent or site["type"] == "deterministic"
