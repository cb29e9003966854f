"""Fixed draws: the bound on a bank of draws that stands still, maximised by L-BFGS."""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from bbvi._tree import all_finite, tie, tree_where
from bbvi._types import Array, PyTree
from bbvi.families import Family, Frame, FullRankGaussian, LowRankGaussian, MeanFieldGaussian
from bbvi.objectives.draws import normals
from bbvi.solvers.bank import Sums, add_block, no_sums, whitened
from bbvi.solvers.base import Info, RunLog, Solver, empty_log, record, unravel_in
from bbvi.solvers.lbfgs import Search, begin_search, take
from bbvi.status import InputError, Status
from bbvi.target import Target

_LEAST_DRAWS = 64
# On n draws a full factor is fitted to the draws themselves as much as to the posterior unless
# n is well above what one coordinate depends on.
_DRAWS_PER_NORMAL = 4
# A bank's optimum is found to this share of the tolerance.
_DECREMENT = 1e-4
# Units are renewed on the way, at the cost of the search's memory, after so many moves that led
# further than this: in units of the optimum the bound's curvature is near the identity, which
# saves more moves than the memory of wrong ones. At a condition of 1e4, 35 steps and not 317.
MOVES, FAR = 5, 0.5


class FixedDrawsState(NamedTuple):
    """State of `FixedDraws`.

    Attributes:
        log: the run so far.
        key: the root key; block b of bank l comes from it, l and b.
        frame: the standardised units.
        search: the minimisation, of flat parameters (P,) in those units.
        sums: the evaluation under way.
        level: how often the draws were doubled.
        skipped: draws of the bank left out at the search's point.
        origin: (P,) where the search in these units began.
        entry: where the search on this bank began, the bound: that of the last bank's optimum
            on draws that it was not fitted to, nats.
        elbo_se: Monte Carlo standard error of the bound at the search's point.
        drift: how far the search has come from `origin`.
    """

    log: RunLog
    key: Array
    frame: Frame
    search: Search
    sums: Sums
    level: Array
    skipped: Array
    origin: Array
    entry: Array
    elbo_se: Array
    drift: Array


