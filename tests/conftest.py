"""Settings and fixtures of all tests: CPU, annotations checked at run time, seeds, and the shared data folder."""

import atexit
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Eight devices of the one CPU, for the tests of meshes; what runs on one device takes the first.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()

# Programs that tests start keep their compiled code for the other tests only.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="wukong_jax-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

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
