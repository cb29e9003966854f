"""Densities that can be drawn from exactly: shapes without a story.

Rings, ridges, funnels, mixtures, corners of supports, tails, up to a thousand dimensions. What a
model of practice has in some of its parameters and by degrees, these have in all of them and
alone. Their moments are those of draws of numpy, so that they owe nothing to a sampler.
"""

from .registry import SHAPES, Shape

__all__ = ["SHAPES", "Shape"]
