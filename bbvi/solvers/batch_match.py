"""Batch and match: a full-rank Gaussian fitted to scores in closed-form steps."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from bbvi._arrays import namespace
from bbvi._linalg import cholesky, dot, eigh, solve_lower
from bbvi._tree import all_finite, tie, tree_where
from bbvi._types import AnyArray, Array, PyTree
from bbvi.families import Family, FullRankGaussian
from bbvi.families.base import LOG_2PI, broadcast_scale
from bbvi.objectives.draws import normals
from bbvi.solvers.base import Info, RunLog, Solver, append, empty_log
from bbvi.status import Status
from bbvi.target import Target

# The learning rate is a trust region: at 1e3 a step is the full match, which solves a Gaussian
# target at once; it shrinks when the bound falls and grows back when it rises. A step goes a share
# rate/(1 + rate) of the way: between 1e3 and 2 there is nothing to choose.
_FULL_RATE, _MOST_PARTIAL, _LEAST_RATE = 1e3, 2.0, 1e-2
_SHRINK, _GROW = 1 / 8, 4.0
# A bound that falls by more nats has overshot: no sign that there is nothing left to gain.
_OVERSHOT = 1.0


class Match(NamedTuple):
    """A Gaussian z = loc + root eps with any square root of its covariance, and its bound."""

    loc: Array
    root: Array
    log_det: Array
    elbo: Array


class BatchMatchState(NamedTuple):
    """State of `BatchAndMatch`.

    Attributes:
        log: the run so far.
        eps: base normals (S, D), the same at every step, so that bounds compare.
        trial: the Gaussian to be judged at the next step.
        best: the best one judged so far.
        proposal: where the full match of `best` would go: its draws' statistics.
        rate: the trust region.
        stalled: steps in a row without a rise of the bound that matters.
    """

    log: RunLog
    eps: Array
    trial: Match
    best: Match
    statistics: PyTree
    rate: Array
    stalled: Array

    @property
    def points(self) -> Array:
        """The draws (S, D) of the trial, to be evaluated next."""
        return self.trial.loc + dot(self.eps, self.trial.root.T)


@dataclass(frozen=True)
class BatchAndMatch(Solver):
    r"""Full-rank Gaussian by batch-and-match score matching.

    Each step draws z = loc + A eps, takes the scores g there, and moves to the Gaussian that
    matches them best at a cost lambda for leaving the present one. In the units of the
    present Gaussian, with u = A'g, and means and covariances over the draws,

        U = lambda cov(u) + lambda/(1+lambda) mean(u) mean(u)'
        V = I + lambda cov(eps) + lambda/(1+lambda) mean(eps) mean(eps)'
        S U S + S = V,   m = lambda/(1+lambda) (S mean(u) + mean(eps)),

    then loc + A m and A S^(1/2). With V = LL' and L'UL = Q diag(w) Q' the equation is solved
    by S = (LQ) diag(2/(1 + sqrt(1+4w))) (LQ)': symmetric, positive, and without a matrix
    square root. Gaussian targets are solved in one step of S > D draws.

    A step is kept only if the bound on common draws rises; else it is tried again with a
    smaller lambda. Scores are exact gradients: no minibatches.

    Args:
        num_draws: S; None takes max(2 (D + 1), 64). At least D + 1 are needed for a match.
        max_steps: the step limit.
        tolerance: the rise of the bound, in nats, that counts as progress.

    Source: Cai, Modi, Pillaud-Vivien, Margossian, Gower, Blei and Saul 2024, ICML,
    "Batch and match" (arXiv:2402.14758).
    """

    num_draws: int | None = None
    max_steps: int = 50  # at most HISTORY_LENGTH
    tolerance: float = 1e-2
    family: FullRankGaussian = FullRankGaussian()

    def family_for(self, target: Target) -> Family:
        return self.family

    def limit(self, target: Target) -> int:
        return self.max_steps

    def draws(self, dim: int) -> int:
        """S for a target of dimension D."""
        return max(2 * (dim + 1), 64) if self.num_draws is None else self.num_draws

    def init(
        self, target: Target, loc: Array, scale: Array, key: Array, data: PyTree
    ) -> BatchMatchState:
        size = self.draws(target.dim)
        eps = normals(key, size, target.dim, target.dtype, antithetic=True, quasi=False)
        return tie(self.begin(loc, scale, eps), key)

    def begin(self, loc: AnyArray, scale: AnyArray, eps: AnyArray) -> BatchMatchState:
        """The state at a start, with given base normals (S, D), arrays of JAX or of numpy."""
        xp, dim, dtype = namespace(eps), eps.shape[1], eps.dtype
        if eps.shape[0] >= 2 * dim:
            # Whitened draws make the bound of a Gaussian on a Gaussian target exact; otherwise
            # its maximum lies beside the exact match, which would be turned down.
            eps = solve_lower(cholesky(dot(eps.T, eps) / eps.shape[0]), eps.T).T
        scale = broadcast_scale(loc, scale)
        root = xp.diag(scale) if scale.ndim == 1 else scale
        log_det = xp.sum(xp.log(xp.diagonal(root)))
        trial = Match(loc, root, log_det, xp.full((), -xp.inf, dtype))
        nowhere, flat = xp.zeros(dim, dtype), xp.zeros((dim, dim), dtype)
        statistics = (nowhere, nowhere, flat, flat)  # replaced at the first step
        rate = xp.full((), _FULL_RATE, dtype)
        log = empty_log(dtype, xp)
        return BatchMatchState(log, eps, trial, trial, statistics, rate, log.step)

    def step(
        self, target: Target, state: BatchMatchState, data: PyTree
    ) -> tuple[BatchMatchState, Info]:
        return self.take(state, *target.score(state.points, data))

    def take(
        self, state: BatchMatchState, log_p: AnyArray, score: AnyArray, ok: AnyArray
    ) -> tuple[BatchMatchState, Info]:
        """One step, given what `Target.score` says of the state's points."""
        xp, (draws, dim) = namespace(state.eps), state.eps.shape
        count = xp.sum(ok)
        terms = log_p + 0.5 * xp.sum(state.eps**2, -1)
        elbo = xp.sum(xp.where(ok, terms, 0)) / xp.maximum(count, 1)
        elbo = elbo + state.trial.log_det + 0.5 * dim * LOG_2PI
        # A match needs more usable draws than dimensions.
        elbo = xp.where(count > min(dim, draws // 2), elbo, -xp.inf)
        trial = state.trial._replace(elbo=elbo)

        first = state.log.step == 0
        better = (elbo > state.best.elbo) | first
        progress = elbo > state.best.elbo + self.tolerance
        best = tree_where(better, trial, state.best)
        statistics = tree_where(
            better, _statistics(state.eps, dot(score, trial.root), ok), state.statistics
        )
        grown = xp.minimum(state.rate * _GROW, _FULL_RATE)
        shrunk = xp.minimum(state.rate * _SHRINK, _MOST_PARTIAL)
        rate = xp.where(better, grown, shrunk)
        proposed = _match(best, statistics, rate)
        usable = all_finite(proposed._replace(elbo=xp.zeros_like(elbo)))
        trial = tree_where(usable, proposed, best)

        near = elbo > state.best.elbo - _OVERSHOT
        stalled = xp.where(progress | first, 0, state.stalled + near)
        done = (stalled >= 3) | (rate < _LEAST_RATE) | ~usable
        failed = ~xp.isfinite(best.elbo)
        ended = xp.where(failed, int(Status.NONFINITE), int(Status.CONVERGED))
        status = xp.where(done, ended, int(Status.RUNNING)).astype(xp.int32)
        step = state.log.step + 1
        spread = xp.std(xp.where(ok, terms, elbo - trial.log_det))
        log = RunLog(
            step,
            status,
            state.log.num_gradients + draws,
            state.log.num_skipped + (draws - count).astype(xp.int32),
            append(state.log.history, step, elbo, spread / draws**0.5),
        )
        info = Info(elbo, xp.max(xp.abs(trial.loc - best.loc) / _sd(best.root)), rate)
        return BatchMatchState(log, state.eps, trial, best, statistics, rate, stalled), info

    def output(self, state: BatchMatchState) -> Any:
        return self.family.init(state.best.loc, lower_factor(state.best.root))


def lower_factor(root: Array) -> Array:
    """The lower triangular L (D, D) with L L' = root root', without forming the product."""
    xp = namespace(root)
    upper = xp.linalg.qr(root.T, mode="r")
    return (upper * xp.sign(xp.diagonal(upper))[:, None]).T


def _sd(root: Array) -> Array:
    xp = namespace(root)
    return xp.sqrt(xp.sum(root**2, axis=1))


def _statistics(eps: Array, u: Array, ok: Array) -> PyTree:
    """Means and covariances over the usable draws of `eps` and `u`, both (S, D)."""
    xp = namespace(eps)
    weight = (ok / xp.maximum(xp.sum(ok), 1)).astype(eps.dtype)
    mean_eps, mean_u = dot(weight, eps), dot(weight, u)
    centred_eps, centred_u = eps - mean_eps, u - mean_u
    cov_eps = dot(centred_eps.T * weight, centred_eps)
    cov_u = dot(centred_u.T * weight, centred_u)
    return mean_eps, mean_u, cov_eps, cov_u


def _match(at: Match, statistics: PyTree, rate: Array) -> Match:
    """The Gaussian that matches the scores at `at` within the trust region `rate`."""
    xp, (mean_eps, mean_u, cov_eps, cov_u) = namespace(rate), statistics
    share = rate / (1 + rate)
    identity = xp.eye(mean_eps.shape[0], dtype=mean_eps.dtype)
    lhs = rate * cov_u + share * xp.outer(mean_u, mean_u)
    rhs = identity + rate * cov_eps + share * xp.outer(mean_eps, mean_eps)
    chol = cholesky(rhs)
    w, q = eigh(dot(chol.T, dot(lhs, chol)))
    shrink = 2 / (1 + xp.sqrt(1 + 4 * xp.maximum(w, 0)))
    root = dot(chol, q) * xp.sqrt(shrink)
    loc = share * (dot(root, dot(root.T, mean_u)) + mean_eps)
    log_det = xp.sum(xp.log(xp.diagonal(chol))) + 0.5 * xp.sum(xp.log(shrink))
    # The symmetric root moves the common draws as little as possible.
    symmetric = dot(root, q.T)
    return Match(at.loc + dot(at.root, loc), dot(at.root, symmetric), at.log_det + log_det, at.elbo)
