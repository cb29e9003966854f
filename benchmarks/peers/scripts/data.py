"""The two problems of the cold start, as NumPy arrays."""

import sys

import numpy as np

WHICH = (sys.argv[1:] or ["schools"])[0]  # or logistic

Y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SIGMA = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])

_rng = np.random.default_rng(0)
X = np.concatenate([np.ones((1000, 1)), _rng.normal(size=(1000, 9))], axis=1)
LABEL = (_rng.random(1000) < 1 / (1 + np.exp(-X @ np.linspace(-1, 1, 10)))).astype(float)


def show(draws):
    """A summary: mean and sd of each scalar of {name: (S, ...)}."""
    for name in sorted(draws):
        x = np.asarray(draws[name])
        x = x.reshape(len(x), -1)
        for i, (mean, sd) in enumerate(zip(x.mean(0), x.std(0), strict=True)):
            print(f"{name}[{i}] {mean:.5g} {sd:.5g}")
