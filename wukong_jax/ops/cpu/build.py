"""The CPU kernels as a library: compiled once for a machine by its own C++ compiler, then kept in the user's cache."""

import ctypes
import functools
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile

import jax

from wukong_jax.errors import ConfigError
from wukong_jax.process import machine_folder

SOURCES = ("fm.cc", "layer_norm.cc")
HEADERS = ("tiles.h", "parallel.h")
# handlers of the library by the name under which XLA knows them
HANDLERS = {
    "fm_forward": "WukongFmForward",
    "fm_backward": "WukongFmBackward",
    "layer_norm_forward": "WukongLayerNormForward",
    "layer_norm_backward": "WukongLayerNormBackward",
}
# Sums may be taken in any order; NaN and infinity stay what they are.
FLAGS = "-std=c++17 -O3 -shared -fPIC -fno-math-errno -fassociative-math -fno-signed-zeros -fno-trapping-math".split()
MACHINE_FLAGS = {"x86_64": ["-march=native", "-mprefer-vector-width=512"], "aarch64": ["-mcpu=native"]}


def available() -> bool:
    """Whether the kernels can be had here; says once on standard error why not."""
    return _problem() is None


@functools.cache
def target(name: str) -> str:
    """The name under which XLA calls a kernel; another source has another one, so that no kept program mixes them.

    Raises `ConfigError` where the kernels cannot be built.
    """
    problem = _problem()
    if problem is not None:
        raise ConfigError(f"model.implementation: 'cpu_kernel' cannot be had here: {problem}; use 'auto'")
    return f"wukong_{name}_{_digest()}"


@functools.cache
def _problem() -> str | None:
    """Build and register the kernels; what stands in the way, if anything does, said once."""
    try:
        _register(_library())
    except (OSError, AttributeError, _BuildError) as error:
        print(f"note: no CPU kernels, XLA's form runs instead: {error}", file=sys.stderr)
        return str(error)
    return None


class _BuildError(Exception):
    """No library could be made; the message says why."""


def _register(library: pathlib.Path) -> None:
    """Make the handlers known to XLA; a library that cannot be loaded is removed, so that it is built anew."""
    try:
        loaded = ctypes.cdll.LoadLibrary(str(library))
        handlers = {name: getattr(loaded, symbol) for name, symbol in HANDLERS.items()}
    except (OSError, AttributeError):
        library.unlink(missing_ok=True)
        raise
    for name, handler in handlers.items():
        jax.ffi.register_ffi_target(f"wukong_{name}_{_digest()}", jax.ffi.pycapsule(handler), platform="cpu")


def _library() -> pathlib.Path:
    """The library of this machine, compiled now if need be; raises `_BuildError` or `OSError` where that fails."""
    folder = machine_folder("kernels", jax.__version__, " ".join(platform.libc_ver()), _digest())
    if folder is None:
        raise _BuildError("the user's cache folder cannot be written")
    library = folder / "kernels.so"
    if library.exists():
        return library
    compilers = [
        found for name in (os.environ.get("CXX"), "c++", "g++", "clang++") if name and (found := shutil.which(name))
    ]
    if not compilers:
        raise _BuildError("there is no C++ compiler (c++, g++, clang++ or CXX)")
    print("compiling the CPU kernels, once for this machine", file=sys.stderr)
    here, failures = pathlib.Path(__file__).parent, []
    with tempfile.TemporaryDirectory(dir=folder) as made:
        whole = pathlib.Path(made) / library.name
        for compiler in dict.fromkeys(compilers):
            command = [compiler, *FLAGS, *MACHINE_FLAGS.get(platform.machine(), []), "-isystem", jax.ffi.include_dir()]
            command += [*(str(here / name) for name in SOURCES), "-o", str(whole)]
            try:
                subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
            except subprocess.CalledProcessError as error:
                failures.append(f"{compiler} (GCC 12 or Clang is needed) failed: {error.stderr.strip()[-500:]}")
            except subprocess.TimeoutExpired:
                failures.append(f"{compiler} took more than ten minutes")
            else:
                whole.replace(library)
                return library
    raise _BuildError("; ".join(failures))


@functools.cache
def _digest() -> str:
    here, digest = pathlib.Path(__file__).parent, hashlib.sha256()
    for name in (*SOURCES, *HEADERS):
        digest.update((here / name).read_bytes())
    digest.update(" ".join([*FLAGS, *MACHINE_FLAGS.get(platform.machine(), [])]).encode())
    return digest.hexdigest()[:12]
