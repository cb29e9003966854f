"""Linear response: the covariance that a mean-field fit implies and does not have."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg

from bbvi._compile import quick_jit
from bbvi._tree import as_key
from bbvi._types import Array, Key, PyTree
from bbvi.families import MeanFieldGaussian
from bbvi.objectives.draws import normals
from bbvi.solvers.bank import bank_loss, whitened
from bbvi.target import Target

# Columns of the covariance solved for at once.
_COLUMNS = 32
_RESIDUAL = 1e-4  # relative, where the conjugate gradients end
_FAMILY = MeanFieldGaussian()


def linear_response(
    target: Target, params: PyTree, data: PyTree, key: Key = 0, num_draws: int = 64
) -> Array:
    r"""Covariance of the unconstrained parameters by linear response.

    A mean-field fit gets means about right and standard deviations too small. How its means
    answer to a tilt t'z of the log density is, at the optimum, a covariance all the same:

        d mean / dt = [I 0] H^-1 [I 0]',   H the Hessian of the negative bound,

    exact where the posterior is Gaussian. The bound is that on a fixed bank of draws. H enters
    by its products with vectors alone, as central differences of the gradient, in conjugate
    gradients: no second derivatives of the log joint.

    Args:
        target: the target, as `result.posterior.target`.
        params: of a `MeanFieldGaussian` at its optimum, as `result.posterior.params`.
        data: the user's data.
        key: an int or a JAX random key, for the draws.
        num_draws: S, an even number. A column of the covariance takes 2 S gradients an
            iteration, of which there are about as many as correlations that matter.

    Returns:
        a matrix (D, D), in the order of `target.unconstrain`. Where its diagonal is negative
        or far from the fit's variances, mean-field itself is a bad approximation.

    Example:
        >>> import bbvi, jax.numpy as jnp
        >>> def log_joint(x, precision):
        ...     return -0.5 * x @ precision @ x
        >>> precision = jnp.array([[1.0, 0.9], [0.9, 1.0]])
        >>> solver = bbvi.FixedDraws(bbvi.MeanFieldGaussian())
        >>> posterior = bbvi.fit(log_joint, jnp.ones(2), precision, solver=solver).posterior
        >>> covariance = bbvi.linear_response(posterior.target, posterior.params, precision)
        >>> bool(jnp.max(jnp.abs(covariance - jnp.linalg.inv(precision))) < 0.05)
        True

    Source: Giordano, Broderick and Jordan 2018, JMLR 19(51); with fixed draws, Giordano,
    Ingram and Broderick 2024, JMLR 25(18), section 3.
    """
    return _response(target, params, data, as_key(key), num_draws)


@quick_jit(0, (0, 4))
def _response(target: Target, params: PyTree, data: PyTree, key: Array, num_draws: int) -> Array:
    dim, dtype = target.dim, target.dtype
    eps = whitened(normals(key, num_draws, dim, dtype, antithetic=True, quasi=False))
    frame = _FAMILY.frame(params)
    # in units of the fit, in which H is the identity but for correlations
    centre, unravel = ravel_pytree(_FAMILY.to_frame(params, frame))

    def gradient(flat):
        return jax.grad(lambda x: bank_loss(target, _FAMILY, frame, x, eps, data)[0])(flat)

    def product(vector):
        length = jnp.sqrt(jnp.sum(vector**2))
        size = float(jnp.finfo(dtype).eps) ** (1 / 3)
        step = vector * jnp.where(length > 0, size / length, 0)
        change = gradient(centre + step) - gradient(centre - step)
        return change * length / (2 * size)

    def column(unit):
        zeros = jax.tree.map(jnp.zeros_like, params)
        tilt = ravel_pytree(zeros | {"loc": unit})[0]
        answer, _ = cg(product, tilt, tol=_RESIDUAL, maxiter=2 * centre.shape[0])
        return unravel(answer)["loc"]

    units = jnp.eye(dim, dtype=dtype)
    size = None if target.sequential else min(dim, _COLUMNS)
    columns = partial(jax.lax.map, batch_size=size)(column, units)
    return frame.rescale(frame.rescale(0.5 * (columns + columns.T)).T)
