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
# Where a scale is informed by the effects that it shrinks, matches approach their limit as EM does,
# by the same tenth each time (a regression for each of 386 counties: forty steps, and eight with
# Anderson's extrapolation). So many are remembered, and used once no mean moves by more sds.
_REMEMBERED, _NEARBY, _RIDGE = 3, 0.5, 1e-6
# The run ends after so many steps in a row without a rise of the bound that matters, or after one
# if a full match would change the Gaussian by less than this share of what matters.
_PATIENCE, _STILL = 3, 0.1


class Match(NamedTuple):
    """A Gaussian z = loc + root eps with any square root of its covariance, and its bound."""

    loc: Array
    root: Array
    log_det: Array
    elbo: Array


class Past(NamedTuple):
    """The last full matches, the newest last, to extrapolate from; M of them.

    Attributes:
        loc: (M, D) where they went.
        root: (M, D, D) the same.
        change: (M, 2 D) what they changed: means in sds, and log sds.
        known: (M,) which there are.
    """

    loc: Array
    root: Array
    change: Array
    known: Array


class BatchMatchState(NamedTuple):
    """State of `BatchAndMatch`.

    Attributes:
        log: the run so far.
        eps: base normals (S, D), the same at every step, so that bounds compare.
        trial: the Gaussian to be judged at the next step.
        best: the best one judged so far.
        proposal: where the full match of `best` would go: its draws' statistics.
        past: matches of the best ones before.
        leapt: whether the trial is extrapolated from these.
        rate: the trust region.
        stalled: steps in a row without a rise of the bound that matters.
    """

    log: RunLog
    eps: Array
    trial: Match
    best: Match
    statistics: PyTree
    past: Past
    leapt: Array
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
    smaller lambda. Scores are exact gradients: no minibatches. Once full matches move by less than
    half an sd, the next one is extrapolated from the last few (Anderson).

    Args:
        num_draws: S; None takes max(2 (D + 1), 64). At least D + 1 are needed for a match.
        max_steps: the step limit.
        tolerance: the rise of the bound, in nats, that counts as progress.

    Source: Cai, Modi, Pillaud-Vivien, Margossian, Gower, Blei and Saul 2024, ICML,
    "Batch and match" (arXiv:2402.14758); Walker and Ni 2011, SIAM J. Numer. Anal. 49(4), for
    Anderson's extrapolation of fixed-point iterations.
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
        some = (_REMEMBERED, dim)
        past = Past(
            xp.zeros(some, dtype),
            xp.zeros((*some, dim), dtype),
            xp.zeros((_REMEMBERED, 2 * dim), dtype),
            xp.zeros(_REMEMBERED, bool),
        )
        never = log.step < 0
        return BatchMatchState(log, eps, trial, trial, statistics, past, never, rate, log.step)

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
        failed_leap = state.leapt & ~better
        rate = xp.where(better, grown, xp.where(failed_leap, state.rate, shrunk))
        proposed = _match(best, statistics, rate)
        usable = all_finite(proposed._replace(elbo=xp.zeros_like(elbo)))
        past = state.past._replace(known=state.past.known & ~failed_leap)
        full = rate == _FULL_RATE
        ahead, past, leapt, change = _extrapolated(best, proposed, past, better & full)
        trial = tree_where(usable, ahead, best)

        near = elbo > state.best.elbo - _OVERSHOT
        stalled = xp.where(progress | first, 0, state.stalled + near)
        still = full & (0.5 * xp.sum(change**2) < _STILL * self.tolerance)
        done = (stalled >= xp.where(still, 1, _PATIENCE)) | (rate < _LEAST_RATE) | ~usable
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
        state = BatchMatchState(log, state.eps, trial, best, statistics, past, leapt, rate, stalled)
        return state, info

    def output(self, state: BatchMatchState) -> Any:
        return self.family.init(state.best.loc, lower_factor(state.best.root))


def _extrapolated(best: Match, proposed: Match, past: Past, full: Array) -> tuple:
    """Anderson's mixture of a full match with those before.

    Of all mixtures of matches F(x_j), weights summing to one, the one whose changes F(x_j) - x_j
    cancel best. Roots of covariances are mixed as they are: any matrix is the root of one.

    Returns:
        the mixture; the past with the match, if it is full; whether the mixture is another; and how
        the match changes means, in sds, and log sds (2 D,).
    """
    xp = namespace(best.loc)
    sd = _sd(best.root)
    change = xp.concatenate([(proposed.loc - best.loc) / sd, xp.log(_sd(proposed.root) / sd)])
    usable = past.known & full & (xp.max(xp.abs(change)) < _NEARBY)
    rows = xp.where(usable[:, None], past.change - change, 0)
    gram = dot(rows, rows.T)
    ridge = xp.where(usable & (xp.trace(gram) > 0), _RIDGE * xp.trace(gram), 1)
    weights = xp.linalg.solve(gram + xp.diag(ridge), -dot(rows, change)[:, None])[:, 0]
    leaps = xp.any(weights != 0) & xp.all(xp.isfinite(weights))
    weights = xp.where(leaps, weights, 0)
    root = proposed.root + xp.sum(weights[:, None, None] * (past.root - proposed.root), axis=0)
    mixed = proposed._replace(
        loc=proposed.loc + dot(weights, past.loc - proposed.loc),
        root=root,
        log_det=xp.where(leaps, xp.linalg.slogdet(root)[1], proposed.log_det),
    )

    def push(rows, new):
        return xp.concatenate([rows[1:], new[None]])

    here = Past(proposed.loc, proposed.root, change, xp.ones((), bool))
    newer = Past(*(push(*x) for x in zip(past, here, strict=True)))
    return mixed, tree_where(full, newer, past), leaps, change


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
