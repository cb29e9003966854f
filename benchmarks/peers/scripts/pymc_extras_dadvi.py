import pymc_extras as pmx
from data import show
from pymc_model import draws_of, model

show(draws_of(pmx.fit(method="dadvi", model=model, random_seed=0, progressbar=False)))
