"""A solver whose settings differ by problem."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bbvi._types import Array, PyTree
from bbvi.families import Family
from bbvi.solvers import Solver
from bbvi.solvers.base import Info
from bbvi.status import InputError
from bbvi.target import Target


@dataclass(frozen=True)
class SolverByData(Solver):
    """The solver that a function makes of a problem's data, inside the compiled program.

    Numbers such as a learning rate may then be traced; what decides shapes, such as the family
    or the number of draws, has to be the same for all problems.

    Args:
        make: `make(data)` gives the solver of one problem.
        like: what it gave for the first.
    """

    make: Callable[[PyTree], Solver]
    like: Solver

    def family_for(self, target: Target) -> Family:
        return self.like.family_for(target)

    def limit(self, target: Target) -> int:
        return self.like.limit(target)

    def init(self, target: Target, loc: Array, scale: Array, key: Array, data: PyTree) -> Any:
        return self.make(data).init(target, loc, scale, key, data)

    def init_at(self, target: Target, params: PyTree, key: Array, data: PyTree) -> Any:
        return self.make(data).init_at(target, params, key, data)

    def step(self, target: Target, state: Any, data: PyTree) -> tuple[Any, Info]:
        return self.make(data).step(target, state, data)

    def output(self, state: Any) -> PyTree:
        return self.like.output(state)


def by_data(make: Callable[[PyTree], Any], data: PyTree) -> SolverByData:
    """The solver that `make` gives for each problem, tried on the data of one.

    Args:
        make: a function of a problem's data.
        data: those of the first problem.

    Raises:
        InputError: if it does not give a solver.
    """
    like = make(data)
    if not isinstance(like, Solver):
        raise InputError(
            "solver, called with the data of one problem, must return a solver such as "
            f"bbvi.StochasticGradient(), not {like!r}."
        )
    return SolverByData(make, like)
