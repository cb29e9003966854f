"""Curved ones: rings, ridges and funnels, which no Gaussian fits."""

import jax.numpy as jnp
import numpy as np

from bbvi import positive, real
from benchmarks.posteriordb.model import Model

# --- a ring, and a part of one -------------------------------------------------------------------


def ring(params, data):
    radius = jnp.sqrt(jnp.sum(params["x"] ** 2) + 1e-12)
    return -0.5 * ((radius - 5) / 0.5) ** 2 - jnp.log(radius)


def arc(params, data):
    x = params["x"] + jnp.array([1e-6, 0.0])  # no angle at the centre
    angle = jnp.arctan2(x[1], x[0])
    radius = jnp.sqrt(jnp.sum(x**2))
    return -0.5 * ((radius - 5) / 0.3) ** 2 - jnp.log(radius) - 0.5 * (angle / 0.7) ** 2


def _polar(radius, angle):
    return {"x": np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)}


def _draw_ring(rng, number):
    return _polar(rng.normal(5, 0.5, number), rng.uniform(-np.pi, np.pi, number))


def _draw_arc(rng, number):
    return _polar(rng.normal(5, 0.3, number), rng.normal(0, 0.7, number))


# --- ridges: five parabolas, a wave, and two factors of which the data know the product ----------


def parabolas(params, data):
    x, y = params["x"], params["y"]
    return jnp.sum(-0.5 * x**2 - 0.5 * ((y - x**2) / 0.3) ** 2)


def _draw_parabolas(rng, number):
    x = rng.normal(size=(number, 5))
    return {"x": x, "y": x**2 + 0.3 * rng.normal(size=x.shape)}


def wave(params, data):
    x, y = params["x"], params["y"]
    return -0.5 * (x / 2) ** 2 - 0.5 * ((y - jnp.sin(3 * x)) / 0.3) ** 2


def _draw_wave(rng, number):
    x = 2 * rng.normal(size=number)
    return {"x": x, "y": np.sin(3 * x) + 0.3 * rng.normal(size=number)}


def product(params, data):
    a, b = params["a"], params["b"]
    return -0.5 * (a / 2) ** 2 - 0.5 * (b / 2) ** 2 - 0.5 * ((a * b - 2) / 0.5) ** 2


def _draw_product(rng, number):
    """The prior, thinned by a likelihood that is at most one: about one in eight is kept."""
    a, b = np.abs(2 * rng.normal(size=(2, 20 * number)))
    kept = rng.random(a.size) < np.exp(-0.5 * ((a * b - 2) / 0.5) ** 2)
    return {"a": a[kept][:number], "b": b[kept][:number]}


# --- funnels: the spread of some is the exponential of another -----------------------------------


def _funnel(sd, size):
    def log_joint(params, data):
        v, x = params["v"], params["x"]
        return -0.5 * (v / sd) ** 2 - 0.5 * jnp.sum(x**2) * jnp.exp(-v) - 0.5 * size * v

    def draw(rng, number):
        v = sd * rng.normal(size=number)
        return {"v": v, "x": np.exp(v / 2)[:, None] * rng.normal(size=(number, size))}

    return Model(log_joint, lambda data: {"v": (real, ()), "x": (real, (size,))}), draw


def _plane(log_joint, draw):
    return Model(log_joint, lambda data: {"x": (real, (2,))}), draw


def _pair(log_joint, draw, support, shape=(), names=("x", "y")):
    return Model(log_joint, lambda data: {name: (support, shape) for name in names}), draw


MODELS = {
    "ring": _plane(ring, _draw_ring),
    "arc": _plane(arc, _draw_arc),
    "parabolas": _pair(parabolas, _draw_parabolas, real, (5,)),
    "wave": _pair(wave, _draw_wave, real),
    "product": _pair(product, _draw_product, positive, names=("a", "b")),
    "funnel_narrow": _funnel(0.5, 10),
    "funnel": _funnel(1.0, 10),
    "funnel_of_50": _funnel(1.0, 50),
    "funnel_wide": _funnel(2.0, 5),
}
