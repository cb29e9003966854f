"""flowjax: a masked autoregressive flow by its ELBO loss."""

import flowjax.train
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.distributions import Normal
from flowjax.flows import masked_autoregressive_flow
from flowjax.train.losses import ElboLoss

from .base import DRAWS, Fit, Problem, Run


def fit(problem: Problem, rate: float, steps: int, draws: int, layers: int = 8) -> Run:
    loss = ElboLoss(problem.bound, num_samples=draws)

    def run(key: int) -> Fit:
        flow_key, fit_key, draw_key = jax.random.split(jax.random.key(key), 3)
        flow = masked_autoregressive_flow(
            flow_key,
            base_dist=Normal(jnp.zeros(problem.dim)),
            flow_layers=layers,
            invert=False,  # fast to draw from, as its documentation says for this loss
        )
        flow, _ = flowjax.train.fit_to_key_based_loss(
            fit_key, flow, loss_fn=loss, steps=steps, learning_rate=rate, show_progress=False
        )
        return Fit(np.asarray(flow.sample(draw_key, (DRAWS,))), steps * draws)

    return run
