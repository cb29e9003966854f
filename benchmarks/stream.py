"""A batch of any length through a bounded memory, killed on the way and resumed.

    python -m benchmarks.stream [--problems 100000]

Poisson regressions (20 rows, D = 2), float32, each with a verdict of its own, results in a folder.
One process fits all; another is killed after a third of that time, and a third one goes on from
its folder. Reported: peak memory of each process beyond that of a process that only makes the
data, problems done before the kill, and whether the two tables are the same.
"""

import argparse
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import bbvi
from benchmarks.rows import environment

RESULTS = Path(__file__).parent / "results" / "stream.json"
ROWS = 20


def log_joint(beta, data):
    eta = data["x"] @ beta
    return jnp.sum(data["y"] * eta - jnp.exp(eta)) - 0.5 * jnp.sum(beta**2)


def regressions(size):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size, ROWS, 2)).astype(np.float32)
    x[:, :, 0] = 1
    beta = 0.5 * rng.normal(size=(size, 2))
    y = rng.poisson(np.exp(np.einsum("bnd,bd->bn", x, beta))).astype(np.float32)
    return {"x": x, "y": y}


def work(size, folder, output):
    """One process: fit, and say what it took; without a folder, only make the data."""
    data = regressions(size)
    began = time.perf_counter()
    if folder:
        init = np.zeros(2, np.float32)
        results = bbvi.fit_batch(log_joint, init, data, path=folder, escalate=False)
        d = results.records.look.diagnostics
        means, sds = results.posterior.means, results.posterior.sds
        np.savez(output, means=means, sds=sds, verdict=results.verdict, elbo=d.elbo, khat=d.khat)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak}), flush=True)


def start(size, folder, output):
    command = [sys.executable, "-m", "benchmarks.stream", "--problems", str(size)]
    command += ["--folder", str(folder), "--output", str(output)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process):
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a worker ended with {process.returncode}")
    return json.loads(out.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--problems", type=int, default=100_000)
    parser.add_argument("--folder", default=None, help="for the workers")
    parser.add_argument("--output", default=None, help="for the workers")
    options = parser.parse_args()
    size = options.problems
    if options.folder is not None:
        work(size, options.folder, options.output)
        return
    report = {"on": environment(), "problems": size}
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        report["data_alone"] = finish(start(size, "", ""))
        report["whole"] = finish(start(size, at / "whole", at / "whole.npz"))
        print(json.dumps(report, indent=1), flush=True)
        killed = start(size, at / "again", at / "again.npz")
        time.sleep(report["whole"]["seconds"] / 3)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        shards = sorted((at / "again").glob("*.npz"))
        report["shards_at_the_kill"] = len(shards)
        report["resumed"] = finish(start(size, at / "again", at / "again.npz"))
        one, two = np.load(at / "whole.npz"), np.load(at / "again.npz")
        report["same_table"] = all(
            np.array_equal(one[k], two[k], equal_nan=True) for k in ("means", "sds", "elbo", "khat")
        )
        report["same_verdicts"] = bool((one["verdict"] == two["verdict"]).all())
        report["trusted"] = float((one["verdict"] == "trusted").mean())
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
