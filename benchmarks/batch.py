"""Thousands of small fits: fits a second, beside numpyro's vmapped SVI, and how many are right.

    python -m benchmarks.batch [--problems 10000] [--others 100]

Two batches, float32: logistic regressions (200 rows, D = 5), and hierarchies of the size of eight
schools (D = 10, not centred). Each is fitted twice by the default of `fit_batch`; the second,
which compiles nothing, is timed. `numpyro` fits the first few by a full-rank guide, Adam at 0.01
and 10,000 steps, all of them in one `vmap`; its second run is timed too. The machine's load is
noted: both slow down with it.

Right is a mean within 0.1 posterior sd and an sd within 10%, for every scalar: against importance
sampling with 20,000 draws for the regressions, and integration on a grid over the mean and the
scale of the effects, which leaves normal distributions, for the hierarchies.
"""

import argparse
import json
import os
import platform
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import bbvi
from bbvi.batch.engine import Widths, Work, run_lives
from bbvi.batch.problems import make_problems
from bbvi.batch.programs import Plan
from bbvi.examples import eight_schools, eight_schools_log_joint
from benchmarks.peers.results import on_device

STEPS = 10_000
CHECKED = 2000
RESULTS = Path(__file__).parent / "results"


# --- logistic regressions ---------------------------------------------------------------------


def logistic_log_joint(beta, data):
    eta = data["x"] @ beta
    return jnp.sum(data["y"] * eta - jax.nn.softplus(eta)) - 0.5 * jnp.sum(beta**2)


def logistic(size, rows=200, dim=5):
    rng = np.random.default_rng(0)
    beta = rng.normal(size=(size, dim))
    x = rng.normal(size=(size, rows, dim)).astype(np.float32)
    x[:, :, 0] = 1
    chance = 1 / (1 + np.exp(-np.einsum("bnd,bd->bn", x, beta)))
    y = (rng.random((size, rows)) < chance).astype(np.float32)
    return logistic_log_joint, np.zeros(dim, np.float32), {"x": x, "y": y}, None


def logistic_model(data):
    import numpyro
    import numpyro.distributions as dist

    beta = numpyro.sample("x", dist.Normal(jnp.zeros(data["x"].shape[1]), 1).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=data["x"] @ beta), obs=data["y"])


@partial(jax.jit, static_argnums=2)
def importance(key, data, draws):
    """Moments by a Student-t around the mode."""
    dim = data["x"].shape[-1]
    density = lambda b: logistic_log_joint(b, data)  # noqa: E731
    mode = jnp.zeros(dim)
    for _ in range(12):
        mode = mode - jnp.linalg.solve(jax.hessian(density)(mode), jax.grad(density)(mode))
    root = jnp.linalg.cholesky(jnp.linalg.inv(-jax.hessian(density)(mode)))
    normal_key, chi_key = jax.random.split(key)
    eps = jax.random.normal(normal_key, (draws, dim))
    chi = jnp.sum(jax.random.normal(chi_key, (draws, 8)) ** 2, axis=-1) / 8
    t = eps / jnp.sqrt(chi)[:, None]
    z = mode + t @ root.T
    log_q = -(8 + dim) / 2 * jnp.log1p(jnp.sum(t**2, axis=-1) / 8)
    w = jax.nn.softmax(jax.lax.map(density, z, batch_size=500) - log_q)
    mean = w @ z
    return mean, jnp.sqrt(w @ (z - mean) ** 2)


def logistic_reference(data, count):
    pairs = [
        importance(jax.random.key(i), jax.tree.map(lambda x, i=i: x[i], data), 20_000)
        for i in range(count)
    ]
    return tuple(np.array(x) for x in zip(*pairs, strict=True))


# --- hierarchies ------------------------------------------------------------------------------


def schools(size):
    example = eight_schools()
    rng = np.random.default_rng(0)
    tau = np.clip(np.abs(5 * rng.standard_cauchy(size)), 0.1, 30)[:, None]
    sigma = np.broadcast_to(example.data["sigma"], (size, 8))
    effects = 5 * rng.normal(size=(size, 1)) + tau * rng.normal(size=(size, 8))
    y = effects + sigma * rng.normal(size=(size, 8))
    data = {"y": y.astype(np.float32), "sigma": sigma.astype(np.float32)}
    return eight_schools_log_joint, example.init, data, example.support


def schools_model(data):
    import numpyro
    import numpyro.distributions as dist

    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    eta = numpyro.sample("eta", dist.Normal(jnp.zeros(8), 1).to_event(1))
    numpyro.sample("y", dist.Normal(mu + tau * eta, data["sigma"]), obs=data["y"])


def schools_reference(data, count):
    """Scalars in the order eta, mu, tau: those of the target."""
    log_tau = np.linspace(-9, 7, 1200)
    means, sds = [], []
    for y, sigma in zip(data["y"][:count], data["sigma"][:count], strict=True):
        y, sigma, tau = y.astype(float), sigma.astype(float), np.exp(log_tau)[:, None]
        variance = sigma**2 + tau**2
        # given tau all else is normal, mu included
        precision = (1 / variance).sum(1) + 1 / 25
        centre = (y / variance).sum(1) / precision
        log_p = -0.5 * (np.log(variance).sum(1) + np.log(precision) + (y**2 / variance).sum(1))
        log_p += 0.5 * centre**2 * precision - np.log1p((tau[:, 0] / 5) ** 2) + log_tau
        w = np.exp(log_p - log_p.max())
        w /= w.sum()
        gain = tau / variance  # E[eta | mu, tau] = gain (y - mu)
        eta = gain * (y - centre[:, None])
        eta_square = sigma**2 / variance + gain**2 / precision[:, None] + eta**2
        first = np.concatenate([w @ eta, [w @ centre, w @ tau[:, 0]]])
        second = [w @ (centre**2 + 1 / precision), w @ tau[:, 0] ** 2]
        second = np.concatenate([w @ eta_square, second])
        means.append(first)
        sds.append(np.sqrt(second - first**2))
    return np.array(means), np.array(sds)


