"""Fixtures for every test. The environment is set before JAX is imported, as JAX reads it once."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Several devices on one machine, so that sharded code is tested for real; and programs that are
# built quickly, since most of them run once. What the user has set stands.
os.environ["XLA_FLAGS"] = (
    "--xla_backend_optimization_level=0 "
    + os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=4"
)

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import jax.experimental
import jax.monitoring
import pytest

# jax 0.8 moved this context manager to the top level, and a later version dropped the old place.
_enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64

_num_compiles = 0


def _on_duration(event: str, duration: float, **kwargs: object) -> None:
    global _num_compiles
    _num_compiles += event == "/jax/core/compile/backend_compile_duration"


# Registered once and for good: jax 0.7 has no public way to take a single listener off again.
jax.monitoring.register_event_duration_secs_listener(_on_duration)


@dataclass
class Compiles:
    """How many programs XLA compiled inside one `with count_compiles() as n` block."""

    count: int = 0


@contextlib.contextmanager
def _count_compiles() -> Iterator[Compiles]:
    compiles = Compiles()
    before = _num_compiles
    try:
        yield compiles
    finally:
        compiles.count = _num_compiles - before


@pytest.fixture
def x64() -> Iterator[None]:
    """Runs one test with 64-bit types enabled."""
    with _enable_x64(True):
        yield


@pytest.fixture(scope="session")
def count_compiles() -> Callable[[], contextlib.AbstractContextManager[Compiles]]:
    """Counts compilations: `with count_compiles() as n: ...`, then `assert n.count == 0`.

    The count is set when the block ends. Operations outside `jit` compile too.
    """
    # A renamed event would make every "compiles nothing" test pass without looking.
    with _count_compiles() as n:
        jax.jit(lambda: 0)()
    assert n.count == 1, "this version of jax reports compilations in another way"
    return _count_compiles
