import jax
import jax.numpy as jnp
from blackjax.vi import pathfinder
from data import show
from density import DIM, log_density, split

approximate = jax.jit(lambda key, x: pathfinder.approximate(key, log_density, x)[0])
state = approximate(jax.random.key(0), jnp.zeros(DIM))
show(split(pathfinder.sample(jax.random.key(1), state, 20_000)[0]))