@dataclass(frozen=True)
class FixedDraws(Solver):
    r"""Maximise the bound on draws that are drawn once, and double them until it stands still.

    With base normals eps_1..eps_S fixed, the bound

        (1/S) sum_s log p(reparam(params, eps_s)) + entropy(params)

    is a smooth function without noise, which L-BFGS with a line search solves in few
    evaluations and to all digits. Draws come in antithetic pairs and, where there are enough
    of them, whitened: their first two moments are exact, and so is the answer for a Gaussian
    posterior. What is left is the chance of the draws, and the bank is judged by the next one,
    of twice the size: the run ends when going on there gains no more than two standard errors
    of the bound or `tolerance`.

    A step of the solver evaluates one block of S draws, and a bank of 2^l blocks takes as many
    steps an evaluation: nothing is stored, and each step costs the same.

    Args:
        family: what is fitted.
        num_draws: S, an even number; None takes 4 (D + 1), at least 64, where coordinates
            depend on each other.
        tolerance: the gain of the bound, in nats, that does not matter.
        max_steps: the step limit.

    Example:
        >>> FixedDraws().draws(20)
        84
        >>> FixedDraws(MeanFieldGaussian()).draws(20)
        64

    Source: Giordano, Ingram and Broderick 2024, JMLR 25(18), for fixed draws; Burroni, Domke
    and Sheldon 2024, UAI, for the doubling.
    """

    family: Family = field(default_factory=FullRankGaussian)
    num_draws: int | None = None
    tolerance: float = 1e-2
    max_steps: int = 20_000

    def __post_init__(self):
        if self.num_draws is not None and (self.num_draws < 2 or self.num_draws % 2):
            raise ValueError(f"num_draws must be a positive even number, not {self.num_draws}.")

    def family_for(self, target: Target) -> Family:
        return self.family

    def limit(self, target: Target) -> int:
        return self.max_steps

    def draws(self, dim: int) -> int:
        """S for a target of dimension D.

        Raises:
            InputError: if the bound on so few draws has no maximum.
        """
        needed = _normals_behind(self.family, dim)
        if self.num_draws is None:
            return max(_DRAWS_PER_NORMAL * (needed + 1), _LEAST_DRAWS)
        if self.num_draws < 2 * needed:
            raise InputError(
                f"FixedDraws(num_draws={self.num_draws}) is too few for "
                f"{type(self.family).__name__} in {dim} dimensions, where the bound on fewer than "
                f"{2 * needed} antithetic draws has no maximum: take more, or MeanFieldGaussian()."
            )
        return self.num_draws

    def init(
        self, target: Target, loc: Array, scale: Array, key: Array, data: PyTree
    ) -> FixedDrawsState:
        return self.init_at(target, self.family.init(loc, scale), key, data)

    def init_at(self, target: Target, params: PyTree, key: Array, data: PyTree) -> FixedDrawsState:
        self.draws(target.dim)  # before anything runs
        frame = self.family.frame(params)
        flat = ravel_pytree(self.family.to_frame(params, frame))[0]
        log, nowhere = empty_log(target.dtype), jnp.full((), -jnp.inf, target.dtype)
        state = FixedDrawsState(
            log=log,
            key=key,
            frame=frame,
            search=begin_search(flat),
            sums=no_sums(flat),
            level=log.step,
            skipped=log.step,
            origin=flat,
            entry=nowhere,
            elbo_se=-nowhere,
            drift=-nowhere,
        )
        return tie(state, key)

    def step(
        self, target: Target, state: FixedDrawsState, data: PyTree
    ) -> tuple[FixedDrawsState, Info]:
        eps = self.bank(target, state)
        point = (state.frame, state.search.trial)
        sums, elbo, skipped = add_block(state.sums, target, self.family, *point, eps, data)
        log = state.log._replace(
            step=state.log.step + 1,
            num_gradients=state.log.num_gradients + eps.shape[0],
            num_skipped=state.log.num_skipped + skipped,
        )
        state = tie(state._replace(log=log, sums=sums), state.key)
        complete = sums.block == jnp.left_shift(1, state.level)
        state = jax.lax.cond(complete, self._judge, lambda s: s, state)
        return state, Info(elbo, state.drift, state.search.stride)

    def output(self, state: FixedDrawsState) -> PyTree:
        params = unravel_in(self.family, state.frame)(state.search.x)
        return self.family.from_frame(params, state.frame)

    def bank(self, target: Target, state: FixedDrawsState) -> Array:
        """The block of base normals (S, K) that the next step evaluates."""
        key = jax.random.fold_in(state.key, state.level)
        key = jax.random.fold_in(key, state.sums.block)
        size = self.family.noise_size(target.dim)
        number = self.draws(target.dim)
        eps = normals(key, number, size, target.dtype, antithetic=True, quasi=False)
        return whitened(eps)

    def _judge(self, state):
        """Move or come back on what a whole bank says; at its optimum stop, or take the next."""
        sums = state.sums
        first = ~jnp.isfinite(state.search.value)
        usable = sums.usable > 0
        # Bounds compare on the same draws only: none may be lost on the way, and one that
        # becomes usable is worth any value.
        kept = first | (sums.skipped <= state.skipped)
        more = sums.skipped < state.skipped
        decrement = _DECREMENT * self.tolerance
        finite = usable & kept & jnp.isfinite(sums.value) & all_finite(sums.gradient)
        search, accepted = take(state.search, sums.value, sums.gradient, finite, decrement, more)
        pairs = sums.pairs.astype(sums.value.dtype)
        error = jnp.sqrt(sums.squares / jnp.maximum(pairs - 1, 1) / jnp.maximum(pairs, 1))
        elbo, elbo_se = -search.value, jnp.where(accepted, error, state.elbo_se)
        entry = jnp.where(jnp.isfinite(state.entry), state.entry, elbo)
        drift = jnp.max(jnp.abs(search.x - state.origin))
        drift = jnp.where(search.accepted > 0, drift, state.drift)
        history = tree_where(
            accepted, record(state.log.history, state.log.step, elbo, elbo_se), state.log.history
        )

        matters = jnp.maximum(2 * elbo_se, self.tolerance)
        settled = search.done & (state.level > 0) & (elbo - entry <= matters)
        # a line search that ends where no draw is usable has come to nothing
        failed = search.done & ~usable
        status = jnp.where(settled, int(Status.CONVERGED), state.log.status)
        status = jnp.where(failed, int(Status.NONFINITE), status).astype(jnp.int32)
        log = state.log._replace(status=status, history=history)
        state = FixedDrawsState(
            log=log,
            key=state.key,
            frame=state.frame,
            search=search,
            sums=no_sums(search.x),
            level=state.level,
            skipped=jnp.where(accepted, sums.skipped, state.skipped),
            origin=state.origin,
            entry=entry,
            elbo_se=elbo_se,
            drift=drift,
        )
        double = search.done & (status == Status.RUNNING)
        renew = ~search.done & (search.accepted >= MOVES) & (drift > FAR)
        state = tie(state._replace(level=state.level + double), state.key)
        state = state._replace(entry=jnp.where(double, -jnp.inf, entry))
        return jax.lax.cond(double | renew, self._in_new_units, lambda s: s, state)

    def _in_new_units(self, state):
        """The same parameters in units in which they are standard, to be evaluated again."""
        family, params = self.family, self.output(state)
        frame = family.frame(params)
        flat = ravel_pytree(family.to_frame(params, frame))[0]
        state = state._replace(frame=frame, search=begin_search(flat), origin=flat)
        return tie(state, state.key)


def _normals_behind(family: Family, dim: int) -> int:
    """How many base normals one coordinate of a draw may depend on.

    With fewer draws (antithetic pairs count once), there is a combination of that many which
    vanishes at all of them: the coordinate's scale can grow along it without a draw that moves,
    and the entropy without bound (Giordano et al. 2024, theorem 4).
    """
    if isinstance(family, MeanFieldGaussian):
        return 1
    if isinstance(family, LowRankGaussian):
        return 1 + family.columns(dim)
    return dim
