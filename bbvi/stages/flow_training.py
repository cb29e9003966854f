"""How the flow of the default is trained."""

from functools import lru_cache

import optax


@lru_cache(maxsize=16)
def flow_optimizer(steps: int) -> optax.GradientTransformation:
    """Adam, warmed up and annealed; cached, since a new one is a new compile.

    The rate of 3e-3 and the clipping are those that worked across flows of this size in
    Agrawal and Domke 2024; annealing lets the averages of the end be those of one optimum.
    """
    warmup = min(100, steps // 4)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 3e-3, warmup, steps, 1e-5)
    # flattened: one kernel a step of the optimizer, not one a layer
    return optax.flatten(optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule)))
