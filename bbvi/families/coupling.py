"""Coupling flows: nonlinear families with exact densities."""

from dataclasses import dataclass
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from bbvi._linalg import dot
from bbvi._score import with_score
from bbvi._types import Array, PyTree
from bbvi.families.base import Family, Frame
from bbvi.families.fullrank import FullRankGaussian
from bbvi.families.marginal import affine_frame, bend, score_behind, standard_log_prob, unbend
from bbvi.families.proposals import with_tails

_BASE = FullRankGaussian()
# Log scales are squashed to this range: an unbounded one overflows in the first bad step, and
# the composition of layers still reaches e^24 (Andrade 2024, arXiv:2402.16408, on clipping).
_LARGEST_LOG_SCALE = 3.0
# The last layer's weights start this small, so that the flow starts near the Gaussian.
_LAST_LAYER = 1e-2
# A tenth of this a step, the rate of `StochasticGradient`, is the 3e-3 that trains flows of this
# size (Agrawal and Domke 2024).
_WEIGHT_UNIT = 0.03
_SHAPES, _WEIGHTS = ("affine", "skew", "log_tail"), ("first", "second", "last")


@dataclass(frozen=True)
class CouplingFlow(Family):
    r"""Affine couplings, then sinh-arcsinh marginals, then an affine map.

    A coupling keeps half of the coordinates and scales and shifts the others by amounts that a
    small network computes from the kept ones,

        y_kept = x_kept,   y_other = x_other exp(s(x_kept)) + t(x_kept).

    Layers are scanned over, so compile time does not grow with depth. At the start the flow is
    the Gaussian given to `init`.

    Args:
        layers: couplings, each with a random half of the coordinates.
        width: units of each of the networks' two hidden layers.

    Example:
        >>> import jax.numpy as jnp
        >>> family = CouplingFlow(layers=4, width=8)
        >>> params = family.init(jnp.zeros(2), 1.0)
        >>> z, log_q = family.reparam(params, jnp.ones((3, 2)))
        >>> bool(jnp.allclose(family.log_prob(params, z), log_q, atol=1e-4))
        True

    Source: Dinh, Sohl-Dickstein and Bengio 2017 (arXiv:1605.08803); as a default for inference,
    Agrawal and Domke 2024 (arXiv:2412.08824).
    """

    layers: int = 8
    width: int = 32

    def __post_init__(self):
        if self.layers < 1 or self.width < 1:
            raise ValueError(f"layers and width must be positive, not {self.layers}, {self.width}.")

    def init(self, loc: Array, scale: Array) -> PyTree:
        dim, dtype = loc.shape[0], loc.dtype
        first, second, last = _initial_weights(dim, self.layers, self.width)
        zeros = jnp.zeros_like(loc)
        hidden = jnp.zeros((self.layers, self.width), dtype)
        return {
            "affine": _BASE.init(loc, scale),
            "skew": zeros,
            "log_tail": zeros,
            "first": (jnp.asarray(first, dtype), hidden),
            "second": (jnp.asarray(second, dtype), hidden),
            "last": (jnp.asarray(last, dtype), jnp.zeros((self.layers, 2 * dim), dtype)),
        }

    def reparam(self, params: PyTree, eps: Array) -> tuple[Array, Array]:
        def layer(carry, weights):
            x, log_det = carry
            kept = weights[0]
            log_scale, shift = _network(weights, x * kept)
            return (x * jnp.exp(log_scale) + shift, log_det + jnp.sum(log_scale, -1)), None

        start = (eps, jnp.zeros_like(eps[:, 0]))
        (x, log_det), _ = jax.lax.scan(layer, start, self._stack(params))
        return self._behind(params, eps, x, log_det)

    def reparam_held(self, params: PyTree, eps: Array) -> tuple[Array, Array]:
        r"""The score is carried forward with the draws; the inverse map is not needed.

        With log q(y) = log q(x) - log |det J| and J' triangular in the two halves,

            score_y = J^-T (score_x - grad log |det J|)

        takes one reverse pass through the layer's network.

        Source: Vaitl, Winkler, Richter and Kessel 2024 (arXiv:2403.15881).
        """

        def layer(carry, weights):
            x, score, log_det = carry
            held, still = jax.lax.stop_gradient((weights, x))
            network = lambda x: _network(held, x * held[0])  # noqa: E731
            (log_scale, _), pull = jax.vjp(network, still)
            past = score * jnp.exp(-log_scale)
            (change,) = pull((1 + score * still, past))
            return (_couple(weights, x), past - change, log_det + jnp.sum(log_scale, -1)), None

        start = (eps, -eps, jnp.zeros_like(eps[:, 0]))
        (x, score, log_det), _ = jax.lax.scan(layer, start, self._stack(params))
        score = score_behind(jax.lax.stop_gradient(params), jax.lax.stop_gradient(x), score)
        z, log_q = self._behind(params, eps, x, log_det)
        return z, with_score(log_q, score, z)

    def log_prob(self, params: PyTree, z: Array) -> Array:
        x, log_det = self._invert(params, z)
        return standard_log_prob(x) - log_det

    def normals(self, params: PyTree, z: Array) -> Array:
        return self._invert(params, z)[0]

    def log_mixture(self, params: PyTree, z: Array) -> Array:
        """log density (S,) of what `propose_at` draws, half of it with heavier tails."""
        x, log_det = self._invert(params, z)
        squares = jnp.sum(x**2, axis=-1)
        return with_tails(standard_log_prob(x) - log_det, squares, z.shape[1])

    def _invert(self, params, z):
        """Base normals of z (S, D), and log |det dz/deps| there."""
        affine = params["affine"]
        y, bent = unbend(affine_frame(affine).invert(z), params["skew"], params["log_tail"])

        def layer(carry, weights):
            y, log_det = carry
            log_scale, shift = _network(weights, y * weights[0])
            return ((y - shift) * jnp.exp(-log_scale), log_det + jnp.sum(log_scale, -1)), None

        start = (y, jnp.zeros_like(y[:, 0]))
        (x, log_det), _ = jax.lax.scan(layer, start, self._stack(params), reverse=True)
        return x, log_det + bent + jnp.sum(affine["log_diag"])

    def event(self, params: PyTree) -> tuple[int, object]:
        return super().event(params["affine"])

    def frame(self, params: PyTree) -> Frame:
        return affine_frame(params["affine"])

    def to_frame(self, params: PyTree, frame: Frame) -> PyTree:
        return params | {"affine": _BASE.to_frame(params["affine"], frame)}

    def from_frame(self, params: PyTree, frame: Frame) -> PyTree:
        return params | {"affine": _BASE.from_frame(params["affine"], frame)}

    def units(self, params: PyTree) -> PyTree:
        def full(unit, names):
            some = {name: params[name] for name in names}
            return jax.tree.map(lambda x: jnp.full_like(x, unit), some)

        return full(1.0, _SHAPES) | full(_WEIGHT_UNIT, _WEIGHTS)

    @staticmethod
    def _behind(params, eps, x, log_det):
        """Draws and their log q, from what the couplings made of eps."""
        w, bent = bend(x, params["skew"], params["log_tail"])
        affine = params["affine"]
        z = affine["loc"] + dot(w, _BASE.factor(affine).T)
        return z, standard_log_prob(eps) - log_det - bent - jnp.sum(affine["log_diag"])

    def _stack(self, params):
        dtype = params["skew"].dtype
        masks = jnp.asarray(_masks(params["skew"].shape[0], self.layers), dtype)
        return masks, params["first"], params["second"], params["last"]


