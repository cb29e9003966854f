"""The driver: what compiles, what a kill leaves behind, and how a run ends.

Run as a program, this file is the process that one of its tests kills.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bbvi
from bbvi import storage
from bbvi.examples import eight_schools
from bbvi.run import begin, finish

# `bbvi.run` the attribute is the function.
DRIVER = sys.modules["bbvi.run"]

SOLVER = bbvi.StochasticGradient(bbvi.MeanFieldGaussian())
SUPPORT = {"sigma": bbvi.positive}
INIT = {"mu": 1.0, "sigma": 1.0}
LIMIT = 400  # before the second window ends, at which a run can converge
CHUNK = 100


def log_joint(params, data):
    """A normal sample with unknown mean and scale; NaN where the mean is too far from 1."""
    z = (data["y"] - params["mu"]) / params["sigma"]
    value = -0.5 * (params["mu"] / 10) ** 2 - params["sigma"] - 0.5 * jnp.sum(z**2)
    value = value - z.size * jnp.log(params["sigma"])
    return jnp.where(jnp.abs(params["mu"] - 1) <= data["reach"], value, jnp.nan)


def make_data(mean=1.3, reach=np.inf):
    y = np.random.default_rng(0).normal(mean, 1, 40)
    return {"y": y.astype(np.float32), "reach": np.float32(reach)}


def fit(data=None, **settings):
    data = make_data() if data is None else data
    settings = {"solver": SOLVER, "support": SUPPORT, "key": 3, "max_steps": LIMIT} | settings
    return bbvi.fit(log_joint, INIT, data, **settings)


def steady_chunks(chunk, set_attribute=setattr):
    """From now on every chunk has `chunk` steps, however fast it runs."""
    set_attribute(DRIVER, "_FIRST_CHUNK", chunk)
    set_attribute(DRIVER, "_CHUNK_SECONDS", float("nan"))  # nothing is slower or faster than NaN


def numbers(result):
    """Everything that a fit computes."""
    kept = (result.posterior.params, result.history, result.diagnostics, result.drift)
    counts = (result.status, result.num_steps, result.num_gradients, result.num_skipped)
    return jax.tree.map(np.asarray, (kept, counts))


def assert_same_bits(found, expected):
    (found, there), (expected, structure) = map(jax.tree.flatten, (found, expected))
    assert there == structure
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.dtype == b.dtype and a.shape == b.shape, i
        assert a.tobytes() == b.tobytes(), (i, a, b)


@pytest.fixture(scope="module")
def uninterrupted():
    return numbers(fit())


@pytest.fixture
def chunks_of(monkeypatch):
    return lambda chunk: steady_chunks(chunk, monkeypatch.setattr)


# --- compilations -------------------------------------------------------------------------------


def make_line(slope=0.5):
    rng = np.random.default_rng(1)
    x = rng.normal(size=20).astype(np.float32)
    return {"x": x, "y": (1 + slope * x + rng.normal(size=20)).astype(np.float32)}


@pytest.mark.parametrize("solver", [None, SOLVER], ids=["default", "mean-field"])
def test_a_second_fit_compiles_nothing(count_compiles, solver):
    def line(params, data):  # defined here, so that the first fit has something to compile
        prior = -0.5 * (params["slope"] ** 2 + params["at_zero"] ** 2)
        residual = data["y"] - params["at_zero"] - params["slope"] * data["x"]
        return prior - 0.5 * jnp.sum(residual**2)

    def refit(init=None, data=None, **settings):
        init = {"slope": 0.0, "at_zero": 0.0} if init is None else init
        data = make_line() if data is None else data
        return bbvi.fit(line, init, data, **{"solver": solver, "key": 0} | settings)

    def look_at(result):
        draws = result.posterior.sample(1, 10)
        return str(result.summary()), jax.device_get(draws)

    def stages(result):
        # a corrected posterior is another structure, hence another program to sample from
        return [name for name, _ in result.timings], result.posterior.draws is None

    with count_compiles() as first:
        result = refit()
        look_at(result)
    assert first.count > 0
    usual = stages(result)

    changes = {
        "nothing": {},
        "data": {"data": make_line(slope=-2.0)},
        "data on the device": {"data": jax.tree.map(jnp.asarray, make_line(slope=0.2))},
        "key": {"key": 11},
        "typed key": {"key": jax.random.key(12)},
        "step limit": {"max_steps": 300},
        "start": {"init": {"slope": 2.0, "at_zero": 0.5}},
        "start of arrays": {"init": {"slope": jnp.float32(-1), "at_zero": np.float32(3)}},
        "everything": {"data": make_line(slope=3.0), "key": 5, "max_steps": 250},
    }
    changes |= {f"key {key}": {"key": key} for key in range(1, 11)}
    answers = set()
    same_stages = 0
    for what, change in changes.items():
        with count_compiles() as n:
            result = refit(**change)
            look_at(result)
        # a stage is compiled when it is first reached, which another key may do
        same_stages += stages(result) == usual
        assert n.count == 0 or stages(result) != usual, what
        if "data" in change or "key" in change:
            params = jax.tree.leaves(result.posterior.params)
            answers.add(np.concatenate([x.ravel() for x in params]).tobytes())
    assert len(answers) == 15  # none of them was the answer of another one
    assert same_stages > len(changes) / 2


def test_draws_far_out_are_always_as_many(count_compiles):
    """Those that weigh nothing are another number by every key; programs are not."""
    schools, seen = eight_schools(), []
    for key in (1, 4):
        found = bbvi.fit(*schools[:3], support=schools.support, key=key)
        with count_compiles() as n:
            found.posterior.mean()
        number = len(found.posterior.draws)
        assert number == found.diagnostics.num_draws
        assert n.count == 0 or number not in seen
        seen.append(number)


@pytest.mark.parametrize("where", ["rate", "optimizer"])
def test_a_new_learning_rate_compiles_nothing(count_compiles, where):
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=0.05)
    solver = (
        SOLVER if where == "rate" else bbvi.StochasticGradient(SOLVER.family, optimizer=optimizer)
    )
    target, _, data = bbvi.make_target(log_joint, INIT, make_data(), SUPPORT)
    zeros = jnp.zeros(target.dim)
    start = begin(solver, target, zeros, zeros + 1, jax.random.key(0), data)

    def with_rate(rate):
        rate = np.asarray(rate, target.dtype)
        if where == "rate":
            return start._replace(rate=rate)
        hyperparams = start.opt_state.hyperparams | {"learning_rate": rate}
        return start._replace(opt_state=start.opt_state._replace(hyperparams=hyperparams))

    def after(state):
        return finish(solver, bbvi.run(solver, target, state, data, 30))["loc"]

    slow = after(with_rate(0.001))
    with count_compiles() as n:
        fast = after(with_rate(0.01))
    assert n.count == 0
    assert np.linalg.norm(fast) > 3 * np.linalg.norm(slow) > 0


def heavy(params, data):
    """Inverse gamma distributions, whose tails no chain of a few steps comes back from."""
    x = params["x"]
    return jnp.sum(-data["power"] * jnp.log(x) - 1 / x)


@pytest.mark.slow
def test_the_last_stage_of_the_default(count_compiles, chunks_of, tmp_path):
    # in so many dimensions mixtures do not settle it
    solver, init = bbvi.Auto(flow_steps=300), {"x": np.ones(13, np.float32)}

    def refit(power=3.0, **settings):
        settings = {"solver": solver, "support": {"x": bbvi.positive}, "key": 1} | settings
        return bbvi.fit(heavy, init, {"power": np.float32(power)}, **settings)

    def steps_of(**settings):
        seen = []
        return refit(callback=lambda snapshot: seen.append(snapshot.step), **settings), seen

    chunks_of(CHUNK)
    expected, steps = steps_of()
    assert "flow" in dict(expected.timings)
    assert steps[:3] == [CHUNK, 2 * CHUNK, 3 * CHUNK]
    refit(max_steps=150)  # chains follow it
    with count_compiles() as n:
        again = refit(power=3.01, max_steps=200)
    assert n.count == 0
    assert again.num_steps == 200

    for kill in {2, len(steps) - 1}:
        path = tmp_path / f"run {kill}"
        with pytest.raises(KilledError):
            refit(checkpoint=path, callback=stop_at(kill, KilledError()))
        resumed, left = steps_of(checkpoint=path)
        assert left == steps[kill - 1 :]
        assert_same_bits(numbers(resumed), numbers(expected))
        # the posterior may be one of weighted draws
        assert_same_bits(*(jax.device_get(r.posterior.sample(0, 50)) for r in (resumed, expected)))


# --- looking on changes nothing -----------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 37, CHUNK, 10_000])
def test_chunks_change_no_bit(chunks_of, uninterrupted, chunk):
    chunks_of(chunk)
    seen = []
    result = fit(callback=seen.append)
    assert len(seen) == -(-LIMIT // chunk)
    assert_same_bits(numbers(result), uninterrupted)


def test_a_checkpoint_changes_no_bit(chunks_of, uninterrupted, tmp_path):
    chunks_of(CHUNK)
    result = fit(checkpoint=tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert_same_bits(numbers(result), uninterrupted)


def test_a_progress_bar_changes_no_bit(chunks_of, uninterrupted, capsys):
    pytest.importorskip("tqdm")
    chunks_of(CHUNK)
    result = fit(progress=True)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"{LIMIT}/{LIMIT}" in printed.err
    assert f"elbo {result.history.elbo[-1]:.2f}" in printed.err
    assert f"drift {result.drift:.2g} sd" in printed.err
    assert_same_bits(numbers(result), uninterrupted)


def test_a_bar_for_each_stage_of_the_default(capsys):
    pytest.importorskip("tqdm")
    solver = bbvi.Auto(flow_steps=20)
    # in so many dimensions mixtures do not settle it
    args = (heavy, {"x": np.ones(13, np.float32)}, {"power": np.float32(3)})
    settings = {"support": {"x": bbvi.positive}, "solver": solver, "key": 1}
    plain = bbvi.fit(*args, **settings)
    shown = bbvi.fit(*args, **settings, progress=True)
    assert_same_bits(numbers(shown), numbers(plain))
    bars = [b for b in re.split("[\r\n]+", capsys.readouterr().err) if "elbo" in b and "100%" in b]
    names = [name for name, _ in shown.timings]
    assert names[0] == "check" and names[-1] == "other"
    stages = [name for name in names[1:-1] if "judge" not in name]
    assert {"gaussian", "flow"} <= set(stages)
    # a bar may be drawn once more as it closes, perhaps at another second
    bars = [re.sub(r":.*elbo", ": elbo", bar) for bar in bars]
    bars = [b for b, after in zip(bars, [*bars[1:], ""], strict=True) if b != after]
    # bent fits that do not answer have a bar and are no stage
    assert {bar.split(":")[0] for bar in bars} - {*stages} <= {"bent"}
    bars = [bar for bar in bars if bar.split(":")[0] in stages]
    assert [bar.split(":")[0] for bar in bars] == stages
    criteria = {"flow": "drift", "chains": "memory"}  # by a stage's first word
    for stage, bar in zip(stages, bars, strict=True):
        assert criteria.get(stage.split()[0], "k-hat") in bar


def test_nothing_is_printed_unasked(capfd):
    fit()
    assert capfd.readouterr() == ("", "")


def test_progress_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"pip install 'bbvi\[progress\]'"):
        fit(progress=True)


def test_what_a_callback_sees(chunks_of):
    chunks_of(CHUNK)
    seen = []
    result = fit(callback=seen.append)
    assert [s.step for s in seen] == list(range(CHUNK, LIMIT + 1, CHUNK))
    assert {s.max_steps for s in seen} == {LIMIT}
    assert {s.status for s in seen} == {bbvi.Status.RUNNING}
    for snapshot in seen:
        at = np.searchsorted(result.history.step, snapshot.step, side="right") - 1
        assert snapshot.elbo == result.history.elbo[at]
        assert snapshot.elbo_se == result.history.elbo_se[at]
    assert seen[-1].drift == result.drift
    assert_same_bits(
        jax.tree.map(np.asarray, finish(SOLVER, seen[-1].state)), numbers(result)[0][0]
    )


# --- resuming -----------------------------------------------------------------------------------


class KilledError(Exception):
    pass


def stop_at(chunk: int, error: BaseException) -> Callable:
    """A callback that raises at a chunk, counted from 1."""
    calls = []

    def callback(snapshot):
        calls.append(snapshot.step)
        if len(calls) == chunk:
            raise error

    return callback


@pytest.mark.parametrize("chunk", [1, 2, 4, LIMIT // CHUNK])
def test_a_run_goes_on_where_it_was_killed(chunks_of, uninterrupted, tmp_path, chunk):
    chunks_of(CHUNK)
    path = tmp_path / "run"
    with pytest.raises(KilledError):
        fit(checkpoint=path, callback=stop_at(chunk, KilledError()))
    assert path.exists() == (chunk > 1)

    chunks_of(70)
    seen = []
    result = fit(checkpoint=path, callback=lambda snapshot: seen.append(snapshot.step))
    assert seen[0] == (chunk - 1) * CHUNK + 70  # the chunk that was lost, and no more
    assert_same_bits(numbers(result), uninterrupted)


def test_a_run_killed_again_and_again(chunks_of, uninterrupted, tmp_path):
    chunks_of(CHUNK)
    for _ in range(3):
        with pytest.raises(KilledError):
            fit(checkpoint=tmp_path / "run", callback=stop_at(2, KilledError()))
    assert_same_bits(numbers(fit(checkpoint=tmp_path / "run")), uninterrupted)


def test_a_run_goes_on_after_ctrl_c(chunks_of, uninterrupted, tmp_path):
    chunks_of(CHUNK)
    result = fit(checkpoint=tmp_path / "run", callback=stop_at(3, KeyboardInterrupt()))
    assert result.status is bbvi.Status.INTERRUPTED
    assert_same_bits(numbers(fit(checkpoint=tmp_path / "run")), uninterrupted)


def test_a_run_goes_on_to_a_larger_limit(chunks_of, uninterrupted, tmp_path):
    chunks_of(CHUNK)
    fit(checkpoint=tmp_path / "run", max_steps=250)
    assert_same_bits(numbers(fit(checkpoint=tmp_path / "run")), uninterrupted)


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
def test_a_killed_process_goes_on_in_another_one(uninterrupted, tmp_path):
    path, saved = tmp_path / "run", tmp_path / "result"
    paths = [str(Path(bbvi.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    command = [sys.executable, __file__, path, saved]

    with subprocess.Popen(
        [*command, "60"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            while not path.exists() and process.poll() is None:
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGKILL)
        output = process.communicate()[0].decode()
    assert process.returncode == -signal.SIGKILL, output
    assert not saved.exists()

    second = subprocess.run([*command, "0"], env=environment, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    steps = [int(line) for line in second.stdout.split()]
    assert steps == list(range(2 * CHUNK, LIMIT + 1, CHUNK))  # one chunk was done before
    assert_same_bits(numbers(bbvi.load(saved)), uninterrupted)


def test_a_finished_checkpoint_is_the_answer(tmp_path):
    path = tmp_path / "run"
    result = fit(checkpoint=path, max_steps=None)
    assert result.status is bbvi.Status.CONVERGED
    seen = []
    again = fit(checkpoint=path, max_steps=None, callback=seen.append)
    assert seen == []
    assert_same_bits(numbers(again), numbers(result))
    # nor does a larger limit wake it up
    more = fit(checkpoint=path, max_steps=10**6, callback=seen.append)
    assert seen == []
    assert_same_bits(numbers(more), numbers(result))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "run"
    fit(checkpoint=path, max_steps=50)
    return path


def start_anew(checkpoint, init=INIT, data=None, **settings):
    settings = {"solver": SOLVER, "support": SUPPORT, "key": 3, "max_steps": 50} | settings
    data = make_data() if data is None else data
    return bbvi.fit(log_joint, init, data, checkpoint=checkpoint, **settings)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"key": 4}, "other key"),
        ({"data": make_data(mean=1.31)}, "other data and start"),
        ({"init": INIT | {"mu": 1.5}}, "other data and start"),
        ({"support": SUPPORT | {"mu": bbvi.negative}, "init": INIT | {"mu": -1.0}}, "parameters"),
        ({"init": INIT | {"mu": np.ones(1, np.float32)}}, "parameters"),
        ({"solver": bbvi.StochasticGradient(SOLVER.family, tolerance=0.02)}, "other solver"),
        ({"solver": bbvi.StochasticGradient(SOLVER.family, bbvi.ELBO(8))}, "other solver"),
        ({"solver": bbvi.BatchAndMatch()}, "other solver"),
        ({"solver": bbvi.BatchAndMatch(), "key": 4}, "other solver and key"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_the_checkpoint_of_another_problem(checkpoint, change, named):
    before = checkpoint.read_bytes()
    with pytest.raises(bbvi.InputError, match=named) as error:
        start_anew(checkpoint, **change)
    assert str(checkpoint) in str(error.value)
    assert checkpoint.read_bytes() == before


def test_the_checkpoint_of_another_optimizer(tmp_path):
    def solver(learning_rate):
        return bbvi.StochasticGradient(SOLVER.family, optimizer=optax.adam(learning_rate))

    start_anew(tmp_path / "run", solver=solver(0.1), max_steps=10)
    with pytest.raises(bbvi.InputError, match="other solver"):
        start_anew(tmp_path / "run", solver=solver(0.01), max_steps=20)


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.999])
def test_a_truncated_checkpoint(checkpoint, tmp_path, share):
    content = checkpoint.read_bytes()
    path = tmp_path / "run"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(bbvi.InputError, match=str(path)):
        start_anew(path)


def test_a_damaged_checkpoint(checkpoint, tmp_path):
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path = tmp_path / "run"
    path.write_bytes(content)
    with pytest.raises(bbvi.InputError, match=str(path)):
        start_anew(path)


def test_a_file_that_is_no_checkpoint(tmp_path):
    path = tmp_path / "run"
    path.write_text("mu, sigma\n1.0, 2.0\n")
    with pytest.raises(bbvi.InputError, match="not a file of bbvi"):
        start_anew(path)
    fit(max_steps=10).save(path)
    with pytest.raises(bbvi.InputError, match="holds a result, not a checkpoint"):
        start_anew(path)


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_keys_of_any_kind_survive_a_file(tmp_path, kind):
    state = {"key": jax.random.key(5, impl=kind), "step": jnp.int32(3)}
    storage.write(tmp_path / "run", "checkpoint", {}, storage.flatten("state", state))
    _, arrays = storage.read(tmp_path / "run", "checkpoint")
    back = storage.restore("state", arrays, jax.eval_shape(lambda: state))
    assert back["key"].dtype == state["key"].dtype
    words = [np.asarray(jax.random.key_data(s["key"])) for s in (back, state)]
    assert_same_bits(*words)


# --- how a run ends -----------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 3])
def test_ctrl_c_returns_the_fit_so_far(chunks_of, chunk):
    chunks_of(CHUNK)
    result = fit(callback=stop_at(chunk, KeyboardInterrupt()))
    assert result.status is bbvi.Status.INTERRUPTED
    assert result.num_steps == chunk * CHUNK
    assert result.verdict.level != "trusted"
    assert result.status.message[:-1] in str(result.verdict)
    expected = fit(max_steps=chunk * CHUNK)
    assert_same_bits(numbers(result)[0], numbers(expected)[0])


@pytest.mark.parametrize("answer", [True, 1, np.True_, "stop"])
def test_a_callback_ends_the_run(chunks_of, answer):
    chunks_of(CHUNK)
    seen = []

    def callback(snapshot):
        seen.append(snapshot.step)
        return answer if len(seen) == 2 else 0

    result = fit(callback=callback)
    assert seen == [CHUNK, 2 * CHUNK]
    assert result.status is bbvi.Status.INTERRUPTED
    assert result.num_steps == 2 * CHUNK


def test_a_callback_too_late_to_interrupt(chunks_of):
    chunks_of(10**6)
    result = fit(callback=lambda snapshot: True, max_steps=None)
    assert result.status is bbvi.Status.CONVERGED


@pytest.mark.parametrize("max_steps", [1, 7, 24, 25, 26, 199, 200, 201])
def test_the_step_limit_is_exact(max_steps):
    result = fit(max_steps=max_steps)
    assert result.num_steps == max_steps
    assert result.status is bbvi.Status.MAX_STEPS
    assert result.history.step[-1:].tolist() == ([25 * (max_steps // 25)] if max_steps > 24 else [])
    assert result.verdict.level != "trusted"
    assert np.isfinite(result.drift) == (max_steps >= 200)
    start = fit(max_steps=1).state.frame.loc
    assert not np.any(result.posterior.params["loc"] == start)


@pytest.mark.parametrize("max_steps", [0, -1, 2.5, "10"])
def test_step_limits_that_make_no_sense(max_steps):
    with pytest.raises(bbvi.InputError, match="max_steps must be a positive whole number"):
        fit(max_steps=max_steps)


def test_a_log_joint_that_is_finite_only_at_the_start():
    data = make_data(reach=1e-6)
    with pytest.raises(bbvi.FitError) as error:
        fit(data)
    result = error.value.result
    assert result.status is bbvi.Status.NONFINITE
    assert result.status.message in str(error.value)
    assert all(action in str(error.value) for action in result.verdict.actions)
    assert result.verdict.level == "rejected"
    assert result.verdict.actions
    assert result.num_steps < LIMIT
    assert result.num_skipped >= result.num_steps * SOLVER.objective.draws
    for leaf in jax.tree.leaves(result.posterior.params):
        assert np.isfinite(leaf).all()

    quiet = fit(data, throw=False)
    assert_same_bits(numbers(quiet), numbers(result))
    assert quiet.verdict == result.verdict


def test_skipped_draws_are_reported_on_success():
    y = make_data()["y"]
    reach = abs(y.mean() - 1) + 2.5 * y.std() / len(y) ** 0.5
    result = fit(make_data(reach=reach), max_steps=None)
    assert result.status is bbvi.Status.CONVERGED
    # The mean is normal enough to know how often it is too far out.
    mean, sd = (getattr(result.posterior, name)()["mu"] for name in ("mean", "sd"))
    below, above = jax.scipy.stats.norm.cdf((np.array([1 - reach, 1 + reach]) - mean) / sd)
    share = result.num_skipped / float(result.state.log.num_gradients)
    assert 0.5 < share / (1 - above + below) < 2
    assert result.num_skipped > 20
    assert result.verdict.level != "trusted"
    assert "NaN" in str(result.verdict)

    assert fit(max_steps=None).num_skipped == 0


def main(checkpoint: str, output: str, pause: str) -> None:
    """Fit with a checkpoint, print each step seen; pause in the second chunk."""
    steady_chunks(CHUNK)
    steps = []

    def callback(snapshot):
        steps.append(snapshot.step)
        print(snapshot.step, flush=True)
        if len(steps) > 1:
            time.sleep(float(pause))

    fit(checkpoint=checkpoint, callback=callback).save(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
