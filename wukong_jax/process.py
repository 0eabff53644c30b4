"""Settings of the whole process that the programs make before JAX starts: the allocator and the compilation cache."""

import ctypes
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform

# Parameters of glibc's mallopt, from malloc.h, and of madvise, from mman.h.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8
NEVER_TRIM, GROW_BYTES = -1, 64 * 2**20
MADV_HUGEPAGE = 14
HUGE_PAGE = 2 * 2**20


def prepare_process() -> None:
    """Keep freed memory, and compiled programs. Takes full effect only before JAX is imported."""
    keep_freed_memory()
    keep_compiled_programs()


@functools.cache
def keep_freed_memory() -> bool:
    """Tell glibc not to give freed memory back, and to take large pages; False where the C library is another.

    The first touch of fresh pages is many times slower than memory that is there: a step that gets its temporaries anew
    each time spends up to half its time in page faults. In pages of 4 KiB it then spends a tenth looking them up.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL("libc.so.6")  # glibc's own malloc, whatever is preloaded in its place
    # one arena: those of other threads are mapped apart, in pieces of 64 MiB
    settings = (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER_TRIM), (M_TOP_PAD, GROW_BYTES), (M_ARENA_MAX, 1)
    kept = all(library.mallopt(parameter, value) for parameter, value in settings)
    _ask_for_huge_pages(library)
    return kept


def _ask_for_huge_pages(library: ctypes.CDLL) -> None:
    """Have the heap lie in pages of 2 MiB as it comes into use, for nearly as much of it as the machine has memory.

    The heap is grown without being touched, which takes addresses and no memory, and stays so when it is freed. Left
    alone is a system that counts addresses as memory.
    """
    if _is_strict():
        return
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8 * 7
    start = library.malloc(size)
    if start:
        first = -(-start // HUGE_PAGE) * HUGE_PAGE
        library.madvise(first, (start + size - first) // HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE)
        library.free(start)


def _is_strict() -> bool:
    """Whether the system refuses to promise more memory than it has."""
    try:
        return pathlib.Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2"
    except OSError:
        return True


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


def processor() -> str:
    """The CPU's name and how many of its threads this process may use: `AMD EPYC, 2 threads`."""
    names = [line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")]
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{names[0] if names else platform.machine()}, {allowed} thread{'s' * (allowed != 1)}"


def _cpu_lines() -> list[str]:
    try:
        return pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def _cpu_features() -> str:
    """What decides which instructions a program compiled here may use: a program for another CPU could crash."""
    lines = _cpu_lines()
    if not lines:
        return platform.processor()
    return "\n".join(
        sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))})
    )
