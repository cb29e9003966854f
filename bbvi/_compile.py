"""Compiled entry points that trade speed of the program for speed of the compiler.

A program that runs once a fit and evaluates a cheap log joint spends seconds in the compiler and
milliseconds in its arithmetic; compiled without optimisation it takes about half as long to
build. Where the log joint is heavy, or the program is the long loop, optimisation pays.
"""

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bbvi._arrays import is_traced

# Elements computed by one evaluation of the log joint up to which programs are built quickly.
# On one core a stage of 10^4 evaluations then loses at most a few tenths of a second.
_SMALL_WORK = 30_000
# ... and where the program is one evaluation at many points: it is built in a tenth of a second
# anyway, and a fit asks for 30,000 points, which without optimisation take a nanosecond more for
# each element.
SMALL_EVALUATION = 3_000
# Numbers drawn up to which the same holds: a million normals take about 40 ms longer.
_FEW_NUMBERS = 1_000_000
# From jaxlib 0.11.1 on (0.12.0.1 is the newest) XLA hands sums of thousands of terms on a CPU to a
# library, together with what is added to them; and where a number times a constant is used twice
# there, one of the two lacks the constant: log(2 x) - 2 x + sum(y) comes out as log(2 x) - x +
# sum(y). A half-normal prior beside a likelihood is enough, and nothing warns. Sums that XLA makes
# itself are right, and take up to twice as long. Who names the option in XLA_FLAGS decides for
# themselves; the products that the library makes are right, and help evaluations, but not the loop.
_SUMS = "xla_cpu_experimental_ynn_fusion_type"
_WRONG = jax.__version_info__ >= (0, 11, 1) and _SUMS not in os.environ.get("XLA_FLAGS", "")
RIGHT: dict[str, Any] = {_SUMS: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"} if _WRONG else {}
QUICKLY: dict[str, Any] = RIGHT | {"xla_backend_optimization_level": 0}
# The long loop's step is a hundred small kernels around two large products. XLA's scheduler for
# concurrency hands them to several threads, which wait for each other: on two cores a step of 80
# microseconds takes 110 (N = 5,000, D = 50, one draw). The option came with jax 0.10.
_LOOP: dict[str, Any] = (
    {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    if jax.__version_info__ >= (0, 10)
    else {}
)
# The second of LLVM's levels, unless the user asks for another: the third takes a quarter more of
# the compiler and made no loop faster that was looked at (benchmarks/loop.py, a flow in 10
# dimensions).
if "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
    _LOOP["xla_backend_optimization_level"] = 2
if _WRONG:
    _LOOP[_SUMS] = ""
# Log joints whose programs are kept. A fit leaves 150 to 900 memory maps, of which Linux allows a
# process 65,530.
_MOST_TARGETS = 64
_seen: set[int] = set()


class TunedJit:
    """`jax.jit` that on a CPU makes sums right, and compiles with other options where these pay.

    Args:
        function: the function.
        static_argnums: positions of all static arguments.
        options: of the compiler.
        pays: whether these are to be used for such arguments.
    """

    def __init__(
        self,
        function: Callable,
        static_argnums: tuple[int, ...],
        options: dict,
        pays: Callable[..., bool],
    ):
        self.__doc__ = function.__doc__
        self.plain = function
        self._pays = pays
        self._under_way: dict[int, threading.Thread] = {}
        self._static = static_argnums
        jit = partial(jax.jit, function, static_argnums=static_argnums)
        self._elsewhere: Any = jit()
        self._optimised: Any = jit(compiler_options=RIGHT)
        self._tuned: Any = jit(compiler_options=options)
        _all.add(self)

    def __call__(self, *args: Any) -> Any:
        if is_traced(args):
            # inside somebody's own jit, which decides how it is compiled
            return self.plain(*args)
        self._wait_for(args)
        return self._chosen(args)(*args)

    def compiled(self, *args: Any) -> Any:
        """The program for such arguments, as `jax.jit(...).lower(...).compile()`."""
        self._wait_for(args)
        return self.lower(*args).compile()

    def lower(self, *args: Any) -> Any:
        """As `jax.jit(...).lower`."""
        return self._chosen(args).lower(*args)

    def eval_shape(self, *args: Any) -> Any:
        """What would come back, traced once for this and for the call."""
        return self._chosen(args).eval_shape(*args)

    def prepare(self, *args: Any) -> Any:
        """Trace for such arguments, and compile in a thread beside whatever comes next.

        A call with such arguments waits for it. The compiler works on one core and lets Python
        run, so programs that are needed one after the other are built at the same time. Arrays
        may be given as `jax.ShapeDtypeStruct`, which is also what comes back.
        """
        lowered = self.lower(*args)

        def build():
            with suppress(Exception):  # the call that comes will meet it again, and raise
                lowered.compile()

        thread = threading.Thread(target=build, name="bbvi-compile")
        thread.start()
        self._under_way[self._signature(args)] = thread
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), lowered.out_info)

    def forget(self) -> None:
        """Drop all programs."""
        for program in (self._elsewhere, self._optimised, self._tuned):
            program.clear_cache()

    def _wait_for(self, args: tuple) -> None:
        """Until a program that is being built for such arguments is there."""
        if self._under_way:
            thread = self._under_way.pop(self._signature(args), None)
            if thread is not None:
                thread.join()
            # what nobody has called for yet must not make every call look for it
            alive = {which: t for which, t in self._under_way.items() if t.is_alive()}
            self._under_way = alive

    def _signature(self, args: tuple) -> int:
        static = tuple(args[i] for i in self._static)
        return _signature(static, [x for i, x in enumerate(args) if i not in self._static])

    def _chosen(self, args: tuple) -> Any:
        if jax.default_backend() != "cpu":
            return self._elsewhere
        return self._tuned if self._pays(*args) else self._optimised


