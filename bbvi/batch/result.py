"""What a batch of fits returns: everything by problem, one table, and each fit by itself."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

import bbvi.families
from bbvi import storage
from bbvi._tree import as_key, pick
from bbvi._types import Key, LogJoint, PyTree
from bbvi.batch.engine import Work, blocks, pad, place
from bbvi.batch.judging import FIRST_DRAWS, LEVELS, MORE_DRAWS, verdict_of
from bbvi.batch.packing import flatten_mixtures, flatten_singles, read_mixtures, read_singles
from bbvi.batch.problems import Problems, make_problems
from bbvi.batch.programs import End, Look, Plan, draw_some, look_key
from bbvi.batch.records import Records
from bbvi.batch.refine import FAMILY as MIXTURE
from bbvi.diagnostics.evidence import moment_errors
from bbvi.diagnostics.fresh_draws import Diagnostics, diagnose
from bbvi.diagnostics.moments import Moments
from bbvi.families import Family
from bbvi.posterior import Posterior
from bbvi.result import FitResult, decode_target, encode_target
from bbvi.solvers import BatchAndMatch
from bbvi.stages.stage import Trace
from bbvi.status import InputError, Status
from bbvi.table import Table

_POOL = 4096  # weighted draws behind each corrected problem's samples
_SAMPLE_WIDTH = 64


@dataclass(frozen=True)
class BatchPosterior:
    """Means and standard deviations of all problems in the user's structure.

    Attributes:
        means: (B, C) means of the scalar parameters.
        sds: (B, C) their standard deviations.
        target: what was fitted.
    """

    means: np.ndarray
    sds: np.ndarray
    target: Any

    def mean(self) -> PyTree:
        """Posterior means, each leaf with the leading axis B."""
        return self._split(self.means)

    def sd(self) -> PyTree:
        """Posterior standard deviations, each leaf with the leading axis B."""
        return self._split(self.sds)

    def _split(self, scalars: np.ndarray) -> PyTree:
        leaves = self.target.leaves
        ends = np.cumsum([int(np.prod(leaf.shape)) for leaf in leaves])[:-1]
        parts = np.split(scalars, ends, axis=1)
        shaped = [
            x.reshape(-1, *leaf.shape).astype(leaf.dtype)
            for x, leaf in zip(parts, leaves, strict=True)
        ]
        return self.target.treedef.unflatten(shaped)


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
        family, params = self._family, pick(records.params, i)
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

    @property
    def _family(self) -> Family:
        return self.plan.solver.family_for(self.plan.target)

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
        problems, records = self._needed_problems("sample"), self.records
        root = as_key(key)
        number = int(jax.random.bits(root)) & 0x7FFFFFFF
        width = min(_SAMPLE_WIDTH, len(self)) if self.plan.mesh is None else _SAMPLE_WIDTH
        width = width if self.plan.mesh is None else -(-width // self.plan.mesh.size)
        width = width * (1 if self.plan.mesh is None else self.plan.mesh.size)
        mixed = np.zeros(len(self), bool)
        mixed[list(self.mixtures)] = True
        order, parts = [], []
        for family, chosen in ((self._family, ~mixed), (MIXTURE, mixed)):
            for some in blocks(np.flatnonzero(chosen).astype(np.int32), width):
                at = pad(some, width)
                params = pick(records.params, at)
                if family is MIXTURE:
                    params = jax.tree.map(lambda *x: np.stack(x), *(self.mixtures[i] for i in at))
                numbers = np.full(width, number, np.int32)
                args = (params, records.corrected[at], numbers, problems.take(at))
                placed = place(self.plan, args)
                draws = draw_some(self.plan, family, num_draws, _POOL, *placed, problems.common)
                parts.append(pick(jax.device_get(draws), slice(len(some))))
                order.append(some)
        back = np.argsort(np.concatenate(order))
        draws = jax.tree.map(lambda *x: np.concatenate(x)[back], *parts)
        for i, single in self.singles.items():
            new = single.posterior.sample(jax.random.fold_in(root, i), num_draws)
            jax.tree.map(lambda all_, one, i=i: all_.__setitem__(i, one), draws, new)
        return draws

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
        try:
            import xarray
        except ImportError as error:
            raise ImportError("to_datatree needs xarray: pip install 'bbvi[arviz]'.") from error
        label = np.arange(len(self)) if coords is None else np.asarray(coords)
        if len(label) != len(self):
            raise InputError(f"{len(label)} coords were given for {len(self)} problems.")
        draws = self.sample(key, num_draws)
        named = zip(self.plan.target.leaves, jax.tree.leaves(draws), strict=True)
        posterior = {}
        for leaf, x in named:
            axes = [f"{leaf.name}_dim_{i}" for i in range(len(leaf.shape))]
            # one chain, since draws are independent; ArviZ wants both names
            value = np.moveaxis(x, 0, 1)[None]
            posterior[leaf.name] = (("chain", "draw", dim, *axes), value)
        where = {dim: label, "chain": [0], "draw": np.arange(num_draws)}
        table = {name: ((dim,), values) for name, values in self.table().columns.items()}
        attributes = {"inference_library": "bbvi"}
        return xarray.DataTree.from_dict(
            {
                "posterior": xarray.Dataset(posterior, where, attributes),
                "fit": xarray.Dataset(table, {dim: label}, attributes),
            }
        )

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
        family = self._family
        if getattr(bbvi.families, type(family).__name__, None) is not type(family):
            raise InputError(
                f"{type(family).__name__} is not a family of bbvi, so it can't be saved."
            )
        header = {
            **encode_target(self.plan.target),
            "family": [
                type(family).__name__,
                {f.name: getattr(family, f.name) for f in fields(family)},
            ],
            "params": storage.encode_structure(self.records.params),
            "work": [self.work.steps, self.work.slot_steps],
            "timings": self.timings,
        }
        arrays = storage.flatten("records", self.records) | flatten_mixtures(self.mixtures)
        storage.write(path, "batch", header, arrays | flatten_singles(self.singles))

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
        header, arrays = storage.read(path, "batch")
        try:
            return cls._decode(
                path, header, arrays, log_joint, init, data, in_axes, init_axes, support, key
            )
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise InputError(f"{path} is damaged: {type(error).__name__} {error}.") from error

    @classmethod
    def _decode(
        cls, path, header, arrays, log_joint, init, data, in_axes, init_axes, support, key
    ) -> "BatchResult":
        kind = getattr(bbvi.families, header["family"][0], None)
        if not (isinstance(kind, type) and issubclass(kind, Family)):
            raise InputError(
                f"{path} names the family {header['family'][0]}, which this bbvi does not have."
            )
        target = decode_target(header, log_joint, support)
        params = storage.decode_structure(header["params"])
        records = jax.tree.map(np.asarray, storage.rebuild("records", arrays, records_like(params)))
        problems = None
        if log_joint is not None:
            problems = make_problems(init, data, key, in_axes, init_axes)
            if problems.size != len(records.level):
                raise InputError(
                    f"{path} holds {len(records.level)} problems, but {problems.size} were given."
                )
        singles = read_singles(arrays, log_joint, support)
        solver: Any = _Fitted(family=kind(**header["family"][1]))
        shape: Any = None if problems is None else problems.shape
        timings = tuple((name, seconds) for name, seconds in header["timings"])
        return cls(
            Plan(None, target, solver, shape),
            records,
            singles,
            problems,
            Work(*header["work"]),
            support,
            timings,
            read_mixtures(arrays),
        )

    def _headline(self) -> str:
        counts = ", ".join(f"{(self.verdict == level).sum():,} {level}" for level in LEVELS)
        spent = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in self.timings)
        return f"{len(self):,} problems: {counts} ({spent})" if spent else counts

    def __repr__(self) -> str:
        return f"BatchResult({self._headline()})"


@dataclass(frozen=True)
class _Fitted(BatchAndMatch):
    """Stands for the solver of a loaded result: all that is known of it is its family."""

    family: Any = None  # not known until it is read


def records_like(params: PyTree) -> Records:
    """The structure of records, with anything as leaves."""
    moments = Moments(*[0] * 4)  # type: ignore[arg-type]
    diagnostics = Diagnostics(*[0] * 8, moments, moments, *[0] * 5)  # type: ignore
    look = Look(diagnostics, *[0] * 4)  # type: ignore[arg-type]
    return Records(params, look, End(*[0] * 6), 0, 0, 0)  # type: ignore[arg-type]
