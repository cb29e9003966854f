"""Pathfinder: Gaussians from the curvature along L-BFGS paths, the best by its bound."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.numpy.linalg import cholesky, qr
from jax.scipy.linalg import solve_triangular

from bbvi._linalg import dot
from bbvi._tree import pick, tie
from bbvi._types import Array, PyTree
from bbvi.families import Family, Frame, FullRankGaussian
from bbvi.families.base import LOG_2PI, broadcast_scale
from bbvi.objectives.draws import normals
from bbvi.solvers.base import Info, RunLog, Solver, empty_log, record
from bbvi.solvers.batch_match import lower_factor
from bbvi.solvers.lbfgs import Search, begin_search, take
from bbvi.status import Status
from bbvi.target import Target

# Random starts are uniform in a box of this many standard deviations around the given one.
_RADIUS = 2.0
# A path ends when the predicted rise is below this many nats.
_DECREMENT = 1e-4


class Local(NamedTuple):
    """A Gaussian whose covariance has the root diag(scale) (I + basis (core - I) basis').

    Attributes:
        loc: (D,) centre.
        scale: (D,) square root of the diagonal part.
        basis: (D, K) orthonormal columns.
        core: (K, K) lower triangular.
        elbo: its bound on the common draws, nats.
    """

    loc: Array
    scale: Array
    basis: Array
    core: Array
    elbo: Array

    @property
    def log_det(self) -> Array:
        """The log determinant of the root."""
        return jnp.sum(jnp.log(self.scale)) + jnp.sum(jnp.log(jnp.diagonal(self.core)))

    def bend(self, eps: Array) -> Array:
        """(S, D) rows times the transposed root."""
        inside = dot(eps, self.basis)
        return self.scale * (eps + dot(dot(inside, self.core.T) - inside, self.basis.T))


class PathfinderState(NamedTuple):
    """State of `Pathfinder`.

    Attributes:
        log: the run so far.
        key: the root key.
        frame: units in which the start is standard; all else is in these.
        eps: (S, D) base normals, common to all bounds.
        search: the paths, with a leading axis.
        best: the best Gaussian on each path.
    """

    log: RunLog
    key: Array
    frame: Frame
    eps: Array
    search: Search
    best: Local


@dataclass(frozen=True)
class Pathfinder(Solver):
    r"""Full-rank Gaussian by multi-path Pathfinder.

    From the start and from random points around it L-BFGS goes uphill on the log density. At
    each point x on the way its inverse Hessian Sigma, made from the last moves, gives a
    Gaussian N(x + Sigma grad log p(x), Sigma); the one with the best bound on common draws is
    kept, first along each path and then over the paths. The pairs (s, y) of moves and changes
    of the gradient, scaled to s'y = 1, make

        Sigma <- (I - s y') Sigma (I - y s') + s s',   Sigma_0 = diag(alpha),

    whose root is carried along as columns, (I - s y') root and s: no difference of large
    numbers, and positive whatever the rounding. A few gradients give a fit good enough to start
    from; where the posterior is not Gaussian nothing improves on what the paths came across.

    Args:
        num_paths: P, the paths; each step takes one gradient on each.
        num_draws: draws that a bound is estimated with, an even number: S densities, and no
            gradients, for each point. They are not in `num_gradients`.
        memory: moves that the inverse Hessian is made from.
        max_steps: the step limit.

    Example:
        >>> import bbvi, jax.numpy as jnp
        >>> def log_joint(x):
        ...     return -0.5 * jnp.sum((x - 3) ** 2)
        >>> result = bbvi.fit(log_joint, jnp.zeros(2), solver=Pathfinder(num_paths=2))
        >>> result.posterior.params["loc"].round(2).tolist()
        [3.0, 3.0]

    Source: Zhang, Carpenter, Gelman and Vehtari 2022, JMLR 23(306), algorithms 1 to 4.
    """

    num_paths: int = 4
    num_draws: int = 32
    memory: int = 20
    max_steps: int = 500
    family: FullRankGaussian = FullRankGaussian()

    def __post_init__(self):
        if self.num_paths < 1 or self.memory < 1:
            raise ValueError("num_paths and memory must be at least 1.")
        if self.num_draws < 2 or self.num_draws % 2:
            raise ValueError(f"num_draws must be a positive even number, not {self.num_draws}.")

    def family_for(self, target: Target) -> Family:
        return self.family

    def limit(self, target: Target) -> int:
        return self.max_steps

    def init(
        self, target: Target, loc: Array, scale: Array, key: Array, data: PyTree
    ) -> PathfinderState:
        dim, dtype, paths = target.dim, target.dtype, self.num_paths
        start_key, draw_key = jax.random.split(key)
        scale = broadcast_scale(loc, scale)
        frame = Frame(loc, jnp.diag(scale) if scale.ndim == 1 else scale)
        around = jax.random.uniform(start_key, (paths - 1, dim), dtype, -_RADIUS, _RADIUS)
        points = jnp.concatenate([jnp.zeros((1, dim), dtype), around])
        eps = normals(draw_key, self.num_draws, dim, dtype, antithetic=True, quasi=False)
        if self.num_draws >= 2 * dim:  # then the bound of a Gaussian on a Gaussian is exact
            root = cholesky(dot(eps.T, eps) / self.num_draws)
            eps = solve_triangular(root, eps.T, lower=True).T
        search = jax.vmap(partial(begin_search, memory=self.memory))(points)
        columns = min(dim, 2 * self.memory)
        start = Local(
            loc=points,
            scale=jnp.ones((paths, dim), dtype),
            basis=jnp.zeros((paths, dim, columns), dtype),
            core=jnp.tile(jnp.eye(columns, dtype=dtype), (paths, 1, 1)),
            elbo=jnp.full(paths, -jnp.inf, dtype),
        )
        return tie(PathfinderState(empty_log(dtype), key, frame, eps, search, start), key)

    def step(
        self, target: Target, state: PathfinderState, data: PyTree
    ) -> tuple[PathfinderState, Info]:
        frame, over = state.frame, state.search.done
        trial = jax.vmap(lambda s: s.trial)(state.search)
        log_p, score, ok = target.score(frame.apply(trial), data)
        value = -(log_p + frame.log_det)
        taken = partial(take, decrement=_DECREMENT)
        search, moved = jax.vmap(taken)(state.search, value, -dot(score, frame.scale), ok)
        search, moved = _where(over, state.search, search), moved & ~over

        local, elbo_se = self._scored(target, frame, state.eps, jax.vmap(_local)(search), data)
        better = moved & (local.elbo > state.best.elbo)
        best = _where(better, local, state.best)

        leader = jnp.argmax(best.elbo)
        elbo = best.elbo[leader]
        failed = ~jnp.isfinite(elbo)
        ended = jnp.where(failed, int(Status.NONFINITE), int(Status.CONVERGED))
        status = jnp.where(jnp.all(search.done), ended, int(Status.RUNNING)).astype(jnp.int32)
        step = state.log.step + 1
        seen = record(state.log.history, step, elbo, elbo_se[leader])
        log = RunLog(
            step,
            status,
            state.log.num_gradients + self.num_paths,
            state.log.num_skipped + jnp.sum(~ok).astype(jnp.int32),
            _where(failed, state.log.history, seen),
        )
        info = Info(elbo, jnp.max(jnp.abs(search.x[leader])), search.stride[leader])
        state = PathfinderState(log, state.key, frame, state.eps, search, best)
        return tie(state, state.key), info

    def output(self, state: PathfinderState) -> PyTree:
        leader = jnp.argmax(state.best.elbo)
        best: Local = pick(state.best, leader)
        identity = jnp.eye(best.loc.shape[0], dtype=best.loc.dtype)
        root = dot(state.frame.scale, best.bend(identity).T)
        return self.family.init(state.frame.apply(best.loc[None])[0], lower_factor(root))

    def _scored(self, target, frame, eps, local, data):
        """Gaussians with their bounds (P,), and the standard errors of these."""
        draws, dim = eps.shape
        w = local.loc[:, None] + jax.vmap(Local.bend, (0, None))(local, eps)
        log_p = target.log_densities(frame.apply(w.reshape(-1, dim)), data).reshape(-1, draws)
        ok = jnp.isfinite(log_p)
        terms = jnp.where(ok, log_p + 0.5 * jnp.sum(eps**2, axis=-1), 0)
        count = jnp.sum(ok, axis=1)
        mean = jnp.sum(terms, axis=1) / jnp.maximum(count, 1)
        spread = jnp.sqrt(jnp.mean(jnp.where(ok, terms - mean[:, None], 0) ** 2, axis=1))
        log_det = jax.vmap(lambda g: g.log_det)(local) + frame.log_det
        elbo = mean + log_det + 0.5 * dim * LOG_2PI
        # one with many draws outside the support is no fit
        elbo = jnp.where((count > draws // 2) & jnp.isfinite(elbo), elbo, -jnp.inf)
        return local._replace(elbo=elbo), spread / draws**0.5


def _where(condition: Array, new: PyTree, old: PyTree) -> PyTree:
    """Row by row `new` where `condition` (P,) holds, else `old`."""

    def choose(a, b):
        return jnp.where(
            condition.reshape(condition.shape + (1,) * (a.ndim - condition.ndim)), a, b
        )

    return jax.tree.map(choose, new, old)


def _local(search: Search) -> Local:
    """The Gaussian of a search's inverse Hessian, its bound yet unknown."""
    memory = search.memory
    scale = jnp.sqrt(memory.alpha)
    unit = jnp.sqrt(memory.inverse_dots)[:, None]
    steps, bends = memory.steps * unit / scale, memory.bends * unit * scale
    # Householder's columns are orthonormal whatever the rank
    basis, _ = qr(jnp.concatenate([steps, bends]).T)
    size, number = basis.shape[1], steps.shape[0]
    # computed from the search, as the carry of a loop inside `shard_map` has to be
    root = jnp.eye(size, size + number, dtype=scale.dtype) + 0 * steps[0, 0]

    def update(root, pair):
        step, bend, at = pair
        root = root - jnp.outer(step, dot(bend, root))
        return root.at[:, at].set(step), None

    pairs = (dot(steps, basis), dot(bends, basis), size + jnp.arange(number))
    root, _ = jax.lax.scan(update, root, pairs)
    # the start itself at first, while there is no curvature to tell a mean by
    loc = jnp.where(search.accepted == 0, search.x, search.trial)
    return Local(loc, scale, basis, lower_factor(root), jnp.full((), -jnp.inf, scale.dtype))