_all: weakref.WeakSet[TunedJit] = weakref.WeakSet()
_num_targets = 0


def make_room() -> None:
    """For a new target: drop the programs of all others, once these are many.

    Programs are kept by their target, and a target by its log joint, for ever: a study with a
    closure for each data set ended in its 440th fit, when the compiler got no more memory.
    """
    global _num_targets
    _num_targets += 1
    if _num_targets > _MOST_TARGETS:
        _num_targets = 1
        _seen.clear()
        for each in list(_all):
            each.forget()


def quick_jit(
    target_at: int = 0, static_argnums: tuple[int, ...] = (0,), small: int = _SMALL_WORK
) -> Callable:
    """Decorator of a function of a target: compiled without optimisation if that is small.

    Args:
        target_at: position of the target.
        static_argnums: positions of all static arguments.
        small: work of one evaluation up to which it is.
    """
    pays = lambda *args: args[target_at].work <= small  # noqa: E731
    return lambda function: TunedJit(function, static_argnums, QUICKLY, pays)


def draws_jit(
    number: Callable[..., int], static_argnums: tuple[int, ...] = ()
) -> Callable[[Callable], TunedJit]:
    """Decorator of a function that makes `number(...)` numbers: quickly, if that is not many."""
    pays = lambda *args: number(*args) <= _FEW_NUMBERS  # noqa: E731
    return lambda function: TunedJit(function, static_argnums, QUICKLY, pays)


def plain_jit(static_argnums: tuple[int, ...] = ()) -> Callable[[Callable], TunedJit]:
    """Decorator of a function that is compiled as `jax.jit` would, but with sums that are right."""
    return lambda function: TunedJit(function, static_argnums, RIGHT, lambda *args: True)


def once_jit(static_argnums: tuple[int, ...] = (0,)) -> Callable[[Callable], TunedJit]:
    """Decorator of a function that runs once a fit and has a few matrix products to do."""
    return lambda function: TunedJit(function, static_argnums, QUICKLY, lambda *args: True)


def loop_jit(static_argnums: tuple[int, ...] = (0,)) -> Callable:
    """Decorator for a loop of many steps."""
    return lambda function: TunedJit(function, static_argnums, _LOOP, lambda *args: True)


def worth_preparing(static: Any, arrays: Any) -> bool:
    """Whether several cores could build programs for this, and it was not asked before.

    Args:
        static: the target, and what else the programs depend on by value.
        arrays: their arguments; only structure, shapes and types count.
    """
    which = _signature(static, arrays)
    if which in _seen or (os.cpu_count() or 1) < 2:
        return False
    _seen.add(which)
    return True


def _signature(static: Any, arrays: Any) -> int:
    """What a program depends on: the static part by value, arrays by shape and type."""
    leaves, treedef = jax.tree.flatten(arrays)
    return hash((static, treedef, tuple((jnp.shape(x), jnp.result_type(x)) for x in leaves)))


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
