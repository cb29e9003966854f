"""Rows of a benchmark kept in a JSON file as they come, and what machine they came from."""

import hashlib
import json
import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import jax

import bbvi

FOLDER = Path(__file__).parents[1] / "results"
PACKAGES = "jax jaxlib numpyro blackjax pymc pytensor pymc-extras nutpie tfp-nightly flowjax"


def environment() -> dict:
    """Versions and machine."""
    versions = {"bbvi": bbvi.__version__, "python": platform.python_version()}
    for name in PACKAGES.split():
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    system = f"{platform.system()} {platform.machine()}"
    # of a process that was given some of the cores (taskset) these alone count
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = f"{system}, {_processor()}, {cores} cores"
    if jax.default_backend() != "cpu":
        machine += f", {jax.devices()[0].device_kind}"
    return {"versions": versions, "machine": machine}


def on_device(name: str) -> str:
    """The file that rows of this process go to: those of another device than CPU have their own."""
    return name if jax.default_backend() == "cpu" else f"{name}_{jax.default_backend()}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((x.split(":")[1].strip() for x in lines if "model name" in x), "unknown CPU")


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER.parent)
    return run.stdout.strip() or "unknown"


def stamp(tool: str, settings: object = None) -> str:
    """What a row depends on: machine, versions and settings, and for bbvi its own sources."""
    parts = [environment(), settings]
    if tool.startswith("bbvi"):
        sources = sorted(Path(bbvi.__file__).parent.rglob("*.py"))
        parts.append([path.read_text() for path in sources])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


class Rows:
    """Rows under a key, in results/NAME.json.

    A run that is broken off goes on where it was: `has` says whether a row is there and still
    stands, which it does until its stamp changes.
    """

    def __init__(self, name: str, key: tuple[str, ...]):
        self.path, self.key = FOLDER / f"{name}.json", key
        kept = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.rows: dict[tuple, dict] = {self._of(row): row for row in kept.get("rows", [])}
        self.runs: list[dict] = kept.get("runs", [])
        self._run: int | None = None

    def _of(self, row: dict) -> tuple:
        return tuple(row[name] for name in self.key)

    def has(self, key: tuple, stamp: str) -> bool:
        return key in self.rows and self.rows[key].get("stamp") == stamp

    def add(self, row: dict, stamp: str | None = None) -> None:
        if self._run is None:
            self._run = len(self.runs)
            began = {"date": time.strftime("%Y-%m-%d %H:%M"), "commit": _commit()}
            self.runs.append(began | environment())
        about = {"run": self._run, "load": round(os.getloadavg()[0], 1)}
        self.rows[self._of(row)] = row | about | ({"stamp": stamp} if stamp else {})
        # a run that no row is left of is forgotten
        used = sorted({r["run"] for r in self.rows.values()})
        rows = [r | {"run": used.index(r["run"])} for r in self.rows.values()]
        runs = json.dumps([self.runs[i] for i in used], indent=1)
        lines = ",\n".join(json.dumps(r) for r in rows)
        unfinished = self.path.with_suffix(".tmp")
        unfinished.write_text(f'{{"runs": {runs},\n"rows": [\n{lines}\n]}}\n')
        unfinished.replace(self.path)  # in one go: an interrupted run leaves a whole file
