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
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._compile import plain_jit
from bbvi._tree import pick
from bbvi._types import Array, PyTree
from bbvi.bijectors import Bijector
from bbvi.bridges.base import Bridged, Setting, is_array, require
from bbvi.bridges.numpyro_supports import site_supports
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
        with _unchecked():
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
    # Refused here, in the abstract, before anything is computed: a model that needs concrete
    # arguments, and a site that no gradient can move.
    jax.eval_shape(lambda data: _checked(problem.trace({}, data)), data)
    free, constraints, finite = jax.device_get(_find_start(problem, data))
    if not finite:
        raise InputError(
            "the model's density is finite at none of 16 points near the priors' means: give the "
            "sites priors that agree with the data."
        )
    names = tuple(sorted(free))
    values = _constrain(problem, free, data)
    maps = site_supports(problem.trace, constraints, free, values, data)
    return _Plan(names, tuple(Setting(free[k]) for k in names), tuple(maps[k] for k in names))


@plain_jit((0,))
def _find_start(problem: _Problem, data: PyTree) -> tuple[dict, dict, Array]:
    """Unconstrained values near the priors' means, the sites' constraints, and if it is finite.

    The first of 16 points, at first very near, then less so, with a finite density. They are
    not the means themselves, at which many models have a symmetry or a norm without gradient.
    """
    from numpyro.distributions import biject_to
    from numpyro.handlers import seed, substitute, trace

    args, kwargs = problem.arguments(data)
    constraints = {}

    def one(key, spread):
        free: dict[str, Array] = {}

        def choose(site):
            if not _is_latent(site):
                return None
            transform = biject_to(site["fn"].support)
            constraints[site["name"]] = site["fn"].support
            shape = site["fn"].shape(site["kwargs"].get("sample_shape", ()))
            centre = _centre(site["fn"], transform, shape)
            # a key of the site's own, whatever comes before it in the model
            site_key = jax.random.fold_in(key, len(free))
            z = centre + spread * jax.random.normal(site_key, centre.shape, centre.dtype)
            free[site["name"]] = z
            return transform(z)

        model = substitute(seed(problem.model, 0), substitute_fn=choose)
        with _unchecked():
            sites = trace(model).get_trace(*args, **kwargs)
        values = {name: sites[name]["value"] for name in free}
        return free, problem(values, data)

    keys = jax.random.split(jax.random.PRNGKey(0), 16)
    spreads = jnp.repeat(jnp.array([0.1, 1.0]), 8)
    frees, log_joints = jax.lax.map(lambda x: one(*x), (keys, spreads))
    finite = jnp.isfinite(log_joints)
    first = jnp.argmax(finite)
    free = pick(frees, first)
    # made anew, as those found inside the loop are of its trace
    sites = problem.trace(_constrain(problem, free, data), data)
    return free, {name: sites[name]["fn"].support for name in constraints}, finite[first]


def _centre(prior: Any, transform: Any, shape: tuple[int, ...]) -> Array:
    """The unconstrained value of the prior's mean, or zero where there is none."""
    zero = jnp.zeros(transform.inverse_shape(shape))
    try:
        mean = jnp.broadcast_to(prior.mean, shape)
    except (NotImplementedError, AttributeError, ValueError, TypeError):
        return zero
    centre = transform.inv(mean)
    return jnp.where(jnp.isfinite(centre), centre, zero)


def _unchecked():
    """Leave out NumPyro's checks of values, which refuse stand-ins for those not known yet."""
    from numpyro import validation_enabled

    return validation_enabled(False)


def _is_latent(site: dict) -> bool:
    return site["type"] == "sample" and not site["is_observed"]


def _checked(sites: dict[str, dict]) -> list:
    """Refuse what has no gradient or is no posterior."""
    latent = {k: s for k, s in sites.items() if _is_latent(s)}
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


@plain_jit((0,))
def _constrain(problem: _Problem, free: dict[str, Array], data: PyTree) -> dict[str, Array]:
    """Constrained values of unconstrained ones, at bounds that may depend on the data."""
    from numpyro.handlers import seed
    from numpyro.infer.util import constrain_fn

    args, kwargs = problem.arguments(data)
    return constrain_fn(seed(problem.model, 0), args, kwargs, free)


@plain_jit((0,))
def _all_sites(problem: _Problem, draws: PyTree, data: PyTree) -> dict[str, Array]:
    """Latent and deterministic sites for draws with a leading axis S."""

    def one(params):
        sites = problem.trace(params, data)
        return {k: s["value"] for k, s in sites.items() if _is_reported(s)}

    return jax.vmap(one)(draws)


def _is_reported(site: dict) -> bool:
    return _is_latent(site) or site["type"] == "deterministic"
