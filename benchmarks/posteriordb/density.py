"""Log densities, summed over the broadcast shape of their arguments.

Constants that depend on no parameter may be absent.
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, logsumexp

HALF_LOG_2PI = 0.9189385332046727


def normal(x, loc, scale):
    z = (x - loc) / scale
    return jnp.sum(-0.5 * z * z - jnp.log(scale) - HALF_LOG_2PI)


def cauchy(x, loc, scale):
    z = (x - loc) / scale
    return jnp.sum(-jnp.log1p(z * z) - jnp.log(scale))


def student_t(x, df, loc, scale):
    z = (x - loc) / scale
    return jnp.sum(-0.5 * (df + 1) * jnp.log1p(z * z / df) - jnp.log(scale))


def lognormal(x, loc, scale):
    log_x = jnp.log(x)
    return normal(log_x, loc, scale) - jnp.sum(log_x)


def gamma(x, shape, rate):
    return jnp.sum((shape - 1) * jnp.log(x) - rate * x)


def beta(x, a, b):
    return jnp.sum((a - 1) * jnp.log(x) + (b - 1) * jnp.log1p(-x))


def binomial_logit(y, n, eta):
    return jnp.sum(y * eta - n * jnp.logaddexp(0.0, eta))


def dirichlet(x, alpha):
    return jnp.sum((alpha - 1) * jnp.log(x))


def poisson_log(y, eta):
    return jnp.sum(y * eta - jnp.exp(eta))


def negative_binomial(y, log_mean, size):
    """Of each count, for it may be one part of a mixture."""
    counted = gammaln(y + size) - gammaln(size) + size * jnp.log(size) + y * log_mean
    return counted - (y + size) * jnp.logaddexp(log_mean, jnp.log(size))


def lkj_cholesky(root, concentration):
    """Of a correlation matrix, as a density of its root."""
    log_diagonal = jnp.log(jnp.diag(root))
    dim = len(log_diagonal)
    return jnp.sum((dim - jnp.arange(1, dim + 1) + 2.0 * (concentration - 1)) * log_diagonal)


def hidden_markov(log_emission, log_move):
    """Of observations given states (T, K), summed over states, with a weight of one on each first.

    `log_move[j, k]` is from j to k.
    """

    def step(log_alpha, log_e):
        return logsumexp(log_alpha[:, None] + log_move, axis=0) + log_e, None

    last, _ = jax.lax.scan(step, log_emission[0], log_emission[1:])
    return logsumexp(last)
