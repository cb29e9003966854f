"""Accuracy for cost: every tool on every posterior, by its newcomer's settings and its grid.

    POSTERIORDB=path/to/posteriordb python -m benchmarks.peers.accuracy [--quick]
        [--tools PATTERN ...] [--problems PATTERN ...] [--settings newcomer|grid|all]

Rows go to results/peers_accuracy.json as they come, and what stands there already is not run
again: delete the file to start anew.
"""

import argparse
import json
import signal
from fnmatch import fnmatch

from benchmarks.posteriordb import MISSING, find_database

from .problems import QUICK, SETS
from .process import run_text
from .results import Rows, stamp
from .settings import TOOLS

TIMEOUT = 600.0  # of CPU, so that a machine with other work counts the same
WAIT = 4  # times as long by the clock is taken for a process that hangs


def tasks(options):
    """(tool, settings, set, problem): all tools at newcomer's settings before any grid."""
    sets = {"posteriordb": QUICK} if options.quick else SETS
    problems = [(where, name) for where, names in sets.items() for name in names]
    problems = [x for x in problems if any(fnmatch(x[1], p) for p in options.problems)]
    if find_database() is None:
        print(f"{MISSING} Only the targets kept apart are run.")
        problems = [(s, p) for s, p in problems if s != "posteriordb"]
    tools = [t for t in TOOLS if any(fnmatch(t, p) for p in options.tools)]
    for kind in ("newcomer", "grid") if options.settings == "all" else (options.settings,):
        for where, problem in problems:
            for tool in tools:
                grid = [str(i) for i in range(len(TOOLS[tool].grid))]
                yield tool, ["newcomer"] if kind == "newcomer" else grid, where, problem


def run(tool: str, settings: list[str], problem: str, timeout: float):
    """(setting, what was found) of each setting; after one that failed the next has a new start."""
    while settings:
        arguments = [tool, problem, str(int(timeout)), *settings]
        worker = ["-m", "benchmarks.peers.worker", *arguments]
        found = run_text(worker, WAIT * timeout * len(settings) + 60)
        done = [json.loads(line) for line in found["out"].splitlines() if line.startswith("{")]
        yield from zip(settings, done, strict=False)
        settings = settings[len(done) :]
        if settings:
            why = found.get("failed", "no answer printed")
            if why.startswith(f"exit {-signal.SIGPROF}:"):
                why = f"not finished after {timeout:g} s of CPU"
            yield settings.pop(0), {"failed": why}


def describe(row: dict) -> str:
    head = f"{row['problem'][:34]:34s} {row['tool']:30s} {row['setting']:8s}"
    if "failed" in row:
        return f"{head} {row['failed']}"
    error = "inf" if row["error"] is None else f"{row['error']:.3f}"
    right = "right" if row["right"] else "WRONG"
    cost = f"{row['gradients'] or 0:9,d} {row.get('cold', 0):6.1f} s"
    return f"{head} {right} {error:>7s} {cost} {row['said'][:40]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one posterior")
    parser.add_argument("--tools", nargs="*", default=["*"], help="names or patterns")
    parser.add_argument("--problems", nargs="*", default=["*"], help="names or patterns")
    parser.add_argument("--settings", choices=["newcomer", "grid", "all"], default="all")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="CPU seconds a setting")
    options = parser.parse_args()
    rows = Rows("peers_accuracy", ("tool", "setting", "problem"))
    for tool, settings, where, problem in tasks(options):
        one = TOOLS[tool]
        stamps = {
            setting: stamp(tool, one.newcomer if setting == "newcomer" else one.grid[int(setting)])
            for setting in settings
        }
        missing = [s for s in settings if not rows.has((tool, s, problem), stamps[s])]
        for setting, found in run(tool, missing, problem, options.timeout):
            row = {"tool": tool, "setting": setting, "set": where, "problem": problem} | found
            rows.add(row, stamps[setting])
            print(describe(row), flush=True)


if __name__ == "__main__":
    main()