# --- measuring --------------------------------------------------------------------------------


def share_right(means, sds, reference):
    mean, sd = reference
    with np.errstate(all="ignore"):
        error = np.maximum(np.abs(means - mean) / sd, np.abs(np.log(sds / sd)))
    return (np.nan_to_num(error, nan=np.inf) <= np.log1p(0.1) + 0.005).all(axis=1)


def time_bbvi(problem, size, reference):
    log_joint, init, data, support = problem
    seconds = []
    for key in (0, 1):
        began = time.perf_counter()
        results = bbvi.fit_batch(log_joint, init, data, support=support, key=key)
        seconds.append(time.perf_counter() - began)
    count = len(reference[0])
    right = share_right(results.posterior.means[:count], results.posterior.sds[:count], reference)
    trusted = results.verdict[:count] == "trusted"
    return {
        "first_seconds": seconds[0],
        "seconds": seconds[1],
        "fits_a_second": size / seconds[1],
        "gradients_a_fit": float(results.num_gradients.mean()),
        "steps_a_fit": results.work.steps / size,
        "slot_steps_over_steps": results.work.slot_steps / results.work.steps,
        "trusted": float((results.verdict == "trusted").mean()),
        "right": float(right.mean()),
        "right_of_trusted": float(right[trusted].mean()) if trusted.any() else None,
    }


def time_numpyro(model, data, count, names, reference):
    import numpyro
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoMultivariateNormal

    def one(key, data):
        guide = AutoMultivariateNormal(model)
        svi = SVI(model, guide, numpyro.optim.Adam(0.01), Trace_ELBO())
        params = svi.run(key, STEPS, data, progress_bar=False, stable_update=True).params
        draws = guide.sample_posterior(key, params, sample_shape=(4000,))
        x = jnp.concatenate([draws[name].reshape(4000, -1) for name in names], axis=1)
        return x.mean(0), x.std(0)

    some = jax.tree.map(lambda x: jnp.asarray(x[:count]), data)
    fit = jax.jit(jax.vmap(one))
    for key in (0, 1):
        keys = jax.random.split(jax.random.key(key), count)
        began = time.perf_counter()
        means, sds = jax.device_get(fit(keys, some))
        seconds = time.perf_counter() - began
    checked = min(count, len(reference[0]))
    some_reference = tuple(x[:checked] for x in reference)
    right = share_right(means[:checked], sds[:checked], some_reference)
    return {"seconds": seconds, "fits_a_second": count / seconds, "right": float(right.mean())}


def slow_share():
    """Steps of slots over steps of problems, where 5% take 20 times the steps of the rest."""

    class Told(bbvi.BatchAndMatch):
        def step(self, target, state, data):
            state, info = super().step(target, state, data)
            due = jnp.where(data["slow"], 100, 5)
            code = jnp.where(state.log.step >= due, 1, 0).astype(jnp.int32)
            return state._replace(log=state.log._replace(status=code)), info

    size = 10_000
    data = {"slow": np.random.default_rng(0).random(size) < 0.05, "y": np.zeros(size, np.float32)}
    problems = make_problems({"x": np.float32(0)}, data, 0, 0, None)
    density = lambda params, data: -0.5 * (params["x"] - data["y"]) ** 2  # noqa: E731
    target, _, _ = bbvi.make_target(density, *problems.one(0), None)
    plan, work = Plan(None, target, Told(num_draws=4), problems.shape), Work()
    widths = Widths((1024, 256, 64), 256, 64, 16)
    for _ in run_lives(plan, problems, np.arange(size, dtype=np.int32), widths, 1000, work):
        pass
    plain = 100 * size / work.steps
    return {"slot_steps_over_steps": work.slot_steps / work.steps, "plain_loop": plain}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--problems", type=int, default=10_000)
    parser.add_argument("--schools", type=int, default=None)
    parser.add_argument("--others", type=int, default=100)
    options = parser.parse_args()
    report = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "load_before": os.getloadavg(),
        "slow_share": slow_share(),
    }
    print(json.dumps(report, indent=1), flush=True)
    sizes = {"logistic": options.problems, "schools": options.schools or options.problems}
    cases = {
        "logistic": (logistic, logistic_reference, logistic_model, ["x"]),
        "schools": (schools, schools_reference, schools_model, ["eta", "mu", "tau"]),
    }
    for name, (make, refer, model, names) in cases.items():
        size = sizes[name]
        problem = make(size)
        reference = refer(problem[2], min(CHECKED, size))
        found = {"problems": size, "checked": len(reference[0])}
        found["bbvi"] = time_bbvi(problem, size, reference)
        print(name, json.dumps(found, indent=1), flush=True)
        found["numpyro"] = time_numpyro(model, problem[2], options.others, names, reference)
        ratio = found["bbvi"]["fits_a_second"] / found["numpyro"]["fits_a_second"]
        found["bbvi_over_numpyro"] = ratio
        report[name] = found
        print(name, json.dumps(found, indent=1), flush=True)
    report["load_after"] = os.getloadavg()
    (RESULTS / f"{on_device('batch')}.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
