"""From problems to records: run, look, look again at those that are not clear."""

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from bbvi._tree import pick
from bbvi._types import PyTree
from bbvi.batch.again import base_for, look_again, refine
from bbvi.batch.engine import Widths, Work, blocks, join, pad, place, run_lives
from bbvi.batch.judging import (
    FIRST_DRAWS,
    LEVELS,
    Facts,
    is_clear,
    is_hopeless,
    more_draws_settle,
    pool,
    verdict_of,
)
from bbvi.batch.problems import Problems
from bbvi.batch.programs import End, Life, Look, Plan, judge_lives
from bbvi.batch.refine import begin_mixture
from bbvi.batch.start import QuickStart
from bbvi.status import Status
from bbvi.verdict import needs_correction

# As in `bbvi.auto`: a move needs so many effective draws a dimension, and goes on while each
# brings a tenth more.
_DRAWS_PER_DIMENSION = 5
_MOST_MOVES = 4
_WORTHWHILE = 1.1
# Further looks that are under way at once: the host has work with one while the next is computed.
_LOOKS_AT_ONCE = 2


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
            bool(self.look.apart[i]),
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
    """One problem that was not clear at first.

    Attributes:
        number: its number.
        first: the parameters of its family that the run ended in.
        params: what is looked at next: these, moved; or a mixture that began as these.
        start: where its paths ended.
        end: how its run ended.
        looks: looks so far, after the first.
        best: what was looked at, what was seen, and the number of looks, where the effective
            draws were the most.
        noisy: what was seen, and in how many looks, where only noise was left to remove.
    """

    number: int
    first: PyTree
    params: PyTree
    start: QuickStart
    end: End
    looks: int = 0
    best: tuple[PyTree, Look, int] | None = None
    noisy: tuple[Look, int] | None = None


class Found(NamedTuple):
    """Some problems that are done.

    Attributes:
        numbers: their numbers in the batch.
        records: what is kept of them.
        mixtures: parameters of their mixtures, for those that were refined to one, by number.
    """

    numbers: np.ndarray
    records: Records
    mixtures: dict[int, PyTree]


def make_records(
    plan: Plan,
    problems: Problems,
    queue: np.ndarray,
    widths: Widths,
    limit: int,
    work: Work,
    correct: bool,
) -> Iterator[Found]:
    """Run some problems and judge them.

    Args:
        plan: the static part.
        problems: all problems.
        queue: numbers of those to run.
        widths: how many at once.
        limit: step limit of each.
        work: what stepping costs is added here.
        correct: whether Gaussians may move by their weighted draws and be corrected by them.
    """
    looks = _Looks(plan, problems, widths.again, correct)
    for index, params, look, end, start in _first_looks(plan, problems, queue, widths, limit, work):
        status = np.where(end.status == Status.RUNNING, int(Status.MAX_STEPS), end.status)
        end = end._replace(status=status.astype(np.int32))  # type: ignore[arg-type]
        clear = is_clear(look.diagnostics, end.status, look.uncovered)
        final = clear | ~end.usable | (end.status == Status.NONFINITE)
        if final.any():
            zero = np.zeros(final.sum(), np.int8)
            level = np.where(clear[final], 0, LEVELS.index("rejected")).astype(np.int8)
            params_, look_, end_ = pick((params, look, end), final)
            yield Found(index[final], Records(params_, look_, end_, zero, zero > 0, level), {})
        for i in np.flatnonzero(~final):
            params_, start_, end_ = pick((params, start, end), i)
            looks.add(Candidate(int(index[i]), params_, looks.first(params_), start_, end_))
        yield from looks.advance(last=False)
    yield from looks.advance(last=True)


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


