"""Factorised Gaussians on fixed draws, on the host: where matches in many dimensions begin."""

import jax
import numpy as np

from bbvi._arrays import choose
from bbvi._types import PyTree
from bbvi.evaluate import scores
from bbvi.families import Frame, MeanFieldGaussian
from bbvi.solvers.fixed_draws import FAR, MOVES
from bbvi.solvers.lbfgs import begin_search, take
from bbvi.target import Target

DRAWS = 32  # fixed ones; a match corrects what their luck does
EVALUATIONS = 150  # of each start
# Predicted gain of the bound, in nats, that does not matter to a start, or to a profile.
_DECREMENT = 0.02

_FAMILY = MeanFieldGaussian()


def factorised(
    target: Target,
    start: Frame,
    eps: np.ndarray,
    data: PyTree,
    max_evaluations: int = EVALUATIONS,
    held: int | None = None,
) -> tuple[Frame, np.ndarray, int]:
    r"""The best factorised Gaussians near some starts, by their bounds on common draws.

    With base normals eps_s fixed,

        ELBO(m, c) = 1/S sum_s log p(m + c eps_s) + sum_i log c_i + const

    is maximised by L-BFGS in (m - m0) / c0 and log c. An evaluation takes S gradients, whatever
    D is, where a step of `BatchAndMatch` takes 2 (D + 1) and as many products of D x D: a scale
    that hundreds of effects share is found in fewer of the former than of the latter.

    Args:
        target: the target.
        start: P starts, loc and scale (P, D).
        eps: (S, D) base normals in antithetic pairs.
        data: the user's data.
        max_evaluations: of each start.
        held: a coordinate that stays where it starts, without width; the bounds are then those of
            its marginal density there.

    Returns:
        loc and scale (P, D), bounds (P,) in nats, -inf where there is none, and the gradients
        spent.
    """
    loc, scale = start
    (number, dim), size = loc.shape, len(eps)
    free = np.arange(dim) != held
    eps = np.where(free, eps / np.sqrt(np.mean(eps**2, axis=0)), 0).astype(loc.dtype)
    search = begin_search(np.zeros((number, 2 * dim), loc.dtype))
    lost = np.full(number, size)
    best = np.full(number, np.inf)
    evaluations = 0
    with np.errstate(all="ignore"):
        while evaluations < max_evaluations and not search.done.all():
            at = _at(loc, scale, search.trial)
            points = at.loc[:, None] + at.scale[:, None] * eps
            seen = jax.device_get(scores(target, points.reshape(-1, dim), data))
            log_p, score, ok = (x.reshape(number, size, *x.shape[1:]) for x in seen)
            share = 1 / np.maximum(ok.sum(1), 1).astype(loc.dtype)
            widths = {"loc": at.loc[:, free], "log_scale": np.log(at.scale[:, free])}
            elbo = share * log_p.sum(1) + _FAMILY.entropy(widths)
            by_loc = share[:, None] * score.sum(1)
            by_log_scale = share[:, None] * np.einsum("psd,sd->pd", score, eps) * at.scale + 1
            gradient = -np.concatenate([free * by_loc * scale, free * by_log_scale], axis=1)
            evaluations += 1
            # bounds compare on the same draws only: none may be lost on the way
            skipped = size - ok.sum(1)
            finite = np.isfinite(elbo) & np.isfinite(gradient).all(1) & (skipped <= lost)
            finite &= skipped < size // 2
            moved, accepted = take(search, -elbo, gradient, finite, _DECREMENT)
            lost = np.where(accepted & ~search.done, skipped, lost)
            search = choose(~search.done, moved, search)
            far = np.abs(search.x).max(1) > FAR
            renew = ~search.done & far & (search.accepted >= MOVES)
            best = np.where(np.isfinite(search.value), search.value, best)
            if renew.any():
                new = _at(loc, scale, search.x)
                loc, scale = choose(renew, (new.loc, new.scale), (loc, scale))
                search = choose(renew, begin_search(np.zeros_like(search.x)), search)
    found = _at(loc, scale, search.x)
    return found, -best, evaluations * number * size


def _at(loc: np.ndarray, scale: np.ndarray, x: np.ndarray) -> Frame:
    """Loc and scale (P, D) at the parameters (P, 2 D) of a search in units of `loc`, `scale`."""
    shift, stretch = np.split(x, 2, axis=1)
    return Frame(loc + scale * shift, scale * np.exp(stretch))
