"""What a fit returns."""

import os
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import numpy as np

from bbvi import storage
from bbvi._compile import plain_jit
from bbvi._types import Key, LogJoint, PyTree
from bbvi.diagnostics.figures import LIKE, Diagnostics
from bbvi.diagnostics.verdict import Verdict
from bbvi.encoding import decode_family, decode_target, encode_family, encode_target
from bbvi.posterior import Posterior
from bbvi.stages.stage import Trace
from bbvi.status import InputError, Status
from bbvi.table import Table
from bbvi.target import Target


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("posterior", "diagnostics", "history", "state"),
    meta_fields=(
        "status",
        "verdict",
        "num_steps",
        "num_gradients",
        "num_skipped",
        "drift",
        "timings",
        "spent",
        "solver",
        "data_spec",
    ),
)
@dataclass(frozen=True)
class FitResult:
    """A fitted posterior, how it was come by, and whether to trust it.

    Attributes:
        posterior: the approximation, in the user's structure.
        diagnostics: figures from fresh draws.
        history: the bound along the run.
        status: how the run ended.
        verdict: trusted, caution or rejected, with reasons and the next action.
        num_steps: steps of that solver.
        num_gradients: gradient evaluations of the log joint, all stages together.
        num_skipped: draws left out because they were not finite.
        drift: how far the averaged parameters last moved, in posterior sds.
        timings: seconds by stage, compilation included, as pairs (stage, seconds); `other` are
            looks for what a stage misses, and fits that came to nothing.
        spent: gradient evaluations by stage, as pairs (stage, gradients).
        solver: the solver whose fit was kept.
        state: its last state, or None for a loaded result.
        data_spec: shapes and dtypes of the data.
    """

    posterior: Posterior
    diagnostics: Diagnostics
    history: Trace
    status: Status
    verdict: Verdict
    num_steps: int
    num_gradients: int
    num_skipped: int
    drift: float
    timings: tuple[tuple[str, float], ...] = ()
    spent: tuple[tuple[str, int], ...] = ()
    solver: Any = None
    state: Any = field(default=None, repr=False)
    data_spec: tuple = ()

    @property
    def elbo(self) -> float:
        """The evidence lower bound on fresh draws, nats; higher is better."""
        return float(self.diagnostics.elbo)

    @property
    def elbo_se(self) -> float:
        """Monte Carlo standard error of `elbo`."""
        return float(self.diagnostics.elbo_se)

    @property
    def khat(self) -> float:
        """Pareto k-hat of the importance weights."""
        return float(self.diagnostics.khat)

    @property
    def ess(self) -> float:
        """Effective sample size of the importance weights."""
        return float(self.diagnostics.ess)

    def summary(self, max_rows: int = 50) -> Table:
        """One row a scalar parameter: moments, quantiles, corrected moments, flag.

        Args:
            max_rows: parameters shown; quantiles are computed for these alone.

        Returns:
            a table that prints; `.columns` holds the figures.
        """
        names = self.posterior.target.scalar_names[:max_rows]
        shown = len(names)
        quantiles = self.posterior.quantile(np.array([0.05, 0.5, 0.95]))
        q05, q50, q95 = np.concatenate(
            [np.asarray(x).reshape(3, -1) for x in jax.tree.leaves(quantiles)], axis=1
        )[:, :shown]
        scalars = self.posterior.target.scalars
        d = self.diagnostics
        columns = {
            "mean": np.asarray(scalars(self.posterior.mean()))[:shown],
            "sd": np.asarray(scalars(self.posterior.sd()))[:shown],
            "5%": q05,
            "50%": q50,
            "95%": q95,
            "mean*": np.asarray(d.corrected.mean)[:shown],
            "sd*": np.asarray(d.corrected.sd)[:shown],
            "flag": np.array(["!" if n in self.verdict.flagged else "" for n in names]),
        }
        hidden = len(self.posterior.target.scalar_names) - shown
        note = f"... and {hidden:,} more; " if hidden else ""
        note += "* under Pareto-smoothed importance weights"
        return Table(names, columns, f"{note}\n{self._headline()}\n{self.verdict}")

    def draws(self) -> tuple[PyTree, np.ndarray]:
        """The draws behind the diagnostics, up to 16,384, with their importance weights.

        Half of them are the approximation's own, `diagnostics.own`, and half have heavier
        tails; the weights are those of all of them together.

        Returns:
            draws in the user's structure, with a leading axis S, and their Pareto-smoothed log
            weights (S,), which sum to one in the natural scale if all draws were kept.
        """
        posterior, d = self.posterior, self.diagnostics
        draws = _constrain_all(posterior.target, d.draws, posterior.data)
        return jax.device_get(draws), np.asarray(d.log_weights)

    def plot(self, reference: PyTree = None):
        """The ELBO trace and the marginals; needs the `plot` extra. Returns a figure.

        `bbvi.plot` has the parts, and pictures of the weights' tail and of pairs.

        Args:
            reference: draws to compare with, in the user's structure, with a leading axis.
        """
        from bbvi.plot import plot_fit

        return plot_fit(self, reference)

    def to_datatree(self, num_draws: int = 1000, key: Key = 0, **options: Any):
        """The fit as an ArviZ `DataTree`; needs the `arviz` extra.

        The result does not hold the data: give them for what is computed from them.

        Args:
            num_draws: S.
            key: an int or a JAX random key.
            options: all by name and optional.
                `data`: the data of the fit.
                `postprocess`: draws to a dictionary of what to store instead of the parameters,
                such as the `postprocess` of a bridge.
                `coords`, `dims`: as in ArviZ: names for the entries of axes, names of axes.
                `observed_data`: a dictionary of arrays to store.
                `posterior_predictive(key, params, data)`, `log_likelihood(params, data)`: for
                one draw, dictionaries of arrays.

        Returns:
            groups `posterior`, `sample_stats` (`log_q`, and with the data `log_p` and
            `log_weight` = log_p - log_q), `fit` (`elbo` over `step`) and those that were given
            functions or data; draws have the dimensions (chain, draw), with one chain.
            Attributes hold the verdict and k-hat.

        Raises:
            ImportError: if arviz-base is not installed.
            InputError: if a function returns no dictionary.
        """
        from bbvi.bridges.arviz import to_datatree

        return to_datatree(self, num_draws, key, **options)

    def to_mcmc(
        self,
        num_chains: int = 4,
        key: Key = 0,
        *,
        data: PyTree = None,
        dense: bool | None = None,
        neutra: bool | None = None,
    ):
        """What an MCMC sampler needs of the fit: starts, mass matrix and log density.

        `result.to_mcmc(data=data).blackjax_nuts()`, `.numpyro_nuts()` and `.nutpie_nuts()` run
        NUTS.

        Args:
            num_chains: starts; draws of the posterior, all different.
            key: an int or a JAX random key.
            data: the data of the fit, which a result does not hold.
            dense: whether the mass matrix is dense; None makes it so for D up to 200.
            neutra: move in the base space of the fitted family, where the map of a flow, of a bent
                Gaussian or of non-centred coordinates has made a bent posterior straight; a
                gradient costs that of the map on top. None does so if the family is one of these.

        Returns:
            a `bbvi.bridges.mcmc.McmcStart`.

        Raises:
            InputError: if the log joint takes data and none are given, or if the family has no
                base space of D normals for `neutra`.
        """
        from bbvi.bridges.mcmc import to_mcmc

        return to_mcmc(self, num_chains, key, data=data, dense=dense, neutra=neutra)

    def save(self, path: str | os.PathLike) -> None:
        """Write to one file (npz with a JSON header, no pickle); `bbvi.load` reads it."""
        header = {
            **encode_target(self.posterior.target),
            "family": encode_family(self.posterior.family),
            "params": storage.encode_structure(self.posterior.params),
            "data": storage.encode_structure(self.posterior.data),
            "corrected": self.posterior.draws is not None,
            "status": self.status.name,
            "verdict": [
                self.verdict.level,
                self.verdict.reasons,
                self.verdict.actions,
                self.verdict.flagged,
            ],
            "counts": [self.num_steps, self.num_gradients, self.num_skipped, self.drift],
            "timings": self.timings,
            "spent": self.spent,
            "data_spec": self.data_spec,
        }
        arrays = storage.flatten("params", self.posterior.params)
        arrays |= storage.flatten("data", self.posterior.data)
        arrays |= storage.flatten("diagnostics", self.diagnostics)
        arrays |= storage.flatten("history", self.history)
        storage.write(path, "result", header, arrays)

    def _headline(self) -> str:
        spent = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in self.timings)
        return (
            f"elbo {self.elbo:.2f} +- {self.elbo_se:.2f}, k-hat {self.khat:.2f}, "
            f"{self.num_gradients:,} gradients, {self.num_steps:,} steps ({spent})"
        )

    def __repr__(self) -> str:
        return f"FitResult({self.verdict.level}: {self._headline()})"


