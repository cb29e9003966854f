import blackjax
import jax
import jax.numpy as jnp
import optax
from data import show
from density import DIM, log_density, split

vi = blackjax.fullrank_vi(log_density, optax.adam(0.01), num_samples=10)


@jax.jit
def run(key):
    keys = jax.random.split(key, 10_000)
    return jax.lax.scan(lambda s, k: vi.step(k, s), vi.init(jnp.zeros(DIM)), keys)[0]


show(split(vi.sample(jax.random.key(1), run(jax.random.key(0)), 20_000)))
