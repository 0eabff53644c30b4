"""Settings and fixtures of all tests: CPU, annotations checked at run time, seeds, and the shared data folder."""

import atexit
import gc
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Eight devices of the one CPU, for the tests of meshes; what runs on one device takes the first.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()

# What one test compiled is there for all others: for those of other workers, and in programs that tests start.
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers have it of the process that started them
    cache = tempfile.mkdtemp(prefix="wukong_jax-tests-")
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    os.environ["XDG_CACHE_HOME"], os.environ["JAX_COMPILATION_CACHE_DIR"] = cache, f"{cache}/compiled"
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# Tracing makes short-lived objects by the million; each full collection looks through all that was ever compiled.
gc.set_threshold(100_000, 50, 100)

import jaxtyping

# Before anything imports wukong_jax: every annotated shape and type of the package is checked in each call.
jaxtyping.install_import_hook("wukong_jax", "beartype.beartype")

import numpy as np
import pytest

SHARED_DATA = pathlib.Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with the same seed in every test."""
    return np.random.default_rng(20240305)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The folder of real data beside the checkout; skips where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data: {SHARED_DATA} does not exist")
    return SHARED_DATA


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A store of 125 rows, see tests/tiny.py."""
    from tests.tiny import write_store

    return write_store(tmp_path_factory.mktemp("tiny") / "store").path


@pytest.fixture
def compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of one config share a compiled program instead of compiling one each."""
    from tests.tiny import compiled
    from wukong_jax.training import run

    monkeypatch.setattr(run, "build_program", compiled)


@pytest.fixture(scope="module")
def compile_quickly() -> Iterator[None]:
    """Let XLA optimise little: tests that run tiny programs for a moment spend their time in compiling them."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
