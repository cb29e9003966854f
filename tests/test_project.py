"""The package as a whole: which file may import which, what an import costs, what is public."""

import ast
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import bbvi

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bbvi"
FILES = sorted(PACKAGE.rglob("*.py"))

# A file imports only from levels above its own line; a folder that stands here is one level.
ORDER = """
    _types status budget _arrays _tree _linalg _score _compile bijectors examples storage target
    inputs families encoding evaluate objectives solvers run
    diagnostics.pareto diagnostics.moments diagnostics.figures diagnostics.fresh_draws
    diagnostics.propriety diagnostics.evidence diagnostics.base_space diagnostics.trajectories
    diagnostics.chains diagnostics.chain_checks diagnostics.verdict diagnostics.judging
    diagnostics
    table posterior plot
    stages.stage stages.judged stages.ranking stages.gaussians.match stages.gaussians.modes
    stages.gaussians.ways stages.gaussians.matching stages.tempering stages.chain_stages
    stages.coverage stages.necks stages.unseen stages.bent.bending stages.bent.chained
    stages.bent.following stages.coordinates stages.hierarchy.scales
    stages.hierarchy.normal_effects stages.hierarchy.orbits stages.hierarchy.location_scale
    stages.hierarchy.layers stages.gaussians.gaussian_stages stages.wide_stages
    stages.flow_training stages.population
    stages.bent.bent_stages stages.hierarchy.laplace stages.hierarchy.hierarchy_stages
    stages.latent.hyperparameters stages.latent.conditionals stages.latent.interpolation
    stages.latent.nested_laplace stages.latent.round stages.latent.latent_stages stages
    observers auto bridges result fit batch testing __init__ __main__
""".split()

ALLOWED = {"bbvi", "jax", "numpy", "optax"} | sys.stdlib_module_names


class Import(NamedTuple):
    name: str  # absolute and dotted; for `from a import b` it is a.b, as b may be a module
    line: int
    in_function: bool


def imports_of(path: Path) -> Iterator[Import]:
    """Every import in a file but those that only a type checker sees."""
    # the package that a relative import of this file starts from
    package = path.relative_to(ROOT).parent.parts

    def walk(nodes: Iterable[ast.AST], in_function: bool) -> Iterator[Import]:
        for node in nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(alias.name, node.lineno, in_function)
            elif isinstance(node, ast.ImportFrom):
                start = package[: len(package) - node.level + 1] if node.level else ()
                base = ".".join([*start, *filter(None, [node.module])])
                for alias in node.names:
                    yield Import(f"{base}.{alias.name}", node.lineno, in_function)
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                yield from walk(node.orelse, in_function)
            else:
                inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                yield from walk(ast.iter_child_nodes(node), inside)

    yield from walk(ast.parse(path.read_text()).body, False)


def level_of(name: str) -> str:
    """The entry of ORDER that a dotted name inside bbvi belongs to: the longest there is."""
    parts = name.split(".")[1:]
    ends = range(len(parts), 0, -1)
    return next((own for end in ends if (own := ".".join(parts[:end])) in ORDER), "__init__")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def label(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_every_file_has_a_level():
    modules = [module_of(path) for path in FILES]
    assert [name for name in modules if level_of(name) == "__init__"] == ["bbvi.__init__"]
    # where some files of a folder have levels of their own, all have
    folders = {name.split(".")[0] for name in ORDER if "." in name}
    assert all(name.endswith(".__init__") for name in modules if level_of(name) in folders)


@pytest.mark.parametrize("path", FILES, ids=label)
def test_a_file_holds_one_idea(path):
    assert len(path.read_text().splitlines()) <= 350


@pytest.mark.parametrize("path", FILES, ids=label)
def test_imports_go_down(path):
    own = level_of(module_of(path))
    allowed = set(ORDER[: ORDER.index(own)])
    if (PACKAGE / own.replace(".", "/")).is_dir():
        allowed.add(own)
    wrong = [
        f"line {i.line}: {i.name}"
        for i in imports_of(path)
        if i.name.split(".")[0] == "bbvi" and level_of(i.name) not in allowed
    ]
    assert not wrong


@pytest.mark.parametrize("path", FILES, ids=label)
def test_optional_packages_are_imported_inside_functions(path):
    wrong = [
        f"line {i.line}: {i.name}"
        for i in imports_of(path)
        if not i.in_function and i.name.split(".")[0] not in ALLOWED
    ]
    assert not wrong


@pytest.mark.parametrize("path", FILES, ids=label)
def test_no_private_modules_of_other_packages(path):
    wrong = [
        f"line {i.line}: {i.name}"
        for i in imports_of(path)
        if i.name.split(".")[0] != "bbvi"
        and any(part.startswith("_") and not part.startswith("__") for part in i.name.split("."))
    ]
    assert not wrong


@pytest.mark.parametrize("path", FILES, ids=label)
def test_programs_are_compiled_with_sums_that_are_right(path):
    """By `bbvi._compile`; but conformance tests, which are to hold in a user's own `jax.jit`."""
    if path.name != "_compile.py" and path.parent.name != "testing":
        assert not re.search(r"(?<!`)jax\.jit\b", path.read_text())


def test_import_loads_no_other_package():
    code = """
import json, sys
import jax, optax
before = set(sys.modules)
import bbvi
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    loaded = json.loads(run.stdout)
    assert "bbvi" in loaded
    # what jax itself loads late is jax's own affair
    assert {name.split(".")[0] for name in loaded} <= ALLOWED | {"jaxlib"}


def test_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert bbvi.__version__ == project["version"]


def test_public_names_are_documented():
    names = [name for name in bbvi.__all__ if name != "__version__"]
    assert len(names) == len(set(names)) > 0
    missing = [name for name in names if not hasattr(bbvi, name)]
    assert not missing
    docs = {name: inspect.getdoc(getattr(bbvi, name)) or "" for name in names}
    assert not [name for name, doc in docs.items() if not doc.partition("\n")[0].endswith(".")]


def test_public_methods_are_documented():
    missing = [
        f"{cls.__name__}.{name}"
        for cls in (getattr(bbvi, name) for name in bbvi.__all__)
        if inspect.isclass(cls)
        for name, member in inspect.getmembers(cls)
        if not name.startswith("_")
        and (inspect.isroutine(member) or isinstance(member, property))
        and not inspect.getdoc(member)
    ]
    assert not missing


@pytest.mark.parametrize("module", ["mypy", "benchmarks.counted"])
def test_types_and_counts(module):
    """Types as mypy sees them; counts that must not grow. Beside the other tests they cost less."""
    if module == "mypy":
        pytest.importorskip("mypy")
    # programs as users get them, and no devices of the tests' own
    environ = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-m", module], capture_output=True, text=True, cwd=ROOT, env=environ
    )
    assert done.returncode == 0, done.stdout + done.stderr
