import jax
from data import show
from numpyro.infer import MCMC, NUTS
from numpyro_model import model

options = {"num_chains": 4, "chain_method": "vectorized", "progress_bar": False}
mcmc = MCMC(NUTS(model), num_warmup=1000, num_samples=1000, **options)
mcmc.run(jax.random.key(0))
mcmc.print_summary()
show(mcmc.get_samples())
