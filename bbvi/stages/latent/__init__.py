"""Hyperparameters given which all else is nearly normal: nested Laplace approximations.

`hyperparameters` finds them, `conditionals` what all else is given one value of them,
`nested_laplace` at which values that is asked, and `interpolation` what lies between these. A fit
by some points is a `round`, after which others follow where its draws weigh most.
"""
