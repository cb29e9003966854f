import pymc_extras as pmx
from data import show
from pymc_model import draws_of, model

if __name__ == "__main__":  # its paths are processes
    tree = pmx.fit(method="pathfinder", model=model, random_seed=0, progressbar=False)
    show(draws_of(tree))
