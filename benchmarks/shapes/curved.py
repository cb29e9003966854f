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


# --- sharp ridges: all others follow one or two coordinates closely -------------------------------

_SLOPES = np.linspace(0.3, 1.0, 10)


def _ridge(curve, sd, drivers=1):
    """Standard normal drivers v, and x_j ~ N(curve_j(v), sd)."""

    def log_joint(params, data):
        v, x = params["v"], params["x"]
        return -0.5 * jnp.sum(v**2) - 0.5 * jnp.sum(((x - curve(jnp, v)) / sd) ** 2)

    def draw(rng, number):
        v = rng.normal(size=(number, drivers))
        x = curve(np, v)
        return {"v": v, "x": x + sd * rng.normal(size=x.shape)}

    size = curve(np, np.zeros(drivers)).size
    return Model(log_joint, lambda data: {"v": (real, (drivers,)), "x": (real, (size,))}), draw


def _parabola(xp, v):
    return _SLOPES * v**2


def _cubic(xp, v):
    return _SLOPES * v**3


def _sines(xp, v):
    return 2 * xp.sin(2 * _SLOPES * v)


def _helix(xp, v):
    return xp.concatenate([2 * xp.cos(3 * v), 2 * xp.sin(3 * v)], axis=-1)


def _saddle(xp, v):
    return _SLOPES * v[..., :1] * v[..., 1:]


def rosenbrock(params, data):
    """The hybrid of Pagani, Wiegand and Nadarajah 2022 (Scandinavian J. of Statistics 49)."""
    root, leaves = params["root"], params["leaves"]
    before = jnp.stack([jnp.full(2, root), leaves[:, 0]], axis=1)
    return -0.5 * (root - 1) ** 2 - 0.5 * jnp.sum(((leaves - before**2) / 0.3) ** 2)


def _draw_rosenbrock(rng, number):
    root = 1 + rng.normal(size=number)
    first = root[:, None] ** 2 + 0.3 * rng.normal(size=(number, 2))
    second = first**2 + 0.3 * rng.normal(size=(number, 2))
    return {"root": root, "leaves": np.stack([first, second], axis=2)}


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
    "ridge": _ridge(_parabola, 0.2),
    "ridge_cubic": _ridge(_cubic, 0.3),
    "ridge_of_sines": _ridge(_sines, 0.2),
    "helix": _ridge(_helix, 0.3),
    "saddle": _ridge(_saddle, 0.2, 2),
    "rosenbrock": (
        Model(rosenbrock, lambda data: {"root": (real, ()), "leaves": (real, (2, 2))}),
        _draw_rosenbrock,
    ),
    "funnel_narrow": _funnel(0.5, 10),
    "funnel": _funnel(1.0, 10),
    "funnel_of_50": _funnel(1.0, 50),
    "funnel_wide": _funnel(2.0, 5),
}