@plain_jit((0,))
def _constrain_all(target: Target, zs, data: PyTree) -> PyTree:
    return jax.vmap(lambda z: target.constrain(z, data))(zs)


def load(
    path: str | os.PathLike, log_joint: LogJoint | None = None, support: PyTree = None
) -> FitResult:
    """Read a result that `FitResult.save` wrote; safe on a file from a stranger.

    Args:
        path: the file.
        log_joint: the log joint it was fitted to, which a file cannot hold; needed only to
            evaluate it again. Sampling, moments and quantiles work without.
        support: the supports, needed only where a bound is a function or a support is your own.

    Raises:
        InputError: if the file is not one of bbvi's, or a support has to be given.
    """
    header, arrays = storage.read(path, "result")
    try:
        return _decode(path, header, arrays, log_joint, support)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {type(error).__name__} {error}.") from error


def _decode(path, header, arrays, log_joint, support) -> FitResult:
    def tree(name):
        return storage.rebuild(name, arrays, storage.decode_structure(header[name]))

    family = decode_family(path, header["family"])
    target = decode_target(header, log_joint, support)
    diagnostics = storage.rebuild("diagnostics", arrays, LIKE)
    steps, gradients, skipped, drift = header["counts"]
    level, *words = header["verdict"]
    return FitResult(
        posterior=Posterior(
            tree("params"),
            tree("data"),
            target,
            family,
            diagnostics.draws if header["corrected"] else None,
            diagnostics.log_weights if header["corrected"] else None,
        ),
        diagnostics=diagnostics,
        history=storage.rebuild("history", arrays, Trace(*[np.empty(0)] * 3)),
        status=Status[header["status"]],
        verdict=Verdict(level, *map(tuple, words)),
        num_steps=steps,
        num_gradients=gradients,
        num_skipped=skipped,
        drift=drift,
        timings=tuple((stage, seconds) for stage, seconds in header["timings"]),
        spent=tuple((stage, gradients) for stage, gradients in header["spent"]),
        data_spec=tuple((tuple(shape), dtype) for shape, dtype in header["data_spec"]),
    )
