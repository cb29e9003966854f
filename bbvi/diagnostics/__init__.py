"""What is known of a fit, and how far it can be trusted.

From weights of fresh draws: `fresh_draws` and their `figures` (with `pareto` and `moments`),
`evidence`. From short Hamiltonian chains, where weights cannot speak: `chains` (with
`trajectories` in the `base_space` of the approximation), `chain_checks`. `propriety` asks whether
there is a posterior at all. `judging` makes a `verdict` of it all, in words.
"""
