"""Models that tutorials have: groups, leagues, trends, choices, learners, sparse regressions."""

import jax
import jax.numpy as jnp
import numpy as np

from bbvi import positive, real, simplex, unit_interval
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import expit, groups, of

# --- two groups with outlying members (Kruschke 2013) ---------------------------------------------


def contrast(params, data):
    mean, sd, df = params["mean"], params["sd"], params["df"]
    prior = d.normal(mean, 100.0, 20.0) + d.lognormal(sd, 2.0, 1.0) - (df - 1.0) / 29.0
    seen = d.student_t(data["one"], df, mean[0], sd[0])
    return prior + seen + d.student_t(data["other"], df, mean[1], sd[1])


def _contrast_data():
    rng = np.random.default_rng(907)
    one = 101.5 + 2 * rng.standard_t(3, 47)
    return {"one": one, "other": 100.5 + 1.3 * rng.standard_t(3, 42)}


# --- a synthetic control, made of sixteen donors --------------------------------------------------


def donors(params, data):
    prior = d.dirichlet(params["share"], jnp.ones(16)) + d.normal(params["noise"], 0.0, 1.0)
    return prior + d.normal(data["treated"], data["donors"] @ params["share"], params["noise"])


def _donors_data():
    rng = np.random.default_rng(905)
    given = np.cumsum(rng.normal(size=(30, 16)), 0) * 0.5
    share = np.zeros(16)
    share[:3] = 0.5, 0.3, 0.2
    return {"donors": given, "treated": given @ share + 0.4 * rng.normal(size=30)}


# --- choices among five, in two nests -------------------------------------------------------------

_NEST = np.array([0, 0, 1, 1, 1])


def _nested(utility, apart, xp, logsumexp):
    """Log probabilities (N, 5) of choices, by utilities (N, 5) and how far nests are apart (2,)."""
    scaled = utility / apart[_NEST]
    inside = xp.stack([logsumexp(scaled[:, k == _NEST]) for k in range(2)], 1)
    nest = apart * inside
    return scaled - inside[:, _NEST] + (nest - logsumexp(nest)[:, None])[:, _NEST]


def nests(params, data):
    utility = jnp.concatenate([jnp.zeros(1), params["liking"]])
    utility = utility + jnp.einsum("njk,k->nj", data["of"], params["slope"])
    log_p = _nested(utility, params["apart"], jnp, lambda x: jax.nn.logsumexp(x, axis=1))
    prior = d.normal(params["slope"], 0.0, 2.0) + d.normal(params["liking"], 0.0, 2.0)
    chosen = data["chosen"].astype(int)[:, None]
    return prior + jnp.sum(jnp.take_along_axis(log_p, chosen, 1))


def _nests_data():
    rng = np.random.default_rng(906)
    offers = rng.normal(size=(900, 5, 2))
    utility = offers @ [-0.8, 0.5] + [0, 0.3, -0.2, 0.1, 0.4]
    log_p = _nested(utility, np.array([0.6, 0.4]), np, lambda x: np.log(np.exp(x).sum(1)))
    chance = np.exp(log_p)
    chance /= chance.sum(1, keepdims=True)
    chosen = (rng.random((900, 1)) > np.cumsum(chance, 1)).sum(1)
    return {"of": offers, "chosen": chosen * 1.0}


# --- a league: attack and defence about their means, whose own level the data do not see ----------


def league(params, data):
    attack, defence = (params[k] - jnp.mean(params[k]) for k in ("attack", "defence"))
    home, away = data["home"].astype(int), data["away"].astype(int)
    at_home = params["level"] + params["edge"] + attack[home] + defence[away]
    abroad = params["level"] + attack[away] + defence[home]
    prior = d.student_t(params["sd"], 3.0, 0.0, 2.5) + d.normal(params["edge"], 0.0, 1.0)
    prior += d.normal(params["attack"], 0.0, params["sd"][0]) + d.normal(params["level"], 3.0, 1.0)
    prior += d.normal(params["defence"], 0.0, params["sd"][1])
    return prior + d.poisson_log(data["scored"], at_home) + d.poisson_log(data["let_in"], abroad)


