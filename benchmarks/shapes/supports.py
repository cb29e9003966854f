"""Standard distributions on bounded supports, many with their mass at an edge or in a corner."""

import jax.numpy as jnp
import numpy as np

from bbvi import covariance, ordered, positive, simplex, unit_interval, unit_vector
from benchmarks.posteriordb.model import Model


def _one(log_joint, support, shape, draw):
    """A model of one leaf `x`."""
    model = Model(lambda params, data: log_joint(params["x"]), lambda data: {"x": (support, shape)})
    return model, lambda rng, number: {"x": draw(rng, number)}


def _dirichlet(*alpha):
    alpha = np.array(alpha)
    size = len(alpha)
    return _one(
        lambda x: jnp.sum((alpha - 1) * jnp.log(x)),
        simplex,
        (size,),
        lambda rng, number: rng.dirichlet(alpha, number),
    )


def _gamma(shape, size):
    return _one(
        lambda x: jnp.sum((shape - 1) * jnp.log(x) - x),
        positive,
        (size,),
        lambda rng, number: rng.gamma(shape, size=(number, size)),
    )


def _inverse_gamma(shape):
    return _one(
        lambda x: -jnp.sum((shape + 1) * jnp.log(x) + 2 / x),
        positive,
        (3,),
        lambda rng, number: 2 / rng.gamma(shape, size=(number, 3)),
    )


def _wishart(size, df):
    """Sums of squares of `df` standard normal vectors."""

    def draw(rng, number):
        x = rng.normal(size=(number, df, size))
        return np.einsum("nki,nkj->nij", x, x)

    def log_joint(x):
        return 0.5 * (df - size - 1) * jnp.linalg.slogdet(x)[1] - 0.5 * jnp.trace(x)

    return _one(log_joint, covariance, (size, size), draw)


def _inverse_wishart(size, df):
    wishart = _wishart(size, df)[1]

    def log_joint(x):
        trace = jnp.trace(jnp.linalg.inv(x))
        return -0.5 * (df + size + 1) * jnp.linalg.slogdet(x)[1] - 0.5 * trace

    def draw(rng, number):
        return np.linalg.inv(wishart(rng, number)["x"])

    return _one(log_joint, covariance, (size, size), draw)


CONCENTRATION = 4.0


def _draw_direction(rng, number):
    """Von Mises and Fisher, about the first axis, by inverting the height's distribution."""
    u = rng.random(number)
    height = 1 + np.log(u + (1 - u) * np.exp(-2 * CONCENTRATION)) / CONCENTRATION
    angle, side = rng.uniform(0, 2 * np.pi, number), np.sqrt(1 - height**2)
    return np.stack([height, side * np.cos(angle), side * np.sin(angle)], 1)


def _draw_sphere(rng, number):
    x = rng.normal(size=(number, 3))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


SCALES = np.logspace(-4, 4, 9)

MODELS = {
    "box": _one(
        lambda x: 0.0 * jnp.sum(x), unit_interval, (4,), lambda rng, number: rng.random((number, 4))
    ),
    "arcsine": _one(
        lambda x: -0.5 * jnp.sum(jnp.log(x) + jnp.log1p(-x)),
        unit_interval,
        (3,),
        lambda rng, number: rng.beta(0.5, 0.5, (number, 3)),
    ),
    "dirichlet_halves": _dirichlet(0.5, 0.5, 0.5, 0.5, 0.5),
    "dirichlet_uneven": _dirichlet(0.1, 0.2, 0.5, 1.0),
    "gamma_at_zero": _gamma(0.2, 3),
    "half_normal": _one(
        lambda x: -0.5 * jnp.sum(x**2),
        positive,
        (3,),
        lambda rng, number: np.abs(rng.normal(size=(number, 3))),
    ),
    "exponentials": _one(
        lambda x: -jnp.sum(x / SCALES),
        positive,
        (9,),
        lambda rng, number: rng.exponential(size=(number, 9)) * SCALES,
    ),
    "inverse_gamma_3": _inverse_gamma(3.0),
    "inverse_gamma_6": _inverse_gamma(6.0),
    "order_statistics": _one(
        lambda x: -0.5 * jnp.sum(x**2),
        ordered,
        (5,),
        lambda rng, number: np.sort(rng.normal(size=(number, 5)), axis=1),
    ),
    "direction": _one(lambda x: CONCENTRATION * x[0], unit_vector, (3,), _draw_direction),
    "sphere": _one(lambda x: 0.0 * x[0], unit_vector, (3,), _draw_sphere),
    "wishart": _wishart(4, 12),
    "inverse_wishart": _inverse_wishart(3, 12),
}
