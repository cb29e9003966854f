"""Scales and their effects: coordinates in which effects do not depend on their scales.

`layers` finds them, by gradients where a scale is all that counts, from what its siblings know of
one kind of effects each: `normal_effects`, `location_scale`, `orbits`. `laplace` makes a family of
what is normal given the scales.
"""
