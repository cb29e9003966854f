"""The race of starts: where its paths begin, what they wait for, and when it is run again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln

import bbvi
from bbvi import auto
from bbvi.evaluate import generator
from bbvi.solvers import lbfgs, starts
from bbvi.solvers.starts import race
from bbvi.stages.gaussians import gaussian_stages as gaussians
from bbvi.stages.gaussians import matching

pytestmark = pytest.mark.usefixtures("x64")


def test_the_highest_of_many_points_lie_apart():
    peaks = jnp.array([[1.0, -1.0, 0.5], [-3.0, 3.0, 2.0], [3.0, 2.0, -3.0]])

    def three(x):
        return jax.nn.logsumexp(-0.5 * jnp.sum((x - peaks) ** 2, 1) / 0.3**2)

    target, _, data = bbvi.make_target(three, np.zeros(3), None, None)
    found = starts._highest(target, generator(jax.random.key(0)), data)
    assert found.shape == (6, 3)
    assert np.abs(found[:2]).max() <= 2
    assert np.abs(found).max() <= 4
    # each peak has one in its basin, the first the nearest of the small box
    nearest = np.argmin(np.linalg.norm(found[:, None] - peaks, axis=2), axis=1)
    assert nearest[0] == 0
    assert set(nearest.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("seed", [7, 17, 36])
def test_a_plateau_beyond_rounding_is_no_start(seed):
    """Counts of three kinds, in float32: from a concentration of 10^8 on it absorbs the counts."""
    counts = np.array([[9, 21, 0], [3, 25, 2], [12, 16, 2], [6, 22, 2]], np.float32)

    def log_joint(params, y):
        c, n = params["c"], y.sum(1)
        a = c * params["share"]
        prior = -0.5 * ((jnp.log(c) - 2) / 1.5) ** 2 - jnp.log(c)
        each = gammaln(c) - gammaln(c + n) + jnp.sum(gammaln(y + a) - gammaln(a), 1)
        return prior + jnp.sum(each)

    init = {"c": np.float32(1), "share": np.full(3, 1 / 3, np.float32)}
    support = {"c": bbvi.positive, "share": bbvi.simplex}
    target, _, data = bbvi.make_target(log_joint, init, counts, support)
    found = race(target, np.zeros(3), jax.random.key(seed), data)
    assert target.dtype == np.float32
    assert 0 < found.loc[0][0] < 8  # the logarithm of the concentration


def quartic(x):
    return -0.5 * jnp.sum((x - 3) ** 4)


def test_what_waits_stays_for_half_of_a_path(monkeypatch):
    target, _, data = bbvi.make_target(quartic, np.zeros(2), None, None)
    seen, scores = [], lbfgs.scores

    def recorded(target, points, data):
        seen.append(np.asarray(points))
        return scores(target, points, data)

    monkeypatch.setattr(lbfgs, "scores", recorded)
    held = np.array([[True, False], [False, False]])
    paths = lbfgs.paths_uphill(target, np.zeros((2, 2)), data, 60, held)
    first = np.stack(seen)[:, 0]
    waited = int(np.argmax(first[:, 0] != 0))
    assert 4 < waited <= 31
    assert np.ptp(first[:waited, 1]) > 2
    np.testing.assert_allclose(paths.points[:, -1], 3, atol=0.3)
    assert paths.num_gradients.max() <= 60


def lorenz(x):
    a, b, c = x[..., 0], x[..., 1], x[..., 2]
    return x + 0.02 * jnp.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], -1)


def weather(params, data):
    """A Lorenz system with noise, of which one coordinate is seen with noise."""
    x, noise = params["x"], params["noise"]
    prior = -0.5 * (jnp.sum(((x[1:] - lorenz(x[:-1])) / 0.4) ** 2) + jnp.sum((x[0] / 10) ** 2))
    miss = (data["y"] - x[:, 0]) / noise
    return prior - 0.5 * jnp.sum(miss**2) - (len(miss) + 1) * jnp.log(noise)


def test_the_noise_waits_until_something_fits(monkeypatch):
    """From the fixed point at zero a path uphill calls everything noise."""
    rng, path = np.random.default_rng(4), [np.array([-4.0, -6, 22])]
    for _ in range(39):
        path.append(np.asarray(lorenz(path[-1])) + 0.4 * rng.normal(size=3))
    data = {"y": np.array(path)[:, 0] + rng.normal(size=40)}
    init = {"noise": 1.0, "x": np.zeros((40, 3))}
    target, init, data = bbvi.make_target(weather, init, data, {"noise": bbvi.positive})
    loc = target.unconstrain(init, data)

    def noise(key):
        found = race(target, loc, jax.random.key(key), data)
        return float(target.constrain(found.loc[0], data)["noise"])

    assert all(0.5 < noise(key) < 2 for key in range(3))
    monkeypatch.setattr(starts, "_scales", lambda target: np.zeros(target.dim, bool))
    assert noise(0) > 4


def test_another_race_where_nothing_settles(monkeypatch):
    """A valley that no start is in: the fit of a bent ridge beside it does not settle."""

    def ridge_and_hill(x):
        ridge = -0.5 * (x[0] / 2) ** 2 - 0.5 * ((x[1] - x[0] ** 2) / 0.05) ** 2
        return jnp.logaddexp(ridge, 60 - 0.5 * jnp.sum((x - 30) ** 2))

    races = []

    def blind(*args):
        races.append(len(races))
        found = race(*args)
        if races[-1]:
            return found
        near = np.flatnonzero(np.abs(found.loc).max(1) < 5)
        return found._replace(**{k: getattr(found, k)[near] for k in ("loc", "scale", "elbo")})

    for module in (gaussians, matching):
        monkeypatch.setattr(module, "race", blind)
    monkeypatch.setattr(starts, "_FAR", 40.0)
    result = bbvi.fit(ridge_and_hill, np.zeros(2), key=0)
    assert len(races) > 1
    assert result.verdict.level == "trusted"
    np.testing.assert_allclose(result.posterior.mean(), 30, atol=0.1)
    names = [stage for stage, _ in result.timings]
    assert names.count("gaussian") == 2
    assert "flow" not in names


def test_modes_that_a_flow_leaves_far_below_do_not_count(monkeypatch):
    """A bent ridge of 14 dimensions, and two places that the first stages took for its modes."""

    def ridge(x):
        bend = x[1] - 0.5 * (x[0] ** 2 - 4)
        log_p = -0.5 * ((x[0] / 2) ** 2 + (bend / 0.3) ** 2 + jnp.sum(x[2:] ** 2))
        for place in (-40, 40):
            log_p = jnp.logaddexp(log_p, -60 - 0.5 * jnp.sum((x - place) ** 2))
        return log_p

    def misled(depth):
        def stages(*args):
            found = gaussians.first_stages(*args)
            frame = jax.tree.map(lambda a: np.concatenate([a[:1], a[:1]]), found.matches.frame)
            away = frame._replace(loc=frame.loc + np.array([[40.0], [-40.0]]))
            matches = found.matches._replace(frame=away, elbo=np.full(2, -depth))
            only = [found.stages[0]._replace(mode_weights=(0.5, 0.5))]
            return found._replace(stages=only, matches=matches, modes=[0, 1])

        return stages

    levels = {}
    for depth in (-15.0, 60.0):
        monkeypatch.setattr(auto, "first_stages", misled(depth))
        solver = bbvi.Auto(flow_steps=400)
        levels[depth] = bbvi.fit(ridge, np.zeros(14), key=0, solver=solver, throw=False).verdict
    assert levels[-15.0].level != "trusted"
    assert not any("modes" in reason for reason in levels[60.0].reasons)
