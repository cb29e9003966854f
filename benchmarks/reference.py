"""Moments of every model of a set by long runs of NUTS, kept in its reference.json.

    python -m benchmarks.reference [--set practice] [NAME ...]
    POSTERIORDB=path/to/posteriordb python -m benchmarks.reference --set unreferenced [NAME ...]

Numpyro's NUTS on the flat log density in float64: four chains from the highest of a hundred points
in uniform(-1, 1) around the unconstrained zero, 1,000 of warm-up, a dense mass matrix up to 100
dimensions; then a thousand draws of each at a time until the mean and the spread of every scalar
have 2,000 effective draws (0.02 sd and 1.6% of noise), or time is up. Where chains have ended in
separate modes, such as other labels of the same classes, all of them start again in the one with
the highest mean log density, if it leads by enough for the others to have no mass that counts. Each
model has a process of its own. A row says R-hat and the smallest number of effective draws, by how
many nats the mode leads, the share of transitions that diverged, and `settled` whether the draws
are good enough to judge by. (Where one in twenty diverged R-hat was 1.004, and a mean 0.14 sd off;
where one in a hundred, 0.11 sd: since the models of trials steps are shorter, and fewer may.)
"""

import argparse
import fnmatch
import json
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import bbvi

from .moments import rows, write_rows
from .posteriordb.model import problem
from .practice import PRACTICE
from .practice import registry as practice
from .unreferenced import UNREFERENCED
from .unreferenced import registry as unreferenced

SETS = {
    "practice": (PRACTICE, practice.REFERENCE),
    "unreferenced": (UNREFERENCED, unreferenced.REFERENCE),
}
CHAINS, WARMUP, BLOCK, DENSE, POINTS = 4, 1000, 1000, 100, 100
ENOUGH, LEAST, R_HAT, DIVERGENT, ACCEPT = 2000, 400, 1.02, 0.005, 0.98
APART, LEAD = 1.5, 10.0  # R-hat of chains in separate modes, and the nats by which one must lead


def sample(posterior: Any, patience: float) -> dict:
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
    from numpyro.infer import MCMC, NUTS

    target, _, data = bbvi.make_target(*problem(posterior))
    kernel = NUTS(
        potential_fn=lambda z: -target.log_density(z, data),
        dense_mass=target.dim <= DENSE,
        target_accept_prob=ACCEPT,
    )
    settings = {"num_chains": CHAINS, "chain_method": "vectorized", "progress_bar": False}
    mcmc = MCMC(kernel, num_warmup=WARMUP, num_samples=BLOCK, **settings)
    points = np.random.default_rng(0).uniform(-1, 1, (POINTS, target.dim))
    heights = jax.jit(jax.vmap(lambda z: target.log_density(z, data)))(jnp.asarray(points))
    starts = points[np.argsort(-np.nan_to_num(heights, nan=-np.inf))[:CHAINS]]
    constrain = jax.jit(jax.vmap(jax.vmap(lambda z: target.constrain(z, data))))
    said: dict = {"extra_fields": ("diverging",)}
    mcmc.run(jax.random.key(0), init_params=jnp.asarray(starts), **said)
    z = np.asarray(mcmc.get_samples(group_by_chain=True))
    lead = None
    if split_gelman_rubin(z).max() > APART:
        log_p = jax.jit(jax.vmap(jax.vmap(lambda z: target.log_density(z, data))))
        heights = np.asarray(log_p(z)).mean(1)
        best = int(np.argmax(heights))
        apart = [i for i in range(CHAINS) if split_gelman_rubin(z[[best, i]]).max() > APART]
        lead = _short(heights[best] - heights[apart].max()) if apart else 0.0
        mcmc.run(jax.random.key(1), init_params=jnp.asarray(z[best, :: BLOCK // CHAINS]), **said)
    began, blocks, diverged = time.perf_counter(), [], []
    while True:
        draws = jax.tree.map(np.asarray, constrain(mcmc.get_samples(group_by_chain=True)))
        blocks.append(draws)
        diverged.append(float(np.mean(mcmc.get_extra_fields()["diverging"])))
        draws = {k: np.concatenate([b[k] for b in blocks], 1) for k in draws}
        flat = np.concatenate([x.reshape(*x.shape[:2], -1) for x in draws.values()], -1)
        flat = flat[..., flat.std((0, 1)) > 0]  # but for the zeros of a triangle
        spread = (flat - flat.mean((0, 1))) ** 2
        ess = min(effective_sample_size(x).min() for x in (flat, spread))
        r_hat = split_gelman_rubin(flat).max()
        if ess >= ENOUGH or time.perf_counter() - began > patience:
            break
        mcmc.post_warmup_state = mcmc.last_state
        mcmc.run(mcmc.post_warmup_state.rng_key, **said)
    share = float(np.mean(diverged))
    mixed = r_hat < R_HAT and ess >= LEAST and share <= DIVERGENT
    return {
        "settled": bool(mixed and (lead is None or lead > LEAD)),
        "lead": lead,
        "divergent": _short(share),
        "r_hat": _short(r_hat),
        "ess": int(ess),
        "draws": int(np.prod(flat.shape[:2])),
        "mean": {k: _short(x.mean((0, 1))) for k, x in draws.items()},
        "sd": {k: _short(x.std((0, 1), ddof=1)) for k, x in draws.items()},
    }


def _short(x):
    """Six digits, as lists."""
    if np.ndim(x):
        return [_short(each) for each in x]
    return float(f"{float(x):.6g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=["*"], help="models or patterns; all")
    parser.add_argument("--set", choices=SETS, default="practice", help="of models")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds after warm-up")
    parser.add_argument("--here", action="store_true", help="in this process, and print the row")
    options = parser.parse_args()
    posteriors, path = SETS[options.set]
    if options.here:
        jax.config.update("jax_enable_x64", True)
        print(json.dumps(sample(posteriors[options.names[0]], options.patience)))
        return
    for name in posteriors:
        if not any(fnmatch.fnmatch(name, p) for p in options.names):
            continue
        began = time.perf_counter()
        command = [sys.executable, "-m", "benchmarks.reference", "--set", options.set, name]
        command += ["--here", "--patience", str(options.patience)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"{name}: exit {done.returncode}", flush=True)
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        write_rows(path, rows(path) | {name: row}, list(posteriors))
        said = {k: row[k] for k in ("settled", "lead", "divergent", "r_hat", "ess", "draws")}
        print(f"{name}: {said}, {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
