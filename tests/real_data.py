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
