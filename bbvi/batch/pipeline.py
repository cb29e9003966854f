"""From problems to records: run, look, look again at those that are not clear."""

from collections.abc import Iterator

import jax
import numpy as np

from bbvi._tree import pick
from bbvi._types import PyTree
from bbvi.batch.engine import Widths, Work, blocks, join, pad, place, run_lives
from bbvi.batch.judging import FIRST_DRAWS, LEVELS, is_clear
from bbvi.batch.looks import Looks
from bbvi.batch.problems import Problems
from bbvi.batch.programs import End, Life, Look, Plan, judge_lives
from bbvi.batch.records import Found, Records
from bbvi.batch.start import QuickStart
from bbvi.status import Status


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
    looks = Looks(plan, problems, widths.again, correct)
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
        looks.add(index[~final], *pick((params, start, end), ~final))
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
