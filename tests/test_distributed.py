"""Several processes give the table of one.

Run as a program, this file is one of the processes.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

SIZE = 22


def fit(**settings):
    import jax.numpy as jnp

    import bbvi

    def log_joint(params, data):
        z = (data - params["mu"]) / params["sigma"]
        return -0.5 * jnp.sum(z**2) - z.size * jnp.log(params["sigma"]) - params["sigma"]

    y = np.random.default_rng(0).normal(1, 2, (SIZE, 9)).astype(np.float32)
    y[5, 2] = np.nan
    init, support = {"mu": 0.0, "sigma": 1.0}, {"sigma": bbvi.positive}
    settings = {"chunk": 8, "key": 2, "escalate": False} | settings
    return bbvi.fit_batch(log_joint, init, y, support=support, **settings)


def test_two_processes_give_the_table_of_one(tmp_path):
    import bbvi

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    paths = [str(Path(bbvi.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(p for p in paths if p),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, address, str(i), str(tmp_path)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    errors = [p.communicate(timeout=600)[1] for p in processes]
    assert [p.returncode for p in processes] == [0, 0], errors
    one = fit()
    both = [bbvi.BatchResult.load(tmp_path / f"result-{i}") for i in range(2)]
    tables = [r.table().columns for r in both]
    for name, column in tables[0].items():
        np.testing.assert_array_equal(column, tables[1][name])
    for name in ("status", "verdict", "num_steps", "num_gradients"):
        np.testing.assert_array_equal(getattr(both[0], name), getattr(one, name))
    usable = np.arange(SIZE) != 5
    for name in ("means", "sds"):
        found, expected = (getattr(r.posterior, name)[usable] for r in (both[0], one))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    # each wrote its own problems, once
    shards = [np.load(p)["index"] for p in sorted((tmp_path / "run").glob("process-*/shard-*.npz"))]
    assert sorted(np.concatenate(shards)) == list(range(SIZE))


def main(address: str, number: str, folder: str) -> None:
    """One of two processes."""
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, num_processes=2, process_id=int(number))
    fit(path=Path(folder) / "run").save(Path(folder) / f"result-{number}")


if __name__ == "__main__":
    main(*sys.argv[1:])
