"""What families share that are a base family of y in which z is straight."""

from typing import Any

import jax
import jax.numpy as jnp

from bbvi._arrays import is_on_host
from bbvi._types import Array, PyTree
from bbvi.families.base import Family, Frame, frame_of_draws, moment_normals


class Straightened(Family):
    """z (S, D) placed at y (S, D), where `base` is the family of y.

    `params["base"]` are the parameters of that; `place` and `straighten` go one way and the other.
    """

    base: Family

    def place(self, params: PyTree, y: Array) -> tuple[Array, Array]:
        """z (S, D) at y (S, D), and log |det dz/dy| (S,)."""
        raise NotImplementedError

    def straighten(self, params: PyTree, z: Array) -> tuple[Array, Array]:
        """y (S, D) at z (S, D), and log |det dz/dy| (S,) there."""
        raise NotImplementedError

    def reparam(self, params: PyTree, eps: Array) -> tuple[Array, Array]:
        y, log_q = self.base.reparam(params["base"], eps)
        z, log_det = self.place(params, y)
        return z, log_q - log_det

    def log_prob(self, params: PyTree, z: Array) -> Array:
        y, log_det = self.straighten(params, z)
        return self.base.log_prob(params["base"], y) - log_det

    def normals(self, params: PyTree, z: Array) -> Array:
        return self.base.normals(params["base"], self.straighten(params, z)[0])

    def event(self, params: PyTree) -> tuple[int, Any]:
        return self.base.event(params["base"])

    def noise_size(self, dim: int) -> int:
        return self.base.noise_size(dim)

    def frame(self, params: PyTree) -> Frame:
        """Units of the mean and the covariance, as 4,096 draws tell it."""
        size, dtype = self.event(params)
        frame = frame_of_draws(self.reparam(params, jnp.asarray(moment_normals(size), dtype))[0])
        return jax.device_get(frame) if is_on_host(params) else frame

    def to_frame(self, params: PyTree, frame: Frame) -> PyTree:
        raise NotImplementedError("coordinates are found from gradients at a point.")

    from_frame = to_frame
