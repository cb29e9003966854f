"""The host side of a batch: slots that are refilled as problems end, and shrink at the tail."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from bbvi._tree import pick
from bbvi._types import PyTree
from bbvi.batch.problems import Problems, Rows
from bbvi.batch.programs import AXIS, Life, Plan, advance, begin
from bbvi.status import Status

# Slots are refilled when this share of them has ended: less, and the host is asked more often;
# more, and slots stand idle.
_IDLE = 8
# A batch that nothing can refill any more goes on in a fraction of its slots, then in a
# fraction of those: one program each.
SHRINK = 4


@dataclass(frozen=True)
class Widths:
    """How many problems each program takes at once.

    Attributes:
        slots: widths of the stepping program, the widest first.
        begin: width of the program that begins problems.
        judge: width of the program that judges them.
        again: width of the program that takes a second look.
    """

    slots: tuple[int, ...]
    begin: int
    judge: int
    again: int


@dataclass
class Work:
    """What stepping cost.

    Attributes:
        steps: steps that problems took, summed.
        slot_steps: steps that slots took, idle ones included.
    """

    steps: int = 0
    slot_steps: int = 0


def place(plan: Plan, tree: PyTree) -> PyTree:
    """Host arrays onto the devices, cut along the problem axis where there are several."""
    return tree if plan.mesh is None else jax.device_put(tree, sharding_of(plan))


def sharding_of(plan: Plan) -> NamedSharding:
    """How arrays with a problem axis lie on several devices."""
    assert plan.mesh is not None
    return NamedSharding(plan.mesh, P(AXIS))


def pad(index: np.ndarray, width: int) -> np.ndarray:
    """`index` made `width` long by its last entry."""
    return np.concatenate([index, np.full(width - len(index), index[-1], index.dtype)])


def join(parts: list[PyTree]) -> PyTree:
    """Parts one after the other along the problem axis."""
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *x: np.concatenate(x), *parts)


def blocks(index: np.ndarray, width: int) -> Iterator[np.ndarray]:
    """`index` in pieces of at most `width`."""
    for start in range(0, len(index), width):
        yield index[start : start + width]


def begin_some(plan: Plan, problems: Problems, index: np.ndarray, width: int) -> Life:
    """The first states of at most `width` problems, on the host."""
    rows = place(plan, problems.take(pad(index, width)))
    return pick(jax.device_get(begin(plan, rows, problems.common)), slice(len(index)))


def run_lives(
    plan: Plan, problems: Problems, queue: np.ndarray, widths: Widths, limit: int, work: Work
) -> Iterator[tuple[np.ndarray, Life]]:
    """Run problems to their ends and hand them out as they come.

    Slots of ended problems are refilled from the queue, so a slow problem holds up nobody;
    when the queue is empty, those that are left move together into fewer slots.

    Args:
        plan: the static part.
        problems: all problems.
        queue: numbers of those to run.
        widths: how many at once.
        limit: step limit of each.
        work: what it costs is added here.

    Returns:
        pairs of problems' numbers and their last states, each problem once.
    """
    devices = plan.num_devices
    widest = widths.slots[0]
    coming = blocks(queue, widths.begin)
    index = np.empty(0, np.int32)
    lives: Any = None
    more = True
    while True:
        while more and len(index) < widest:
            new = next(coming, None)
            if new is None:
                more = False
                break
            begun = begin_some(plan, problems, new, widths.begin)
            going = begun.state.log.status == Status.RUNNING
            if not going.all():
                yield new[~going], pick(begun, ~going)
                new, begun = new[going], pick(begun, going)
            lives = begun if lives is None else join([lives, begun])
            index = np.concatenate([index, new])
        if not len(index):
            return
        count = min(len(index), widest)
        width = min(w for w in widths.slots if w >= count)
        smaller = [w for w in widths.slots if w < width]
        full = more or len(index) > widest
        least = (width - max(1, width // _IDLE)) if full else smaller[0] if smaller else 0
        took = np.arange(count)
        active = np.arange(width) < count
        rows: Rows = problems.take(pad(index[took], width))
        slots = place(plan, (pick(lives, pad(took, width)), rows, active))
        before = lives.state.log.step[took].sum()
        on_each, most = np.int32(least // devices), np.int32(limit)
        done = jax.device_get(advance(plan, *slots[:2], problems.common, slots[2], on_each, most))
        work.steps += int(done.life.state.log.step[:count].sum() - before)
        work.slot_steps += int(done.steps.sum()) * (width // devices)
        ended = ~done.active[:count]
        if ended.any():
            yield index[took[ended]], pick(done.life, np.flatnonzero(ended))
        kept = np.flatnonzero(~ended)
        lives = join([pick(done.life, kept), pick(lives, slice(count, None))])
        index = np.concatenate([index[took[kept]], index[count:]])
