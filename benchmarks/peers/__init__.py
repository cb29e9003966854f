"""bbvi beside the tools of the field: the same log densities, in one run, on one machine."""
