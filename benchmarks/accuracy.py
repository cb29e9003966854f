"""Is the default right? Fit every posterior of a set with it and compare with known moments.

    POSTERIORDB=path/to/posteriordb python -m benchmarks.accuracy [NAME ...]
    POSTERIORDB=path/to/posteriordb python -m benchmarks.accuracy --set unreferenced [NAME ...]
    python -m benchmarks.accuracy --set practice [NAME ...]
    python -m benchmarks.accuracy --set shapes [NAME ...]

`posteriordb` has published reference draws; `unreferenced` are its posteriors without them, with
moments from long runs of NUTS; `practice` has models of ours on simulated data, with such moments
too; `shapes` has densities that can be drawn from exactly. A fit is right if every scalar parameter
has its mean within 0.1 reference sd and its sd within 10%, and half-right if within half of that.
Rows are written as they come; a run of some posteriors or keys replaces those rows alone.
"""

import argparse
import fnmatch
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import numpy as np

import bbvi

from .peers.results import on_device
from .posteriordb.model import problem
from .posteriordb.registry import POSTERIORS, is_there
from .practice import PRACTICE
from .rows import describe, environment, record, summarise, write_table
from .shapes import SHAPES
from .unreferenced import UNREFERENCED

RESULTS = Path(__file__).parent / "results"
SETS = {
    "posteriordb": (POSTERIORS, "accuracy"),
    "unreferenced": (UNREFERENCED, "unreferenced"),
    "practice": (PRACTICE, "practice"),
    "shapes": (SHAPES, "shapes"),
}
TITLES = {
    "posteriordb": "The default against the reference draws of posteriordb",
    "unreferenced": "The default on the other posteriors of posteriordb, against long runs of NUTS",
    "practice": "The default on models of practice, against long runs of NUTS",
    "shapes": "The default on shapes, against exact draws",
}
TOLERANCE = 0.1
Moments = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


def measure(posterior: Any, key: int) -> dict:
    """One fit by the default, and how far its moments are from those of the reference."""
    log_joint, init, data, support = problem(posterior)
    began = time.perf_counter()
    result = bbvi.fit(log_joint, init, data, support=support, key=key, throw=False)
    wall = time.perf_counter() - began
    seconds = dict(result.timings)
    return {
        "dim": result.posterior.target.dim,
        **compare(result.posterior, posterior.moments()),
        "verdict": result.verdict.level,
        "reasons": result.verdict.reasons,
        "khat": result.khat,
        "ess": result.ess,
        "gradients": result.num_gradients,
        "steps": result.num_steps,
        "wall": wall,
        "seconds": seconds,
        # the last stage that ran need not be the one that was kept
        "stages": [s for s in seconds if s.partition(" ")[0] not in ("check", "judge", "other")],
        "kept": type(result.posterior.family).__name__,
        "corrected": result.posterior.draws is not None,
    }


def compare(posterior: bbvi.Posterior, moments: Moments) -> dict:
    """The worst errors over all scalar parameters, and whether the fit is right."""
    names = [n + str(list(i) or "") for n, x in moments[0].items() for i in np.ndindex(x.shape)]

    def scalars(tree):
        return np.concatenate([np.ravel(tree[name]) for name in moments[0]])

    means, sds = map(scalars, moments)
    varies = sds > 0  # the zeros of a triangle do not
    names = [name for name, there in zip(names, varies, strict=True) if there]
    means, sds = means[varies], sds[varies]
    error = np.abs(scalars(posterior.mean())[varies] - means) / sds
    ratio = scalars(posterior.sd())[varies] / sds
    # what is not finite compares as false, hence as wrong
    off = np.maximum(error, np.abs(ratio - 1))
    return {
        "right": bool((off <= TOLERANCE).all()),
        "half_right": bool((off <= TOLERANCE / 2).all()),
        "mean_error": error.max(),
        "sd_ratio": [ratio.min(), ratio.max()],
        "worst": names[int(np.argmax(np.nan_to_num(off, nan=np.inf)))],
    }


def chosen(patterns: list[str], names: Collection[str] = POSTERIORS) -> list[str]:
    """Names of posteriors, in the registry's order."""
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise SystemExit(f"there is no posterior {pattern}; there are: {' '.join(names)}")
    return [name for name in names if any(fnmatch.fnmatch(name, p) for p in patterns)]


def parse_keys(text: str) -> list[int]:
    """`0-4`, `3` or `0,2-3`."""
    ends = [part.split("-") for part in text.split(",")]
    return [key for end in ends for key in range(int(end[0]), int(end[-1]) + 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=["*"], help="posteriors or patterns; all")
    parser.add_argument("--keys", type=parse_keys, default="0-4", help="such as 0-4, the default")
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument("--x64", action="store_true", help="double precision, the default")
    precision.add_argument("--x32", action="store_true", help="single precision")
    parser.add_argument("--set", choices=SETS, default="posteriordb", help="of posteriors")
    parser.add_argument("--output", type=Path, help="a JSON file; a table goes by it")
    options = parser.parse_args()
    posteriors, file = SETS[options.set]
    output = options.output or RESULTS / f"{on_device(file)}.json"
    if options.set in ("posteriordb", "unreferenced") and not is_there():
        return
    jax.config.update("jax_enable_x64", not options.x32)
    dtype = "float32" if options.x32 else "float64"
    rows = []
    for name in chosen(options.names, posteriors):
        if posteriors[name].moments() is None:
            print(f"{name}: no reference to judge by")
            continue
        try:
            posteriors[name].data()
        except FileNotFoundError as missing:
            print(f"{name}: {missing}")
            continue
        jax.clear_caches()  # the first key pays for compiling, as a new process would
        for key in options.keys:
            which = {"posterior": name, "key": key, "dtype": dtype}
            try:
                found = measure(posteriors[name], key)
            except Exception as error:  # one posterior that fails must not end the others
                found = {"right": False, "half_right": False, "verdict": "error"}
                found["reasons"] = [f"{type(error).__name__}: {error}"]
            rows.append(which | {"cold": key == options.keys[0]} | found | {"on": environment()})
            print(describe(rows[-1]), flush=True)
            write_table(record(output, rows[-1]), output.with_suffix(".md"), TITLES[options.set])
    print(summarise(rows))


if __name__ == "__main__":
    main()
