"""The default on every device that JAX finds here: seconds of a first and a second fit, and errors.

    python -m benchmarks.devices [NAME ...]

Float32. Each fit has a process of its own, on the CPU and, where there is one, on the GPU. The
moments are compared with those of the same fit on the CPU in float64: the largest difference of a
mean in sds, and of the log of an sd.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import bbvi
from bbvi.examples import eight_schools
from benchmarks.peers.results import Rows

# --- models --------------------------------------------------------------------------------------


def schools():
    """Eight schools: next to no work in an evaluation."""
    example = eight_schools()
    return example.log_joint, example.init, example.data, example.support


def logistic_log_joint(beta, data):
    eta = data["x"] @ beta
    return jnp.sum(data["y"] * eta - jax.nn.softplus(eta)) - 0.5 * jnp.sum(beta**2)


def logistic(rows=200_000, dim=20):
    """A regression whose sds are a thousandth of its coefficients."""
    rng = np.random.default_rng(0)
    x, beta = rng.normal(size=(rows, dim)), rng.normal(size=dim)
    y = rng.random(rows) < 1 / (1 + np.exp(-x @ beta))
    return logistic_log_joint, np.zeros(dim), {"x": x, "y": y.astype(float)}, None


def gp_log_joint(params, data):
    gap = (data["x"][:, None] - data["x"][None, :]) / params["length"]
    covariance = params["signal"] ** 2 * jnp.exp(-0.5 * gap**2)
    root = jnp.linalg.cholesky(covariance + params["noise"] ** 2 * jnp.eye(len(data["x"])))
    z = jax.scipy.linalg.solve_triangular(root, data["y"], lower=True)
    prior = -0.5 * sum(jnp.log(params[name]) ** 2 for name in ("length", "signal", "noise"))
    return prior - 0.5 * jnp.sum(z**2) - jnp.sum(jnp.log(jnp.diag(root)))


def gp(rows=300):
    """A Gaussian process: a Cholesky factor in every evaluation."""
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(0, 10, rows))
    data = {"x": x, "y": np.sin(x) + 0.3 * rng.normal(size=rows)}
    init = {"length": 1.0, "signal": 1.0, "noise": 1.0}
    return gp_log_joint, init, data, bbvi.positive


def stores_log_joint(params, data):
    eta = params["mean"] + params["sd"] * params["effect"][data["store"]]
    eta = eta + data["x"] @ params["beta"]
    prior = -0.5 * (jnp.sum(params["effect"] ** 2) + jnp.sum(params["beta"] ** 2))
    prior = prior - 0.5 * (params["mean"] ** 2 + params["sd"] ** 2)
    return prior + jnp.sum(data["y"] * eta - jnp.exp(eta))


def stores(groups=200, rows=40_000, dim=5):
    """Counts in groups, with varying intercepts."""
    rng = np.random.default_rng(0)
    store, x = rng.integers(groups, size=rows), 0.3 * rng.normal(size=(rows, dim))
    eta = 0.5 + 0.4 * rng.normal(size=groups)[store] + x @ rng.normal(size=dim)
    data = {"store": store, "x": x, "y": rng.poisson(np.exp(eta)).astype(float)}
    init = {"mean": 0.0, "sd": 1.0, "effect": np.zeros(groups), "beta": np.zeros(dim)}
    return stores_log_joint, init, data, {"sd": bbvi.positive}


MODELS = {"schools": schools, "logistic": logistic, "gp": gp, "stores": stores}

# --- measuring -----------------------------------------------------------------------------------


def work(name: str) -> None:
    """One process: fit twice, and print what came of it."""
    log_joint, init, data, support = MODELS[name]()
    seconds = []
    for key in (0, 1):
        began = time.perf_counter()
        result = bbvi.fit(log_joint, init, data, support=support, key=key)
        seconds.append(time.perf_counter() - began)
    flat = lambda tree: np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])  # noqa: E731
    posterior = result.posterior
    row = {
        "dim": posterior.target.dim,
        "cold": seconds[0],
        "warm": seconds[1],
        "verdict": result.verdict.level,
        "gradients": int(result.num_gradients),
        "means": flat(posterior.mean()).tolist(),
        "sds": flat(posterior.sd()).tolist(),
    }
    print(json.dumps(row), flush=True)


def fitted(name: str, device: str, x64: bool) -> dict:
    """The row of a fit in a process of its own."""
    environment = os.environ | {"JAX_PLATFORMS": device, "JAX_ENABLE_X64": str(int(x64))}
    command = [sys.executable, "-m", "benchmarks.devices", "--work", name]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    if run.returncode:
        raise SystemExit(f"{name} on {device}: {run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", default=list(MODELS))
    parser.add_argument("--work", default=None, help="for the workers")
    options = parser.parse_args()
    if options.work is not None:
        work(options.work)
        return
    rows = Rows("devices", ("model", "device"))
    for name in options.names:
        truth = fitted(name, "cpu", x64=True)
        means, sds = np.array(truth.pop("means")), np.array(truth.pop("sds"))
        for device in sorted({"cpu", jax.default_backend()}):
            row = fitted(name, "cuda" if device == "gpu" else device, x64=False)
            ours = np.array(row.pop("means")), np.array(row.pop("sds"))
            error = np.max(np.abs(ours[0] - means) / sds)
            wider = np.max(np.abs(np.log(ours[1] / sds)))
            row |= {"mean_error": float(error), "log_sd_error": float(wider)}
            rows.add({"model": name, "device": device} | row)
            print(json.dumps(rows.rows[name, device]), flush=True)


if __name__ == "__main__":
    main()
