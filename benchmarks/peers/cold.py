"""Cold start: from `python script.py` to a printed summary, the whole process.

    python -m benchmarks.peers.cold [--repeats 3] [--scripts PATTERN ...]
        [--problems schools logistic]

Each script in scripts/ is what a user would write, in the tool's own language where it has one;
single precision where that is the tool's default. All of them run in turn, several times; the
table holds medians. Whether the printed moments are right is checked against integration on a
grid (eight schools) and importance sampling (logistic regression).
"""

import argparse
import re
from fnmatch import fnmatch
from statistics import median

import jax
import numpy as np

from benchmarks.batch import importance, schools_reference

from .process import run_text
from .results import Rows

SCRIPTS = """
floor bbvi_default numpyro_advi numpyro_nuts blackjax_fullrank blackjax_pathfinder tfp_meanfield
flowjax_maf pymc_advi pymc_nuts pymc_extras_pathfinder pymc_extras_dadvi nutpie_nuts
""".split()
LINE = re.compile(r"^(\w+\[\d+\]) (\S+) (\S+)$", re.MULTILINE)


def truth(which: str) -> dict[str, tuple[float, float]]:
    from .scripts import data

    if which == "logistic":
        arrays = {"x": data.X.astype(np.float32), "y": data.LABEL.astype(np.float32)}
        mean, sd = importance(jax.random.key(0), arrays, 50_000)
        names = [f"beta[{i}]" for i in range(10)]
    else:
        (mean,), (sd,) = schools_reference({"y": data.Y[None], "sigma": data.SIGMA[None]}, 1)
        names = [f"eta[{i}]" for i in range(8)] + ["mu[0]", "tau[0]"]
    return {n: (float(m), float(s)) for n, m, s in zip(names, mean, sd, strict=True)}


def error(out: str, reference: dict) -> float | None:
    """The worst distance of the printed moments from the truth; None where none are printed."""
    printed = {name: (float(mean), float(sd)) for name, mean, sd in LINE.findall(out)}
    if not printed:
        return None
    off = [
        max(abs(printed[name][0] - mean) / sd, abs(printed[name][1] / sd - 1))
        for name, (mean, sd) in reference.items()
    ]
    return float(np.max(np.nan_to_num(off, nan=np.inf)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scripts", nargs="*", default=["*"], help="names or patterns")
    parser.add_argument("--problems", nargs="*", default=["schools", "logistic"])
    options = parser.parse_args()
    scripts = [s for s in SCRIPTS if any(fnmatch(s, p) for p in options.scripts)]
    rows = Rows("peers_cold", ("which", "script"))
    for which in options.problems:
        reference = truth(which)
        found: dict[str, list[dict]] = {script: [] for script in scripts}
        for _ in range(options.repeats):
            for script in scripts:
                path = f"benchmarks/peers/scripts/{script}.py"
                found[script].append(run_text([path, which], 300))
        for script, runs in found.items():
            row = {"which": which, "script": script, "repeats": options.repeats}
            failed = [run["failed"] for run in runs if "failed" in run]
            if failed:
                row["failed"] = failed[0]
            else:
                row["seconds"] = median(run["seconds"] for run in runs)
                row["all_seconds"] = [run["seconds"] for run in runs]
                row["error"] = error(runs[-1]["out"], reference)
            rows.add(row)
            print(which, script, row.get("seconds"), row.get("error"), row.get("failed", ""))


if __name__ == "__main__":
    main()
