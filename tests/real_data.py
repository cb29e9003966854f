"""Published data that several tests fit."""

import numpy as np

# Seeds that germinated, of those on a plate, by variety of seed and extract of root.
# Crowder 1978, Journal of the Royal Statistical Society C 27(1).
SEEDS = {
    "germinated": np.array(
        [10, 23, 23, 26, 17, 5, 53, 55, 32, 46, 10, 8, 10, 8, 23, 0, 3, 22, 15, 32, 3]
    ),
    "seeds": np.array(
        [39, 62, 81, 51, 39, 6, 74, 72, 51, 79, 13, 16, 30, 28, 45, 4, 12, 41, 30, 51, 7]
    ),
    "variety": np.repeat([0.0, 1.0], [11, 10]),
    "extract": np.array([0.0] * 5 + [1.0] * 6 + [0.0] * 5 + [1.0] * 5),
}

# Air flow, temperature of the cooling water, concentration of the acid, and ten times the loss of
# ammonia, in %, of a plant. Brownlee 1965, Statistical Theory and Methodology, p. 454.
STACK_LOSS = np.array(
    """
    80 27 89 42  80 27 88 37  75 25 90 37  62 24 87 28  62 22 87 18  62 23 87 18  62 24 93 19
    62 24 93 20  58 23 87 15  58 18 80 14  58 18 89 14  58 17 88 13  58 18 82 11  58 19 93 12
    50 18 89 8   50 18 86 7   50 19 72 8   50 19 79 8   50 20 80 9   56 20 82 15  70 20 91 15
    """.split(),
    float,
).reshape(-1, 4)
