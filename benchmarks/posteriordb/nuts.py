"""NUTS beside the default, in one run: seconds cold and warm, gradients, and how many are right.

    POSTERIORDB=path/to/posteriordb python -m benchmarks.posteriordb.nuts [NAME ...]

Numpyro's NUTS on the same flat log density, float64: 4 chains, 1,000 + 1,000, vectorised, from
uniform(-2, 2). Each of the two is run twice with different keys; the first run compiles. Seconds
are those of the calls, imports left out. Gradients of NUTS are counted in a third run, untimed.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np

import bbvi

from .accuracy import chosen, compare
from .registry import MISSING, POSTERIORS, find_database
from .report import environment

OUTPUT = Path(__file__).parents[1] / "results" / "nuts.json"
CHAINS, WARMUP, DRAWS = 4, 1000, 1000


class Moments:
    """Draws with the moments of a posterior, for `compare`."""

    def __init__(self, draws):
        self._draws = jax.tree.map(np.asarray, draws)

    def mean(self):
        return jax.tree.map(lambda x: x.mean(0), self._draws)

    def sd(self):
        return jax.tree.map(lambda x: x.std(0, ddof=1), self._draws)


def nuts(posterior) -> dict:
    from numpyro.infer import MCMC, NUTS

    model, data = posterior.model, posterior.data()
    init, support = model.init(data), model.support(data)
    target, _, data = bbvi.make_target(model.log_joint, init, data, support)
    starts = np.random.default_rng(0).uniform(-2, 2, (CHAINS, target.dim))

    def sampler():
        kernel = NUTS(potential_fn=lambda z: -target.log_density(z, data))
        settings = {"num_chains": CHAINS, "chain_method": "vectorized", "progress_bar": False}
        return MCMC(kernel, num_warmup=WARMUP, num_samples=DRAWS, **settings)

    seconds, mcmc = [], sampler()
    for key in (0, 1):
        began = time.perf_counter()
        mcmc.run(jax.random.key(key), init_params=jnp.asarray(starts))
        z = jax.block_until_ready(mcmc.get_samples())
        seconds.append(time.perf_counter() - began)
    draws = jax.jit(jax.vmap(lambda z: target.constrain(z, data)))(z)
    counted, fields = sampler(), ("num_steps",)
    key, start = jax.random.key(1), jnp.asarray(starts)
    counted.warmup(key, init_params=start, extra_fields=fields, collect_warmup=True)
    gradients = int(counted.get_extra_fields()["num_steps"].sum())
    counted.run(counted.post_warmup_state.rng_key, extra_fields=fields)
    gradients += int(counted.get_extra_fields()["num_steps"].sum())
    found = compare(Moments(draws), posterior.reference())
    return found | {"cold": seconds[0], "warm": seconds[1], "gradients": gradients}


def default(posterior) -> dict:
    model, data = posterior.model, posterior.data()
    init, support = model.init(data), model.support(data)
    seconds = []
    for key in (0, 1):
        began = time.perf_counter()
        fit = bbvi.fit(model.log_joint, init, data, support=support, key=key, throw=False)
        seconds.append(time.perf_counter() - began)
    found = compare(fit.posterior, posterior.reference()) | {"verdict": fit.verdict.level}
    return found | {"cold": seconds[0], "warm": seconds[1], "gradients": fit.num_gradients}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=["*"], help="posteriors or patterns; all")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="a JSON file")
    options = parser.parse_args()
    if find_database() is None:
        print(f"{MISSING} Nothing was measured.")
        return
    jax.config.update("jax_enable_x64", True)
    rows = []
    print(f"{'posterior':42s} cold s: NUTS, bbvi   warm s: NUTS, bbvi   gradients: NUTS, bbvi")
    for name in chosen(options.names):
        row = {"posterior": name}
        for label, run in (("bbvi", default), ("nuts", nuts)):
            jax.clear_caches()  # the first run pays for compiling, as a new process would
            found = run(POSTERIORS[name])
            row[label] = {
                k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in found.items()
            }
            row[label].pop("sd_ratio")
        rows.append(row)
        a, b = row["nuts"], row["bbvi"]
        print(
            f"{name[:42]:42s} {a['cold']:7.1f} {b['cold']:7.1f}      {a['warm']:7.2f} "
            f"{b['warm']:7.2f}      {a['gradients']:9,d} {b['gradients']:9,d}",
            flush=True,
        )
        options.output.write_text(
            json.dumps({"on": environment(), "rows": rows}, indent=1, default=float) + "\n"
        )
    for figure in ("cold", "warm", "gradients"):
        ahead = sum(row["bbvi"][figure] < row["nuts"][figure] for row in rows)
        ratio = median(row["nuts"][figure] / row["bbvi"][figure] for row in rows)
        print(
            f"{figure}: the default below NUTS on {ahead} of {len(rows)}, median {ratio:.3g} times"
        )
    for label in ("nuts", "bbvi"):
        print(f"{label}: right {sum(row[label]['right'] for row in rows)} of {len(rows)}")


if __name__ == "__main__":
    main()
