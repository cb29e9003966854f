"""Cost of a step of the loop over a bare scan of the same batched gradient and draws.

    python benchmarks/loop.py

Logistic regression, float32. The bare scan draws the same base normals, takes the gradient of
the same loss by plain autodiff and moves the parameters by it: no optimizer state, no masking,
no averaging, no stopping. Both run in turn, several times, in one process; the table holds the
medians and their ratio.
"""

import json
import platform
import statistics
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import bbvi
from bbvi.run import _run, begin

GRID = [(200, 10), (5000, 50)]
DRAWS = [1, 16]
REPEATS = 9
SECONDS = 0.4  # about this long a timed run


def log_joint(beta, data):
    eta = data["x"] @ beta
    return jnp.sum(data["y"] * eta - jax.nn.softplus(eta)) - 0.5 * jnp.sum(beta**2)


def make_data(rows, dim):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, dim)).astype(np.float32) / np.sqrt(dim)
    y = rng.random(rows) < 1 / (1 + np.exp(-x.sum(1)))
    return {"x": x, "y": y.astype(np.float32)}


@partial(jax.jit, static_argnums=(0, 1, 4))
def bare(solver, target, params, key, steps, data):
    """A scan of the gradient and the draws alone."""
    family, objective = solver.family, solver.objective

    def step(params, t):
        eps = objective.noise(jax.random.fold_in(key, t), family, target.dim, target.dtype)

        def loss(params):
            z, log_q = family.reparam(params, eps)
            log_p = jax.vmap(lambda z: target.log_density(z, data))(z)
            return jnp.mean(log_q - log_p)

        value, grad = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 1e-6 * g, params, grad), value

    return jax.lax.scan(step, params, jnp.arange(steps))


def seconds(function, *args):
    began = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - began


def measure(family, rows, dim, draws):
    data = jax.tree.map(jnp.asarray, make_data(rows, dim))
    target, _, data = bbvi.make_target(log_joint, jnp.zeros(dim), data, None)
    objective = bbvi.ELBO(num_draws=draws, antithetic=draws > 1, entropy="monte_carlo")
    # a tolerance that is never met: the stop is computed, and the loop runs on
    solver = bbvi.StochasticGradient(family, objective, tolerance=1e-12)
    key = jax.random.key(0)
    state = begin(solver, target, jnp.zeros(dim), jnp.full(dim, 0.1), key, data)
    params = family.init(jnp.zeros(dim), jnp.full(dim, 0.1))
    steps = 2000
    jax.block_until_ready(bare(solver, target, params, key, steps, data))
    steps = max(200, int(steps * SECONDS / seconds(bare, solver, target, params, key, steps, data)))
    limit = np.int32(steps)
    seconds(bare, solver, target, params, key, steps, data)
    seconds(_run, solver, target, state, data, limit)
    times, floor = [], []
    for _ in range(REPEATS):
        floor.append(seconds(bare, solver, target, params, key, steps, data) / steps)
        times.append(seconds(_run, solver, target, state, data, limit) / steps)
    ratios = [a / b for a, b in zip(times, floor, strict=True)]
    return {
        "family": type(family).__name__,
        "rows": rows,
        "dim": dim,
        "draws": draws,
        "bare_us": 1e6 * statistics.median(floor),
        "step_us": 1e6 * statistics.median(times),
        "ratio": statistics.median(ratios),
    }


def main():
    results = []
    print(f"{'family':18s} {'N':>5s} {'D':>3s} {'S':>3s}  bare us  step us  ratio")
    for family in (bbvi.MeanFieldGaussian(), bbvi.FullRankGaussian()):
        for rows, dim in GRID:
            for draws in DRAWS:
                r = measure(family, rows, dim, draws)
                results.append(r)
                print(
                    f"{r['family']:18s} {rows:5d} {dim:3d} {draws:3d} {r['bare_us']:8.1f} "
                    f"{r['step_us']:8.1f} {r['ratio']:6.2f}",
                    flush=True,
                )
    about = {
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": str(jax.devices()[0].device_kind),
        "bbvi": bbvi.__version__,
    }
    device = "" if jax.default_backend() == "cpu" else f"_{jax.default_backend()}"
    path = Path(__file__).parent / "results" / f"loop{device}.json"
    path.write_text(json.dumps({"about": about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
