import pymc as pm
from data import show
from pymc_model import draws_of, model

with model:
    approximation = pm.fit(10_000, random_seed=0, progressbar=False)
show(draws_of(approximation.sample(20_000)))
