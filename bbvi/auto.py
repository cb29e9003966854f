"""The default: stages on the host, none begun that is not needed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np

from bbvi._tree import pick, split
from bbvi._types import Array, PyTree
from bbvi.budget import Purse
from bbvi.diagnostics.chains import expected_gradients
from bbvi.diagnostics.evidence import KHAT_FINITE, knows_evidence, may_be_off, proven_evidence
from bbvi.evaluate import generator
from bbvi.families import CouplingFlow, GaussianMixture, LowRankGaussian
from bbvi.objectives import ELBO
from bbvi.solvers import StochasticGradient
from bbvi.stages.bent.bent_stages import BENT, TRIANGULAR, bends, bent_stages, is_chained
from bbvi.stages.chain_stages import across_seams, chain_stage
from bbvi.stages.coverage import COVERED_NATS, missed_modes, visits
from bbvi.stages.flow_training import flow_optimizer
from bbvi.stages.gaussians.gaussian_stages import (
    MOST_MOVES,
    FirstKeys,
    and_spent,
    first_stages,
    looked_at,
    probed,
)
from bbvi.stages.gaussians.matching import find_start
from bbvi.stages.gaussians.modes import elsewhere
from bbvi.stages.hierarchy.hierarchy_stages import (
    first_hierarchy_chains,
    hierarchy_chains,
    hierarchy_stages,
)
from bbvi.stages.judged import fit_stage
from bbvi.stages.latent.latent_stages import latent_chains, latent_stages
from bbvi.stages.population import MIXTURES, MOST_DIM, population_stage
from bbvi.stages.ranking import beside, better, proven_by
from bbvi.stages.stage import Fitted, Job, Show, plain_stage
from bbvi.stages.unseen import affine_space, log_mixture_of
from bbvi.stages.wide_stages import wide_stages
from bbvi.target import Target

# Up to here a dense covariance and its eigenvalues cost less than the gradients that go with
# them; beyond, a full match needs thousands of draws a step.
_DENSE_LIMIT = 2560
# A step of the flow costs 64 products with its D x D factor and its optimizer's passes over that
# factor: past a thousand dimensions minutes go by, and chains have had their chance before.
_FLOW_LIMIT = 1024
# ... and of separate modes it covers one: of topics in 502 dimensions, after 250 s.
_JOINING_LIMIT = 256
# Dimensions up to which hyperparameters are looked for before chains. Beyond, chains in plain
# coordinates cost less: of slopes in 364 dimensions 36 s, and hyperparameters 111 s. But a flow
# costs more: of a walk in 403 dimensions 1,000 s with what came after, and hyperparameters 75 s.
_EARLY = 256
# Rounds of short chains. Four cost about what a flow does; after the last stage nothing else can
# bring the noise down.
_ROUNDS, _LAST_ROUNDS = 4, 8
# Chains that are slow, or diverge, go on for as long again: three times cost as many gradients as
# NUTS does, once as many as a flow. Of a light log joint, up to so many elements, they cost less
# than a flow by itself: 400,000 take 1 to 10 s of a core, a flow 6 s in 10 dimensions, 30 s in 150.
_DOUBLINGS, _DOUBLINGS_IF_HEAVY = 3, 1
_LIGHT = 30_000
# In many dimensions a flow and the chains after it cost as much as two doublings more, and past
# `_FLOW_LIMIT` nothing comes after: a map of 900 districts was rejected for chains that settle in
# their second, another of 144 took 150 s for a flow and not the 20 s of their fourth.
_MORE_DOUBLINGS, _MANY = 2, 128


@dataclass(frozen=True)
class Auto:
    r"""The default solver: nothing to choose.

    1. A race of starts: the user's point, zero and random points, and points on L-BFGS paths
       uphill from each, ranked by their bound on common draws.
       Over 512 dimensions, where a dense covariance costs more than the gradients do, a factorised
       Gaussian on fixed draws from there, and few long Hamiltonian chains in its units, then in
       those of their states or the coordinates of 4; 2 follows where these do not settle it.
    2. Batch and match from three good starts, far from each other if there are such (for D over
       256 from the better of two factorised Gaussians, fitted on fixed draws from the winner and
       from the user's point, and from one of another mode, if starts beyond a valley lead to it):
       a full-rank Gaussian, which is judged on fresh draws, half of them with heavier tails.
       Then from those starts in whose valley no match has ended; of separate modes the
       mixture is judged. Where that does not settle it, and a way on which the density does not
       fall joins them, they lie on one ridge that bends, and the Gaussian with the moments of
       their mixture goes on.
       Where nothing settles, more races look for a place that all of these have missed.
    3. While that pays, the Gaussian moves to the moments of its weighted draws and is judged
       again: a step of adaptive importance sampling, without gradients. Where uneven weights would
       settle it, a few trajectories from the heaviest draws look for mass that no draw has met.
       Where weighted squares have no variance, half of the draws lie far out; where nothing but
       noise is left, up to sixteen times as many are made.
       Along a ridge, and where halves of the weighted draws show the same bends, Gaussians that
       bend with a few coordinates move in this way, in up to 40 dimensions chains of
       regressions before them, and in up to 12 mixtures of Gaussians after them, where that
       settles it. (In this order: the first two are exact or give up.)
    4. Where gradients tell that some coordinates are the scales of others, written centred or
       not, a Gaussian in coordinates in which these do not depend on them: matched, and moved.
       Where that does not settle it and effects were written centred, with normal priors, a
       Gaussian of the scales, and of up to 128 others the normal distribution given these, whose
       precision adds up from theirs and the data's.
       Where the density does not fall along such a scale, the posterior is improper: no stage
       follows. Where enough draws count, short chains in these coordinates, which go on after 5
       where they have not settled at once.
    5. In 13 to 512 dimensions, coordinates with which the curvature of all others changes: up to
       six hyperparameters. All else is normal given these, by gradients at some of their values,
       by splines in between; they themselves have a mixture of Gaussians. Values follow where
       draws weigh most. Where that settles it, and draws know the sds that this density has,
       trajectories look for mass that no draw has met; more values follow where either lacks
       some. Else follow chains of 4, and chains in coordinates in which all else is standard.
       (Over 256 dimensions all this follows 6.)
    6. Where the weighted draws can still not answer for the posterior, short Hamiltonian chains
       from the Gaussian's draws, in units in which it is standard. Those that are only slow,
       or diverge a little, go on. Where their states bend, or narrow, with a few coordinates, a
       Gaussian that does so too is fitted to them, moves as others do, and follows the ridge by
       its scores: its weights, or chains in its units, may settle what they did not.
    7. Where those do not settle either, a coupling flow that starts as that Gaussian (up to
       1,024 dimensions, or 256 where modes are separate); and, if its weights cannot be believed,
       or trajectories find mass that none of its draws has met, short chains from its draws.
       Unless these weights have a variance, chains in plain coordinates then look for a seam in
       the flow, and answer where it cannot.

    For D over 2,560 the dense stages of 2 to 7 give way to a low-rank Gaussian fitted by stochastic
    gradients. No stage settles a fit that leaves out visible mass around a start, or the neck
    of a funnel that a lower bound finds, or that sees less evidence than the bound of another
    stage proves. Of several stages the one whose weighted draws are best is kept; where they
    say more of the moments than their own noise, moments and draws are corrected by the
    weights.

    Args:
        flow_steps: steps of the flow's training.
        flow_draws: draws a step.
        flow: the family of stage 7.

    Example:
        >>> Auto(flow_steps=3000).flow_draws
        64

    Source: the match is that of Cai et al. 2024 (arXiv:2402.14758), the moves those of Cappé
    et al. 2008 (Statistics and Computing 18), the flow that of Dinh et al. 2017; centring and not
    is due to Papaspiliopoulos, Roberts and Sköld 2007 (Statistical Science 22).
    """

    flow_steps: int = 1500
    flow_draws: int = 64
    flow: CouplingFlow = CouplingFlow()

    def solve(
        self,
        target: Target,
        loc: Array,
        key: Array,
        data: PyTree,
        previous: tuple[Any, PyTree] | None,
        run: Callable[..., Any],
        purse: Purse,
        show: Show = plain_stage,
    ) -> list[Fitted]:
        """All stages that were needed, the last one the most elaborate.

        Args:
            target: the target.
            loc: the user's point (D,).
            key: a typed random key.
            data: the user's data.
            previous: family and parameters of a previous fit to go on from, or None.
            run: drives a solver's state to its end; see `bbvi.stages.judged.fit_stage`.
            purse: what may be spent; stages that cannot be paid for are left out.
            show: makes a stage that `run` does not drive, and may show that it does.
        """
        keys = split(key, 5 + MOST_MOVES)
        start_key, match_key, run_key, judge_key, chain_key, *move_keys = keys
        again_key, population_key, bent_key, *hierarchy_keys = split(start_key, 6)
        hierarchy_key, latent_key, effect_key = hierarchy_keys
        if previous is not None and isinstance(previous[0], GaussianMixture):
            previous = None  # a match from the moments of several modes ends in one of them
        first_keys = FirstKeys(start_key, again_key, match_key, judge_key, chain_key, move_keys)
        before, starts = wide_stages(target, loc, first_keys, data, previous, purse, show)
        if before and before[-1].settled:
            return before
        if target.dim > _DENSE_LIMIT:
            solver, begin = StochasticGradient(LowRankGaussian()), None
            if previous is None:
                begin = find_start(target, loc, start_key, data)
            args = (solver, target, begin, previous, run_key, judge_key, data, run)
            return [*before, fit_stage("low-rank", *args)]
        first = first_stages(target, loc, first_keys, data, previous, purse, show, starts)
        stages = [*before, *first.before, *first.stages]
        matches, modes = first.matches, first.modes
        if first.settled:
            return stages
        proven = proven_by(stages)

        def look(stage):
            nonlocal proven
            proven = max(proven, proven_evidence(stage.diagnostics))
            return beside(looked_at(target, matches, start_key, data, purse, stage), proven)

        single = first.single
        doublings = _DOUBLINGS if target.work <= _LIGHT else _DOUBLINGS_IF_HEAVY
        doublings += _MORE_DOUBLINGS * (target.dim > _MANY)

        def missed(stage):
            d = stage.diagnostics
            bound = float(d.log_evidence if knows_evidence(d, COVERED_NATS) else d.elbo)
            return missed_modes(target, stage.family, stage.params, matches, modes, bound, data)

        def but_for(stage, others):
            """The stage, and what shares the modes have that it misses."""
            shares = dict(zip(first.modes, first.stages[0].mode_weights, strict=True))
            lost = [shares[i] for i in others]
            return stage._replace(mode_weights=(max(1 - sum(lost), 0.0), *lost)) if lost else stage

        def among_modes(stage):
            """The stage; of chains that answer and were in all modes none is missed."""
            if stage.chains is None or not stage.sound:
                return stage
            seen = visits(stage.reached, pick(matches.frame, np.array(modes, int)))
            return stage._replace(mode_weights=()) if seen else stage

        def of_all_modes(stage):
            return among_modes(but_for(stage, missed(stage)[1]))

        def look_at_modes(stage):
            return look(of_all_modes(stage) if len(modes) > 1 else stage)

        job = Job(target, data, purse, show, look_at_modes, _ROUNDS, doublings)
        found, spent, endless = hierarchy_stages(single, job, hierarchy_key)
        stages[-1] = and_spent(stages[-1], spent)._replace(endless=endless)
        stages += found
        if stages[-1].settled or endless:
            return stages
        begun: list[Fitted] = []
        # In fewer dimensions a look for hyperparameters takes no longer, and knows tails that short
        # chains have not met: of a field whose level has one three of five sds were 15% short.
        if target.dim > _MANY:
            begun = first_hierarchy_chains(found, single, job, effect_key)
            stages += begun
            if stages[-1].settled:
                return stages
        few, late = target.dim <= MOST_DIM, target.dim > _EARLY
        latent: list[Fitted] = []

        def given_hyperparameters():
            found, spent = latent_stages(single, job, latent_key)
            stages[-1] = and_spent(stages[-1], spent)
            stages.extend(found)
            return found

        if not (few or late):
            latent = given_hyperparameters()
            if stages[-1].settled:
                return stages
        stages += hierarchy_chains(found, single, job, effect_key, begun)
        if stages[-1].settled:
            return stages
        stages += latent_chains(latent, job, latent_key)
        if stages[-1].settled:
            return stages
        best = reduce(better, stages)
        bent = first.joined or bends(best, bent_key)
        chained = is_chained(best, bent_key)
        for kind, tried in ((TRIANGULAR, chained), (BENT, bent), (MIXTURES, few)):
            if not tried:
                continue
            seen = None
            if kind is MIXTURES:
                seen = elsewhere(matches.frame, matches.elbo, generator(bent_key))
            fit, answers, spent = population_stage(best, job, kind, population_key, seen)
            if answers:
                stages.append(look_at_modes(fit))
                if stages[-1].settled:
                    return stages
                best = reduce(better, stages)
            else:
                stages[-1] = and_spent(stages[-1], spent)
        chains_cost = expected_gradients(target.dim)
        if len(modes) == 1 or first.joined:
            if not purse.allows(chains_cost):
                return stages
            plain = partial(chain_stage, single, job, chain_key, begin_at=first.mixture)
            chains = show(f"chains {single.name}", plain)
            stages.append(look_at_modes(chains))
            if stages[-1].settled:
                return stages
            found, spent = bent_stages(chains, job, bent_key)
            stages[-1] = and_spent(stages[-1], spent)
            stages += found
            if stages[-1].settled:
                return stages
        if late:
            latent = given_hyperparameters()
            if not stages[-1].settled:
                stages += latent_chains(latent, job, latent_key)
            if stages[-1].settled:
                return stages
        warm = previous if previous is not None and previous[0] == self.flow else None
        separate = len(modes) > 1 and not first.joined
        if target.dim > (_JOINING_LIMIT if separate else _FLOW_LIMIT):
            return stages
        # a flow that is cut short in its first half is worse than none
        if not purse.allows(self.flow_steps * self.flow_draws / 2):
            return stages
        args = (self.flow_solver(), target, single.frame, warm, run_key, judge_key, data, run)
        flow = fit_stage("flow", *args)
        if len(modes) > 1:  # of which a flow may have found a better one
            modes, without = missed(flow)
            flow = but_for(flow, without)
        purse.spend(flow.num_gradients)
        stages.append(self._probed(look(flow), target, judge_key, data, purse))
        # the last word: what a slow chain has not moved yet counts too
        last = job._replace(rounds=_LAST_ROUNDS, doublings=_DOUBLINGS)
        if not stages[-1].settled and purse.allows(chains_cost):
            off = may_be_off(flow.diagnostics)
            run_chains = partial(chain_stage, flow, last, chain_key, start_error=off)
            stages.append(look(among_modes(show("chains flow", run_chains))))
        flow = stages[-1]
        known = flow.settled and float(flow.diagnostics.khat) < KHAT_FINITE
        if not known and purse.allows(chains_cost):
            stages.pop()

            def across():
                checked, found = across_seams(flow, last, chain_key)
                stages.append(checked)
                return found

            stages.append(look(among_modes(show("chains across", across))))
        return stages

    def _probed(self, flow, target, key, data, purse) -> Fitted:
        """A flow whose weights would settle it, and what none of its draws has met.

        Of a sharp ridge in 11 dimensions a flow had 80% of the effective draws of an exact one, a
        k-hat of 0.48, and 7% of the mass was nowhere: trajectories that leave its coordinates find
        it.
        """
        if not flow.settled:
            return flow
        log_mixture = log_mixture_of(target, flow.family, flow.params)
        space = affine_space(target, flow.frame, log_mixture, data)
        return probed(target, space, key, data, purse, flow)

    def flow_solver(self) -> StochasticGradient:
        """How stage 7 is trained: a planned number of steps, the rate falling to nothing."""
        objective = ELBO(num_draws=self.flow_draws)
        optimizer = flow_optimizer(self.flow_steps)
        return StochasticGradient(self.flow, objective, optimizer, 0.0, self.flow_steps)
