"""One tool on one problem, in a process of its own; a line of JSON for each setting.

    python -m benchmarks.peers.worker TOOL PROBLEM SECONDS SETTING ...

SETTING is `newcomer` or the number of a setting of the grid; one that takes more than SECONDS of
CPU ends the process. Cold is the first call, compiling included and imports left out; warm is a
second call with another key: seconds of CPU, compilers started included, which a busy machine or a
pause does not change. Both are of the newcomer's setting alone, which comes first. There, gradients
that the tool does not tell are counted in a further run, untimed.
"""

import importlib
import json
import math
import os
import signal
import sys
import warnings

import jax
import numpy as np

from .base import Fit, Problem
from .problems import load
from .settings import TOOLS

TOLERANCE = 0.1


def function(adapter: str):
    module, _, name = adapter.partition(":")
    return getattr(importlib.import_module(f"benchmarks.peers.{module}"), name)


def errors(problem: Problem, fit: Fit) -> dict:
    """Distances from the truth over all scalars; what is not finite is infinitely far."""
    if fit.result is None:
        mean, sd = problem.moments(fit.z)
    else:
        mean, sd = fit.result.posterior.mean(), fit.result.posterior.sd()
    true_mean, true_sd = problem.reference()

    def scalars(tree):
        return np.concatenate([np.ravel(tree[name]) for name in true_mean])

    off = np.abs(scalars(mean) - scalars(true_mean)) / scalars(true_sd)
    ratio = scalars(sd) / scalars(true_sd)
    worst = np.maximum(off, np.abs(ratio - 1))
    worst = np.where(np.isfinite(worst), worst, np.inf)
    return {
        "right": bool((worst <= TOLERANCE).all()),
        "error": float(worst.max()),
        "median_error": float(np.median(worst)),
        "mean_error": float(off.max()),
        "sd_ratio": [float(ratio.min()), float(ratio.max())],
    }


def cpu() -> float:
    """Seconds of CPU so far, of this process and of those that it has started and seen end."""
    return sum(os.times()[:4])


def measure(name: str, setting: str, problem: Problem) -> dict:
    tool = TOOLS[name]
    settings = tool.newcomer if setting == "newcomer" else tool.grid[int(setting)]
    adapter = function(tool.adapter)  # which imports the tool
    began = cpu()
    run = adapter(problem, **settings)
    fit = run(0)
    cold = cpu() - began
    row = errors(problem, fit) | {"said": fit.said, "gradients": fit.gradients}
    if setting == "newcomer":
        began = cpu()
        run(1)
        row |= {"cold": cold, "warm": cpu() - began}
        if fit.gradients is None and tool.count is not None:
            row["gradients"] = function(tool.count)(problem, **settings)
    return row | {"dim": problem.dim, "settings": settings}


def plain(value):
    """Five digits, and None where JSON has no number."""
    if isinstance(value, dict):
        return {name: plain(x) for name, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(x) for x in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def main() -> None:
    name, problem, seconds, *settings = sys.argv[1:]
    jax.config.update("jax_enable_x64", True)
    warnings.filterwarnings("ignore")
    loaded = load(problem)
    for setting in settings:
        signal.setitimer(signal.ITIMER_PROF, float(seconds))  # kills, also in a compiled program
        row = measure(name, setting, loaded)
        print(json.dumps(plain(row)), flush=True)


if __name__ == "__main__":
    main()
