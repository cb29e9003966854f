"""Tails heavier and lighter than a normal's."""

import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from bbvi import positive, real
from benchmarks.posteriordb.model import Model


def _each(log_density, size, draw, support=real):
    """Independent entries of one leaf `x`."""
    model = Model(
        lambda params, data: jnp.sum(log_density(params["x"])),
        lambda data: {"x": (support, (size,))},
    )
    return model, lambda rng, number: {"x": draw(rng, (number, size))}


def _student(size, df):
    """Correlated, so that the scale of all is common."""
    root = np.eye(size) + np.tril(np.random.default_rng(3).normal(size=(size, size))) / size**0.5

    def log_joint(params, data):
        eps = solve_triangular(root, params["x"], lower=True)
        return -0.5 * (df + size) * jnp.log1p(jnp.sum(eps**2) / df)

    def draw(rng, number):
        length = np.sqrt(df / rng.chisquare(df, number))
        return {"x": length[:, None] * (rng.normal(size=(number, size)) @ root.T)}

    return Model(log_joint, lambda data: {"x": (real, (size,))}), draw


def _power(exponent, size, scale=1.0):
    """exp(-|x/scale|^exponent): a gamma's root with a sign."""

    def draw(rng, shape):
        length = rng.gamma(1 / exponent, size=shape) ** (1 / exponent)
        return scale * length * rng.choice([-1, 1], shape)

    return _each(lambda x: -((x / scale) ** exponent), size, draw)


COVARIANCE = 0.64 * (0.7 + 0.3 * np.eye(6))


def log_normal(params, data):
    z = jnp.log(params["x"])
    return -0.5 * z @ np.linalg.inv(COVARIANCE) @ z - jnp.sum(z)


def _draw_log_normal(rng, number):
    return {"x": np.exp(rng.multivariate_normal(np.zeros(6), COVARIANCE, number))}


MODELS = {
    "student_4": _student(2, 4),
    "student_5": _student(20, 5),
    "student_8": _student(100, 8),
    "students_apart": _each(
        lambda x: -3 * jnp.log1p(x**2 / 5), 30, lambda rng, shape: rng.standard_t(5, shape)
    ),
    "laplace": _each(lambda x: -jnp.abs(x - 1), 50, lambda rng, shape: rng.laplace(1, 1, shape)),
    "logistic": _each(
        lambda x: -x - 2 * jnp.logaddexp(0.0, -x), 30, lambda rng, shape: rng.logistic(size=shape)
    ),
    "gumbel": _each(lambda x: -x - jnp.exp(-x), 20, lambda rng, shape: rng.gumbel(size=shape)),
    "log_normal": (Model(log_normal, lambda data: {"x": (positive, (6,))}), _draw_log_normal),
    "quartic": _power(4, 5),
    "plateau": _power(10, 3, 3.0),
}
