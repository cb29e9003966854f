"""What can be counted and must not grow: gradients, steps, compilations, sizes of programs.

    python -m benchmarks.counted            compare with the last entry of results/counted.json
    python -m benchmarks.counted --update   add an entry for the commit that is checked out

Gradients and steps are medians over 16 keys: one key in sixty needs a flow, and a mean would
count their luck. Compilations are those of the key in the middle, with nothing compiled before it;
those of new data come behind it. No second is measured, so a busy machine changes nothing. A count
that is more than 10%, and more than two, above the last entry's is an error, if the entry is of the
same jax: another compiler counts otherwise. Entries are never removed: the file is the history.
"""

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np

import bbvi
from bbvi.examples import eight_schools

PATH = Path(__file__).parent / "results" / "counted.json"
KEYS = 16
ALLOWED, SLACK = 1.1, 2  # rounding on another processor may cost a small count a step
COMPILED = "/jax/core/compile/backend_compile_duration"


def regression(params, data):
    eta = data["x"] @ params["beta"]
    return jnp.sum(data["y"] * eta - jax.nn.softplus(eta)) - 0.5 * jnp.sum(params["beta"] ** 2)


def regression_data(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, 5))
    y = rng.random(200) < 1 / (1 + np.exp(-x.sum(1)))
    return {"x": x.astype(np.float32), "y": y.astype(np.float32)}


def new_schools(seed):
    data = eight_schools().data
    return data | {"y": data["y"] + np.random.default_rng(seed).normal(size=8)}


def cases():
    """(name, arguments of fit but the data, data by number)."""
    schools = eight_schools()
    yield (
        "eight schools, default",
        schools.log_joint,
        {"init": schools.init, "support": schools.support},
        new_schools,
    )
    init = {"beta": np.zeros(5, np.float32)}
    yield "regression, default", regression, {"init": init}, regression_data
    for family in (bbvi.MeanFieldGaussian(), bbvi.FullRankGaussian()):
        solver = bbvi.StochasticGradient(family)
        name = f"regression, {type(family).__name__} by stochastic gradient"
        yield name, regression, {"init": init, "solver": solver}, regression_data


def equations(jaxpr) -> int:
    """Of a program and of all programs inside it."""
    total = len(jaxpr.eqns)
    for eqn in jaxpr.eqns:
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_program):
            if _is_program(value):
                total += equations(getattr(value, "jaxpr", value))
    return total


def _is_program(value) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def step_size(result, data) -> int:
    """Equations in a step of the solver that gave the result."""
    target, solver = result.posterior.target, result.solver
    key, point = jax.random.key(0), jnp.zeros(target.dim)
    state = jax.eval_shape(lambda: solver.init(target, point, point + 1, key, data))
    program = jax.make_jaxpr(lambda state: solver.step(target, state, data))(state)
    return equations(program.jaxpr)


def count() -> dict[str, dict[str, int]]:
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if event == COMPILED else None
    )
    counts = {}
    for name, log_joint, settings, data in cases():
        # a single key says more of its own luck than of the code
        fit = partial(bbvi.fit, log_joint, throw=False, **settings)
        fits = [fit(data=data(0), key=key) for key in range(KEYS)]
        typical = sorted(range(KEYS), key=lambda key: fits[key].num_gradients)[KEYS // 2]
        jax.clear_caches()
        before = len(compiled)
        result = fit(data=data(0), key=typical)
        first = len(compiled)
        fit(data=data(1), key=typical)
        second = len(compiled)
        counts[name] = {
            "median gradients": round(median(x.num_gradients for x in fits)),
            "median steps": round(median(x.num_steps for x in fits)),
            "compilations": first - before,
            "compilations of new data": second - first,
            "equations of a step": step_size(result, data(0)),
        }
    return counts


def commit() -> str:
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        cwd=PATH.parent,
    )
    return run.stdout.strip() or "unknown"


def grown(old: dict, new: dict) -> list[str]:
    """What is more than 10% above the last entry, in words."""
    return [
        f"{name}: {what} {old[name][what]:,} -> {value:,}"
        for name, values in new.items()
        for what, value in values.items()
        if name in old
        and what in old[name]
        and value > max(ALLOWED * old[name][what], old[name][what] + SLACK)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--update", action="store_true", help="add an entry")
    options = parser.parse_args()
    entries = json.loads(PATH.read_text()) if PATH.exists() else []
    counts = count()
    last = entries[-1] if entries else {"commit": None, "counts": {}}
    for name, values in counts.items():
        print(f"{name}: {', '.join(f'{value:,} {what}' for what, value in values.items())}")
    worse = grown(last["counts"], counts)
    if options.update:
        entries.append({"commit": commit(), "jax": jax.__version__, "counts": counts})
        PATH.write_text(json.dumps(entries, indent=1) + "\n")
    elif not entries:
        sys.exit(f"{PATH.name} has no entry: run it with --update.")
    elif worse and last["jax"] != jax.__version__:
        print(f"not compared: the last entry is of jax {last['jax']}, this is {jax.__version__}.")
    elif worse:
        sys.exit(
            f"grown by more than 10% since {last['commit']}:\n  " + "\n  ".join(worse) + "\n"
            "If it has to be so, say why in the commit that adds an entry with --update."
        )


if __name__ == "__main__":
    main()