def _league_data():
    rng = np.random.default_rng(908)
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j] * 2
    home, away = np.array(pairs).T
    attack, defence = 0.2 * rng.normal(size=6), 0.2 * rng.normal(size=6)
    scored = rng.poisson(np.exp(2.9 + 0.2 + attack[home] + defence[away]))
    let_in = rng.poisson(np.exp(2.9 + attack[away] + defence[home]))
    return {"home": home * 1.0, "away": away * 1.0, "scored": scored * 1.0, "let_in": let_in * 1.0}


# --- a trend that may break at 25 times, and seasons (Taylor and Letham 2018) ---------------------


def breaks(params, data):
    time = data["time"]
    since = jnp.maximum(time[:, None] - data["at"], 0.0)
    mean = params["slope"] * time + params["level"] + since @ params["turn"]
    prior = d.normal(params["slope"], 0.0, 5.0) + d.normal(params["level"], 0.0, 5.0)
    prior += d.normal(params["season"], 0.0, 1.0) + d.normal(params["noise"], 0.0, 0.5)
    prior -= jnp.sum(jnp.abs(params["turn"])) / 0.5
    return prior + d.normal(data["seen"], mean + data["waves"] @ params["season"], params["noise"])


def _breaks_data():
    rng = np.random.default_rng(909)
    time, at = np.linspace(0, 1, 300), np.linspace(0, 0.8, 27)[1:-1]
    waves = np.stack([f(2 * np.pi * k * time * 6) for k in range(1, 5) for f in (np.sin, np.cos)])
    trend = time - 2 * np.maximum(time - 0.4, 0) + 3 * np.maximum(time - 0.7, 0)
    seen = trend + waves.T @ (0.1 * rng.normal(size=8)) + 0.1 * rng.normal(size=300)
    return {"time": time, "at": at, "waves": waves.T, "seen": seen}


# --- rain or none, and how much, at stations that differ in both, centred -------------------------


def showers(params, data):
    station, wet = data["station"].astype(int), data["rain"] > 0
    often, much = (params["mean"][k] + params["effect"][station, k] for k in range(2))
    shape, rain = params["shape"], jnp.where(wet, data["rain"], 1.0)
    prior = d.normal(params["effect"], 0.0, params["sd"]) + d.normal(params["sd"], 0.0, 1.0)
    prior += d.normal(params["mean"], 0.0, 2.0) + d.lognormal(shape, 0.0, 1.0)
    amount = shape * (jnp.log(shape) - much - rain * jnp.exp(-much)) - jax.lax.lgamma(shape)
    amount += (shape - 1) * jnp.log(rain) - jax.nn.softplus(-often)
    return prior + jnp.sum(jnp.where(wet, amount, -jax.nn.softplus(often)))


def _showers_data():
    rng = np.random.default_rng(914)
    station = groups(rng, 25, (8, 25))
    effect = rng.normal(size=(25, 2)) * [0.7, 0.3]
    rain = rng.gamma(1.5, np.exp(0.5 + effect[station, 1]) / 1.5)
    falls = rng.random(len(station)) < expit(-0.2 + effect[station, 0])
    return {"station": station * 1.0, "rain": rain * falls}


# --- a logistic regression of which most coefficients are none, by scales of gamma densities ------


def sparse(params, data):
    slope = params["raw"] * params["local"] * params["all"]
    prior = d.normal(params["raw"], 0.0, 1.0) + d.gamma(params["local"], 0.5, 0.5)
    prior += d.gamma(params["all"], 0.5, 0.5)
    return prior + d.binomial_logit(data["up"], 1.0, data["x"] @ slope)


def _sparse_data():
    rng = np.random.default_rng(903)
    x = np.c_[rng.normal(size=(800, 19)), np.ones(800)]
    x[:, 5:10] = x[:, 5:10] > 0.3
    slope = np.zeros(20)
    slope[[0, 3, 6, 19]] = 0.8, -0.6, 0.7, -1
    return {"x": x, "up": (rng.random(800) < expit(x @ slope)) * 1.0}


# --- learners of which of two options pays, which now and then is the other one -------------------


