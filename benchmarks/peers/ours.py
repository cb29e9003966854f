"""bbvi: the default, as `bbvi.fit(log_joint, init, data, support=...)`."""

import bbvi

from .base import Fit, Problem, Run


def fit(problem: Problem) -> Run:
    def run(key: int) -> Fit:
        result = bbvi.fit(
            problem.log_joint,
            problem.init,
            problem.data,
            support=problem.support,
            key=key,
            throw=False,
        )
        verdict = result.verdict
        said = "" if verdict.level == "trusted" else f"{verdict.level}: {' '.join(verdict.reasons)}"
        return Fit(None, result.num_gradients, said, result)

    return run
