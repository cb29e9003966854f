"""Keys of tests that fit: one in every run, the others in `make test-slow`."""

import pytest


def keys(first: int, *others: int) -> list:
    return [first, *(pytest.param(key, marks=pytest.mark.slow) for key in others)]
