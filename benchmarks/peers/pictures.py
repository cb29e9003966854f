"""Pictures of a run, from the rows in results/: error against gradients and seconds, and scale.

python -m benchmarks.peers.pictures
"""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from .report import load
from .results import FOLDER
from .settings import TOOLS

TOLERANCE, CEILING = 0.1, 30.0  # what is further off, or not finite, is drawn at the ceiling
MARKERS = "osv^<>DPX*hpd8HspP"


def points(ax, x: str, where: str) -> None:
    """One point a (tool, posterior), by newcomer's settings."""
    rows = [r for r in load("peers_accuracy")["rows"] if r["setting"] == "newcomer"]
    for i, tool in enumerate(TOOLS):
        own = [r for r in rows if r["tool"] == tool and r["set"] == where and r.get(x)]
        if not own:
            continue
        errors = [min(CEILING, CEILING if r["error"] is None else r["error"]) for r in own]
        ours = tool == "bbvi"
        ax.scatter(
            [r[x] for r in own],
            errors,
            s=36 if ours else 16,
            marker=MARKERS[i],
            color="black" if ours else plt.cm.tab20(i / 20),
            label=tool,
            alpha=0.9 if ours else 0.7,
            zorder=3 if ours else 2,
        )
    ax.axhline(TOLERANCE, color="0.5", linewidth=0.8, linestyle="--")
    ax.set(xscale="log", yscale="log")
    ax.set_ylabel("worst error of a mean (sds) or an sd")


def accuracy() -> None:
    labels = {"gradients": "gradient evaluations", "cold": "seconds of CPU, compiling included"}
    for where in ("posteriordb", "heldout"):
        rows = load("peers_accuracy")["rows"]
        if not any(row["set"] == where for row in rows):
            continue
        figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
        for ax, (x, label) in zip(axes, labels.items(), strict=True):
            points(ax, x, where)
            ax.set_xlabel(label)
        axes[1].set_ylabel("")
        # the seconds have every tool, the gradients those that tell or can be counted
        figure.legend(*axes[1].get_legend_handles_labels(), loc="outside right", fontsize=7)
        figure.savefig(FOLDER / f"peers_{where}.png", dpi=130)
        plt.close(figure)


def scale() -> None:
    rows = load("peers_scale")["rows"]
    if not rows:
        return
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for row, (y, label) in zip(
        axes, {"us": "microseconds a step", "mib": "MiB"}.items(), strict=True
    ):
        for ax, x in zip(row, ("dim", "draws"), strict=True):
            fixed = ("draws", 1) if x == "dim" else ("dim", 1000)
            for tool in dict.fromkeys(r["tool"] for r in rows):
                own = sorted(
                    (r[x], r[y]) for r in rows if r["tool"] == tool and r[fixed[0]] == fixed[1]
                )
                own = [(a, b) for a, b in own if b]
                ax.plot(*zip(*own, strict=True), marker="o", markersize=3, label=tool)
            ax.set(xscale="log", yscale="log", xlabel="D" if x == "dim" else "draws")
            ax.set_ylabel(label)
    axes[0, 0].legend(fontsize=7)
    figure.savefig(FOLDER / "peers_scale.png", dpi=130)
    plt.close(figure)


def main() -> None:
    accuracy()
    scale()


if __name__ == "__main__":
    main()
