"""Accuracy for cost: every tool on every posterior, by its newcomer's settings and its grid.

    POSTERIORDB=path/to/posteriordb python -m benchmarks.peers.accuracy [--quick]
        [--tools PATTERN ...] [--problems PATTERN ...] [--settings newcomer|all]

Rows go to results/peers_accuracy.json as they come, and what stands there already is not run
again: delete the file to start anew.
"""

import argparse
from fnmatch import fnmatch

from benchmarks.posteriordb import MISSING, find_database

from .problems import QUICK, SETS
from .process import run_process
from .results import Rows, stamp
from .settings import TOOLS

TIMEOUT = 600.0


def tasks(options):
    """(tool, setting, problem): all tools at newcomer's settings before any grid."""
    sets = {"posteriordb": QUICK} if options.quick else SETS
    problems = [(where, name) for where, names in sets.items() for name in names]
    problems = [x for x in problems if any(fnmatch(x[1], p) for p in options.problems)]
    if find_database() is None:
        print(f"{MISSING} Only the targets kept apart are run.")
        problems = [(s, p) for s, p in problems if s != "posteriordb"]
    tools = [t for t in TOOLS if any(fnmatch(t, p) for p in options.tools)]
    for setting in ["newcomer"] + [str(i) for i in range(9)] * (options.settings == "all"):
        for where, problem in problems:
            for tool in tools:
                if setting == "newcomer" or int(setting) < len(TOOLS[tool].grid):
                    yield tool, setting, where, problem


def describe(row: dict) -> str:
    head = f"{row['problem'][:34]:34s} {row['tool']:30s} {row['setting']:8s}"
    if "failed" in row:
        return f"{head} {row['failed']}"
    error = "inf" if row["error"] is None else f"{row['error']:.3f}"
    right = "right" if row["right"] else "WRONG"
    cost = f"{row['gradients'] or 0:9,d} {row['cold']:6.1f} s"
    return f"{head} {right} {error:>7s} {cost} {row['said'][:40]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two posteriors")
    parser.add_argument("--tools", nargs="*", default=["*"], help="names or patterns")
    parser.add_argument("--problems", nargs="*", default=["*"], help="names or patterns")
    parser.add_argument("--settings", choices=["newcomer", "all"], default="all")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds a task")
    options = parser.parse_args()
    rows = Rows("peers_accuracy", ("tool", "setting", "problem"))
    for tool, setting, where, problem in tasks(options):
        grid = TOOLS[tool].grid
        settings = TOOLS[tool].newcomer if setting == "newcomer" else grid[int(setting)]
        own = stamp(tool, settings)
        if rows.has((tool, setting, problem), own):
            continue
        worker = ["-m", "benchmarks.peers.worker", tool, setting, problem]
        found = run_process(worker, options.timeout)
        row = {"tool": tool, "setting": setting, "set": where, "problem": problem} | found
        rows.add(row, own)
        print(describe(row), flush=True)


if __name__ == "__main__":
    main()
