"""Hierarchies as newcomers write them, centred; their moments by quadrature over the scales."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from bbvi import positive, real
from benchmarks.posteriordb import density as d
from benchmarks.posteriordb.model import Model

_WIDE = 5.0  # prior sd of what is common to all


class Block(NamedTuple):
    """Effects with a scale of their own: for a scale of one, `root @ all` is standard normal."""

    scale: str
    root: np.ndarray  # (rows, N)


@dataclass(frozen=True)
class Linear:
    """Normal data whose mean is linear in N normal coordinates, given a few scales.

    Attributes:
        design: (rows, N), in units of the data's sd.
        y: (rows,), likewise.
        common: (N,) which coordinates have a wide prior of their own.
        blocks: the effects.
        layout: leaf names and how many coordinates each has, in order.
    """

    design: np.ndarray
    y: np.ndarray
    common: np.ndarray
    blocks: tuple[Block, ...]
    layout: tuple[tuple[str, tuple[int, ...]], ...]


def _moments(linear: Linear, points: int) -> tuple[dict, dict]:
    """Means and sds: exact given the scales, which have the priors N+(0, 1), on a grid of these."""
    axis = np.linspace(-9, 1.8, points)
    names = [block.scale for block in linear.blocks]
    log_scales = np.stack([g.ravel() for g in np.meshgrid(*[axis] * len(names))], axis=1)
    gram, pull = linear.design.T @ linear.design, linear.design.T @ linear.y
    grams = [block.root.T @ block.root for block in linear.blocks]
    rows = np.array([len(block.root) for block in linear.blocks])
    log_p, first, second = [], [], []
    for s in log_scales:
        precision = gram + np.diag(linear.common / _WIDE**2)
        for scale, part in zip(s, grams, strict=True):
            precision = precision + part * np.exp(-2 * scale)
        covariance = np.linalg.inv(precision)
        mean = covariance @ pull
        log_det = np.linalg.slogdet(covariance)[1]
        prior = np.sum(s - 0.5 * np.exp(2 * s)) - rows @ s
        log_p.append(0.5 * log_det + 0.5 * pull @ mean + prior)
        first.append(mean)
        second.append(np.diagonal(covariance) + mean**2)
    p = np.exp(np.array(log_p) - max(log_p))
    p /= p.sum()
    scales = np.exp(log_scales)
    mean, square = p @ np.array(first), p @ np.array(second)
    of_scales, squares = p @ scales, p @ scales**2
    means = dict(zip(names, of_scales, strict=True))
    sds = dict(zip(names, np.sqrt(squares - of_scales**2), strict=True))
    start = 0
    for name, shape in linear.layout:
        part = slice(start, start + int(np.prod(shape)))
        means[name], sds[name] = (x[part].reshape(shape) for x in (mean, np.sqrt(square - mean**2)))
        start = part.stop
    return means, sds


def _one(number: int, *coordinates: tuple[int, float]) -> np.ndarray:
    row = np.zeros(number)
    for i, value in coordinates:
        row[i] = value
    return row


def _prior(params, *names):
    scales = sum(d.normal(params[name], 0.0, 1.0) for name in names)
    return scales + d.normal(params["mu"], 0.0, _WIDE)


# --- groups ---------------------------------------------------------------------------------------


def groups(params, data):
    prior = _prior(params, "tau") + d.normal(params["z"], params["mu"], params["tau"])
    return prior + d.normal(data["y"], params["z"], data["sd"])


def _groups_data(number, tau, seed):
    rng = np.random.default_rng(seed)
    sd = rng.uniform(0.5, 2.0, number)
    return {"sd": sd, "y": 1 + tau * rng.normal(size=number) + sd * rng.normal(size=number)}


def _groups_parameters(data):
    return {"mu": (real, ()), "tau": (positive, ()), "z": (real, data["y"].shape)}


def _of_groups(data):
    number = len(data["y"])
    root = np.hstack([-np.ones((number, 1)), np.eye(number)])
    design = np.hstack([np.zeros((number, 1)), np.diag(1 / data["sd"])])
    layout = ("mu", ()), ("z", (number,))
    common = _one(1 + number, (0, 1.0))
    return Linear(design, data["y"] / data["sd"], common, (Block("tau", root),), layout)


# --- schools in districts -------------------------------------------------------------------------


def districts_schools(params, data):
    prior = _prior(params, "between", "within")
    prior += d.normal(params["district"], params["mu"], params["between"])
    mean = params["district"][data["district"].astype(int)]
    prior += d.normal(params["school"], mean, params["within"])
    return prior + d.normal(data["y"], params["school"], data["sd"])


def _nested_data(districts, schools, between, within, seed):
    rng = np.random.default_rng(seed)
    of_school = np.repeat(np.arange(districts), schools)
    school = (1 + between * rng.normal(size=districts))[of_school]
    school = school + within * rng.normal(size=len(of_school))
    sd = rng.uniform(0.4, 0.8, len(of_school))
    y = school + sd * rng.normal(size=len(sd))
    return {"district": of_school.astype(float), "sd": sd, "y": y}


def _nested_parameters(data):
    districts = (int(data["district"].max()) + 1,)
    scales = {name: (positive, ()) for name in ("between", "within")}
    effects = {"district": (real, districts), "school": (real, data["y"].shape)}
    return {"mu": (real, ())} | scales | effects


def _of_nested(data):
    of_school = data["district"].astype(int)
    many, few = len(of_school), of_school.max() + 1
    number = 1 + few + many
    between = np.stack([_one(number, (0, -1.0), (1 + k, 1.0)) for k in range(few)])
    schools = range(1 + few, number)
    within = [_one(number, (1 + of_school[j], -1.0), (i, 1.0)) for j, i in enumerate(schools)]
    design = np.hstack([np.zeros((many, 1 + few)), np.diag(1 / data["sd"])])
    layout = ("mu", ()), ("district", (few,)), ("school", (many,))
    blocks = Block("between", between), Block("within", np.stack(within))
    return Linear(design, data["y"] / data["sd"], _one(number, (0, 1.0)), blocks, layout)


# --- people and items, crossed --------------------------------------------------------------------


def crossed(params, data):
    prior = _prior(params, "sd_person", "sd_item")
    prior += d.normal(params["person"], params["mu"], params["sd_person"])
    prior += d.normal(params["item"], 0.0, params["sd_item"])
    mean = params["person"][:, None] + params["item"]
    return prior + d.normal(data["y"], mean, 1.5)


def _crossed_data(people, items, sd_person, sd_item, seed):
    rng = np.random.default_rng(seed)
    person, item = sd_person * rng.normal(size=(people, 1)), sd_item * rng.normal(size=items)
    return {"y": 1 + person + item + 1.5 * rng.normal(size=(people, items))}


def _crossed_parameters(data):
    people, items = data["y"].shape
    scales = {name: (positive, ()) for name in ("sd_person", "sd_item")}
    return {"mu": (real, ()), "person": (real, (people,)), "item": (real, (items,))} | scales


def _of_crossed(data):
    people, items = data["y"].shape
    number = 1 + people + items
    person = [_one(number, (0, -1.0), (1 + i, 1.0)) for i in range(people)]
    item = [_one(number, (1 + people + j, 1.0)) for j in range(items)]
    pairs = [(i, j) for i in range(people) for j in range(items)]
    design = np.stack([_one(number, (1 + i, 1.0), (1 + people + j, 1.0)) for i, j in pairs]) / 1.5
    layout = ("mu", ()), ("person", (people,)), ("item", (items,))
    blocks = Block("sd_person", np.stack(person)), Block("sd_item", np.stack(item))
    return Linear(design, data["y"].ravel() / 1.5, _one(number, (0, 1.0)), blocks, layout)


# --- a walk seen with noise -----------------------------------------------------------------------


def walk(params, data):
    prior = d.normal(params["step"], 0.0, 1.0) + d.normal(params["x"][0], 0.0, _WIDE)
    prior += d.normal(jnp.diff(params["x"]), 0.0, params["step"])
    return prior + d.normal(data["y"], params["x"], data["sd"])


def _walk_data(times, step, seed):
    rng = np.random.default_rng(seed)
    sd = rng.uniform(0.5, 1.0, times)
    return {"sd": sd, "y": np.cumsum(step * rng.normal(size=times)) + sd * rng.normal(size=times)}


def _walk_parameters(data):
    return {"step": (positive, ()), "x": (real, data["y"].shape)}


def _of_walk(data):
    times = len(data["y"])
    block = Block("step", np.diff(np.eye(times), axis=0))
    layout = (("x", (times,)),)
    common = _one(times, (0, 1.0))
    return Linear(np.diag(1 / data["sd"]), data["y"] / data["sd"], common, (block,), layout)


def _exactly(linear: Callable, points: int) -> Callable:
    found: list[tuple[dict, dict]] = []  # seconds each, and the data are always the same

    def exact(data):
        if not found:
            found.append(_moments(linear(data), points))
        return found[0]

    return exact


def _entry(log_joint, parameters, data, linear, points):
    return Model(log_joint, parameters), data, _exactly(linear, points)


_nested = partial(_entry, districts_schools, _nested_parameters)
_crossed = partial(_entry, crossed, _crossed_parameters)
_groups = partial(_entry, groups, _groups_parameters)
MODELS = {
    "groups_20": _groups(partial(_groups_data, 20, 0.3, 2), _of_groups, 600),
    "groups_150": _groups(partial(_groups_data, 150, 0.5, 3), _of_groups, 400),
    "schools_48": _nested(partial(_nested_data, 8, 6, 0.4, 0.4, 7), _of_nested, 80),
    "crossed_32": _crossed(partial(_crossed_data, 12, 20, 0.5, 0.3, 9), _of_crossed, 100),
    "walk_80": _entry(walk, _walk_parameters, partial(_walk_data, 80, 0.2, 21), _of_walk, 400),
}
