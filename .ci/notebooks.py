"""Runs notebooks in place: `python .ci/notebooks.py PATH...`."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

if len(sys.argv) == 1:
    sys.exit("no notebooks to run")
for path in map(Path, sys.argv[1:]):
    print(f"running {path}", flush=True)
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        resources={"metadata": {"path": path.parent}},
        # recorded times would make every run a change in git
        record_timing=False,
        # what a cell prints arrives in pieces that differ from run to run
        coalesce_streams=True,
    ).execute()
    nbformat.write(notebook, path)
