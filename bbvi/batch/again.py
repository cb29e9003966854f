"""A second look at the problems that the first did not clear, and where they go from there."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._types import Array, PyTree
from bbvi.batch.judging import MORE_DRAWS
from bbvi.batch.marginals import own_moments
from bbvi.batch.problems import Common, Rows
from bbvi.batch.programs import Look, Plan, each, log_proposal, look_key, program
from bbvi.batch.refine import FAMILY, add_peak, base_draws, draw, is_apart, judge_mixture, refit
from bbvi.batch.start import QuickStart, uncovered_peak, weigh_peaks
from bbvi.diagnostics.fresh_draws import diagnose
from bbvi.families import FullRankGaussian
from bbvi.stages.gaussians.match import move

# Up to here the K D^2 numbers of a mixture are few, and so are the draws that tell them.
_MIXTURE_LIMIT = 64
# Refits in one go, on draws that need not answer for anything, and the draws that have to. Of
# 2,000 hierarchies as many were left open after three refits as after four, for 15% less work.
_REFITS = 3
REFIT_DRAWS, MIXTURE_DRAWS = 2560, 7680


def mixes(plan: Plan) -> bool:
    """Whether the Gaussians of a plan are refined to mixtures."""
    gaussian = isinstance(plan.family, FullRankGaussian)
    return gaussian and plan.target.dim <= _MIXTURE_LIMIT


def base_for(plan: Plan) -> Any:
    """Base draws for the refits and for the last look; None where there are no mixtures."""
    if not mixes(plan):
        return None
    sizes = (REFIT_DRAWS, MIXTURE_DRAWS)
    dim, dtype = plan.target.dim, np.dtype(plan.target.dtype)
    return tuple(base_draws(dim, size).astype(dtype) for size in sizes)


@program((0,))
def refine(
    plan: Plan,
    mixture: PyTree,
    start: QuickStart,
    number: Array,
    rows: Rows,
    common: Common,
    base: tuple[Array, Array],
) -> tuple[Look, PyTree]:
    """Refit some mixtures to their weighted draws a few times, and judge what comes out.

    Args:
        plan: the static part.
        mixture: parameters of `bbvi.batch.refine.FAMILY` (W).
        start: where the problems' paths ended.
        number: (W,) number of the look, from 1 on.
        rows: the problems.
        common: what they share.
        base: from `base_for`.

    Returns:
        what was seen of the refitted mixtures, and these.
    """
    target, shape = plan.target, plan.shape

    def one(args, both):
        mixture, start, number, row = args
        common, (few, many) = both
        _, data, key = shape.problem(row, common)
        key = look_key(key, number)

        def again(mixture, i):
            new = refit(mixture, draw(target, mixture, jax.random.fold_in(key, i), data, few))
            good = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(new)]))
            return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, mixture), None

        peaked = add_peak(target, mixture, start, data)
        mixture = jax.tree.map(lambda a, b: jnp.where(number == 1, a, b), peaked, mixture)
        mixture, _ = jax.lax.scan(again, mixture, jnp.arange(_REFITS))
        start = weigh_peaks(target, start, jax.random.fold_in(key, _REFITS), data)
        found = judge_mixture(target, mixture, draw(target, mixture, key, data, many), data)
        left = uncovered_peak(
            target, FAMILY.log_mixture(mixture, start.peaks), start, found.log_evidence, data
        )
        apart = is_apart(target, mixture, data)
        return Look(found, found.raw.mean, found.raw.sd, left, apart), mixture

    return each(plan.mesh, one, (mixture, start, number, rows))((common, base))


@program((0,))
def look_again(
    plan: Plan,
    params: PyTree,
    start: QuickStart,
    number: Array,
    rows: Rows,
    common: Common,
) -> tuple[Look, PyTree]:
    """A look at some fits of any family on more draws, and where Gaussians would move by it.

    Args:
        plan: the static part.
        params: the family's parameters (W).
        start: where the problems' paths ended.
        number: (W,) number of the look, from 1 on.
        rows: the problems.
        common: what they share.

    Returns:
        what was seen, and the Gaussians with the moments of the weighted draws.
    """
    target, shape = plan.target, plan.shape
    family = plan.family

    def one(args, common):
        params, start, number, row = args
        _, data, key = shape.problem(row, common)
        found = diagnose(target, family, params, look_key(key, number), data, MORE_DRAWS)
        mean, sd = own_moments(target, family, params, data)
        short = {name: getattr(found, name)[:0] for name in ("draws", "log_weights", "own")}
        log_q = log_proposal(target, family, params, start.peaks)
        left = uncovered_peak(target, log_q, start, found.log_evidence, data)
        # the draws would outweigh all else
        look = Look(found._replace(**short), mean, sd, left, jnp.zeros((), bool))
        if not isinstance(family, FullRankGaussian):
            return look, params
        # inside vmap a draw without weight may not be a NaN
        draws = jnp.where(jnp.isneginf(found.log_weights)[:, None], params["loc"], found.draws)
        return look, move(family, draws, found.log_weights)

    return each(plan.mesh, one, (params, start, number, rows))(common)
