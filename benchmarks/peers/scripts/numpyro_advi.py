import jax
import numpyro
from data import show
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro_model import model

guide = AutoNormal(model)
svi = SVI(model, guide, numpyro.optim.Adam(0.01), Trace_ELBO())
run = svi.run(jax.random.key(0), 10_000, progress_bar=False)
show(guide.sample_posterior(jax.random.key(1), run.params, sample_shape=(20_000,)))
