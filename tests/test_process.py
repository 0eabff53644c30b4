"""The settings that programs make before JAX starts, each in a process of its own."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from wukong_jax import process

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run(program: str, **environment: str) -> list[str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("JAX_COMPILATION", "JAX_PERSISTENT"))
    }
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, env=kept | environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_memory_is_kept():
    """Resident memory stays up after 200 MB are freed; without the setting glibc gives them back at once."""
    program = """
import ctypes, pathlib
from wukong_jax import process
def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096
def used_and_freed():
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    before, blocks = resident(), [libc.malloc(10**7) for _ in range(20)]
    for block in blocks:
        ctypes.memset(block, 1, 10**7)
    for block in blocks:
        libc.free(ctypes.c_void_p(block))
    return resident() - before
without = used_and_freed()
assert process.keep_freed_memory()
print(without < 5e7, used_and_freed() > 15e7)
"""
    assert run(program) == ["True", "True"]


HUGE_PAGES = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text() or process._is_strict(),
    reason="no huge pages on demand here",
)
def test_the_heap_asks_for_huge_pages_and_its_addresses_take_no_memory():
    """Whether it gets them depends on what lies free in one piece; that it asks is the flag hg of its mapping."""
    program = """
import ctypes, pathlib, re
from wukong_jax import process
def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096
before = resident()
process.keep_freed_memory()
print(resident() - before < 5e7)
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
middle = libc.malloc(10**8) + 5 * 10**7
smaps = pathlib.Path("/proc/self/smaps").read_text()
for start, end, fields in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) (.*?)(?=^[0-9a-f]+-|\\Z)", smaps, re.M | re.S):
    if int(start, 16) <= middle < int(end, 16):
        print(" hg" in fields.split("VmFlags:")[1])
"""
    assert run(program) == ["True", "True"]


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_another_allocator_is_left_alone(tmp_path):
    """A library that answers malloc itself, as jemalloc does when preloaded."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    (tmp_path / "own.c").write_text(
        "#include <stddef.h>\nextern void *__libc_malloc(size_t);\nsize_t largest = 0;\n"
        "void *malloc(size_t n) { if (n > largest) largest = n; return __libc_malloc(n); }\n"
    )
    library = tmp_path / "own.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(tmp_path / "own.c")], check=True)
    program = """
import ctypes
from wukong_jax import process
process.keep_freed_memory()
print(ctypes.c_size_t.in_dll(ctypes.CDLL(None), "largest").value < 10**9)
"""
    assert run(program, LD_PRELOAD=str(library)) == ["True"]


def test_a_second_process_takes_the_compiled_program_from_the_cache(tmp_path):
    program = """
from wukong_jax.process import prepare_process
prepare_process()
import jax, jax.numpy as jnp
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if "cache_hits" in name else None)
jax.jit(lambda x: jnp.tanh(x @ x))(jnp.ones((8, 8))).block_until_ready()
print(len(hits))
"""
    (first,), (second,) = (run(program, XDG_CACHE_HOME=str(tmp_path)) for _ in range(2))
    assert int(first) == 0
    assert int(second) > 0
    assert len(list((tmp_path / "wukong_jax" / "compiled").iterdir())) == 1


def test_the_users_own_cache_folder_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "mine"))
    assert process.keep_compiled_programs() == tmp_path / "mine"
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "mine")


def test_the_folder_is_another_for_another_cpu_or_jaxlib(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folders = []
    for features, version in (("avx2", "1"), ("avx512", "1"), ("avx512", "2"), ("avx2", "1")):
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        monkeypatch.setattr(process, "_cpu_features", lambda features=features: features)
        monkeypatch.setattr(process.importlib.metadata, "version", lambda _, version=version: version)
        folders.append(process.keep_compiled_programs())
    assert len(set(folders)) == 3
    assert folders[0] == folders[3]


def test_a_cache_that_cannot_be_made_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    assert process.keep_compiled_programs() is None
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
