"""From problems to records: run, look, look again at those that are not clear."""

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
    is_noisy,
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
    looks: int
    best: tuple[PyTree, Look, int] | None
    noisy: tuple[Look, int] | None


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
    base = base_for(plan) if correct else None
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
            yield Found(index[final], Records(params_, look_, end_, zero, zero > 0, level), {})
        for i in np.flatnonzero(~final):
            params_, start_, end_ = pick((params, start, end), i)
            first = params_ if base is None else begin_mixture(params_)
            waiting.append(Candidate(int(index[i]), params_, first, start_, end_, 0, None, None))
        while len(waiting) >= widths.again:
            yield from _look_at(plan, problems, waiting, widths.again, correct, base)
    while waiting:
        yield from _look_at(plan, problems, waiting, widths.again, correct, base)


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
    base: Any,
) -> Iterator[Found]:
    """One look at the first of those that wait; what gains by it waits again."""
    chosen = waiting[:width]
    del waiting[:width]
    index = np.array([c.number for c in chosen], np.int32)
    params = _stack([c.params for c in chosen])
    start = _stack([c.start for c in chosen])
    number = np.array([c.looks + 1 for c in chosen], np.int32)
    at = pad(np.arange(len(chosen)), width)
    placed = place(plan, (*pick((params, start, number), at), problems.take(index[at])))
    if base is None:
        found, new = jax.device_get(look_again(plan, *placed, problems.common))
    else:
        found, new = jax.device_get(refine(plan, *placed, problems.common, base))
    for i, candidate in enumerate(chosen):
        look, looks = pick(found, i), candidate.looks + 1
        pooled = 0
        if candidate.noisy is not None:
            earlier, pooled = candidate.noisy
            figures = pool(look.diagnostics, earlier.diagnostics, pooled)
            look = look._replace(diagnostics=figures)
        after = pick(new, i)
        # a mixture is refitted before the look, and a Gaussian moves after it
        seen = (candidate.params if base is None else after, look, looks)
        last = candidate.best
        before = 0.0 if last is None else float(last[1].diagnostics.ess)
        ess = float(look.diagnostics.ess)
        best = seen if last is None or ess > before else last
        done = _done(plan, candidate, seen, correct, base is not None)
        if done.records.level[0] == 0:
            yield done
            continue
        usable = all(np.isfinite(x).all() for x in jax.tree.leaves(after))
        more = correct and usable and looks <= _MOST_MOVES
        if more and is_noisy(done.records.facts(0)) and not look.uncovered:
            noisy = look, pooled + 1
            waiting.append(candidate._replace(params=after, looks=looks, best=best, noisy=noisy))
            continue
        if best is last:
            done = _done(plan, candidate, best, correct, base is not None)
        enough = ess >= _DRAWS_PER_DIMENSION * (plan.target.dim + 1)
        gains = ess > _WORTHWHILE * before
        if more and enough and gains and not is_hopeless(done.records.facts(0)):
            waiting.append(candidate._replace(params=after, looks=looks, best=best))
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
