"""Stages of the default solver, in the order in which `bbvi.auto` comes to them.

`gaussians`, `hierarchy`, `latent` and `bent` each find an approximation of one kind. A `stage` is
a solver that was run and what fresh draws say of it; `judged` makes them. `chain_stages` and
`population` correct one, `coverage`, `necks` and `unseen` ask what it has missed, and `ranking`
says which is kept.
"""
