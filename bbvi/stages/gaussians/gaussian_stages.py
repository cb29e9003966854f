"""The first stages of the default: Gaussians, in the right place, as far as they go."""

from collections.abc import Callable
from functools import partial, reduce
from typing import NamedTuple

import numpy as np

from bbvi._tree import pick, split
from bbvi._types import AnyArray, Array, PyTree
from bbvi.budget import Purse
from bbvi.diagnostics.evidence import efficiency, is_sharp
from bbvi.families import FullRankGaussian, GaussianMixture
from bbvi.solvers import BatchAndMatch
from bbvi.solvers.starts import ORIGINS, PATH_EVALUATIONS, Starts, race
from bbvi.stages.coverage import aside, leaves_out
from bbvi.stages.gaussians.match import move, on_device
from bbvi.stages.gaussians.matching import Matches, affordable, match_from, match_modes
from bbvi.stages.gaussians.modes import VISIBLE_NATS, separate_modes
from bbvi.stages.gaussians.ways import joined
from bbvi.stages.gaussians.ways import most_gradients as most_gradients_of_ways
from bbvi.stages.judged import judged_closer, judged_stage
from bbvi.stages.necks import missed_neck, most_gradients
from bbvi.stages.ranking import better
from bbvi.stages.stage import Fitted, Show
from bbvi.stages.unseen import Space, affine_space, log_gaussian, most_unseen_gradients, unseen_mass
from bbvi.target import Target

# A move of the Gaussian needs so many effective draws a dimension, and goes on while each
# brings a tenth more: a move costs one judgement, a few milliseconds for most targets.
_DRAWS_PER_DIMENSION = 5
MOST_MOVES = 4
_WORTHWHILE = 1.1
# Effective draws, as a share of those of an exact fit, below which weights that would settle a fit
# are not taken at their word: of 250 fits that were settled so, errors over 0.06 were all of these.
UNEVEN = 0.6
# More races of starts, where nothing has settled. Of one system of rates nine of ten fits found the
# mode with them, seven without, and the others took a flow for it.
_RACES = 2


class FirstKeys(NamedTuple):
    """Typed random keys: of the race, more races, matches, judgement, chains and moves."""

    start: Array
    again: Array
    match: Array
    judge: Array
    chains: Array
    moves: list[Array]


class First(NamedTuple):
    """What the first stages found.

    Attributes:
        stages: the Gaussians; or a Gaussian, a mixture and, where they are joined, another.
        matches: all Gaussians matched, and the starts.
        modes: which of those are modes of their own, the best first.
        joined: whether all of several modes lie on one ridge; the last stage is then the Gaussian
            with the moments of their mixture.
        before: stages of a place that was left for a better one.
    """

    stages: list[Fitted]
    matches: Matches
    modes: list[int]
    joined: bool = False
    before: tuple[Fitted, ...] = ()

    @property
    def single(self) -> Fitted:
        """The Gaussian from whose draws, or in whose units, other stages go on."""
        if self.joined:
            return self.stages[-1]
        gaussians = (s for s in self.stages if isinstance(s.family, FullRankGaussian))
        return max(gaussians, key=lambda s: s.diagnostics.ess)

    @property
    def mixture(self) -> Fitted | None:
        """The mixture of several modes."""
        return next((s for s in self.stages if isinstance(s.family, GaussianMixture)), None)

    @property
    def settled(self) -> bool:
        """Whether no richer stage is needed."""
        # where there are several modes, a fit of one of them cannot see what it lacks
        able = self.stages if len(self.modes) == 1 else self.stages[1:]
        return any(s.settled for s in able)


def first_stages(
    target: Target,
    loc: Array,
    keys: FirstKeys,
    data: PyTree,
    previous,
    purse: Purse,
    show: Show,
    starts: Starts | None = None,
) -> First:
    """Stages 1 to 3 of `Auto`, from another place where nothing settles and there is one.

    Args:
        target: the target.
        loc: the user's point (D,).
        keys: typed random keys.
        data: the user's data.
        previous: family and parameters of a previous fit to go on from, or None.
        purse: what may be spent, and is.
        show: makes a stage, and may show that it does.
        starts: of a race that has been run; None runs one.
    """
    args = (target, loc, keys, data, previous, purse, show)
    first = _from_starts(starts, *args)
    if previous is not None or first.settled:
        return first
    higher, spent = _higher_ground(target, loc, first.matches, keys.again, data, purse)
    if higher is not None:
        before = tuple(s._replace(left_out=True) for s in first.stages)
        first = _from_starts(higher, *args)._replace(before=before)
    first.stages[-1] = and_spent(first.stages[-1], spent)
    return first


