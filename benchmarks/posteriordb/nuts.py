"""NUTS beside the default, in one run: seconds cold and warm, gradients, and how many are right.

    POSTERIORDB=path/to/posteriordb python -m benchmarks.posteriordb.nuts [NAME ...]

Numpyro's NUTS on the same flat log density, float64: 4 chains, 1,000 + 1,000, vectorised, from
uniform(-2, 2). Each of the two is run twice with different keys; the first run compiles. Seconds
are those of the calls, imports left out. Gradients of NUTS are counted in a third run, untimed.
Each posterior has a process of its own, NUTS at most ten minutes: what it has not done by then is
left out of its row. Rows are written as they come; a run of some posteriors replaces those alone.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np

import bbvi
from benchmarks.accuracy import chosen, compare
from benchmarks.rows import environment

from .model import problem
from .registry import POSTERIORS, is_there

OUTPUT = Path(__file__).parents[1] / "results" / "nuts.json"
CHAINS, WARMUP, DRAWS = 4, 1000, 1000
PATIENCE = 600.0


class Moments:
    """Draws with the moments of a posterior, for `compare`."""

    def __init__(self, draws):
        self._draws = jax.tree.map(np.asarray, draws)

    def mean(self):
        return jax.tree.map(lambda x: x.mean(0), self._draws)

    def sd(self):
        return jax.tree.map(lambda x: x.std(0, ddof=1), self._draws)


def sampler(target, data):
    """NUTS as it is by default, and where its chains start."""
    from numpyro.infer import MCMC, NUTS

    kernel = NUTS(potential_fn=lambda z: -target.log_density(z, data))
    settings = {"num_chains": CHAINS, "chain_method": "vectorized", "progress_bar": False}
    starts = np.random.default_rng(0).uniform(-2, 2, (CHAINS, target.dim))
    return MCMC(kernel, num_warmup=WARMUP, num_samples=DRAWS, **settings), jnp.asarray(starts)


def count_gradients(mcmc, starts, key: int) -> tuple[int, int]:
    """Run it, and count those of the warm-up and of the draws, over all chains."""
    fields = ("num_steps",)
    warm = {"init_params": starts, "extra_fields": fields, "collect_warmup": True}
    mcmc.warmup(jax.random.key(key), **warm)
    warmup = int(mcmc.get_extra_fields()["num_steps"].sum())
    mcmc.run(mcmc.post_warmup_state.rng_key, extra_fields=fields)
    return warmup, int(mcmc.get_extra_fields()["num_steps"].sum())


def nuts(posterior):
    """What is known after each of three runs."""
    target, _, data = bbvi.make_target(*problem(posterior))
    mcmc, starts = sampler(target, data)
    found = {}
    for key, label in enumerate(("cold", "warm")):
        began = time.perf_counter()
        mcmc.run(jax.random.key(key), init_params=starts)
        z = jax.block_until_ready(mcmc.get_samples())
        found[label] = time.perf_counter() - began
        draws = jax.jit(jax.vmap(lambda z: target.constrain(z, data)))(z)
        found |= compare(Moments(draws), posterior.moments())
        yield found
    yield found | {"gradients": sum(count_gradients(*sampler(target, data), key=1))}


def default(posterior):
    """The same after both runs of the default."""
    *model, support = problem(posterior)
    seconds = []
    for key in (0, 1):
        began = time.perf_counter()
        fit = bbvi.fit(*model, support=support, key=key, throw=False)
        seconds.append(time.perf_counter() - began)
    found = compare(fit.posterior, posterior.moments()) | {"verdict": fit.verdict.level}
    yield found | {"cold": seconds[0], "warm": seconds[1], "gradients": fit.num_gradients}


METHODS = {"bbvi": default, "nuts": nuts}


def alone(label: str, name: str) -> dict:
    """The last line of a process that runs one method on one posterior."""
    command = [sys.executable, "-m", "benchmarks.posteriordb.nuts", name, "--method", label]
    try:
        # a process that fails must not pass for one that is late
        settings = {"stdout": subprocess.PIPE, "text": True, "check": True}
        done = subprocess.run(command, timeout=PATIENCE, **settings)
        lines = done.stdout.splitlines()
    except subprocess.TimeoutExpired as late:
        lines = (late.stdout or b"").decode().splitlines()
    return json.loads(lines[-1]) if lines else {}


def shown(row: dict, figure: str, form: str) -> str:
    """A figure of both, or a dash where NUTS was not done in time."""
    return " ".join(
        format(row[label][figure], form) if figure in row[label] else "-".rjust(8)
        for label in ("nuts", "bbvi")
    )


def summarise(rows: list[dict]) -> None:
    for figure in ("cold", "warm", "gradients"):
        done = [row for row in rows if figure in row["nuts"]]
        ahead = sum(row["bbvi"][figure] < row["nuts"][figure] for row in done)
        ratio = median(row["nuts"][figure] / row["bbvi"][figure] for row in done)
        late = len(rows) - len(done)
        print(
            f"{figure}: the default below NUTS on {ahead} of {len(done)}, median {ratio:.3g} times"
            + (f"; NUTS not done in time on {late}" if late else "")
        )
    for label in METHODS:
        print(
            f"{label}: right {sum(row[label].get('right', False) for row in rows)} of {len(rows)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=["*"], help="posteriors or patterns; all")
    parser.add_argument(
        "--method", choices=METHODS, help="in this process, and print what is found"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help="a JSON file")
    options = parser.parse_args()
    if not is_there():
        return
    jax.config.update("jax_enable_x64", True)
    if options.method is not None:
        for found in METHODS[options.method](POSTERIORS[options.names[0]]):
            short = {k: v for k, v in found.items() if k != "sd_ratio"}
            print(json.dumps(short, default=float), flush=True)
        return
    old = json.loads(options.output.read_text())["rows"] if options.output.exists() else []
    rows = {row["posterior"]: row for row in old}
    print(f"{'posterior':42s} cold s: NUTS, bbvi   warm s: NUTS, bbvi   gradients: NUTS, bbvi")
    for name in chosen(options.names):
        rows[name] = {"posterior": name, "on": environment()}
        rows[name] |= {label: alone(label, name) for label in METHODS}
        figures = (("cold", "8.1f"), ("warm", "8.2f"), ("gradients", "9,d"))
        print(f"{name[:42]:42s}", *(shown(rows[name], *f) for f in figures), sep="  ", flush=True)
        ordered = [rows[name] for name in POSTERIORS if name in rows]
        options.output.write_text(json.dumps({"rows": ordered}, indent=1) + "\n")
    summarise(list(rows.values()))


if __name__ == "__main__":
    main()
