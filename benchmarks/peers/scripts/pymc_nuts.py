import pymc as pm
from data import show
from pymc_model import draws_of, model

if __name__ == "__main__":  # its chains are processes
    with model:
        tree = pm.sample(random_seed=0, chains=4, progressbar=False)
    show(draws_of(tree))
