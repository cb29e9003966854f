"""What a batch of fits returns: everything by problem, one table, and each fit by itself."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from bbvi._tree import as_key, pick
from bbvi._types import Key, LogJoint, PyTree
from bbvi.batch.datatree import to_datatree
from bbvi.batch.engine import Work
from bbvi.batch.files import read_batch, write_batch
from bbvi.batch.judging import FIRST_DRAWS, LEVELS, MORE_DRAWS, verdict_of
from bbvi.batch.posterior import BatchPosterior
from bbvi.batch.problems import Problems, make_problems
from bbvi.batch.programs import Plan, look_key
from bbvi.batch.records import Records
from bbvi.batch.refine import FAMILY as MIXTURE
from bbvi.batch.sampling import draws_of_all
from bbvi.diagnostics.evidence import moment_errors
from bbvi.diagnostics.figures import Diagnostics
from bbvi.diagnostics.fresh_draws import diagnose
from bbvi.families import Family
from bbvi.posterior import Posterior
from bbvi.result import FitResult
from bbvi.stages.stage import Trace
from bbvi.status import InputError, Status
from bbvi.table import Table


@dataclass(frozen=True)
class BatchResult:
    """B fitted posteriors, how they were come by, and which of them to trust.

    Attributes:
        plan: the target, the solver, and how problems are put together.
        records: what is kept of every problem, arrays with the leading axis B.
        singles: problems that were fitted by themselves afterwards, by number; what they say
            replaces the records.
        problems: the starts and data, or None for a loaded result without them.
        work: steps taken, and steps that slots took to take them.
        support: the supports, as they were given.
        timings: seconds by stage, compilation included, as pairs (stage, seconds).
        mixtures: parameters of the mixtures that problems were refined to, by number; their
            weighted draws stand for the posterior.

    Example:
        >>> import bbvi, jax.numpy as jnp, numpy as np
        >>> def log_joint(params, data):
        ...     return -0.5 * jnp.sum((params["x"] - data) ** 2)
        >>> results = bbvi.fit_batch(log_joint, {"x": 0.0}, np.arange(1.0, 5.0))
        >>> results.posterior.mean()["x"].round(3).tolist()
        [1.0, 2.0, 3.0, 4.0]
        >>> results[2].verdict.level
        'trusted'
    """

    plan: Plan
    records: Records
    singles: Mapping[int, FitResult]
    problems: Problems | None
    work: Work = field(default_factory=Work)
    support: Any = None
    timings: tuple[tuple[str, float], ...] = ()
    mixtures: Mapping[int, PyTree] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records.level)

    def __iter__(self) -> Iterator[FitResult]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> FitResult:
        i = range(len(self))[int(i)]
        if i in self.singles:
            return self.singles[i]
        records, target, solver = self.records, self.plan.target, self.plan.solver
        facts, diagnostics, data = records.facts(i), records.facts(i).diagnostics, None
        family, params = self.plan.family, pick(records.params, i)
        if i in self.mixtures:
            family, params = MIXTURE, self.mixtures[i]
        if self.problems is not None:
            _, data = self.problems.one(i)
            if facts.corrected:
                drawn = self._diagnose(i, family, params, data)
                # the figures stay those of the look that the verdict is on
                diagnostics = diagnostics._replace(
                    draws=drawn.draws, log_weights=drawn.log_weights, own=drawn.own
                )
        elif facts.corrected:
            raise InputError(
                f"problem {i} is corrected by weighted draws, which a file does not hold: call "
                "BatchResult.load(path, log_joint, init, data, key=...) with those of the fit."
            )
        bounds_need_data = any(leaf.bijector.functions for leaf in target.leaves)
        end = pick(records.end, i)
        return FitResult(
            posterior=Posterior(
                params,
                data if bounds_need_data else None,
                target,
                family,
                diagnostics.draws if facts.corrected else None,
                diagnostics.log_weights if facts.corrected else None,
            ),
            diagnostics=diagnostics,
            history=Trace(np.empty(0, np.int32), np.empty(0), np.empty(0)),
            status=facts.status,
            verdict=verdict_of(facts, target.scalar_names),
            num_steps=int(end.steps),
            num_gradients=int(end.num_gradients),
            num_skipped=int(end.num_skipped),
            drift=float(end.drift),
            solver=solver,
        )

    def _diagnose(self, i: int, family: Family, params: PyTree, data: PyTree) -> Diagnostics:
        """A look at a problem, once more, with its draws."""
        assert self.problems is not None
        looks = int(self.records.looks[i])
        key = look_key(self.problems.key(i), looks)
        number = MORE_DRAWS if looks else FIRST_DRAWS
        found = diagnose(self.plan.target, family, params, key, data, number)
        return jax.device_get(found)

    # --- figures by problem ---------------------------------------------------------------

    @cached_property
    def posterior(self) -> BatchPosterior:
        """Means and standard deviations by problem."""
        look, corrected = self.records.look, self.records.corrected[:, None]
        means = np.where(corrected, look.diagnostics.corrected.mean, look.mean)
        sds = np.where(corrected, look.diagnostics.corrected.sd, look.sd)
        target = self.plan.target
        for i, single in self.singles.items():
            means[i] = np.asarray(target.scalars(single.posterior.mean()))
            sds[i] = np.asarray(target.scalars(single.posterior.sd()))
        return BatchPosterior(means, sds, target)

    @property
    def verdict(self) -> np.ndarray:
        """(B,) "trusted", "caution" or "rejected"."""
        levels = np.array(LEVELS)[self.records.level]
        return self._with_singles(levels, lambda r: r.verdict.level)

    @property
    def status(self) -> np.ndarray:
        """(B,) names of the statuses in which the runs ended, in lower case."""
        words = np.array([s.name.lower() for s in Status])
        return self._with_singles(words[self.records.end.status], lambda r: r.status.name.lower())

    @property
    def elbo(self) -> np.ndarray:
        """(B,) evidence lower bounds on fresh draws, nats."""
        return self._with_singles(self.records.look.diagnostics.elbo, lambda r: r.elbo)

    @property
    def khat(self) -> np.ndarray:
        """(B,) Pareto k-hats of the importance weights."""
        return self._with_singles(self.records.look.diagnostics.khat, lambda r: r.khat)

    @property
    def num_steps(self) -> np.ndarray:
        """(B,) steps of the solver whose fit was kept."""
        return self._with_singles(self.records.end.steps, lambda r: r.num_steps)

    @property
    def num_gradients(self) -> np.ndarray:
        """(B,) gradient evaluations of the log joint, those of a later single fit included."""
        return self._with_singles(self.records.end.num_gradients, None)

    def _with_singles(self, values: Any, of: Any) -> np.ndarray:
        values = np.array(values)
        for i, single in self.singles.items():
            values[i] = values[i] + single.num_gradients if of is None else of(single)
        return values

    def _worst(self) -> np.ndarray:
        """(B,) name of the parameter whose moments the weights move the most, "" for none."""
        with np.errstate(all="ignore"):
            shift, ratio = moment_errors(self.records.look.diagnostics)
            size = np.nan_to_num(np.maximum(shift, np.abs(np.log(ratio))), posinf=0)
        names = np.array(self.plan.target.scalar_names)
        worst = np.where(size.max(axis=1) > 0, names[size.argmax(axis=1)], "")
        return self._with_singles(
            worst, lambda r: names[int(np.argmax(moment_errors(r.diagnostics)[0]))]
        )

    def table(self, labels: Sequence[str] | None = None) -> Table:
        """One row a problem: status, verdict, ELBO, k-hat, steps and worst parameter.

        Args:
            labels: names of the problems; their numbers if left out.
        """
        names = [str(i) for i in range(len(self))] if labels is None else list(map(str, labels))
        if len(names) != len(self):
            raise InputError(f"{len(names)} labels were given for {len(self)} problems.")
        columns = {
            "status": self.status,
            "verdict": self.verdict,
            "elbo": self.elbo,
            "khat": self.khat,
            "steps": self.num_steps,
            "gradients": self.num_gradients,
            "worst": self._worst(),
        }
        return Table(names, columns, self._headline())

    def where(self, **conditions: Any) -> np.ndarray:
        """Numbers of the problems whose table row has the given entries.

        Args:
            **conditions: columns of `table()` by name, each with an entry, several entries in
                a list, or a function of the column that gives flags (B,).

        Example:
            `results.where(verdict="rejected")`, `results.where(khat=lambda k: k > 0.5)`.
        """
        columns = self.table().columns
        chosen = np.ones(len(self), bool)
        for name, wanted in conditions.items():
            if name not in columns:
                raise InputError(f"where({name}=...): the columns are {', '.join(columns)}.")
            values = columns[name]
            flags = wanted(values) if callable(wanted) else np.isin(values, wanted)
            chosen &= np.asarray(flags, bool)
        return np.flatnonzero(chosen)

    # --- going on -------------------------------------------------------------------------

    def refit(self, index: Sequence[int] | np.ndarray | None = None, **settings) -> "BatchResult":
        """This result with some problems fitted once more.

        Args:
            index: numbers of the problems, for instance from `where`; those that are not
                trusted if left out.
            **settings: of `fit_batch`, such as `solver=` or `max_steps=`. Each problem keeps
                its random key unless `key=` gives another.
        """
        from bbvi.batch.fitting import fit_problems

        problems = self._needed_problems("refit")
        if index is None:
            index = np.flatnonzero(self.verdict != "trusted")
        index = np.asarray(index, np.int64)
        if not index.size:
            return self
        again = problems.subset(index)
        if "key" in settings:
            root = as_key(settings.pop("key"))
            words = [jax.random.key_data(jax.random.fold_in(root, int(i))) for i in index]
            again = replace(again, rows=again.rows._replace(words=np.stack(words)))
        found = fit_problems(self.plan.target, again, self.support, **settings)
        singles = {int(i): found[j] for j, i in enumerate(index)}
        return replace(self, singles={**self.singles, **singles})

    def sample(self, key: Key, num_draws: int) -> PyTree:
        """Draws of all problems, each leaf (B, num_draws, ...), as NumPy arrays.

        Args:
            key: an int or a JAX random key.
            num_draws: draws a problem.
        """
        return draws_of_all(self, self._needed_problems("sample"), as_key(key), num_draws)

    def plot(self):
        """Verdicts, k-hats and gradients; needs the `plot` extra. Returns three axes."""
        from bbvi.plot import plot_batch

        return plot_batch(self)

    def to_datatree(
        self, num_draws: int = 1000, key: Key = 0, dim: str = "problem", coords: Any = None
    ):
        """An `xarray.DataTree`: posterior draws, and the table, by problem. Needs xarray.

        Args:
            num_draws: draws a problem.
            key: an int or a JAX random key.
            dim: name of the problem dimension.
            coords: its coordinate, one entry a problem; numbers if left out.
        """
        return to_datatree(self, num_draws, key, dim, coords)

    def _needed_problems(self, what: str) -> Problems:
        if self.problems is None:
            raise InputError(
                f"{what} needs the data, which a file does not hold: call BatchResult.load(path, "
                "log_joint, init, data, key=...) with those of the fit."
            )
        return self.problems

    # --- files ----------------------------------------------------------------------------

    def save(self, path: str | os.PathLike) -> None:
        """Write to one file, without the data; `BatchResult.load` reads it."""
        write_batch(path, self)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        log_joint: LogJoint | None = None,
        init: PyTree = None,
        data: PyTree = None,
        *,
        in_axes: PyTree = 0,
        init_axes: PyTree = None,
        support: PyTree = None,
        key: Key = 0,
    ) -> "BatchResult":
        """Read what `save` wrote; safe on a file from a stranger.

        Tables, means and sds need the file alone. To sample, refit, or look at a problem that
        is corrected by weights, give what the fit was given as well.

        Raises:
            InputError: if the file is not one of bbvi's.
        """
        problems = None
        if log_joint is not None:
            problems = make_problems(init, data, key, in_axes, init_axes)
        return cls(**read_batch(path, log_joint, problems, support))

    def _headline(self) -> str:
        counts = ", ".join(f"{(self.verdict == level).sum():,} {level}" for level in LEVELS)
        spent = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in self.timings)
        return f"{len(self):,} problems: {counts} ({spent})" if spent else counts

    def __repr__(self) -> str:
        return f"BatchResult({self._headline()})"
