"""What may watch a run between its chunks: a progress bar, a callback, a checkpoint."""

import os
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from types import FunctionType
from typing import Any, NamedTuple

import jax
import numpy as np

from bbvi import storage
from bbvi._types import Array, PyTree
from bbvi.budget import Purse
from bbvi.solvers import Solver
from bbvi.status import InputError, Status
from bbvi.target import Target


class Snapshot(NamedTuple):
    """What a callback is given.

    Attributes:
        step: steps taken.
        max_steps: the step limit.
        elbo: mean ELBO over the latest record, nats; NaN before the first.
        elbo_se: its standard error.
        drift: how far the averaged parameters last moved, in posterior sds.
        status: how things stand.
        state: the solver's state.
    """

    step: int
    max_steps: int
    elbo: float
    elbo_se: float
    drift: float
    status: Status
    state: Any


def snapshot(state: Any, max_steps: int) -> Snapshot:
    """Read a state once."""
    log, drift = jax.device_get((state.log, getattr(state, "drift", np.nan)))
    last = int(log.history.entries) - 1
    elbo, elbo_se = log.history.elbo, log.history.elbo_se
    return Snapshot(
        step=int(log.step),
        max_steps=max_steps,
        elbo=float(elbo[last]) if last >= 0 else float("nan"),
        elbo_se=float(elbo_se[last]) if last >= 0 else float("nan"),
        drift=float(drift),
        status=Status(int(log.status)),
        state=state,
    )


class Observers:
    """Calls each observer with one snapshot a chunk; true from any of them ends the run."""

    def __init__(self, max_steps: int, observers: list[Callable[[Snapshot], Any]]):
        self._max_steps = max_steps
        self._observers = observers

    def __call__(self, state: Any) -> Any:
        if not self._observers:
            return False
        seen = snapshot(state, self._max_steps)
        # a list, so that no observer is skipped because one before it said stop
        answers = [observe(seen) for observe in self._observers]
        reasons = [answer for answer in answers if isinstance(answer, Status)]
        return reasons[0] if reasons else any(map(bool, answers))


class BudgetWatch:
    """Ends a run when what it may spend is spent."""

    def __init__(self, purse: Purse):
        self._purse = purse
        self._most = purse.gradients

    def __call__(self, seen: Snapshot) -> Any:
        over = int(seen.state.log.num_gradients) >= self._most or self._purse.seconds <= 0
        return Status.BUDGET if over else False


def progress_bar(name: str | None, total: int, unit: str, **options: Any) -> Any:
    """A tqdm bar, for a terminal or a notebook."""
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install 'bbvi[progress]'.") from error
    return tqdm(total=total, desc=name, unit=unit, **options)


def show_stage(name: str, make: Callable[[], Any]) -> Any:
    """The `Fitted` that `make` gives, under a bar with its bound and with what settles it."""
    # one step tells no rate
    bar = progress_bar(name, 1, "stage", bar_format="{l_bar}{bar}| {elapsed}{postfix}")
    try:
        stage = make()
        d = stage.diagnostics
        if stage.chains is None:
            found = f"k-hat {float(d.khat):.2f}, {float(d.ess):.0f} effective draws"
        else:
            found = f"memory of chains {np.max(np.abs(stage.chains.memory)):.2f}"
        bar.set_postfix_str(f"elbo {float(d.elbo):.2f}, {found}", False)
        bar.update()
    finally:
        bar.close()
    return stage


class ProgressBar:
    """A tqdm bar with the ELBO and the stop criterion."""

    def __init__(self, name: str, max_steps: int):
        self._bar = progress_bar(name, max_steps, "step")

    def __call__(self, seen: Snapshot) -> bool:
        self._bar.set_postfix_str(f"elbo {seen.elbo:.2f}, drift {seen.drift:.2g} sd", False)
        self._bar.update(seen.step - self._bar.n)
        return False

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


def describe(value: Any, depth: int = 8) -> str:
    """A text that two processes give the same for equal settings, closures of functions in it."""
    if depth == 0:
        return "..."
    inner = partial(describe, depth=depth - 1)
    if is_dataclass(value) and not isinstance(value, type):
        parts = [f"{f.name}={inner(getattr(value, f.name))}" for f in fields(value)]
        return f"{type(value).__name__}({', '.join(parts)})"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__}({', '.join(map(inner, value))})"
    if isinstance(value, dict):
        return str({str(k): inner(v) for k, v in value.items()})
    if isinstance(value, FunctionType):
        cells = [inner(cell.cell_contents) for cell in value.__closure__ or ()]
        return f"{value.__qualname__}{cells}"
    # addresses differ from one process to the next
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


class Checkpoint:
    """A file that a killed fit goes on from, with the same bits.

    The file names the problem it belongs to (target, solver, key, data); another problem
    refuses it.
    """

    def __init__(
        self, path: str | os.PathLike, target: Target, solver: Solver, inputs: PyTree, key: Array
    ):
        self._path = path
        settings = describe(solver)
        shapes = [[x.name, x.shape, np.dtype(x.dtype).name, x.bijector.name] for x in target.leaves]
        self._problem = {
            "solver": settings,
            "parameters": [[n, list(s), d, b] for n, s, d, b in shapes],
            "data and start": storage.checksum(inputs),
            "key": storage.checksum(key),
        }

    def read(self, template: Any) -> Any | None:
        """The state in the file, or None without a file.

        Args:
            template: the structure of the state, shapes and dtypes alone.

        Raises:
            InputError: if the file belongs to another problem.
        """
        if not os.path.exists(self._path):
            return None
        header, arrays = storage.read(self._path, "checkpoint")
        other = [name for name, value in self._problem.items() if header["problem"][name] != value]
        if other:
            raise InputError(
                f"checkpoint {self._path} belongs to another fit (other {' and '.join(other)}): "
                "give another path, or delete it."
            )
        return storage.restore("state", arrays, template)

    def __call__(self, seen: Snapshot) -> bool:
        arrays = storage.flatten("state", seen.state)
        storage.write(self._path, "checkpoint", {"problem": self._problem}, arrays)
        return False
