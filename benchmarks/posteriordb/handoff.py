"""NUTS from a fit beside NUTS from nowhere: gradients of the warm-up, and what the draws are worth.

    POSTERIORDB=path/to/posteriordb python -m benchmarks.posteriordb.handoff [NAME ...]

Numpyro's NUTS both times, float64, 4 chains of 1,000 draws, vectorised. From nowhere: starts from
uniform(-2, 2) and its default warm-up, 1,000 steps for step size and diagonal mass matrix. From a
fit by the default: `result.to_mcmc().numpyro_nuts()`, 100 steps of warm-up for the step size alone.
Gradients are summed over the chains; ESS is the smallest bulk ESS of all scalar parameters.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np
from arviz_stats.base import array_stats

import bbvi
from benchmarks.accuracy import chosen
from benchmarks.rows import environment

from .model import problem
from .nuts import CHAINS, DRAWS, count_gradients, sampler
from .registry import POSTERIORS, is_there

OUTPUT = Path(__file__).parents[1] / "results" / "handoff.json"
FIVE = (
    "arK-arK",
    "eight_schools-eight_schools_noncentered",
    "garch-garch11",
    "hmm_example-hmm_example",
    "nes1980-nes",
)


def smallest_ess(draws) -> float:
    """Of all scalars that vary, from leaves (chains, draws, ...)."""
    leaves = [np.asarray(x).reshape(CHAINS, DRAWS, -1) for x in jax.tree.leaves(draws)]
    scalars = np.concatenate(leaves, axis=2)
    scalars = scalars[:, :, scalars.std((0, 1)) > 0]
    return float(
        min(array_stats.ess(x, chain_axis=0, draw_axis=1) for x in scalars.T.swapaxes(1, 2))
    )


def from_nowhere(target, data) -> dict:
    mcmc, starts = sampler(target, data)
    warmup, gradients = count_gradients(mcmc, starts, key=0)
    zs = mcmc.get_samples(group_by_chain=True)
    draws = jax.jit(jax.vmap(jax.vmap(lambda z: target.constrain(z, data))))(zs)
    return {"warmup_gradients": warmup, "gradients": gradients, "ess": smallest_ess(draws)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=FIVE, help="posteriors or patterns; five")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="a JSON file")
    options = parser.parse_args()
    if not is_there():
        return
    jax.config.update("jax_enable_x64", True)
    rows = []
    for name in chosen(options.names):
        log_joint, init, data, support = problem(POSTERIORS[name])
        fit = bbvi.fit(log_joint, init, data, support=support, throw=False)
        handed = fit.to_mcmc(CHAINS, data=data).numpyro_nuts(DRAWS)
        target, _, arrays = bbvi.make_target(log_joint, init, data, support)
        row = {
            "posterior": name,
            "on": environment(),
            "nowhere": from_nowhere(target, arrays),
            "fit": {
                "fit_gradients": fit.num_gradients,
                "warmup_gradients": handed.warmup_gradients,
                "gradients": handed.num_gradients,
                "ess": smallest_ess(handed.draws),
            },
        }
        cold, warm = row["nowhere"], row["fit"]
        # of the warm-up alone, and with the fit's own gradients, each for the same number of
        # effective draws
        scale = cold["ess"] / warm["ess"]
        row["warmup_ratio"] = scale * warm["warmup_gradients"] / cold["warmup_gradients"]
        with_fit = warm["warmup_gradients"] + warm["fit_gradients"]
        row["warmup_and_fit_ratio"] = scale * with_fit / cold["warmup_gradients"]
        rows.append(row)
        print(
            f"{name[:40]:40s} warm-up gradients {cold['warmup_gradients']:9,d} ->"
            f" {warm['warmup_gradients']:7,d}, smallest ESS {cold['ess']:5.0f} ->"
            f" {warm['ess']:5.0f}; for the same ESS {row['warmup_ratio']:.3f},"
            f" with the fit {row['warmup_and_fit_ratio']:.3f}",
            flush=True,
        )
        options.output.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
