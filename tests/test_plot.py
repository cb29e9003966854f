"""The parts of a fit's picture, and a batch's: what is drawn is what was found."""

import sys

import numpy as np
import pytest

import bbvi
from bbvi.examples import eight_schools
from bbvi.status import InputError

pyplot = pytest.importorskip("matplotlib.pyplot")
pyplot.switch_backend("agg")

from bbvi.plot import (  # noqa: E402
    plot_batch,
    plot_marginal,
    plot_pairs,
    plot_tail,
    plot_trace,
)

EXAMPLE = eight_schools()


@pytest.fixture(scope="module")
def result():
    # a factorised Gaussian, whose tau is flagged
    solver = bbvi.StochasticGradient(bbvi.MeanFieldGaussian())
    return bbvi.fit(*EXAMPLE[:3], support=EXAMPLE.support, solver=solver)


@pytest.fixture(autouse=True)
def close():
    yield
    for number in pyplot.get_fignums():
        pyplot.figure(number).canvas.draw()  # every text and every axis laid out
    pyplot.close("all")


def test_parts_draw_on_given_axes(result):
    _, (one, two, three) = pyplot.subplots(1, 3)
    assert plot_trace(result, one) is one
    assert plot_marginal(result, "mu", two) is two
    assert plot_tail(result, three) is three
    assert plot_tail(result).figure is not three.figure


def test_the_tail_shows_every_weight(result):
    points, limit = plot_tail(result).lines
    weights, share = points.get_data()
    assert len(weights) == np.sum(np.exp(np.float64(result.diagnostics.log_weights)) > 0)
    np.testing.assert_allclose(weights.mean(), 1, rtol=1e-6)
    # a fiftieth of the draws has a weight of at least that of the one in that place
    at = len(weights) // 50
    assert np.mean(weights >= weights[at]) == pytest.approx(share[at], rel=1e-2)
    x, y = limit.get_data()
    slope = np.diff(np.log(y)) / np.diff(np.log(x))
    np.testing.assert_allclose(slope, -1 / 0.7)
    # k-hat is below the limit, so the largest weights lie below the line
    assert result.khat < 0.7
    assert share[0] < np.interp(np.log(weights[0]), np.log(x), y)


def test_a_tail_of_nothing(result):
    from dataclasses import replace

    nothing = np.full_like(result.diagnostics.log_weights, -np.inf)
    lost = replace(result, diagnostics=result.diagnostics._replace(log_weights=nothing))
    assert "no usable weights" in plot_tail(lost).texts[0].get_text()


def test_pairs_mark_what_is_flagged(result):
    panels = plot_pairs(result)
    assert panels.shape == (5, 5)
    assert result.verdict.flagged[0] == "tau"
    assert panels[0, 0].get_title() == "tau (!)"
    assert [bool(axes.axison) for axes in panels[0]] == [True] + 4 * [False]
    own, weighted = panels[1, 0].lines
    # tau is larger under the weights than in the factorised Gaussian
    assert weighted.get_xdata().mean() > own.get_xdata().mean()
    assert plot_pairs(result, ["mu", "tau"]).shape == (2, 2)
    with pytest.raises(InputError, match="'nu' is no scalar of this fit; there are eta"):
        plot_pairs(result, ["nu"])


def test_a_reference_is_drawn_beside(result):
    rng = np.random.default_rng(0)
    draws = {"mu": rng.normal(3, 1, 500), "tau": np.ones(500), "eta": np.zeros((500, 8))}
    without, with_ = plot_marginal(result, "mu"), plot_marginal(result, "mu", reference=draws)
    assert len(with_.patches) == len(without.patches) + 1
    labels = [text.get_text() for text in with_.get_legend().get_texts()]
    assert labels[-1] == "reference"
    heights, edges, _ = with_.patches[-1].get_data()
    centres = (edges[1:] + edges[:-1]) / 2
    assert np.sum(heights * centres) / np.sum(heights) == pytest.approx(draws["mu"].mean(), abs=0.1)
    assert "reference" in [t.get_text() for t in result.plot(draws).legends[0].get_texts()]
    with pytest.raises(InputError, match="the draws have 2 scalars and the fit has 10"):
        result.plot({"mu": draws["mu"], "tau": draws["tau"]})


def test_a_batch_at_a_glance():
    def ridge(params, slope):
        x, y = params["x"], params["y"]
        return -0.5 * (x / 2) ** 2 - 0.5 * ((y - slope * x) / 0.5) ** 2

    slopes = np.array([0.0, 0.1, 0.2, np.nan], np.float32)
    results = bbvi.fit_batch(ridge, {"x": 0.0, "y": 0.0}, slopes, escalate=False)
    numbers, khats, spent = plot_batch(results)
    shown = dict(
        zip(
            [t.get_text() for t in numbers.get_yticklabels()],
            [int(bar.get_width()) for bar in numbers.patches],
            strict=True,
        )
    )
    levels, counts = np.unique(results.verdict, return_counts=True)
    assert shown == dict(zip(levels.tolist(), counts.tolist(), strict=True))
    assert len(shown) == 2
    for axes in (khats, spent):  # each problem once, whatever its k-hat
        heights = [bar.get_height() for bar in axes.patches]
        assert sum(heights) == len(results)
    assert results.plot().shape == (3,)


def test_without_matplotlib(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    for draw in (plot_trace, plot_tail, plot_pairs):
        with pytest.raises(ImportError, match=r"pip install 'bbvi\[plot\]'"):
            draw(result)
