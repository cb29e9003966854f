"""The pages: every public name is on one, and every name on them exists."""

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import bbvi

ROOT = Path(__file__).parents[1]
PAGES = ROOT / ".docs" / "pages"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TEXTS = [
    ROOT / "README.md",
    ROOT / ".github" / "CONTRIBUTING.md",
    *sorted(PAGES.glob("*.md")),
    *sorted(PAGES.glob("reference/*.md")),
    *NOTEBOOKS,
]


def source(path: Path) -> str:
    """What a person wrote: the text of a page, or the cells of a notebook without outputs."""
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells)


def resolve(dotted: str) -> object:
    """The module, or what is in it, of a dotted name."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for name in parts[end:]:
            found = getattr(found, name)
        return found
    raise AttributeError(dotted)


def described() -> Iterator[object]:
    """Everything that the reference makes an entry of."""
    for path in PAGES.glob("reference/*.md"):
        for dotted in re.findall(r"^::: (\S+)$", path.read_text(), re.MULTILINE):
            yield resolve(dotted)


def test_every_public_name_is_in_the_reference():
    entries = list(described())
    # a support such as `positive` is described by its class; `bridges` is a page of its own
    missing = [
        name
        for name in set(bbvi.__all__) - {"bridges"}
        if not any(getattr(bbvi, name) is x or type(getattr(bbvi, name)) is x for x in entries)
    ]
    assert not missing


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_names_exist(path):
    names = set(re.findall(r"\bbbvi(?:\.[A-Za-z_]\w*)+", source(path)))
    missing = []
    for name in names:
        try:
            resolve(name)
        except AttributeError:
            missing.append(name)
    assert not missing


def test_every_notebook_is_in_the_navigation():
    config = (ROOT / ".docs" / "mkdocs.yml").read_text()
    assert NOTEBOOKS
    assert not [path.name for path in NOTEBOOKS if f"notebooks/{path.name}" not in config]