def reversals(params, data):
    rate = jax.nn.sigmoid(params["mean"][0] + params["sd"][0] * params["raw"][:, 0])
    sharp = jnp.exp(params["mean"][1] + params["sd"][1] * params["raw"][:, 1])

    def trial(value, seen):
        chosen, paid = seen
        eta = sharp * (value[:, 1] - value[:, 0])
        picked = jax.nn.one_hot(chosen.astype(int), 2)
        value = value + rate[:, None] * picked * (paid[:, None] - value)
        return value, d.binomial_logit(chosen, 1.0, eta)

    people = data["chosen"].shape[1]
    begin = jnp.full((people, 2), 0.5, rate.dtype)
    _, log_p = jax.lax.scan(trial, begin, (data["chosen"], data["paid"]))
    prior = d.normal(params["raw"], 0.0, 1.0) + d.normal(params["sd"], 0.0, 1.0)
    return prior + d.normal(params["mean"], jnp.array([0.0, 1.0]), 1.0) + jnp.sum(log_p)


def _reversals_data():
    rng, people, trials = np.random.default_rng(913), 40, 60
    rate = expit(-0.5 + 0.7 * rng.normal(size=people))
    sharp = np.exp(1.2 + 0.4 * rng.normal(size=people))
    value, who = np.full((people, 2), 0.5), np.arange(people)
    chosen, paid = np.zeros((trials, people), int), np.zeros((trials, people))
    for t in range(trials):
        good = 1 - (t // 15) % 2
        chosen[t] = rng.random(people) < expit(sharp * (value[:, 1] - value[:, 0]))
        paid[t] = rng.random(people) < np.where(chosen[t] == good, 0.8, 0.2)
        value[who, chosen[t]] += rate * (paid[t] - value[who, chosen[t]])
    return {"chosen": chosen * 1.0, "paid": paid}


# --- answers of 400 students, a few each, to 100 questions ----------------------------------------


def answers(params, data):
    who, what = data["who"].astype(int), data["what"].astype(int)
    eta = params["ability"][who] + params["mean"] - params["hard"][what]
    prior = d.normal(params["ability"], 0.0, 1.0) + d.normal(params["hard"], 0.0, 1.0)
    return prior + d.normal(params["mean"], 0.75, 1.0) + d.binomial_logit(data["right"], 1.0, eta)


def _answers_data():
    rng = np.random.default_rng(904)
    who, what = np.nonzero(rng.random((400, 100)) < 0.12)
    ability, hard = rng.normal(size=400), rng.normal(size=100)
    right = rng.random(len(who)) < expit(ability[who] + 0.75 - hard[what])
    return {"who": who * 1.0, "what": what * 1.0, "right": right * 1.0}


MODELS = {
    "contrast": (
        Model(contrast, of(mean=(real, (2,)), sd=(positive, (2,)), df=(positive, ()))),
        _contrast_data,
    ),
    "donors": (Model(donors, of(share=(simplex, (16,)), noise=(positive, ()))), _donors_data),
    "nests": (
        Model(nests, of(slope=(real, (2,)), liking=(real, (4,)), apart=(unit_interval, (2,)))),
        _nests_data,
    ),
    "league": (
        Model(
            league,
            of(
                attack=(real, (6,)),
                defence=(real, (6,)),
                edge=(real, ()),
                level=(real, ()),
                sd=(positive, (2,)),
            ),
        ),
        _league_data,
    ),
    "breaks": (
        Model(
            breaks,
            of(
                slope=(real, ()),
                level=(real, ()),
                turn=(real, (25,)),
                season=(real, (8,)),
                noise=(positive, ()),
            ),
        ),
        _breaks_data,
    ),
    "showers": (
        Model(
            showers,
            of(
                mean=(real, (2,)), sd=(positive, (2,)), effect=(real, (25, 2)), shape=(positive, ())
            ),
        ),
        _showers_data,
    ),
    "sparse": (
        Model(sparse, of(raw=(real, (20,)), local=(positive, (20,)), all=(positive, ()))),
        _sparse_data,
    ),
    "reversals": (
        Model(reversals, of(mean=(real, (2,)), sd=(positive, (2,)), raw=(real, (40, 2)))),
        _reversals_data,
    ),
    "answers": (
        Model(answers, of(ability=(real, (400,)), hard=(real, (100,)), mean=(real, ()))),
        _answers_data,
    ),
}
