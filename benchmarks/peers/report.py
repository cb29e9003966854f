"""The tables of a run, from the rows in results/, as one Markdown file.

python -m benchmarks.peers.report
"""

import json
import math
from collections import defaultdict
from statistics import median

from .results import FOLDER
from .settings import TOOLS

OUTPUT = FOLDER / "peers.md"
SETS = {"posteriordb": "The posteriors of posteriordb", "heldout": "Targets kept apart"}


def load(name: str) -> dict:
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {"rows": [], "runs": []}


def table(head: list[str], lines: list[list[str]]) -> str:
    rule = ["---"] + ["--:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *lines])


def number(value: float | None, form: str = ".3g") -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return format(value, form)


def middle(rows: list[dict], name: str) -> float | None:
    values = [row[name] for row in rows if row.get(name) is not None]
    return median(values) if values else None


def worst(row: dict) -> float:
    """The error of a row, infinite where there is no answer."""
    error = row.get("error")
    return math.inf if error is None else error


def by_setting(rows: list[dict]) -> dict[str, list[dict]]:
    """The newcomer's rows, and for each problem the closest of the grid and the newcomer's."""
    problems = defaultdict(list)
    for row in rows:
        problems[row["problem"]].append(row)
    newcomer = [row for row in rows if row["setting"] == "newcomer"]
    # a problem is tuned only where the whole grid has been run
    size = 1 + max((len(TOOLS[row["tool"]].grid) for row in rows), default=0)
    whole = [found for found in problems.values() if len(found) == size > 1]
    return {"newcomer": newcomer, "tuned": [min(found, key=worst) for found in whole]}


def accuracy() -> list[str]:
    parts, rows = [], load("peers_accuracy")["rows"]
    for where, title in SETS.items():
        head = "tool, settings, answers, right, wrong and silent, failed, median error, worst error"
        head += ", gradients, cold s, warm s"
        lines = []
        for tool in TOOLS:
            own = [r for r in rows if r["tool"] == tool and r["set"] == where]
            for setting, found in by_setting(own).items():
                if found:
                    lines.append([tool, setting, *_accuracy_line(found)])
        if lines:
            parts += [f"## {title}", table(head.split(", "), lines)]
    if parts:
        parts.insert(
            0,
            "Right: every mean within 0.1 sd and every sd within 10%. Errors are the larger of the "
            "two, the worst over a posterior's scalars; median and worst are over posteriors. Wrong"
            " and silent: not right, and the tool says nothing (verdict, R-hat above 1.01, "
            "divergences, k-hat above 0.7, a warning of its own). Tuned: for each posterior, the "
            "closest to the truth of the newcomer's setting and the grid's, chosen by the truth "
            "itself. Gradients are those of the log density; values alone are not counted. Seconds "
            "are of CPU on one core: cold is a call that compiles, warm a second one. PyMC and "
            "pymc-extras call the JAX density through pytensor, so their seconds are not those of a"
            " native model: for these see the cold start. Settings: benchmarks/peers/settings.py.",
        )
    return parts


def _accuracy_line(found: list[dict]) -> list[str]:
    failed = [row for row in found if "failed" in row]
    wrong = [row for row in found if "failed" not in row and not row["right"]]
    right = len(found) - len(failed) - len(wrong)
    errors = sorted(worst(row) for row in found)
    return [
        str(len(found)),
        f"{right} ({100 * right / len(found):.0f}%)",
        str(sum(not row["said"] for row in wrong)),
        str(len(failed)),
        number(median(errors)),
        number(errors[-1]),
        number(middle(found, "gradients"), ",.0f"),
        number(middle(found, "cold"), ".1f"),
        number(middle(found, "warm"), ".2f"),
    ]


def gradients() -> list[str]:
    """How many gradients the default takes beside NUTS and beside the best of the others."""
    rows = [r for r in load("peers_accuracy")["rows"] if r["setting"] == "newcomer"]
    at = {(r["tool"], r["problem"]): r for r in rows if r.get("gradients")}
    lines = []
    for tool in TOOLS:
        pairs = [
            (at["bbvi", problem]["gradients"], row["gradients"])
            for (name, problem), row in at.items()
            if name == tool != "bbvi" and ("bbvi", problem) in at
        ]
        if pairs:
            fewer = sum(ours < theirs for ours, theirs in pairs)
            ratio = median(theirs / ours for ours, theirs in pairs)
            lines.append([tool, f"{fewer} of {len(pairs)}", number(ratio)])
    head = ["peer, newcomer", "bbvi takes fewer gradients on", "median: peer's over bbvi's"]
    return ["## Gradients beside the default's", table(head, lines)] if lines else []


def cold() -> list[str]:
    rows, parts = load("peers_cold")["rows"], ["## Cold start"]
    parts.append(
        "From `python script.py` to the printed summary, seconds, median of the repeats; the error "
        "is that of the printed moments, worst over scalars. Made by `python -m "
        "benchmarks.peers.cold`."
    )
    at = {(row["which"], row["script"]): row for row in rows}
    lines = []
    for script in dict.fromkeys(row["script"] for row in rows):
        found = [at.get((which, script), {}) for which in ("schools", "logistic")]
        cells = []
        for row in found:
            failed = row.get("failed")
            cells += [failed or number(row.get("seconds"), ".1f"), number(row.get("error"))]
        lines.append([script, *cells])
    head = ["script", "eight schools, s", "error", "logistic, s", "error"]
    return [*parts, table(head, lines)] if lines else []


def refit() -> list[str]:
    rows = load("peers_refit")["rows"]
    lines = [
        [row["way"], str(row["fits"])]
        + (
            [row["failed"], "-", "-", "-", "-"]
            if "failed" in row
            else [
                number(row["total"], ".1f"),
                number(row["first"], ".2f"),
                number(row["a_fit"], ".4f"),
                str(row["compilations"]),
                number(row["right"], ".0%"),
            ]
        )
        for row in rows
    ]
    head = "way, fits, total s, first fit s, a further fit s, compilations, right".split(", ")
    note = (
        "Logistic regressions of 200 rows, D = 5, new data each, one after the other, float32, "
        "1,000 steps where a tool asks for a number. Made by `python -m benchmarks.peers.refit`."
    )
    return ["## Refit", note, table(head, lines)] if lines else []


def loop() -> list[str]:
    return loop_on("peers_loop", "Cost of a step") + loop_on(
        "peers_loop_gpu", "Cost of a step on a GPU"
    )


def loop_on(name: str, title: str) -> list[str]:
    rows = load(name)["rows"]
    at = {(r["rows"], r["dim"], r["draws"], r["tool"]): r for r in rows}
    tools = [t for t in dict.fromkeys(r["tool"] for r in rows) if t != "bare gradient"]
    points = sorted({key[:3] for key in at})
    lines = [
        [f"N={n} D={d}, {s} draws", number(at[n, d, s, "bare gradient"]["us"])]
        + [number(at[n, d, s, tool]["ratio"], ".2f") for tool in tools]
        for n, d, s in points
    ]
    note = (
        "Mean-field on a logistic regression, float32: microseconds of a bare batched gradient, "
        "and each tool's step over it. All in one compiled scan, which is kinder than their own "
        "entry points. With jax 0.11.1 to 0.12.0.1 bbvi has XLA make sums itself on a CPU, since "
        "the faster ones are wrong for some log joints (not for this one); where there is a column "
        '"XLA\'s sums", it is the bare gradient with the same. '
        "Made by `python -m benchmarks.peers.steps --part loop`."
    )
    head = ["problem", "bare, us", *tools]
    return [f"## {title}", note, table(head, lines)] if lines else []


def slope(points: list[tuple[float, float]]) -> float | None:
    """Of a line through the logs, over the upper half of the range: where the cost has set in."""
    points = sorted(points)[len(points) // 2 :]
    if len(points) < 2:
        return None
    x, y = [math.log(p[0]) for p in points], [math.log(p[1]) for p in points]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mx) ** 2 for a in x)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / spread


