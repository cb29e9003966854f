"""A command in a process of its own, with a limit on its time."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_text(arguments: list[str], timeout: float) -> dict:
    """Standard output and the seconds of the whole process, and why it failed if it did."""
    environ = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environ,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its own workers with it
        out, _ = process.communicate()
        return {"failed": f"not finished after {timeout:g} s", "out": out}
    seconds = round(time.perf_counter() - began, 2)
    if process.returncode:
        last = (err.strip().splitlines() or ["no message"])[-1]
        failed = f"exit {process.returncode}: {last[:200]}"
        return {"failed": failed, "out": out, "seconds": seconds}
    return {"out": out, "seconds": seconds}


def run_process(arguments: list[str], timeout: float) -> dict:
    """What the last line of output says, as JSON, and the seconds of the whole process."""
    found = run_text(arguments, timeout)
    out = found.pop("out")
    return found if "failed" in found else json.loads(out.strip().splitlines()[-1]) | found
