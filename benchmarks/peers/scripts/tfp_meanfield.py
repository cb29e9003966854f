import jax
import jax.numpy as jnp
import optax
from data import show
from density import DIM, log_density, split
from tensorflow_probability.substrates import jax as tfp


def build(loc, log_scale):
    return tfp.distributions.MultivariateNormalDiag(loc, jnp.exp(log_scale))


params, _ = tfp.vi.fit_surrogate_posterior_stateless(
    jax.vmap(log_density),
    build_surrogate_posterior_fn=build,
    initial_parameters=(jnp.zeros(DIM), jnp.zeros(DIM)),
    optimizer=optax.adam(0.01),
    num_steps=10_000,
    jit_compile=True,
    seed=jax.random.PRNGKey(1),
)
show(split(build(*params).sample(20_000, seed=jax.random.PRNGKey(2))))
