"""Small real problems to try the package on."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bbvi._types import Array, LogJoint, PyTree
from bbvi.bijectors import positive


class Example(NamedTuple):
    """What `bbvi.fit` needs: `fit(*example[:3], support=example.support)`.

    Attributes:
        log_joint: the log joint density of one point and the data.
        init: an example point.
        data: the data.
        support: the supports of the parameters that are not real.
    """

    log_joint: LogJoint
    init: PyTree
    data: PyTree
    support: PyTree


def eight_schools() -> Example:
    r"""Coaching for a test in eight schools: a hierarchical model of eight effects.

    Given are an estimated effect y and its standard error sigma for each school. The true
    effects theta = mu + tau eta are written with standard normal eta (non-centred), without
    which their spread would depend on tau and no Gaussian would fit:

        mu ~ N(0, 5),  tau ~ half-Cauchy(5),  eta_j ~ N(0, 1),  y_j ~ N(mu + tau eta_j, sigma_j)

    Returns:
        the log joint up to a constant, a point, the data y (8,) and sigma (8,), and the support
        of tau.

    Source: Rubin 1981, Journal of Educational Statistics 6(4).
    """
    data = {
        "y": np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
        "sigma": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
    }
    init = {"mu": 0.0, "tau": 1.0, "eta": np.zeros(8)}
    return Example(eight_schools_log_joint, init, data, {"tau": positive})


# At the top of the module, as compiled programs are kept by the identity of the function.
def eight_schools_log_joint(params: Any, data: Any) -> Array:
    """The log joint of `eight_schools`, without the constants of its densities."""
    mu, tau, eta = params["mu"], params["tau"], params["eta"]
    log_prior = -0.5 * (mu / 5) ** 2 - jnp.log1p((tau / 5) ** 2) - 0.5 * jnp.sum(eta**2)
    residual = (data["y"] - (mu + tau * eta)) / data["sigma"]
    return log_prior - 0.5 * jnp.sum(residual**2)