class _Looks:
    """Further looks at those that wait, some at once; what gains by one waits again.

    Args:
        plan: the static part.
        problems: all problems.
        width: how many problems one look takes.
        correct: whether Gaussians may move by their weighted draws and be corrected by them.
    """

    def __init__(self, plan: Plan, problems: Problems, width: int, correct: bool):
        self._plan, self._problems, self._width = plan, problems, width
        self._correct = correct
        self._base = base_for(plan) if correct else None
        self._waiting: list[Candidate] = []
        self._under_way: deque[tuple[list[Candidate], Any]] = deque()

    def first(self, params: PyTree) -> PyTree:
        """What is looked at first, from the parameters that a run ended in."""
        return params if self._base is None else begin_mixture(params)

    def add(self, candidate: Candidate) -> None:
        """A problem to look at."""
        self._waiting.append(candidate)

    def advance(self, last: bool) -> Iterator[Found]:
        """Look at as many as fill a look and hand out what is done; all, if `last`."""
        while len(self._waiting) >= self._width or (last and (self._waiting or self._under_way)):
            full = len(self._under_way) == _LOOKS_AT_ONCE
            rest = len(self._waiting) < self._width and self._under_way
            if full or rest:
                chosen, seen = self._under_way.popleft()
                yield from self._sort(chosen, *jax.device_get(seen))
            else:
                chosen = self._waiting[: self._width]
                del self._waiting[: self._width]
                self._under_way.append((chosen, self._look_at(chosen)))

    def _look_at(self, chosen: list[Candidate]) -> tuple[Look, PyTree]:
        """One look at some, and their parameters after it, while they are being computed."""
        index = np.array([c.number for c in chosen], np.int32)
        params = _stack([c.params for c in chosen])
        start = _stack([c.start for c in chosen])
        number = np.array([c.looks + 1 for c in chosen], np.int32)
        at = pad(np.arange(len(chosen)), self._width)
        rows = self._problems.take(index[at])
        placed = place(self._plan, (*pick((params, start, number), at), rows))
        common = self._problems.common
        if self._base is None:
            return look_again(self._plan, *placed, common)
        return refine(self._plan, *placed, common, self._base)

    def _sort(self, chosen: list[Candidate], found: Look, new: PyTree) -> Iterator[Found]:
        """Those of `chosen` that are done; the others wait again."""
        correct, mixed = self._correct, self._base is not None
        for i, candidate in enumerate(chosen):
            look, looks = pick(found, i), candidate.looks + 1
            pooled = 0
            if candidate.noisy is not None:
                earlier, pooled = candidate.noisy
                figures = pool(look.diagnostics, earlier.diagnostics, pooled)
                look = look._replace(diagnostics=figures)
            after = pick(new, i)
            # a mixture is refitted before the look, and a Gaussian moves after it
            seen = (after if mixed else candidate.params, look, looks)
            last = candidate.best
            before = 0.0 if last is None else float(last[1].diagnostics.ess)
            ess = float(look.diagnostics.ess)
            best = seen if last is None or ess > before else last
            done = _done(self._plan, candidate, seen, correct, mixed)
            if done.records.level[0] == 0:
                yield done
                continue
            usable = all(np.isfinite(x).all() for x in jax.tree.leaves(after))
            more = correct and usable and looks <= _MOST_MOVES
            again = candidate._replace(params=after, looks=looks, best=best)
            if correct and usable and more_draws_settle(done.records.facts(0), pooled + 1):
                self.add(again._replace(noisy=(look, pooled + 1)))
                continue
            if best is last:
                done = _done(self._plan, candidate, best, correct, mixed)
            enough = ess >= _DRAWS_PER_DIMENSION * (self._plan.target.dim + 1)
            gains = ess > _WORTHWHILE * before
            if more and enough and gains and not is_hopeless(done.records.facts(0)):
                self.add(again)
            else:
                yield done


def _done(plan: Plan, candidate: Candidate, best: Any, correct: bool, mixed: bool) -> Found:
    """What is kept of one problem whose looks are over."""
    params, look, looks = best
    # a mixture stands for the posterior by its weighted draws alone
    corrected = mixed or (correct and needs_correction(look.diagnostics))
    kept = candidate.first if mixed else params
    kept, look, end = jax.tree.map(lambda x: np.asarray(x)[None], (kept, look, candidate.end))
    flag, count = np.array([corrected]), np.array([looks], np.int8)
    records = Records(kept, look, end, count, flag, np.zeros(1, np.int8))
    level = LEVELS.index(verdict_of(records.facts(0), plan.target.scalar_names).level)
    records = records._replace(level=np.array([level], np.int8))
    mixtures = {candidate.number: params} if mixed else {}
    return Found(np.array([candidate.number], np.int32), records, mixtures)


def _stack(trees: list[PyTree]) -> PyTree:
    return jax.tree.map(lambda *x: np.stack(x), *trees)
