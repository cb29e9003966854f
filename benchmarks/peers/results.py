"""Rows of a benchmark kept in a JSON file as they come, and what machine they came from."""

import json
import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "results"
PACKAGES = (
    "bbvi jax jaxlib numpyro blackjax pymc pytensor pymc-extras nutpie tfp-nightly flowjax".split()
)


def environment() -> dict:
    """Versions, machine and how busy it was."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "versions": versions | {"python": platform.python_version()},
        "commit": _commit(),
        "machine": f"{platform.system()} {platform.machine()}, {_processor()}, "
        f"{os.cpu_count()} cores",
        "load": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((x.split(":")[1].strip() for x in lines if "model name" in x), "unknown CPU")


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER.parent)
    return run.stdout.strip() or "unknown"


class Rows:
    """Rows under a key, in results/NAME.json; a run that is broken off goes on where it was."""

    def __init__(self, name: str, key: tuple[str, ...], fresh: bool = False):
        self.path, self.key = FOLDER / f"{name}.json", key
        kept = json.loads(self.path.read_text()) if self.path.exists() and not fresh else {}
        self.rows: dict[tuple, dict] = {self._of(row): row for row in kept.get("rows", [])}
        self.runs: list[dict] = kept.get("runs", [])
        self.runs.append(environment() | {"date": time.strftime("%Y-%m-%d %H:%M")})

    def _of(self, row: dict) -> tuple:
        return tuple(row[name] for name in self.key)

    def __contains__(self, key: tuple) -> bool:
        return key in self.rows

    def add(self, row: dict) -> None:
        self.rows[self._of(row)] = row | {"load": round(os.getloadavg()[0], 1)}
        lines = ",\n".join(json.dumps(r) for r in self.rows.values())
        unfinished = self.path.with_suffix(".tmp")
        unfinished.write_text(f'{{"runs": {json.dumps(self.runs)},\n"rows": [\n{lines}\n]}}\n')
        unfinished.replace(self.path)  # in one go: an interrupted run leaves a whole file