def scale() -> list[str]:
    rows = load("peers_scale")["rows"]
    lines = []
    for tool in dict.fromkeys(row["tool"] for row in rows):
        own = [row for row in rows if row["tool"] == tool]
        dims, draws = (
            [r for r in own if r["draws"] == 1],
            [r for r in own if r["dim"] == 1000],
        )
        largest = max(dims, key=lambda r: r["dim"])
        cells = [
            number(slope([(r[x], r[y]) for r in some if r[y]]), ".2f")
            for some, x in ((dims, "dim"), (draws, "draws"))
            for y in ("us", "mib")
        ]
        here = f"{number(largest['us'])} us, {number(largest['mib'])} MiB at D={largest['dim']:,}"
        lines.append([tool, *cells, here])
    note = (
        "Slopes of log time a step and log memory against log D (one draw) and log draws "
        "(D = 1,000), over the upper half of the range. Made by `python -m benchmarks.peers.steps "
        "--part scale`; picture: peers_scale.png."
    )
    head = ["tool", "time, D", "memory, D", "time, draws", "memory, draws", "largest"]
    return ["## Scale", note, table(head, lines)] if lines else []


def machines() -> list[str]:
    names = ("accuracy", "cold", "refit", "loop", "loop_gpu", "scale")
    lines = []
    for name in names:
        found = load(f"peers_{name}")
        for i, run in enumerate(found["runs"]):
            versions = ", ".join(f"{k} {v}" for k, v in run["versions"].items())
            loads = [row["load"] for row in found["rows"] if row["run"] == i]
            busy = f"load {min(loads)} to {max(loads)}"
            head = f"- {name}, {run['date']}, commit {run['commit']}: {run['machine']}, {busy}"
            lines.append(f"{head}; {versions}")
    return ["## Runs", "\n".join(lines)] if lines else []


def main() -> None:
    parts = [
        "# bbvi beside the field",
        "Made by `make bench`; a part of it by `make bench-quick`. Seconds hold for the load that "
        "the last section gives; one above the number of cores slows everything.",
    ]
    for section in (accuracy, gradients, cold, refit, loop, scale, machines):
        parts += section()
    OUTPUT.write_text("\n\n".join(parts) + "\n")
    print(f"wrote {OUTPUT}")


if __name__ == "__main__":
    main()
