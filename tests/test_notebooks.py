"""The notebooks: what is committed was run without trouble, and still runs."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# Folders that only the machine has on which the notebook was run.
MACHINE_PATH = re.compile(r"/(home|mnt|opt|private|root|tmp|Users|usr|var|work)/|[A-Z]:\\")

# Run by `make test` too: the rest take from half a minute to a minute each.
QUICK = {"01-first-fit", "09-template"}

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def outputs(path: Path) -> Iterator[dict]:
    for cell in json.loads(path.read_text())["cells"]:
        yield from cell.get("outputs", [])


def texts(output: dict) -> Iterator[str]:
    """What a reader reads: no images, in whose base64 anything may turn up."""
    shown = {"text": output.get("text", [])} | output.get("data", {})
    for kind, content in shown.items():
        if kind.startswith("text"):
            yield "".join(content)


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} > QUICK


@each_notebook
def test_committed_notebook_was_run_in_order(path):
    cells = json.loads(path.read_text())["cells"]
    counts = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert any(outputs(path))


@each_notebook
def test_committed_outputs_are_clean(path):
    for output in outputs(path):
        assert output["output_type"] != "error"
        assert output.get("name") != "stderr", "".join(output["text"])
        for text in texts(output):
            assert not MACHINE_PATH.search(text), text


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=() if p.stem in QUICK else pytest.mark.slow) for p in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_notebook_runs(path, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the kernel, which is another process
    copy = Path(shutil.copy(path, tmp_path))
    notebook = nbformat.read(copy, as_version=4)
    # A cell that fails raises, with its traceback.
    nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": tmp_path}}
    ).execute()
    assert list(tmp_path.iterdir()) == [copy], "a notebook leaves no files behind"
