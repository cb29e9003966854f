"""Trials and field studies: arms, wards, diaries, litters, markers, outbreaks, tumours."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import betaln, i0e
from scipy import special

from bbvi import correlation, covariance, interval, positive, real, unit_interval
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

from .simulate import expit, groups, of

# --- a network of trials of six treatments, some of three arms -----------------------------------


def treatments(params, data):
    """Effects of trials as they are; the two of a trial with three arms go together."""
    effect = jnp.concatenate([jnp.zeros(1), params["effect"]])  # the first treatment is the rule
    gain = effect[data["treat"].astype(int)] - effect[data["against"].astype(int)]
    miss, second = params["delta"] - gain, data["second"]
    miss = miss - 0.5 * second * jnp.roll(miss, 1)
    prior = d.normal(miss, 0.0, params["tau"] * jnp.sqrt(1 - 0.25 * second))
    prior += d.normal(params["base"], 0.0, 10.0) + d.normal(params["effect"], 0.0, 10.0)
    prior += d.normal(params["tau"], 0.0, 1.0)
    eta = params["base"][data["trial"].astype(int)] + params["delta"]
    prior += d.binomial_logit(data["y_base"], data["n_base"], params["base"])
    return prior + d.binomial_logit(data["y"], data["n"], eta)


def _treatments_data():
    rng = np.random.default_rng(1801)
    effect, arms = np.array([0.0, 0.3, 0.5, 0.2, 0.9, 0.6]), np.repeat([2, 3], [14, 4])
    base, trial, against, treat, second, delta = rng.normal(-1, 0.5, 18), [], [], [], [], []
    for i, count in enumerate(arms):
        first = 0 if i < 9 else int(rng.integers(1, 4))
        others = rng.choice(np.arange(first + 1, 6), count - 1, replace=False)
        noise = 0.3 * np.sqrt(0.5) * rng.normal(size=count)  # of each arm
        for k, other in enumerate(np.sort(others)):
            trial.append(float(i))
            against.append(float(first))
            treat.append(float(other))
            second.append(float(k))
            delta.append(effect[other] - effect[first] + noise[k + 1] - noise[0])
    trial = np.array(trial)
    n_base, n = rng.integers(80, 300, 18), rng.integers(80, 300, len(trial))
    share = expit(base[trial.astype(int)] + np.array(delta))
    return {
        "trial": trial,
        "against": np.array(against),
        "treat": np.array(treat),
        "second": np.array(second),
        "n_base": n_base * 1.0,
        "y_base": rng.binomial(n_base, expit(base)) * 1.0,
        "n": n * 1.0,
        "y": rng.binomial(n, share) * 1.0,
    }


# --- blood pressure of patients in wards of hospitals of four countries, all centred -------------


def wards(params, data):
    hospital, country = data["of_ward"].astype(int), data["of_hospital"].astype(int)
    prior = d.normal(params["country"], params["mean"], params["sd_country"])
    prior += d.normal(params["hospital"], params["country"][country], params["sd_hospital"])
    prior += d.normal(params["ward"], params["hospital"][hospital], params["sd_ward"])
    prior += d.normal(params["mean"], 120.0, 50.0) + d.normal(params["sigma"], 0.0, 20.0)
    prior += sum(d.normal(params["sd_" + n], 0.0, 10.0) for n in ("country", "hospital", "ward"))
    own = params["ward"][data["ward"].astype(int)]
    return prior + d.normal(data["y"], own, params["sigma"])


def _wards_data():
    rng = np.random.default_rng(1802)
    of_hospital, of_ward = np.repeat(np.arange(4), 5), np.repeat(np.arange(20), 3)
    ward = groups(rng, 60, (4, 8))
    country = 135 + 5 * rng.normal(size=4)
    hospital = country[of_hospital] + 5 * rng.normal(size=20)
    y = (hospital[of_ward] + 6 * rng.normal(size=60))[ward] + 10 * rng.normal(size=len(ward))
    return {"of_hospital": of_hospital * 1.0, "of_ward": of_ward * 1.0, "ward": ward * 1.0, "y": y}


# --- how tired people are by stress and sleep: an intercept and two slopes each, centred ---------


def diaries(params, data):
    """Lines of persons are normal, with scales and a whole correlation matrix."""
    root = params["scale"][:, None] * jnp.linalg.cholesky(params["together"])
    own = params["own"]  # (people, 3)
    z = jax.scipy.linalg.solve_triangular(root, (own - params["mean"]).T, lower=True)
    log_det = jnp.sum(jnp.log(jnp.diag(root)))
    prior = -0.5 * jnp.sum(z**2) - len(own) * log_det
    prior += jnp.linalg.slogdet(params["together"])[1]  # LKJ(2)
    prior += d.normal(params["mean"], 0.0, 50.0) + d.normal(params["scale"], 0.0, 20.0)
    prior += d.normal(params["sigma"], 0.0, 20.0)
    mean = own[:, :1] + own[:, 1:2] * data["stress"] + own[:, 2:] * data["sleep"]
    return prior + d.normal(data["y"], mean, params["sigma"])


def _diaries_data():
    rng = np.random.default_rng(1803)
    scale = np.array([9.0, 2.0, 3.0])
    half = np.array([[1.0, -0.4, 0.2], [0, 0.9, 0.3], [0, 0, 0.9]])
    own = np.array([40.0, 3.0, -4.0]) + scale * (rng.normal(size=(35, 3)) @ half)
    stress, sleep = rng.integers(0, 11, (35, 12)) * 1.0, 1.3 * rng.normal(size=(35, 12))
    mean = own[:, :1] + own[:, 1:2] * stress + own[:, 2:] * sleep
    return {"stress": stress, "sleep": sleep, "y": mean + 8 * rng.normal(size=(35, 12))}


# --- words read aloud by young and old: the young never fail at real words -----------------------


def words(params, data):
    """Readers and words, crossed and centred."""
    old, pseudo = data["old"][:, None], data["pseudo"]
    b = params["beta"]
    eta = b[0] + b[1] * old + b[2] * pseudo + b[3] * old * pseudo
    eta += params["reader"][:, None] + params["word"]
    prior = d.normal(params["reader"], 0.0, params["sd_reader"])
    prior += d.normal(params["word"], 0.0, params["sd_word"]) + d.normal(b, 0.0, 5.0)
    prior += d.normal(params["sd_reader"], 0.0, 2.0) + d.normal(params["sd_word"], 0.0, 2.0)
    return prior + d.binomial_logit(data["right"], 1.0, eta)


def _words_data():
    rng = np.random.default_rng(1804)
    old, pseudo = np.repeat([0.0, 1.0], 15), np.repeat([0.0, 1.0], 12)
    eta = 7 - 4 * old[:, None] - 4.5 * pseudo + 2.5 * old[:, None] * pseudo
    eta = eta + 0.9 * rng.normal(size=(30, 1)) + 0.8 * rng.normal(size=24)
    return {"old": old, "pseudo": pseudo, "right": (rng.random((30, 24)) < expit(eta)) * 1.0}


# --- defects in litters: both shapes of the beta as they are, shares summed out ------------------


def litters(params, data):
    a, b, y, n = params["a"], params["b"], data["y"], data["n"]
    prior = d.gamma(a, 1.0, 0.01) + d.gamma(b, 1.0, 0.01)
    return prior + jnp.sum(betaln(a + y, b + n - y) - betaln(a, b))


def _litters_data():
    rng = np.random.default_rng(1805)
    n = rng.integers(6, 16, 40)
    return {"n": n * 1.0, "y": rng.binomial(n, rng.beta(1.2, 6.0, 40)) * 1.0}


def _litters_exact(data):
    """Over the logit of a/(a + b) and the logarithm of a + b; of NUTS an sd was 8% short."""
    logit, log_sum = np.meshgrid(np.linspace(-4, 1, 500), np.linspace(-2, 9.5, 1500), indexing="ij")
    share, total = expit(logit), np.exp(log_sum)
    a, b = share * total, (1 - share) * total
    pairs = zip(data["y"], data["n"], strict=True)
    log_p = sum(special.betaln(a + y, b + n - y) - special.betaln(a, b) for y, n in pairs)
    log_p += np.log(share * (1 - share)) + 2 * log_sum - 0.01 * total
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    means = {"a": np.sum(p * a), "b": np.sum(p * b)}
    squares = {"a": np.sum(p * a**2), "b": np.sum(p * b**2)}
    return means, {k: np.sqrt(squares[k] - means[k] ** 2) for k in means}


# --- a marker that grows in each patient, and deaths that follow it ------------------------------


def markers(params, data):
    """Levels and slopes by patient, centred; the hazard goes with the marker of the moment."""
    own, sd, rho = params["own"], params["sd"], params["rho"]  # (patients, 2)
    z = (own - params["mean"]) / sd
    rest = (z[:, 1] - rho * z[:, 0]) / jnp.sqrt(1 - rho**2)
    log_det = jnp.sum(jnp.log(sd)) + 0.5 * jnp.log1p(-(rho**2))
    prior = -0.5 * jnp.sum(z[:, 0] ** 2 + rest**2) - len(own) * log_det
    prior += d.normal(params["mean"], 0.0, 10.0) + d.normal(sd, 0.0, 5.0)
    prior += d.normal(params["sigma"], 0.0, 5.0) + d.normal(params["base"], 0.0, 5.0)
    prior += d.normal(params["link"], 0.0, 2.0) + d.normal(params["ageing"], 0.0, 1.0)
    prior += d.normal(params["treated"], 0.0, 2.0)
    level = own[:, :1] + own[:, 1:] * data["visit"]
    off = (data["marker"] - level) / params["sigma"]
    prior -= jnp.sum(data["seen"] * (0.5 * off**2 + jnp.log(params["sigma"])))

    def log_hazard(t):  # (patients, times)
        fixed = params["base"] + params["treated"] * data["treated"][:, None]
        return fixed + params["ageing"] * t + params["link"] * (own[:, :1] + own[:, 1:] * t)

    end = data["end"][:, None]
    total = jnp.sum(data["weight"] * end * jnp.exp(log_hazard(data["node"] * end)))
    return prior + jnp.sum(data["died"] * log_hazard(end)[:, 0]) - total


def _markers_data():
    rng = np.random.default_rng(1806)
    z, treated = rng.normal(size=(50, 2)), np.tile([0.0, 1.0], 25)
    own = np.array([2.0, 0.5]) + z @ np.array([[0.7, 0.05], [0.0, 0.3]])
    fine = np.linspace(0, 5, 1001)
    log_hazard = -4.2 - 0.5 * treated[:, None] + 0.8 * (own[:, :1] + own[:, 1:] * fine)
    past = np.cumsum(np.exp(log_hazard) * fine[1], 1)
    dies = np.sum(past < rng.exponential(size=(50, 1)), 1)
    end, visit = fine[np.minimum(dies, 1000)] + 0.005, np.arange(0, 5, 0.5)
    marker = own[:, :1] + own[:, 1:] * visit + 0.4 * rng.normal(size=(50, 10))
    node, weight = np.polynomial.legendre.leggauss(7)
    return {
        "visit": visit,
        "seen": (visit <= end[:, None]) * 1.0,
        "marker": marker,
        "treated": treated,
        "end": end,
        "died": (dies <= 1000) * 1.0,
        "node": (node + 1) / 2,
        "weight": weight / 2,
    }


# --- patients of whom some are cured, the others relapse -----------------------------------------


def cured(params, data):
    shape = params["shape"]
    eta, log_scale = data["x"] @ params["cure"], data["x"] @ params["delay"]
    log_cured, log_not = jax.nn.log_sigmoid(eta), jax.nn.log_sigmoid(-eta)
    log_t = jnp.log(data["time"]) - log_scale
    past = jnp.exp(shape * log_t)
    relapse = log_not + jnp.log(shape) + (shape - 1) * log_t - log_scale - past
    free = jnp.logaddexp(log_cured, log_not - past)
    prior = d.normal(params["cure"], 0.0, 2.5) + d.normal(params["delay"], 0.0, 2.5)
    prior += d.gamma(shape, 2.0, 1.0)
    return prior + jnp.sum(jnp.where(data["relapsed"] > 0, relapse, free))


def _cured_data():
    rng = np.random.default_rng(1807)
    x = np.stack([np.ones(180), rng.random(180) < 0.5, rng.normal(size=180)], 1) * 1.0
    time = np.exp(x @ [0.6, 0.4, -0.2]) * rng.weibull(1.3, 180)
    time = np.where(rng.random(180) < expit(x @ [-0.4, 0.8, 0.5]), np.inf, time)
    end = rng.uniform(3, 9, 180)
    return {"x": x, "time": np.minimum(time, end), "relapsed": (time < end) * 1.0}


# --- two causes of death, of patients in twenty centres where both may be high -------------------


def causes(params, data):
    """A Weibull hazard for each cause; centres are normal, with an inverse Wishart covariance."""
    shape, centre, spread = params["shape"], params["centre"], params["spread"]
    root = jnp.linalg.cholesky(spread)
    z = jax.scipy.linalg.solve_triangular(root, centre.T, lower=True)
    log_det = 2 * jnp.sum(jnp.log(jnp.diag(root)))
    prior = -0.5 * jnp.sum(z**2) - 0.5 * len(centre) * log_det
    prior += -0.5 * (4 + 2 + 1) * log_det - 0.5 * jnp.trace(jnp.linalg.inv(spread))
    prior += d.normal(params["base"], 0.0, 5.0) + d.normal(params["beta"], 0.0, 2.0)
    prior += d.gamma(shape, 2.0, 1.0)
    eta = params["base"] + data["x"] @ params["beta"] + centre[data["at"].astype(int)]
    log_t = jnp.log(data["time"])[:, None]
    log_hazard = jnp.log(shape) + (shape - 1) * log_t + eta  # (patients, causes)
    return prior + jnp.sum(data["died"] * log_hazard - jnp.exp(shape * log_t + eta))


def _causes_data():
    rng = np.random.default_rng(1808)
    at = groups(rng, 20, (8, 18))
    count = len(at)
    x = np.stack([rng.normal(size=count), rng.random(count) < 0.5], 1) * 1.0
    centre = rng.normal(size=(20, 2)) @ np.array([[0.6, 0.3], [0.0, 0.5]])
    eta = np.array([-2.0, -2.6]) + x @ np.array([[0.5, -0.1], [-0.6, 0.4]]) + centre[at]
    times = (rng.exponential(size=(count, 2)) / np.exp(eta)) ** (1 / np.array([1.4, 0.9]))
    time = np.minimum(times.min(1), 6.0) + 1e-3
    died = (times == times.min(1, keepdims=True)) & (times < 6.0)
    return {"at": at * 1.0, "x": x, "time": time, "died": died * 1.0}


# --- an outbreak of which a share is reported, and spread that changes by the week ---------------

PEOPLE = 20000.0


def outbreak(params, data):
    """Healthy, exposed, ill, gone, day by day; the log of the spread walks from week to week."""
    wake = -jnp.expm1(-1 / params["hidden_days"])
    heal = -jnp.expm1(-1 / params["ill_days"])
    walk = jnp.cumsum(params["wander"] * params["raw"])
    rate = params["spread"] * jnp.exp(walk) / params["ill_days"]  # (weeks,)

    def step(state, infect):
        s, e, i = state
        caught = -s * jnp.expm1(-infect * i / PEOPLE)
        woke = wake * e
        return (s - caught, e + caught - woke, i + woke - heal * i), woke

    first = params["first"]
    _, new = jax.lax.scan(step, (PEOPLE - first, first, 0.0 * first), jnp.repeat(rate, 7))
    log_mean = jnp.log(params["reported"] * new + 1e-6)
    prior = d.lognormal(params["spread"], 0.7, 0.5) + d.lognormal(params["hidden_days"], 1.1, 0.3)
    prior += d.lognormal(params["ill_days"], 1.6, 0.3) + d.gamma(first, 2.0, 0.05)
    prior += d.beta(params["reported"], 3.0, 6.0) + d.normal(params["wander"], 0.0, 0.3)
    prior += d.normal(params["raw"], 0.0, 1.0) + d.gamma(params["size"], 2.0, 0.1)
    return prior + jnp.sum(d.negative_binomial(data["cases"], log_mean, params["size"]))


def _outbreak_data():
    """One that runs by chance; after five weeks people keep apart."""
    rng = np.random.default_rng(1809)
    s, e, i, cases = int(PEOPLE) - 30, 30, 0, []
    for day in range(84):
        infect = (2.6 if day < 35 else 1.1) / 5.0
        caught = rng.binomial(s, 1 - np.exp(-infect * i / PEOPLE))
        woke, healed = rng.binomial(e, 1 - np.exp(-1 / 3)), rng.binomial(i, 1 - np.exp(-1 / 5))
        s, e, i = s - caught, e + caught - woke, i + woke - healed
        cases.append(float(rng.poisson(0.3 * woke * rng.gamma(12.0, 1 / 12))))
    return {"cases": np.array(cases)}


# --- colours named while the word says another: speed, cost and steadiness of each person --------


def stroop(params, data):
    own, mean, sd = params["own"], params["mean"], params["sd"]  # (people, 3)
    level = own[:, :1] + own[:, 1:2] * data["clash"]
    prior = d.normal(own, mean, sd) + d.normal(sd, 0.0, 1.0)
    prior += d.normal(mean, jnp.array([6.0, 0.0, -1.0]), jnp.array([2.0, 1.0, 1.0]))
    return prior + d.lognormal(data["ms"], level, jnp.exp(own[:, 2:]))


def _stroop_data():
    rng = np.random.default_rng(1810)
    own = np.array([6.4, 0.15, -1.4]) + np.array([0.15, 0.12, 0.3]) * rng.normal(size=(30, 3))
    clash = np.tile([0.0, 1.0], 18)
    noise = np.exp(own[:, 2:]) * rng.normal(size=(30, 36))
    return {"clash": clash, "ms": np.exp(own[:, :1] + own[:, 1:2] * clash + noise)}


# --- a gauge: parts, operators, and how these go together, which is hardly at all ----------------


def gauge(params, data):
    """Precisions of effects that are as they are, centred."""
    part, operator, both = params["part"], params["operator"], params["both"]
    sd = 1 / jnp.sqrt(params["precision"])  # of parts, operators, both, repeats
    prior = d.normal(part, params["mean"], sd[0]) + d.normal(operator, 0.0, sd[1])
    prior += d.normal(both, 0.0, sd[2]) + d.normal(params["mean"], 0.0, 100.0)
    prior += d.gamma(params["precision"], 1.0, 0.05)
    mean = part[:, None] + operator + both
    return prior + d.normal(data["y"], mean[:, :, None], sd[3])


def _gauge_data():
    rng = np.random.default_rng(1811)
    mean = 25 + 0.9 * rng.normal(size=(10, 1)) + 0.3 * rng.normal(size=4)
    return {"y": mean[:, :, None] + 0.25 * rng.normal(size=(10, 4, 3))}


# --- tumours of mice, which grow ever more slowly ------------------------------------------------


def tumours(params, data):
    """Gompertz curves; the logs of both rates of each mouse, centred."""
    log_grow, log_fade = params["grow"], params["fade"]
    grow, fade = jnp.exp(log_grow)[:, None], jnp.exp(log_fade)[:, None]
    level = params["start"] - grow / fade * jnp.expm1(-fade * data["day"])
    mean = params["mean"][0] + params["drug"] * data["drug"]
    prior = d.normal(log_grow, mean, params["sd"][0])
    prior += d.normal(log_fade, params["mean"][1], params["sd"][1])
    prior += d.normal(params["mean"], -2.0, 2.0) + d.normal(params["sd"], 0.0, 1.0)
    prior += d.normal(params["drug"], 0.0, 1.0) + d.normal(params["start"], 0.0, 10.0)
    prior += d.normal(params["sigma"], 0.0, 1.0)
    return prior + d.lognormal(data["volume"], level, params["sigma"])


def _tumours_data():
    rng = np.random.default_rng(1812)
    drug, day = np.repeat([0.0, 1.0], 8), np.arange(0.0, 34, 3)
    grow = np.exp(-1.1 - 0.4 * drug + 0.2 * rng.normal(size=16))[:, None]
    fade = np.exp(-2.5 + 0.25 * rng.normal(size=16))[:, None]
    level = 4 + grow / fade * (1 - np.exp(-fade * day)) + 0.15 * rng.normal(size=(16, 12))
    return {"drug": drug, "day": day, "volume": np.exp(level)}


# --- where birds head, turned by the wind, and less surely under clouds --------------------------


def headings(params, data):
    """Angles are von Mises; each bird has a bias, centred."""
    turned = 2 * jnp.arctan(params["wind"] * data["wind"])
    mean = params["home"] + params["bird"][:, None] + turned
    sure = params["sure"] * jnp.exp(params["cloud"] * data["cloud"])
    prior = d.normal(params["bird"], 0.0, params["sd"]) + d.normal(params["sd"], 0.0, 1.0)
    prior += d.normal(params["wind"], 0.0, 1.0) + d.normal(params["cloud"], 0.0, 1.0)
    prior += d.gamma(params["sure"], 2.0, 0.2)
    return prior + jnp.sum(sure * (jnp.cos(data["angle"] - mean) - 1) - jnp.log(i0e(sure)))


def _headings_data():
    rng = np.random.default_rng(1813)
    wind, cloud = rng.normal(size=(15, 12)), (rng.random((15, 12)) < 0.4) * 1.0
    mean = 0.8 + 0.4 * rng.normal(size=(15, 1)) + 2 * np.arctan(0.35 * wind)
    return {"wind": wind, "cloud": cloud, "angle": rng.vonmises(mean, 5 * np.exp(-0.8 * cloud))}


MODELS = {
    "treatments": (
        Model(
            treatments,
            of(base=(real, (18,)), effect=(real, (5,)), tau=(positive, ()), delta=(real, (22,))),
        ),
        _treatments_data,
    ),
    "wards": (
        Model(
            wards,
            of(
                mean=(real, ()),
                sd_country=(positive, ()),
                sd_hospital=(positive, ()),
                sd_ward=(positive, ()),
                sigma=(positive, ()),
                country=(real, (4,)),
                hospital=(real, (20,)),
                ward=(real, (60,)),
            ),
        ),
        _wards_data,
    ),
    "diaries": (
        Model(
            diaries,
            of(
                mean=(real, (3,)),
                scale=(positive, (3,)),
                together=(correlation, (3, 3)),
                sigma=(positive, ()),
                own=(real, (35, 3)),
            ),
        ),
        _diaries_data,
    ),
    "words": (
        Model(
            words,
            of(
                beta=(real, (4,)),
                sd_reader=(positive, ()),
                sd_word=(positive, ()),
                reader=(real, (30,)),
                word=(real, (24,)),
            ),
        ),
        _words_data,
    ),
    "litters": (
        Model(litters, of(a=(positive, ()), b=(positive, ()))),
        _litters_data,
        _litters_exact,
    ),
    "markers": (
        Model(
            markers,
            of(
                mean=(real, (2,)),
                sd=(positive, (2,)),
                rho=(interval(-1.0, 1.0), ()),
                sigma=(positive, ()),
                base=(real, ()),
                ageing=(real, ()),
                treated=(real, ()),
                link=(real, ()),
                own=(real, (50, 2)),
            ),
        ),
        _markers_data,
    ),
    "cured": (
        Model(cured, of(cure=(real, (3,)), delay=(real, (3,)), shape=(positive, ()))),
        _cured_data,
    ),
    "causes": (
        Model(
            causes,
            of(
                base=(real, (2,)),
                beta=(real, (2, 2)),
                shape=(positive, (2,)),
                spread=(covariance, (2, 2)),
                centre=(real, (20, 2)),
            ),
        ),
        _causes_data,
    ),
    "outbreak": (
        Model(
            outbreak,
            of(
                spread=(positive, ()),
                hidden_days=(positive, ()),
                ill_days=(positive, ()),
                first=(positive, ()),
                reported=(unit_interval, ()),
                size=(positive, ()),
                wander=(positive, ()),
                raw=(real, (12,)),
            ),
        ),
        _outbreak_data,
    ),
    "stroop": (
        Model(stroop, of(mean=(real, (3,)), sd=(positive, (3,)), own=(real, (30, 3)))),
        _stroop_data,
    ),
    "gauge": (
        Model(
            gauge,
            of(
                mean=(real, ()),
                precision=(positive, (4,)),
                part=(real, (10,)),
                operator=(real, (4,)),
                both=(real, (10, 4)),
            ),
        ),
        _gauge_data,
    ),
    "tumours": (
        Model(
            tumours,
            of(
                start=(real, ()),
                mean=(real, (2,)),
                sd=(positive, (2,)),
                drug=(real, ()),
                sigma=(positive, ()),
                grow=(real, (16,)),
                fade=(real, (16,)),
            ),
        ),
        _tumours_data,
    ),
    "headings": (
        Model(
            headings,
            of(
                home=(interval(-np.pi, np.pi), ()),
                wind=(real, ()),
                sure=(positive, ()),
                cloud=(real, ()),
                sd=(positive, ()),
                bird=(real, (15,)),
            ),
        ),
        _headings_data,
    ),
}
