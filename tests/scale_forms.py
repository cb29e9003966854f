"""A scale as users write it."""

import jax.numpy as jnp

import bbvi

FORMS = {  # its sd as a function of it, its support, and the power of the unconstrained scale
    "sd": (lambda v: v, bbvi.positive, 1.0),
    "log sd": (jnp.exp, bbvi.real, 1.0),
    "variance": (jnp.sqrt, bbvi.positive, 0.5),
    "precision": (lambda v: v**-0.5, bbvi.positive, -0.5),
    "fraction": (lambda v: v, bbvi.interval(0.0, 4.0), 1.0),
}
