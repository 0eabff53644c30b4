"""Settings of the whole process that the programs make before JAX starts: the allocator and the compilation cache."""

import ctypes
import hashlib
import importlib.metadata
import os
import pathlib
import platform

# Parameters of glibc's mallopt, from malloc.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
KEEP_FREE_BYTES, GROW_BYTES = 2**31 - 1, 64 * 2**20


def prepare_process() -> None:
    """Keep freed memory, and compiled programs. Takes full effect only before JAX is imported."""
    keep_freed_memory()
    keep_compiled_programs()


def keep_freed_memory() -> bool:
    """Tell glibc not to give freed memory back between steps; False where the C library is another.

    The first touch of fresh pages is many times slower than memory that is there: a step that gets its temporaries anew
    each time spends up to half its time in page faults.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, KEEP_FREE_BYTES), (M_TOP_PAD, GROW_BYTES)
    return all(mallopt(parameter, value) for parameter, value in settings)


def keep_compiled_programs() -> pathlib.Path | None:
    """Set JAX's persistent compilation cache to a folder of this CPU and jaxlib, unless the user chose one.

    JAX_COMPILATION_CACHE_DIR names another folder, JAX_ENABLE_COMPILATION_CACHE=false turns it off. None where the
    folder cannot be made: programs are then compiled anew each time.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    folder = machine_folder("compiled")
    if folder is None:
        return None
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    return folder


def machine_folder(name: str, *more: str) -> pathlib.Path | None:
    """A folder in the user's cache for this CPU, jaxlib and what `more` says; None if it cannot be made."""
    key = " ".join((importlib.metadata.version("jaxlib"), platform.machine(), _cpu_features(), *more))
    try:
        home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        folder = home / "wukong_jax" / name / hashlib.sha256(key.encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the latter where there is no home
        return None
    return folder


def _cpu_features() -> str:
    """What decides which instructions a program compiled here may use: a program for another CPU could crash."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(
        sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    )
