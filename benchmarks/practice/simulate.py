"""What the models share: data are simulated from a fixed seed, hence the same everywhere."""

import numpy as np


def expit(x):
    return 1 / (1 + np.exp(-x))


def groups(rng, count, sizes):
    """Index of the group of each row, of groups of uneven sizes."""
    low, high = sizes
    return np.repeat(np.arange(count), rng.integers(low, high + 1, count))


def of(**parameters):
    """Parameters whose shapes do not depend on the data."""
    return lambda data: parameters
