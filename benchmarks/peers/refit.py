"""Refit: many fits, one after the other, of new data of the same shape.

    python -m benchmarks.peers.refit [--fits 100] [--ways PATTERN ...]

Logistic regression, 200 rows, D = 5, float32, 1,000 steps where a tool asks for a number. `as
documented` is one call a fit, as a loop over data sets is written from the tool's examples; `in
one jit` is what somebody writes who knows JAX: the whole fit as one compiled function of the data.
Compilations are those of JAX, counted by its own monitor.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from fnmatch import fnmatch

import jax
import jax.numpy as jnp
import numpy as np

import bbvi
from benchmarks.batch import logistic, logistic_log_joint, logistic_reference, share_right

from .base import DRAWS, Problem
from .process import run_process
from .results import Rows
from .worker import function, plain

COMPILED = "/jax/core/compile/backend_compile_duration"
STEPS, RATE, DIM = 1000, 0.05, 5
INIT = np.zeros(DIM, np.float32)


def adapter(name: str, **settings) -> Callable:
    """The adapter of a peer, called anew for each data set."""

    def one(key, data):
        problem = Problem("logistic", logistic_log_joint, INIT, data, None, lambda: None)
        z = function(name)(problem, **settings)(key).z
        return z.mean(0), z.std(0)

    return one


def bbvi_fit(**settings) -> Callable:
    def one(key, data):
        result = bbvi.fit(logistic_log_joint, INIT, data, key=key, throw=False, **settings)
        return result.posterior.mean(), result.posterior.sd()

    return one


def jitted(make: Callable) -> Callable:
    fit = jax.jit(make)
    return lambda key, data: fit(jax.random.key(key), data)


def numpyro_jit():
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoNormal

    def model(data):
        flat = dist.ImproperUniform(dist.constraints.real_vector, (), (DIM,))
        numpyro.factor("density", logistic_log_joint(numpyro.sample("z", flat), data))

    def fit(key, data):
        guide = AutoNormal(model)
        svi = SVI(model, guide, numpyro.optim.Adam(RATE), Trace_ELBO())
        params = svi.run(key, STEPS, data, progress_bar=False, stable_update=True).params
        z = guide.sample_posterior(key, params, sample_shape=(DRAWS,))["z"].reshape(DRAWS, DIM)
        return z.mean(0), z.std(0)

    return jitted(fit)


def blackjax_jit():
    import blackjax
    import optax

    def fit(key, data):
        density = lambda z: logistic_log_joint(z, data)  # noqa: E731
        vi = blackjax.meanfield_vi(density, optax.adam(RATE), num_samples=1)
        keys = jax.random.split(key, STEPS)
        state = jax.lax.scan(lambda s, k: vi.step(k, s), vi.init(jnp.zeros(DIM)), keys)[0]
        z = vi.sample(key, state, DRAWS)
        return z.mean(0), z.std(0)

    return jitted(fit)


def tfp_jit():
    import optax

    from .tfp_vi import surrogate, tfp

    build, first = surrogate("diag", DIM)

    def fit(key, data):
        key = jax.random.key_data(key)
        params, _ = tfp.vi.fit_surrogate_posterior_stateless(
            jax.vmap(lambda z: logistic_log_joint(z, data)),
            build_surrogate_posterior_fn=build,
            initial_parameters=first,
            optimizer=optax.adam(RATE),
            num_steps=STEPS,
            seed=key,
        )
        z = build(*params).sample(DRAWS, seed=key)
        return z.mean(0), z.std(0)

    return jitted(fit)


def stochastic():
    return bbvi.StochasticGradient(bbvi.MeanFieldGaussian())


def bbvi_jit():
    solver = bbvi.StochasticGradient(
        bbvi.MeanFieldGaussian(), bbvi.ELBO(num_draws=1, antithetic=False)
    )
    point, example = INIT, jax.tree.map(lambda x: x[0], logistic(1)[2])
    target, _, _ = bbvi.make_target(logistic_log_joint, point, example, None)

    def fit(key, data):
        state = solver.init(target, jnp.zeros(DIM), jnp.ones(DIM), key, data)
        step = lambda state, _: (solver.step(target, state, data)[0], None)  # noqa: E731
        params = solver.output(jax.lax.scan(step, state, length=STEPS)[0])
        return solver.family.mean(params), solver.family.sd(params)

    return jitted(fit)


ADAM = {"rate": RATE, "steps": STEPS}
WAYS: dict[str, Callable[[], Callable]] = {
    "bbvi default": bbvi_fit,
    "bbvi mean-field, 1,000 steps": lambda: bbvi_fit(solver=stochastic(), max_steps=STEPS),
    "bbvi mean-field, in one jit": bbvi_jit,
    "numpyro AutoNormal, in one jit": numpyro_jit,
    "blackjax meanfield_vi, in one jit": blackjax_jit,
    "TFP mean-field, in one jit": tfp_jit,
    "numpyro AutoNormal, as documented": lambda: adapter(
        "numpyro_svi:fit", guide="AutoNormal", **ADAM
    ),
    "blackjax meanfield_vi, as documented": lambda: adapter(
        "blackjax_vi:fit", algorithm="meanfield_vi", draws=1, **ADAM
    ),
    "TFP mean-field, as documented": lambda: adapter("tfp_vi:fit", shape="diag", **ADAM),
    "flowjax MAF, as documented": lambda: adapter("flowjax_flow:fit", draws=10, **ADAM),
    "numpyro NUTS, as documented": lambda: adapter("numpyro_nuts:fit"),
}


def measure(way: str, fits: int) -> dict:
    problem = logistic(fits)
    arrays = [jax.tree.map(lambda x, i=i: x[i], problem[2]) for i in range(fits)]
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if event == COMPILED else None
    )
    one, seconds, answers = WAYS[way](), [], []
    for key, data in enumerate(arrays):
        began = time.perf_counter()
        answers.append(jax.tree.map(np.asarray, one(key, data)))
        seconds.append(time.perf_counter() - began)
    means, sds = (np.stack(x) for x in zip(*answers, strict=True))
    compilations = len(compiled)
    right = share_right(means, sds, logistic_reference(problem[2], fits))
    return {
        "total": sum(seconds),
        "first": seconds[0],
        "a_fit": float(np.median(seconds[1:])),
        "compilations": compilations,
        "right": float(right.mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fits", type=int, default=100)
    parser.add_argument("--ways", nargs="*", default=["*"], help="names or patterns")
    parser.add_argument("--here", action="store_true", help="one way, in this process")
    options = parser.parse_args()
    ways = [w for w in WAYS if any(fnmatch(w, p) for p in options.ways)]
    if options.here:
        print(json.dumps(plain(measure(ways[0], options.fits))))
        sys.exit()
    rows = Rows("peers_refit", ("way", "fits"))
    for way in ways:
        arguments = ["-m", "benchmarks.peers.refit", "--here", "--fits", str(options.fits)]
        found = run_process([*arguments, "--ways", way], 600)
        rows.add({"way": way, "fits": options.fits} | found)
        print(way, found, flush=True)


if __name__ == "__main__":
    main()