@partial(jax.checkpoint, prevent_cse=False)
def _couple(weights: PyTree, x: Array) -> Array:
    """One coupling; for the reverse pass only x is kept and the network evaluated again."""
    log_scale, shift = _network(weights, x * weights[0])
    return x * jnp.exp(log_scale) + shift


def _network(weights: PyTree, kept: Array) -> tuple[Array, Array]:
    """Log scale and shift (S, D) from the kept coordinates (S, D), zero where they are kept."""
    mask, (w1, b1), (w2, b2), (w3, b3) = weights
    hidden = jnp.tanh(dot(kept, w1) + b1)
    hidden = jnp.tanh(dot(hidden, w2) + b2)
    log_scale, shift = jnp.split(dot(hidden, w3) + b3, 2, axis=-1)
    log_scale = _LARGEST_LOG_SCALE * jnp.tanh(log_scale / _LARGEST_LOG_SCALE)
    return log_scale * (1 - mask), shift * (1 - mask)


@lru_cache(maxsize=64)
def _masks(dim: int, layers: int) -> np.ndarray:
    """1 where a coordinate is kept (layers, D): random halves, each followed by its complement."""
    rng = np.random.default_rng(0)
    masks = []
    for i in range(layers):
        if i % 2 == 0:
            kept = np.zeros(dim)
            kept[rng.permutation(dim)[: dim // 2]] = 1
        masks.append(kept if i % 2 == 0 else 1 - kept)
    return np.array(masks)


@lru_cache(maxsize=64)
def _initial_weights(dim: int, layers: int, width: int) -> tuple[np.ndarray, ...]:
    """The same for every fit, so that a fit depends on its own key alone."""
    rng = np.random.default_rng(1)
    first = rng.normal(size=(layers, dim, width)) / np.sqrt(max(1, dim // 2))
    second = rng.normal(size=(layers, width, width)) / np.sqrt(width)
    last = rng.normal(size=(layers, width, 2 * dim)) / np.sqrt(width) * _LAST_LAYER
    return first, second, last
