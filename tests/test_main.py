"""`python -m bbvi`, its example and its picture."""

import dataclasses
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbvi
import bbvi.__main__
from bbvi.diagnostics.fresh_draws import diagnose
from bbvi.diagnostics.judging import judge
from bbvi.examples import eight_schools
from bbvi.plot import plot_fit
from bbvi.result import Trace

ROOT = Path(__file__).parents[1]
HAS_MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None
PNG = b"\x89PNG\r\n\x1a\n"


def log_joint(params):
    return -0.5 * jnp.sum(params["x"] ** 2)


def make_result(dim: int, scale: float = 1.0) -> bbvi.FitResult:
    """N(0, scale^2) for a standard normal, as if it had been fitted with a long transient."""
    init = {"x": np.zeros(dim) if dim > 1 else 0.0}
    target, _, data = bbvi.make_target(log_joint, init, None, None)
    family = bbvi.MeanFieldGaussian()
    params = family.init(jnp.zeros(dim), jnp.full(dim, scale))
    diagnostics = jax.device_get(diagnose(target, family, params, jax.random.key(0), data))
    step = np.arange(1.0, 97.0)
    elbo = diagnostics.elbo - 1e4 * np.exp(-0.3 * step) + 0.1 * np.sin(step)
    status = bbvi.Status.CONVERGED
    return bbvi.FitResult(
        posterior=bbvi.Posterior(params, None, target, family),
        diagnostics=diagnostics,
        history=Trace(step, elbo, np.full(96, 0.05)),
        status=status,
        verdict=judge(diagnostics, status, target.scalar_names),
        num_steps=96,
        num_gradients=960,
        num_skipped=0,
        drift=0.0,
    )


@pytest.fixture
def draw():
    """`plot_fit`, with every text and every axis laid out; figures are closed afterwards."""
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot

    def draw(result):
        figure = plot_fit(result)
        figure.canvas.draw()  # most warnings, such as of a failed layout, come only here
        return figure

    yield draw
    pyplot.close("all")


def test_demo(tmp_path):
    """Takes a fit from cold, but it is the first thing that people run."""
    picture = tmp_path / "demo.png"
    run = subprocess.run(
        [sys.executable, "-m", "bbvi", "--output", picture],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"},
    )
    assert run.returncode == 0, run.stderr
    for name in ("mu", "tau"):
        assert re.search(rf"^{name} +-?\d", run.stdout, re.M), run.stdout
    assert re.search(r"^verdict: (trusted|caution)$", run.stdout, re.M), run.stdout
    assert "Warning" not in run.stderr
    if HAS_MATPLOTLIB:
        assert picture.read_bytes().startswith(PNG)
    else:
        assert "pip install 'bbvi[plot]'" in run.stdout


