"""From problems to records: run, look, look again at those that are not clear."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from bbvi._types import PyTree
from bbvi.batch.engine import Widths, Work, blocks, join, pad, pick, place, run_lives
from bbvi.batch.judging import (
    FIRST_DRAWS,
    LEVELS,
    MORE_DRAWS,
    Facts,
    is_clear,
    is_hopeless,
    verdict_of,
)
from bbvi.batch.problems import Problems
from bbvi.batch.programs import End, Life, Look, Plan, judge_lives, look_again
from bbvi.batch.start import QuickStart
from bbvi.status import Status
from bbvi.verdict import needs_correction

# As in `bbvi.auto`: a move needs so many effective draws a dimension, and goes on while each
# brings a tenth more.
_DRAWS_PER_DIMENSION = 5
_MOST_MOVES = 4
_WORTHWHILE = 1.1


class Records(NamedTuple):
    """What is kept of every problem; every array has the problem axis in front.

    Attributes:
        params: the family's parameters.
        look: the last look.
        end: how the run ended.
        looks: looks after the first.
        corrected: whether moments and draws are corrected by the importance weights.
        level: the verdict, as a number into `bbvi.batch.judging.LEVELS`.
    """

    params: PyTree
    look: Look
    end: End
    looks: Any
    corrected: Any
    level: Any

    def facts(self, i: int) -> Facts:
        """What the verdict on problem `i` is made from."""
        end = pick(self.end, i)
        return Facts(
            pick(self.look.diagnostics, i),
            status_of(int(end.status)),
            bool(end.usable),
            bool(self.look.uncovered[i]),
            int(self.looks[i]),
            bool(self.corrected[i]),
            float(end.drift),
            # the match tries far-out points on purpose: what it skips biases nothing
            0.0,
        )


def status_of(code: int) -> Status:
    """The status of a run that was ended by its step limit is still that of a running one."""
    status = Status(code)
    return Status.MAX_STEPS if status is Status.RUNNING else status


class Candidate(NamedTuple):
    """One problem that was not clear at first, with its best fit so far."""

    number: int
    params: PyTree
    start: QuickStart
    end: End
    looks: int
    best: tuple[PyTree, Look, int] | None


def make_records(
    plan: Plan,
    problems: Problems,
    queue: np.ndarray,
    widths: Widths,
    limit: int,
    work: Work,
    correct: bool,
) -> Iterator[tuple[np.ndarray, Records]]:
    """Run some problems and judge them; pairs of their numbers and their records.

    Args:
        plan: the static part.
        problems: all problems.
        queue: numbers of those to run.
        widths: how many at once.
        limit: step limit of each.
        work: what stepping costs is added here.
        correct: whether Gaussians may move by their weighted draws and be corrected by them.
    """
    names = plan.target.scalar_names
    waiting: list[Candidate] = []
    for index, params, look, end, start in _first_looks(plan, problems, queue, widths, limit, work):
        status = np.where(end.status == Status.RUNNING, int(Status.MAX_STEPS), end.status)
        end = end._replace(status=status.astype(np.int32))  # type: ignore[arg-type]
        clear = is_clear(look.diagnostics, end.status, look.uncovered)
        final = clear | ~end.usable | (end.status == Status.NONFINITE)
        if final.any():
            zero = np.zeros(final.sum(), np.int8)
            level = np.where(clear[final], 0, LEVELS.index("rejected")).astype(np.int8)
            params_, look_, end_ = pick((params, look, end), final)
            yield index[final], Records(params_, look_, end_, zero, zero > 0, level)
        for i in np.flatnonzero(~final):
            params_, start_, end_ = pick((params, start, end), i)
            waiting.append(Candidate(int(index[i]), params_, start_, end_, 0, None))
        while len(waiting) >= widths.again:
            yield from _look_at(plan, problems, waiting, widths.again, correct, names)
    while waiting:
        yield from _look_at(plan, problems, waiting, widths.again, correct, names)


def _first_looks(
    plan, problems, queue, widths, limit, work
) -> Iterator[tuple[np.ndarray, PyTree, Look, End, QuickStart]]:
    """Ended lives, gathered until there are enough for the judging program."""
    index = np.empty(0, np.int32)
    lives: Life | None = None

    def judge(index, lives):
        width = widths.judge
        rows = problems.take(pad(index, width))
        placed = place(plan, (pick(lives, pad(np.arange(len(index)), width)), rows))
        found = jax.device_get(judge_lives(plan, FIRST_DRAWS, *placed, problems.common))
        return (index, *pick(found, slice(len(index))), lives.start)

    for new, ended in run_lives(plan, problems, queue, widths, limit, work):
        index = np.concatenate([index, new])
        lives = ended if lives is None else join([lives, ended])
        while len(index) >= widths.judge:
            some, rest = slice(widths.judge), slice(widths.judge, None)
            yield judge(index[some], pick(lives, some))
            index, lives = index[rest], pick(lives, rest)
    if lives is not None:
        for at in blocks(np.arange(len(index)), widths.judge):
            yield judge(index[at], pick(lives, at))


def _look_at(
    plan: Plan,
    problems: Problems,
    waiting: list[Candidate],
    width: int,
    correct: bool,
    names: list[str],
) -> Iterator[tuple[np.ndarray, Records]]:
    """One look at the first of those that wait; what moves by it waits again."""
    chosen = waiting[:width]
    del waiting[:width]
    index = np.array([c.number for c in chosen], np.int32)
    params = _stack([c.params for c in chosen])
    start = _stack([c.start for c in chosen])
    number = np.array([c.looks + 1 for c in chosen], np.int32)
    at = pad(np.arange(len(chosen)), width)
    rows = problems.take(index[at])
    placed = place(plan, (*pick((params, start, number), at), rows))
    found, moved = jax.device_get(look_again(plan, MORE_DRAWS, *placed, problems.common))
    for i, candidate in enumerate(chosen):
        look = pick(found, i)
        looks = candidate.looks + 1
        before = 0.0 if candidate.best is None else float(candidate.best[1].diagnostics.ess)
        ess = float(look.diagnostics.ess)
        best = (candidate.params, look, looks)
        record = _record(best, candidate.end, correct, names)
        if record.level[0] == 0:
            yield index[i : i + 1], record
            continue
        if candidate.best is not None and not ess > before:
            best = candidate.best
            record = _record(best, candidate.end, correct, names)
        new = pick(moved, i)
        enough = ess >= _DRAWS_PER_DIMENSION * (plan.target.dim + 1)
        gains = ess > _WORTHWHILE * before and looks <= _MOST_MOVES
        usable = all(np.isfinite(x).all() for x in jax.tree.leaves(new))
        if correct and enough and gains and usable and not is_hopeless(record.facts(0)):
            waiting.append(candidate._replace(params=new, looks=looks, best=best))
        else:
            yield index[i : i + 1], record


def _record(best, end: End, correct: bool, names: list[str]) -> Records:
    """The record of one problem whose looks are over, with a problem axis of length one."""
    params, look, looks = best
    corrected = correct and needs_correction(look.diagnostics)
    params, look, end = jax.tree.map(lambda x: np.asarray(x)[None], (params, look, end))
    flag, count = np.array([corrected]), np.array([looks], np.int8)
    record = Records(params, look, end, count, flag, np.zeros(1, np.int8))
    level = LEVELS.index(verdict_of(record.facts(0), names).level)
    return record._replace(level=np.array([level], np.int8))


def _stack(trees: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *x: np.stack(x), *trees)
