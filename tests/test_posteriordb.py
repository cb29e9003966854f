"""The accuracy benchmark: its ports are right, and so is the default on a few of them."""

import json

import jax
import numpy as np
import pytest

import bbvi
from benchmarks.accuracy import TOLERANCE, compare, measure, parse_keys
from benchmarks.posteriordb import MISSING, POSTERIORS, find_database
from benchmarks.posteriordb.registry import MODELS
from benchmarks.rows import describe, record, write_table

needs_database = pytest.mark.skipif(find_database() is None, reason=MISSING)

# One of each kind of support and of program; the rest take minutes together.
PORTS = """
arK-arK bball_drive_event_1-hmm_drive_1 earnings-logearn_interaction_z
eight_schools-eight_schools_noncentered garch-garch11 gp_pois_regr-gp_regr
hmm_example-hmm_example low_dim_gauss_mix-low_dim_gauss_mix
""".split()
# Posteriors that need no flow.
FITS = ["earnings-logearn_height", "kidiq-kidscore_momiq", "nes1980-nes"]

NUM_DRAWS, NUM_BATCHES = 500, 20


def each(fast):
    names = [n if n in fast else pytest.param(n, marks=pytest.mark.slow) for n in POSTERIORS]
    return pytest.mark.parametrize("name", names)


def stein_scores(posterior):
    """z-scores of what Stein's identity says is zero, at the reference draws.

    For a density p on R^D with a tail that falls off, E[grad log p] = 0 and
    E[(z - m) grad log p^T] = -I whatever m. In units in which the draws have unit covariance every
    direction counts alike, however collinear the parameters are.
    """
    model, data, draws = posterior.model, posterior.data(), posterior.reference()
    target, _, data = bbvi.make_target(model.log_joint, model.init(data), data, model.support(data))
    zs = np.asarray(jax.jit(jax.vmap(lambda p: target.unconstrain(p, data)))(draws))
    thinned = zs[:: len(zs) // NUM_DRAWS]
    _, score, ok = jax.jit(target.score)(thinned, data)
    assert np.all(ok)
    units = np.linalg.cholesky(np.cov(zs.T))
    u = np.linalg.solve(units, (thinned - zs.mean(0)).T).T
    score = np.asarray(score) @ units
    products = u[:, :, None] * score[:, None, :] + np.eye(target.dim)
    zero = np.concatenate([score, products.reshape(len(u), -1)], axis=1)
    # the larger error of the two: means of batches see what correlation thinning has left
    batches = zero.reshape(NUM_BATCHES, -1, zero.shape[1]).mean(1)
    error = np.maximum(
        zero.std(0, ddof=1) / np.sqrt(len(zero)), batches.std(0, ddof=1) / np.sqrt(NUM_BATCHES)
    )
    return zero.mean(0) / error


@needs_database
@each(PORTS)
def test_port_satisfies_steins_identity(name, x64):
    # up to 700 scores a posterior: the normal tail beyond 5 is 6e-7
    assert np.abs(stein_scores(POSTERIORS[name])).max() < 5


@needs_database
def test_steins_identity_notices_a_wrong_port(x64, monkeypatch):
    posterior = POSTERIORS["gp_pois_regr-gp_regr"]
    wrong = dict(posterior.data())
    wrong["y"] = 1.2 * wrong["y"]
    monkeypatch.setattr(type(posterior), "data", lambda self: wrong)
    assert np.abs(stein_scores(posterior)).max() > 5


@needs_database
@pytest.mark.parametrize("name", FITS)
def test_default_is_right(name, x64):
    row = measure(POSTERIORS[name], 0)
    assert row["right"], describe({"posterior": name, "key": 0, "cold": True} | row)
    assert row["verdict"] == "trusted"


def test_names():
    assert len(POSTERIORS) == 46
    assert {name.partition("-")[2] for name in POSTERIORS} == set(MODELS)


def test_keys():
    assert parse_keys("0-4") == [0, 1, 2, 3, 4]
    assert parse_keys("3") == [3]
    assert parse_keys("0,2-3") == [0, 2, 3]


class Fixed:
    """A posterior with given moments."""

    def __init__(self, mean, sd):
        self._mean, self._sd = mean, sd

    def mean(self):
        return {"a": np.array(self._mean[0]), "b": np.array(self._mean[1:])}

    def sd(self):
        return {"a": np.array(self._sd[0]), "b": np.array(self._sd[1:])}


@pytest.mark.parametrize(
    "mean, sd, right, half_right, worst",
    [
        ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], True, True, None),
        ([0.0, 0.07, 0.0], [1.0, 1.0, 1.0], True, False, "b[0]"),
        ([0.0, 0.0, 0.0], [1.0, 1.0, 0.85], False, False, "b[1]"),
        ([-0.2, 0.0, 0.0], [1.0, 1.0, 1.0], False, False, "a"),
        ([0.0, 0.0, np.nan], [1.0, 1.0, 1.0], False, False, "b[1]"),
    ],
)
def test_right(mean, sd, right, half_right, worst):
    known = ({"a": np.zeros(()), "b": np.zeros(2)}, {"a": np.ones(()), "b": np.ones(2)})
    found = compare(Fixed(mean, sd), known)
    assert (found["right"], found["half_right"]) == (right, half_right)
    assert worst in (None, found["worst"])
    assert TOLERANCE == 0.1


def test_rows_are_replaced_one_by_one(tmp_path):
    path = tmp_path / "rows.json"
    row = {"posterior": "p", "key": 0, "dtype": "float64", "cold": True, "on": "a machine"}
    row |= {"dim": 2, "right": True, "half_right": False, "mean_error": 0.06, "worst": "a"}
    row |= {"sd_ratio": [0.99, 1.02], "verdict": "trusted", "khat": 0.5, "gradients": 1000}
    row |= {"wall": 1.5, "kept": "FullRankGaussian", "corrected": False}
    failed = {"posterior": "q", "key": 0, "dtype": "float64", "cold": True, "on": "a machine"}
    failed |= {"right": False, "half_right": False, "verdict": "error", "reasons": ["no"]}
    for new in (row, row | {"key": 1}, failed, row | {"mean_error": np.nan, "right": False}):
        rows = record(path, new)
    assert rows == json.loads(path.read_text())["rows"]
    assert [(r["posterior"], r["key"], r["right"]) for r in rows] == [
        ("p", 0, False),
        ("p", 1, True),
        ("q", 0, False),
    ]
    assert rows[0]["mean_error"] is None
    write_table(rows, tmp_path / "rows.md", "A set")
    lines = (tmp_path / "rows.md").read_text().splitlines()
    assert [line.split(" | ")[:3] for line in lines if line.startswith(("| p", "| q"))] == [
        ["| posterior", "D", "right"],
        ["| p", "2", "1/2"],
        ["| q", "-", "0/1"],
    ]
