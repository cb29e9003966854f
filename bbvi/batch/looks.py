"""Further looks at problems that the first did not clear: several at once, and as many as pay."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from bbvi._tree import pick, rows
from bbvi._types import PyTree
from bbvi.batch.again import base_for, look_again, refine
from bbvi.batch.engine import join, pad, place
from bbvi.batch.judging import LEVELS, is_hopeless, is_plain, more_draws_settle, pool, verdict_of
from bbvi.batch.problems import Problems
from bbvi.batch.programs import End, Look, Plan
from bbvi.batch.records import Found, Records, facts_of_many
from bbvi.batch.refine import begin_mixture
from bbvi.batch.start import QuickStart
from bbvi.diagnostics.evidence import needs_correction

# As in `bbvi.auto`: a move needs so many effective draws a dimension, and goes on while each
# brings a tenth more.
_DRAWS_PER_DIMENSION = 5
_MOST_MOVES = 4
_WORTHWHILE = 1.1
# Looks that are computed at once, each by a thread of its own: XLA runs the programs of one
# thread one after the other, and splits such small ones badly over cores. On two cores a look
# takes 41 ms by itself and 31 ms beside another. One more waits while the host sorts.
_THREADS = 2
_AT_ONCE = _THREADS + 1


class Candidates(NamedTuple):
    """Problems that are to be looked at; every array has a leading axis W.

    Attributes:
        number: their numbers.
        first: the parameters of the family that their runs ended in.
        params: what is looked at next: these, moved; or mixtures that began as these.
        start: where their paths ended.
        end: how their runs ended.
        looks: looks so far, after the first.
    """

    number: np.ndarray
    first: PyTree
    params: PyTree
    start: QuickStart
    end: End
    looks: np.ndarray


class Sight(NamedTuple):
    """One look at one problem, as an entry of arrays of many.

    Attributes:
        shown: what was looked at, of all.
        look: what was seen, of all.
        at: which entry this problem is.
        looks: looks so far, after the first.
    """

    shown: PyTree
    look: Look
    at: int
    looks: int

    @property
    def ess(self) -> float:
        """The effective draws."""
        return float(self.look.diagnostics.ess[self.at])


class Seen(NamedTuple):
    """What earlier looks at one problem found.

    Attributes:
        best: the look with the most effective draws.
        noisy: the last one, where only noise was left to remove.
        pooled: how many looks its moments are means over.
    """

    best: Sight
    noisy: Sight | None
    pooled: int


class Looks:
    """Problems that wait for a look; what gains by one waits again.

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
        shared = (problems.common,) if self._base is None else (problems.common, self._base)
        self._shared = jax.device_put(shared)
        self._names = plan.target.scalar_names
        self._waiting: list[Candidates] = []
        self._count = 0
        self._under_way: deque[tuple[Candidates, Future]] = deque()
        self._threads = ThreadPoolExecutor(_THREADS, "bbvi-look")
        self._compiled: Any = None
        self._seen: dict[int, Seen] = {}

    def add(self, number: np.ndarray, params: PyTree, start: QuickStart, end: End) -> None:
        """Problems whose runs have ended in `params`."""
        first = params if self._base is None else begin_mixture(params)
        self._wait(Candidates(number, params, first, start, end, np.zeros(len(number), np.int8)))

    def advance(self, last: bool) -> Iterator[Found]:
        """Look at as many as fill a look and hand out what is done; all, if `last`."""
        while self._count >= self._width or (last and (self._count or self._under_way)):
            full = len(self._under_way) == _AT_ONCE
            rest = self._count < self._width and self._under_way
            if full or rest:
                chosen, found = self._under_way.popleft()
                yield from self._sort(chosen, *found.result())
            else:
                chosen = self._take()
                self._under_way.append((chosen, self._look_at(chosen)))

    def _wait(self, some: Candidates) -> None:
        self._waiting.append(some)
        self._count += len(some.number)

    def _take(self) -> Candidates:
        """The first that wait, as many as one look takes."""
        waiting = join(self._waiting)
        self._waiting, self._count = [], 0
        if len(waiting.number) > self._width:
            self._wait(pick(waiting, slice(self._width, None)))
        return pick(waiting, slice(self._width))

    def _look_at(self, chosen: Candidates) -> Future:
        """One look at some, and their parameters after it, while they are being computed."""
        at = pad(np.arange(len(chosen.number)), self._width)
        padded = pick(chosen, at)
        own = (padded.params, padded.start, padded.looks.astype(np.int32) + 1)
        placed = place(self._plan, (*own, self._problems.take(padded.number)))
        args = (*placed, *self._shared)
        if self._compiled is None:
            # traced here: what a context such as `jax.enable_x64` says ends at a thread
            program = look_again if self._base is None else refine
            lowered = program.lower(self._plan, *args)
            # compiled beside what the host goes on with; the first of a queue, so none waits for
            # what is behind it
            self._compiled = self._threads.submit(lowered.compile)
        return self._threads.submit(lambda: jax.device_get(self._compiled.result()(*args)))

    def _sort(self, chosen: Candidates, look: Look, after: PyTree) -> Iterator[Found]:
        """Those of `chosen` that are done; the others wait again."""
        # a copy, which may be written to
        look, after = pick((look, after), np.arange(len(chosen.number)))
        chosen = chosen._replace(looks=chosen.looks + np.int8(1))
        self._pool(chosen, look)
        # a mixture is refitted before the look, and a Gaussian moves after it
        shown = chosen.params if self._base is None else after
        noisy = self._only_noisy(chosen, shown, look, after)
        if noisy.all():
            return
        chosen, shown, look, after = pick((chosen, shown, look, after), ~noisy)
        done = self._records(chosen, shown, look)
        trusted = done.records.level == 0
        if trusted.any():
            yield _part(done, trusted)
        for number in chosen.number[trusted].tolist():
            self._seen.pop(number, None)
        for i in np.flatnonzero(~trusted).tolist():
            own = slice(i, i + 1)
            one, then = pick((chosen, after), own)
            yield from self._next(one, Sight(shown, look, i, int(one.looks[0])), then, done)

    def _only_noisy(
        self, chosen: Candidates, shown: PyTree, look: Look, after: PyTree
    ) -> np.ndarray:
        """Which of `chosen` (W,) are kept from trust by noise alone: they wait for another look."""
        numbers = chosen.number.tolist()
        before = [self._seen.get(number) for number in numbers]
        pooled = np.array([1 if seen is None else seen.pooled + 1 for seen in before])
        facts = facts_of_many(look, chosen.end, chosen.looks, True)
        found = more_draws_settle(facts, pooled) & _finite(after) & self._correct
        for i in np.flatnonzero(found).tolist():
            sight, seen = Sight(shown, look, i, int(chosen.looks[i])), before[i]
            best = sight if seen is None or sight.ess > seen.best.ess else seen.best
            self._seen[numbers[i]] = Seen(best, sight, int(pooled[i]))
        if found.any():
            self._wait(pick(chosen._replace(params=after), found))
        return found

    def _next(self, own: Candidates, sight: Sight, after: PyTree, done: Found) -> Iterator[Found]:
        """One problem that more draws do not settle: it moves and waits, or this is the end."""
        number, at = int(own.number[0]), slice(sight.at, sight.at + 1)
        last = self._seen.pop(number, None)
        improved = last is None or sight.ess > last.best.ess
        best = sight if improved or last is None else last.best
        part = _part(done, at)
        if not improved:
            looks = np.array([best.looks], np.int8)
            at = slice(best.at, best.at + 1)
            part = self._records(own._replace(looks=looks), *pick((best.shown, best.look), at))
        more = self._correct and bool(_finite(after)[0]) and sight.looks <= _MOST_MOVES
        enough = sight.ess >= _DRAWS_PER_DIMENSION * (self._plan.target.dim + 1)
        # one look in hundreds meets a draw so far out that no pool makes up for it
        worthwhile = last is None or sight.ess > _WORTHWHILE * last.best.ess or last.pooled > 0
        if more and enough and worthwhile and not is_hopeless(part.records.facts(0)):
            self._seen[number] = Seen(best, None, 0)
            self._wait(own._replace(params=after))
        else:
            yield part

    def _pool(self, chosen: Candidates, look: Look) -> None:
        """Average moments, in place, with those of earlier looks that noise alone kept back."""
        seen = [self._seen.get(number) for number in chosen.number.tolist()]
        at = [i for i, x in enumerate(seen) if x is not None and x.noisy is not None]
        if not at:
            return
        earlier = [x for x in seen if x is not None and x.noisy is not None]
        sights = [x.noisy for x in earlier if x.noisy is not None]
        each = [pick(sight.look.diagnostics.corrected, sight.at) for sight in sights]
        before = jax.tree.map(lambda *x: np.stack(x), *each)
        count = np.array([x.pooled for x in earlier])[:, None]
        pooled = pool(pick(look.diagnostics.corrected, at), before, count)
        for whole, some in zip(look.diagnostics.corrected, pooled, strict=True):
            whole[at] = some

    def _records(self, chosen: Candidates, shown: PyTree, look: Look) -> Found:
        """What is kept of some problems if this was the last look at them."""
        number, mixed = len(chosen.number), self._base is not None
        corrected = np.full(number, mixed)  # by its weighted draws alone a mixture stands for it
        if self._correct and not mixed:
            corrected = needs_correction(look.diagnostics)
        kept = chosen.first if mixed else shown
        level = np.zeros(number, np.int8)
        records = Records(kept, look, chosen.end, chosen.looks, corrected, level)
        plain = is_plain(facts_of_many(look, chosen.end, chosen.looks, corrected))
        for i in np.flatnonzero(~plain).tolist():
            level[i] = LEVELS.index(verdict_of(records.facts(i), self._names).level)
        numbers = chosen.number.tolist()
        mixtures = dict(zip(numbers, rows(shown, number), strict=True)) if mixed else {}
        return Found(chosen.number, records, mixtures)


def _finite(tree: PyTree) -> np.ndarray:
    """Which entries along the leading axis are finite in every array."""
    each = [np.isfinite(x).reshape(len(x), -1).all(axis=1) for x in jax.tree.leaves(tree)]
    return np.logical_and.reduce(each)


def _part(found: Found, chosen: Any) -> Found:
    numbers = found.numbers[chosen]
    mixtures = {n: found.mixtures[n] for n in numbers.tolist() if n in found.mixtures}
    return Found(numbers, pick(found.records, chosen), mixtures)
