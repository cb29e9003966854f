"""A command in a process of its own, with a limit on its time and its last line as JSON."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_text(arguments: list[str], timeout: float) -> dict:
    """Standard output and the seconds of the whole process, or why it failed."""
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
        process.communicate()
        return {"failed": f"not finished after {timeout:g} s"}
    seconds = round(time.perf_counter() - began, 2)
    if process.returncode:
        last = (err.strip().splitlines() or ["no message"])[-1]
        return {"failed": f"exit {process.returncode}: {last[:200]}", "seconds": seconds}
    return {"out": out, "seconds": seconds}


def run_process(arguments: list[str], timeout: float) -> dict:
    """What the last line of output says, as JSON, and the seconds of the whole process."""
    found = run_text(arguments, timeout)
    if "failed" in found:
        return found
    return json.loads(found.pop("out").strip().splitlines()[-1]) | found