def _from_starts(starts, target, loc, keys, data, previous, purse, show) -> First:
    gaussian, matches = _gaussian(target, loc, starts, keys, data, previous, purse, show)
    purse.spend(gaussian.num_gradients)
    modes = separate_modes(target, matches.frame, matches.elbo, data)
    on_one_ridge = False
    if len(modes) > 1:
        stages = _mixture(target, gaussian, matches, modes, keys.judge, data, show)
        if not stages[-1].settled and purse.allows(most_gradients_of_ways(len(modes))):
            frames = pick(matches.frame, np.array(modes))
            on_one_ridge, spent = joined(target, frames, data)
            purse.spend(spent)
            stages[0] = and_spent(stages[0], spent)
        if on_one_ridge:
            stages.append(_spread(target, stages[-1], keys.moves[0], data, show))
    else:
        to = partial(move, gaussian.family)
        stages = [gaussian, *moves(target, gaussian, keys.moves, data, show, to)]
    best = reduce(better, stages)
    closer = judged_closer(target, keys.judge, data, best)
    stages = [closer if s is best else s for s in stages]
    stages = [looked_at(target, matches, keys.start, data, purse, s) for s in stages]
    stages = _probed(target, stages, keys.start, data, purse)
    return First(stages, matches, modes, on_one_ridge)


def _gaussian(target, loc, starts, keys, data, previous, purse, show) -> tuple[Fitted, Matches]:
    found: list[Matches] = []

    def run():
        if previous is None:
            args = (target, loc, keys.start, keys.match, data, purse.gradients, starts)
            params, log, matches = match_modes(*args)
        else:
            frame = previous[0].frame(previous[1])
            limits = affordable(target, purse.gradients)
            params, log, matches = match_from(target, frame, keys.match, data, limits)
        found.append(matches)
        return params, log

    solver = BatchAndMatch()
    args = ("gaussian", solver, solver.family, target, run, keys.judge, data)
    return show("gaussian", partial(judged_stage, *args)), found[0]


def _mixture(target, gaussian, matches, modes, judge_key, data, show) -> list[Fitted]:
    """Several modes: their mixture, and a note on the single Gaussian that it is but one."""
    family = GaussianMixture()
    frame, elbo = pick((matches.frame, matches.elbo), np.array(modes))
    log_weights = elbo - elbo.max()
    weights = np.exp(log_weights) / np.exp(log_weights).sum()

    def run():
        params = family.join(log_weights, frame.loc, frame.scale)
        return params, gaussian.log

    args = ("mixture", gaussian.solver, family, target, run, judge_key, data)
    stage = show("mixture", partial(judged_stage, *args))
    mixture = stage._replace(num_gradients=0, num_skipped=0)
    return [gaussian._replace(mode_weights=tuple(map(float, weights))), mixture]


def _spread(target, mixture, key, data, show) -> Fitted:
    """The Gaussian with the moments of a mixture."""
    family, frame = FullRankGaussian(), mixture.frame

    def run():
        return on_device(target, family.init(frame.loc, frame.scale)), mixture.log

    args = ("spread", mixture.solver, family, target, run, key, data)
    return show("spread", partial(judged_stage, *args))._replace(num_gradients=0, num_skipped=0)


