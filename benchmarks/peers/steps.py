"""Cost of a step: over the bare gradient on a grid, and against D and the number of draws.

    python -m benchmarks.peers.steps [--part loop|scale] [--quick]

Float32. Loop: logistic regression of N rows, mean-field, all tools in turn in one process; the
ratio is the median over rounds of a tool's time over the bare gradient's in the same round. Each
program is compiled as its tool compiles it: by `jax.jit`, for bbvi with what `fit` tells the
compiler. That has sums made by XLA itself, since those of jax 0.11.1 to 0.12.0.1 on a CPU are wrong
for some log joints (not for this one); "XLA's sums" is the bare gradient with the same.
Scale: a Gaussian with sds from 0.1 to 10, whose gradient costs as little as a gradient can, so
that what is left is the tool's own; the memory is what the compiled program needs besides its
code, as XLA states it. All steps are in one program, compiled before the clock starts.
"""

import argparse
import time
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._compile import loop_jit
from benchmarks.loop import log_joint, make_data

from .results import Rows, on_device, stamp
from .steppers import LOW_RANK, MEAN_FIELD, STEPPERS
from .worker import plain

ROUNDS = 5
SECONDS = 0.3  # about this long a timed run
GRID = [(n, d, s) for n in (200, 5000) for d in (10, 50) for s in (1, 4, 16, 64)]
DIMS = [100, 1_000, 10_000, 100_000, 1_000_000]
DRAWS = [1, 4, 16, 64, 256, 1024, 4096]


def compiled(name: str, log_density, dim: int, draws: int, data):
    """`time(steps)` and the bytes of a program of so many steps that it takes about SECONDS."""
    run = STEPPERS[name](log_density, dim, draws, data)
    key = jax.random.key(0)

    compiler = loop_jit(()) if name.startswith("bbvi") or "XLA" in name else jax.jit

    def build(steps):
        return compiler(lambda key, data: run(steps, key, data))

    def clock(program):
        began = time.perf_counter()
        jax.block_until_ready(program(key, data))
        return time.perf_counter() - began

    few = build(10)
    # of few steps: the trace of losses grows with their number, and is not the loop's
    memory = few.lower(key, data).compile().memory_analysis()
    size = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    clock(few)
    steps = int(np.clip(10 * SECONDS / clock(few), 10, 20_000))
    program = build(steps)
    clock(program)
    return lambda: clock(program) / steps, size


def gaussian(z, data):
    return -0.5 * jnp.sum((z / data["sd"]) ** 2)


def loop(quick: bool) -> None:
    rows = Rows(on_device("peers_loop"), ("tool", "rows", "dim", "draws"))
    for n, dim, draws in GRID[::5] if quick else GRID:
        if all(rows.has((tool, n, dim, draws), stamp(tool)) for tool in MEAN_FIELD):
            continue
        data = jax.tree.map(jnp.asarray, make_data(n, dim))
        clocks = {t: compiled(t, log_joint, dim, draws, data)[0] for t in MEAN_FIELD}
        rounds = [{tool: clock() for tool, clock in clocks.items()} for _ in range(ROUNDS)]
        for tool in MEAN_FIELD:
            seconds = median(times[tool] for times in rounds)
            ratio = median(times[tool] / times["bare gradient"] for times in rounds)
            row = {"tool": tool, "rows": n, "dim": dim, "draws": draws}
            row |= plain({"us": 1e6 * seconds, "ratio": ratio})
            rows.add(row, stamp(tool))
            print(row, flush=True)
        jax.clear_caches()


def scale(quick: bool) -> None:
    rows = Rows(on_device("peers_scale"), ("tool", "dim", "draws"))
    points = [(dim, 1) for dim in DIMS] + [(1000, draws) for draws in DRAWS]
    tools = MEAN_FIELD | LOW_RANK
    for dim, draws in points[:3] if quick else points:
        data = {"sd": jnp.logspace(-1, 1, dim)}
        for tool in tools:
            if rows.has((tool, dim, draws), stamp(tool)):
                continue
            clock, size = compiled(tool, gaussian, dim, draws, data)
            us = 1e6 * median(clock() for _ in range(ROUNDS))
            row = {"tool": tool, "dim": dim, "draws": draws}
            row |= plain({"us": us, "mib": size / 2**20})
            rows.add(row, stamp(tool))
            print(row, flush=True)
            jax.clear_caches()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=["loop", "scale"], default=None)
    parser.add_argument("--quick", action="store_true", help="a few points")
    options = parser.parse_args()
    for name, part in (("loop", loop), ("scale", scale)):
        if options.part in (None, name):
            part(options.quick)


if __name__ == "__main__":
    main()
