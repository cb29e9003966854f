import nutpie
from data import show
from pymc_model import draws_of, model

tree = nutpie.sample(nutpie.compile_pymc_model(model), seed=0, progress_bar=False)
show(draws_of(tree))
