"""How many problems at once: from the footprint of the compiled program and the free memory."""

import os
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bbvi._compile import worth_preparing
from bbvi.batch.engine import SHRINK, Widths, sharding_of
from bbvi.batch.judging import FIRST_DRAWS, MORE_DRAWS
from bbvi.batch.problems import Problems
from bbvi.batch.programs import AXIS, Plan, advance, begin, judge_lives
from bbvi.target import Target

# Wider than this, a processor's cores gain nothing more, and its caches lose.
_MOST_ON_CPU = 1024
_MOST_ELSEWHERE = 16_384
# Of the free memory, what the stepping program may take: it shares it with the data, with the
# judging program and with the user's other arrays.
_SHARE = 0.25
_LEVELS = 3  # widths of the stepping program
# Elements to compute, times problems, below which the compiler takes longer than it saves: on
# two cores, optimised programs of a hierarchy with ten parameters take 17 s more to build, and
# save 12 ms a problem.
_SMALL_BATCH = 1_500_000
_LEAST_WORK = 1000  # elements a draw, whatever the log joint: draws and matrices cost as well


def choose_mesh(size: int, devices: Any) -> Mesh | None:
    """The devices to spread `size` problems over, or None for a single one."""
    devices = jax.local_devices() if devices is None else list(devices)
    if len(devices) < 2 or size < len(devices):
        return None
    return Mesh(np.array(devices), (AXIS,))


def compiles_quickly(target: Target, size: int) -> bool:
    """Whether `size` problems are too few to be worth optimised programs."""
    small = size * (target.work + _LEAST_WORK) <= _SMALL_BATCH
    return small and jax.default_backend() == "cpu"


def choose_widths(plan: Plan, problems: Problems, chunk: Any) -> Widths:
    """How many problems each program takes at once.

    The widths depend on the batch's length only through its power of four, so batches of
    different lengths mostly share their programs.

    Args:
        plan: the static part.
        problems: the problems.
        chunk: the widest, or "auto".
    """
    devices = plan.num_devices
    if chunk != "auto":
        return _widths(plan, max(devices, chunk // devices * devices))
    on_cpu = jax.default_backend() == "cpu"
    most = _MOST_ON_CPU if on_cpu else _MOST_ELSEWHERE
    width = devices
    while width * SHRINK <= min(problems.size, most):
        width *= SHRINK
    if not on_cpu:  # whose compiler spreads each program over the cores by itself
        prepare(plan, problems, _widths(plan, width))
    budget = _SHARE * free_bytes(plan) * devices
    while width > devices and footprint(plan, problems, width) > budget:
        width //= SHRINK
    return _widths(plan, width)


def _widths(plan: Plan, widest: int) -> Widths:
    devices = plan.num_devices

    def part(share):
        return max(devices, widest // share // devices * devices)

    slots = sorted({part(SHRINK**level) for level in range(_LEVELS)}, reverse=True)
    again = part(SHRINK**3)
    if jax.default_backend() != "cpu":
        # An accelerator takes a wide look in the time of a narrow one, and the host sorts it for
        # half as much a problem. A draw and what its log joint computes may all be kept.
        elements = MORE_DRAWS * (4 * plan.target.dim + plan.target.work)
        fits = int(_SHARE * free_bytes(plan) / (elements * plan.target.dtype.itemsize)) * devices
        again = max(again, min(part(SHRINK), fits))
    return Widths(tuple(slots), part(SHRINK), part(SHRINK**2), again)


def prepare(plan: Plan, problems: Problems, widths: Widths) -> None:
    """Begin to build what nearly every batch comes through, each program by a thread of its own."""
    if not worth_preparing((plan, widths), (problems.take(np.zeros(1, np.int32)), problems.common)):
        return
    like = begin.prepare(plan, _rows(plan, problems, widths.begin), problems.common)
    for width in widths.slots[:2]:
        advance.prepare(plan, *_advance_args(plan, problems, like, width))
    rows = _rows(plan, problems, widths.judge)
    lives = _lives(plan, like, widths.judge)
    judge_lives.prepare(plan, FIRST_DRAWS, lives, rows, problems.common)


def footprint(plan: Plan, problems: Problems, width: int) -> int:
    """Bytes that stepping `width` problems needs, as the compiler counts them.

    The program is the one that will run: it is compiled here and kept.
    """
    rows = _rows(plan, problems, _widths(plan, width).begin)
    like = begin.eval_shape(plan, rows, problems.common)
    args = _advance_args(plan, problems, like, width)
    found = advance.compiled(plan, *args).memory_analysis()
    if found is None:  # a backend that does not count
        return 0
    return found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes


def _advance_args(plan: Plan, problems: Problems, like: Any, width: int) -> tuple:
    lives, rows = _lives(plan, like, width), _rows(plan, problems, width)
    active, number = _placed(plan, np.zeros(width, bool)), np.int32(0)
    return lives, rows, problems.common, active, number, number


def _lives(plan: Plan, like: Any, width: int) -> Any:
    """Shapes of so many lives."""
    shape = lambda x: jax.ShapeDtypeStruct((width, *x.shape[1:]), x.dtype)  # noqa: E731
    return _placed(plan, jax.tree.map(shape, like))


def _rows(plan: Plan, problems: Problems, width: int) -> Any:
    return _placed(plan, problems.take(np.zeros(width, np.int32)))


def _placed(plan: Plan, tree: Any) -> Any:
    """As they will lie on the devices where there are several."""
    if plan.mesh is None:
        return tree
    where = sharding_of(plan)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree)


def free_bytes(plan: Plan) -> float:
    """Free memory of a device; of the machine, by device, where devices share its memory."""
    device = jax.local_devices()[0] if plan.mesh is None else plan.mesh.devices.flat[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, AttributeError, OSError):
        return float(1 << 30)
    return free / plan.num_devices
