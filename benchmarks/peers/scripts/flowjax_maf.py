import flowjax.train
import jax
import jax.numpy as jnp
from data import show
from density import DIM, log_density, split
from flowjax.distributions import Normal
from flowjax.flows import masked_autoregressive_flow
from flowjax.train.losses import ElboLoss

base = Normal(jnp.zeros(DIM))
flow = masked_autoregressive_flow(jax.random.key(0), base_dist=base, invert=False)
loss, key = ElboLoss(log_density, num_samples=100), jax.random.key(1)
flow, _ = flowjax.train.fit_to_key_based_loss(
    key, flow, loss_fn=loss, steps=1000, learning_rate=0.01, show_progress=False
)
show(split(flow.sample(jax.random.key(2), (20_000,))))