def test_demo_without_matplotlib(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(bbvi.__main__, "fit", lambda *args, **kwargs: make_result(2))
    picture = tmp_path / "demo.png"
    bbvi.__main__.main(["--output", str(picture)])
    assert "pip install 'bbvi[plot]'" in capsys.readouterr().out.splitlines()[-1]
    assert not picture.exists()


def test_demo_draws_nothing_when_told(monkeypatch, capsys):
    result = make_result(2)
    monkeypatch.setattr(bbvi.__main__, "fit", lambda *args, **kwargs: result)
    monkeypatch.setattr(bbvi.FitResult, "plot", lambda self: pytest.fail("drew a picture"))
    bbvi.__main__.main(["--no-plot"])
    assert "verdict: trusted" in capsys.readouterr().out


def test_eight_schools_log_joint():
    """Against the densities of SciPy, up to the constants that the example leaves out."""
    stats = pytest.importorskip("scipy.stats")
    example = eight_schools()

    def reference(mu, tau, eta):
        effect = mu + tau * eta
        prior = stats.norm(0, 5).logpdf(mu) + stats.halfcauchy(0, 5).logpdf(tau)
        prior += stats.norm.logpdf(eta).sum()
        return prior + stats.norm(effect, example.data["sigma"]).logpdf(example.data["y"]).sum()

    rng = np.random.default_rng(0)
    points = [(rng.normal(), rng.exponential(), rng.normal(size=8)) for _ in range(5)]
    constants = [
        reference(mu, tau, eta)
        - float(example.log_joint({"mu": mu, "tau": tau, "eta": eta}, example.data))
        for mu, tau, eta in points
    ]
    np.testing.assert_allclose(constants, constants[0], rtol=1e-5)


@pytest.mark.parametrize(("dim", "panels"), [(1, 1), (2, 2), (5, 5), (30, 8)])
def test_plot_has_a_trace_and_marginals(draw, dim, panels):
    result = make_result(dim)
    figure = draw(result)
    trace, *marginals = figure.axes
    assert len(marginals) == panels
    assert trace.get_ylabel() == "ELBO (nats)"
    assert trace.get_xlabel().startswith("step")
    names = result.posterior.target.scalar_names[:panels]
    assert [axes.get_title() for axes in marginals] == names
    assert figure.get_suptitle().startswith("verdict: trusted")
    assert "k-hat" in figure.get_suptitle()
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["approximation", "importance-weighted (Pareto-smoothed)"]
    assert ("8 of 30" in legend.get_title().get_text()) == (dim == 30)


def test_plot_is_not_flattened_by_the_transient(draw):
    result = make_result(1)
    trace = draw(result).axes[0]
    low, high = trace.get_ylim()
    assert low < result.elbo < high
    assert high - low < 5  # nats; the transient spans 7,000
    assert "points lie below" in trace.get_xlabel()


def test_plot_shows_flagged_parameters_first(draw):
    result = make_result(30)
    verdict = dataclasses.replace(result.verdict, level="caution", flagged=("x[17]", "x[20]"))
    figure = draw(dataclasses.replace(result, verdict=verdict))
    titles = [axes.get_title() for axes in figure.axes[1:]]
    assert titles[:4] == ["x[17] (!)", "x[20] (!)", "x[0]", "x[1]"]
    assert "(!)" in figure.legends[0].get_title().get_text()


def test_plot_says_when_the_weights_are_unreliable(draw):
    result = make_result(30, scale=0.3)
    assert result.verdict.level == "rejected"
    assert "unreliable" in draw(result).legends[0].get_texts()[1].get_text()


def test_plot_weighted_histogram_follows_the_target(draw):
    """Weights undo a scale that is 1.5 times too large."""
    axes = draw(make_result(1, scale=1.5)).axes[1]
    filled, outline, weighted = (patch.get_data() for patch in axes.patches)
    np.testing.assert_array_equal(filled.values, outline.values)
    middle = (weighted.edges[1:] + weighted.edges[:-1]) / 2
    sd = [np.sqrt(np.sum(h.values * middle**2) / np.sum(h.values)) for h in (outline, weighted)]
    # The cut to the central 99% lowers a Gaussian's sd by 4%; the rest is Monte Carlo error.
    np.testing.assert_allclose(sd, [1.5 * 0.96, 1.0], atol=0.08)


def test_plot_clips_heavy_tails(draw, monkeypatch):
    result = make_result(1)
    draws, log_weights = result.draws()
    cauchy = np.random.default_rng(0).standard_cauchy(len(log_weights))
    monkeypatch.setattr(bbvi.FitResult, "draws", lambda self: ({"x": cauchy}, log_weights))
    low, high = draw(result).axes[1].get_xlim()
    assert np.quantile(cauchy, 0.004) <= low < np.quantile(cauchy, 0.006)
    assert np.quantile(cauchy, 0.994) < high <= np.quantile(cauchy, 0.996)


@pytest.mark.parametrize("what", ["no history", "no weights", "constant", "nan"])
def test_plot_survives(draw, monkeypatch, what):
    result = make_result(2)
    draws, log_weights = result.draws()
    if what == "no history":
        result = dataclasses.replace(result, history=Trace(*[np.zeros(0)] * 3))
    elif what == "no weights":
        log_weights = np.full_like(log_weights, np.nan)
    elif what == "constant":
        draws = {"x": np.ones_like(draws["x"])}
    else:
        draws = {"x": np.full_like(draws["x"], np.nan)}
        nan = jnp.asarray(jnp.nan)
        nothing = result.diagnostics._replace(elbo=nan, elbo_se=nan, khat=jnp.asarray(jnp.inf))
        result = dataclasses.replace(result, diagnostics=nothing)
    monkeypatch.setattr(bbvi.FitResult, "draws", lambda self: (draws, log_weights))
    figure = draw(result)
    assert len(figure.axes) == 3
    assert len(figure.legends[0].get_texts()) == (1 if what == "no weights" else 2)


def test_plot_without_matplotlib_says_how_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'bbvi\[plot\]'"):
        make_result(1).plot()