def moves(
    target: Target,
    gaussian: Fitted,
    keys: list[Array],
    data: PyTree,
    show: Show,
    to: Callable[[AnyArray, AnyArray], PyTree],
) -> list[Fitted]:
    """Gaussians with the moments of the weighted draws of the one before.

    Args:
        target: the target.
        gaussian: the first one.
        keys: typed random keys, one a move.
        data: the user's data.
        show: makes a stage, and may show that it does.
        to: parameters from draws (S, D) and log weights (S,).
    """
    moved: list[Fitted] = []
    at = gaussian
    # fewer effective draws than this do not tell a covariance
    enough = _DRAWS_PER_DIMENSION * (target.dim + 1)
    for key in keys:
        d = at.diagnostics
        if at.status.failed or is_sharp(d) and at.settled or float(d.ess) < enough:
            break

        def run(at=at, d=d):
            log = at.log._replace(status=np.int32(at.status.left))
            return on_device(target, to(d.draws, d.log_weights)), log

        args = ("move", at.solver, at.family, target, run, key, data)
        stage = show("move", partial(judged_stage, *args))
        stage = stage._replace(num_gradients=0, num_skipped=0)
        moved.append(stage)
        if not float(stage.diagnostics.ess) > _WORTHWHILE * float(d.ess):
            break
        at = stage
    return moved


def _higher_ground(target, loc, matches, key, data, purse) -> tuple[Starts | None, int]:
    """Starts of another race that leave all matches below; and what races without such spent.

    A fit that does not settle may be one of a wrong place: rates of an equation whose noise
    explains what they do not. A race costs little of what comes next.
    """
    spent = 0
    for race_key in split(key, _RACES):
        if not purse.allows(ORIGINS * PATH_EVALUATIONS):
            break
        starts = race(target, loc, race_key, data)
        if starts.elbo[0] > matches.elbo[0] + VISIBLE_NATS:
            return starts, spent  # the match from there pays for them
        purse.spend(starts.num_gradients)
        spent += starts.num_gradients
    return None, spent


def and_spent(stage: Fitted, gradients: int) -> Fitted:
    """The stage, with so many gradients more to its account."""
    return stage._replace(num_gradients=stage.num_gradients + gradients)


def looked_at(
    target: Target, matches: Matches, key: Array, data: PyTree, purse: Purse, stage: Fitted
) -> Fitted:
    """The stage, with what is known of the mass that it misses.

    Args:
        target: the target.
        matches: the Gaussians matched, and the starts.
        key: a typed random key.
        data: the user's data.
        purse: what may be spent, and is.
        stage: the stage.
    """
    if not stage.sound or stage.mode_weights:
        return stage
    missing = leaves_out(
        target,
        stage.family,
        stage.params,
        matches,
        stage.diagnostics.log_evidence,
        stage.reached,
        key,
        data,
    )
    neck, spent = "", 0
    if purse.allows(most_gradients()):
        neck, spent = missed_neck(target, stage.diagnostics, key, data)
        purse.spend(spent)
    besides = aside(
        target,
        stage.family,
        stage.params,
        matches,
        stage.diagnostics,
        stage.diagnostics.corrected if stage.corrects else stage.diagnostics.raw,
        stage.reached,
        data,
    )
    found = stage._replace(left_out=missing, neck=neck, unseen=0.0, aside=besides)
    return and_spent(found, spent)


def probed(
    target: Target, space: Space, key: Array, data: PyTree, purse: Purse, stage: Fitted
) -> Fitted:
    """The stage, with what none of its draws has met, where that can be paid for.

    Args:
        target: the target.
        space: units in which the stage's fit is about standard.
        key: a typed random key.
        data: the user's data.
        purse: what may be spent, and is.
        stage: the stage.
    """
    if not purse.allows(most_unseen_gradients(target.dim)):
        return stage
    unseen, spent, _ = unseen_mass(target, space, stage.diagnostics, key, data)
    purse.spend(spent)
    return and_spent(stage._replace(unseen=unseen), spent)


def _probed(target, stages, key, data, purse) -> list[Fitted]:
    """Gaussians, of which the best would answer by uneven weights, and what no draw has met."""
    best = reduce(better, stages)
    gaussian = isinstance(best.family, FullRankGaussian)
    if not (best.settled and gaussian and efficiency(best.diagnostics) < UNEVEN):
        return stages
    space = affine_space(target, best.frame, log_gaussian(best.frame), data)
    seen = probed(target, space, key, data, purse, best)
    # what the best one's draws do not meet, those of the others hardly do
    return [seen if s is best else s._replace(unseen=seen.unseen) for s in stages]
