"""Compiled entry points that trade speed of the program for speed of the compiler.

A program that runs once a fit and evaluates a cheap log joint spends seconds in the compiler and
milliseconds in its arithmetic; compiled without optimisation it takes about half as long to
build. Where the log joint is heavy, or the program is the long loop, optimisation pays.
"""

from collections.abc import Callable
from typing import Any

import jax

# Elements computed by one evaluation of the log joint up to which programs are built quickly.
# On one core a stage of 10^4 evaluations then loses at most a few tenths of a second.
_SMALL_WORK = 30_000


class QuickJit:
    """`jax.jit` of a function of a target, without optimisation for small targets.

    Args:
        function: its argument number `target_at` is the target.
        target_at: position of the target, a static argument.
        static_argnums: positions of all static arguments.
    """

    def __init__(self, function: Callable, target_at: int, static_argnums: tuple[int, ...]):
        self.__doc__ = function.__doc__
        self.plain = function
        self._target_at = target_at
        self._optimised = jax.jit(function, static_argnums=static_argnums)
        self._quick = jax.jit(
            function,
            static_argnums=static_argnums,
            compiler_options={"xla_backend_optimization_level": 0},
        )

    def __call__(self, *args: Any) -> Any:
        if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args)):
            # inside somebody's own jit, which decides how it is compiled
            return self.plain(*args)
        small = args[self._target_at].work <= _SMALL_WORK
        on_cpu = jax.default_backend() == "cpu"
        return (self._quick if small and on_cpu else self._optimised)(*args)


def quick_jit(target_at: int = 0, static_argnums: tuple[int, ...] = (0,)) -> Callable:
    """Decorator: see `QuickJit`."""
    return lambda function: QuickJit(function, target_at, static_argnums)


def count_work(jaxpr: Any) -> int:
    """Elements that a jaxpr computes, loops counted as often as they are known to run."""
    total = 0
    for eqn in jaxpr.eqns:
        inner = [_open(p) for p in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr)]
        inner = [j for j in inner if j is not None]
        times = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
        if eqn.primitive.name == "while":
            times = 100  # unknown: enough to make a heavy body count
        if inner:
            total += times * sum(map(count_work, inner))
            continue
        size = sum(getattr(v.aval, "size", 1) for v in eqn.outvars)
        if eqn.primitive.name == "dot_general":
            size += max(getattr(v.aval, "size", 1) for v in eqn.invars)
        total += size
    return total


def _is_jaxpr(x: Any) -> bool:
    return hasattr(x, "eqns") or hasattr(x, "jaxpr")


def _open(x: Any) -> Any:
    """The jaxpr behind a parameter of an equation, or None."""
    x = getattr(x, "jaxpr", x)
    return x if hasattr(x, "eqns") else None
