"""One environment for every measured process: the same allocator and the same threads.

Page faults of fresh memory decide much of the speed on some machines, so no ratio may have the better allocator on one
side only. jemalloc on Debian, with or without root:

    apt-get install libjemalloc2
    apt-get download libjemalloc2 && dpkg -x libjemalloc2_*.deb jemalloc    # jemalloc/usr/lib/*/libjemalloc.so.2
"""

import os
import pathlib

from wukong_jax.errors import ConfigError

JEMALLOC = "thp:always,dirty_decay_ms:-1,muzzy_decay_ms:-1,narenas:1,oversize_threshold:0"
# Keep freed memory, take it from the heap and not by mmap, ask for huge pages.
GLIBC = ":".join(
    f"glibc.malloc.{name}" for name in ("mmap_max=0", "trim_threshold=68719476736", "top_pad=67108864", "hugetlb=1")
)
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def environment(allocator: str, root: pathlib.Path) -> dict[str, str]:
    """The variables of a measured process; `allocator` is default, glibc_tuned or a library; raises `ConfigError`."""
    variables = dict(os.environ)
    for name in ("LD_PRELOAD", "MALLOC_CONF", "GLIBC_TUNABLES"):
        variables.pop(name, None)
    variables |= dict.fromkeys(THREADS, str(os.cpu_count() or 1))
    variables["PYTHONPATH"] = str(root)
    variables["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # on a GPU the peers need room too
    if allocator == "glibc_tuned":
        variables["GLIBC_TUNABLES"] = GLIBC
    elif allocator != "default":
        library = pathlib.Path(allocator)
        if not library.is_file():
            raise ConfigError(
                f"--allocator: received {allocator!r}, expected default, glibc_tuned or the path of a library such as "
                "libjemalloc.so.2 (Debian: apt-get install libjemalloc2)"
            )
        variables |= {"LD_PRELOAD": str(library.resolve()), "MALLOC_CONF": JEMALLOC}
    return variables


def allocator_name(allocator: str) -> str:
    """For file names and the report: the library's name without its folder and suffix."""
    return allocator if allocator in ("default", "glibc_tuned") else pathlib.Path(allocator).name.split(".")[0]
