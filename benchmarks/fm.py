"""The low-rank FM with its LayerNorm, forward and backward, by implementation and shape.

    python benchmarks/fm.py                      # the shapes of S, M, L, and the paper's orders of magnitude
    python benchmarks/fm.py --shapes 128,64,8 512,128,96 --implementations xla mosaic_gpu --dtype bfloat16

One process, implementations in turn, several rounds; medians of milliseconds (smallest to largest). `xla_cpu, pairs`
and `xla_cpu, rank` force the order of the products, (X X^T) Y or X (X^T Y), which `xla_cpu` chooses by shape. The
share of bandwidth counts the least bytes that must move, X and the result in, their gradients out, against a copy
measured in the same process. On a GPU or TPU its kernel comes along, which `auto` does not take before it is measured
there. With the shapes and implementations as they are it writes results/fm/<device>.json; of a part it only prints.
"""

import argparse
import json
import pathlib
import re
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from benchmarks.side_by_side.machine import describe_processor
from wukong_jax.errors import ConfigError
from wukong_jax.files import write_text
from wukong_jax.ops import fm_cpu
from wukong_jax.ops.fm import fm_layer_norm
from wukong_jax.ops.platform import compiler_options
from wukong_jax.process import keep_freed_memory

SHAPES = [(16, 16, 8), (32, 64, 16), (64, 64, 24), (32, 64, 8), (128, 64, 8), (128, 64, 24), (128, 128, 24)]
GPU_SHAPES = [(n, d, k) for n in (32, 64, 128, 256, 512) for d in (64, 128) for k in (8, 24, 96)]
ORDERS = {"xla_cpu, pairs": float("inf"), "xla_cpu, rank": 0.0}
ACCELERATORS = {"gpu": ["xla", "mosaic_gpu", "reference"], "tpu": ["xla", "tpu", "reference"]}
REPEATS = 8


def make_function(name: str, dtype: Any) -> Callable[..., Any]:
    """REPEATS forward and backward passes in one program, each reading what the one before gave."""
    implementation: Any = name.partition(",")[0]

    def total(x: jax.Array, y: jax.Array, scale: jax.Array, bias: jax.Array, cotangent: jax.Array) -> jax.Array:
        flat, _ = fm_layer_norm(x, y, scale, bias, epsilon=1e-5, dtype=dtype, implementation=implementation)
        return (flat.astype(jnp.float32) * cotangent).sum()

    def body(_: Any, carry: Any) -> Any:
        x, y, scale, bias, cotangent = carry
        gradients = jax.grad(total, argnums=(0, 1, 2, 3))(*carry)
        return *(value + 1e-6 * g for value, g in zip((x, y, scale, bias), gradients, strict=True)), cotangent

    options = compiler_options(jax.default_backend())
    return jax.jit(lambda *arrays: jax.lax.fori_loop(0, REPEATS, body, arrays), compiler_options=options)


def make_arrays(n: int, d: int, k: int, dtype: Any) -> tuple[jax.Array, ...]:
    """X of the size that the training step works on: 4 MiB on CPU, 1 GiB on an accelerator."""
    itemsize = 4 if jax.default_backend() == "cpu" else jnp.dtype(dtype).itemsize
    batch = (4 * 2**20 if jax.default_backend() == "cpu" else 2**30) // (n * d * itemsize)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, n, d)).astype(np.float32)
    y = (rng.normal(size=(n, k)) / np.sqrt(n)).astype(np.float32)
    cotangent = rng.normal(size=(batch, n * k)).astype(np.float32)
    ones, zeros = jnp.ones(n * k), jnp.zeros(n * k)
    x_type = jnp.float32 if jax.default_backend() == "cpu" else dtype
    return jnp.asarray(x, x_type), jnp.asarray(y), ones, zeros, jnp.asarray(cotangent, x_type)


def milliseconds(function: Callable[..., Any], arrays: tuple[jax.Array, ...]) -> float:
    """Of one forward and backward pass."""
    start = time.perf_counter()
    jax.block_until_ready(function(*arrays))
    return 1e3 * (time.perf_counter() - start) / REPEATS


def measure(shape: tuple[int, int, int], names: list[str], dtype: str, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each round by implementation; none where it does not serve the shape."""
    arrays = make_arrays(*shape, jnp.dtype(dtype))
    functions = {}
    for name in names:
        fm_cpu.PAIRS_FIRST_RATIO = ORDERS.get(name, 1.25)
        try:
            function = make_function(name, jnp.dtype(dtype))
            jax.block_until_ready(function(*arrays))
            functions[name] = function
        except ConfigError as error:
            print(f"<!-- {name}: {error} -->")
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(milliseconds(function, arrays))
    return times


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a copy of 256 MiB."""
    values = jnp.ones(2**26)
    function = jax.jit(lambda x: jax.lax.fori_loop(0, REPEATS, lambda _, x: x + 1, x))
    jax.block_until_ready(function(values))
    return 2 * 4 * values.size / (min(milliseconds(function, (values,)) for _ in range(5)) / 1e3)


def least_bytes(n: int, d: int, k: int, arrays: tuple[jax.Array, ...]) -> int:
    """Forward: X in, result out. Backward: X and the result's gradient in, X's gradient out."""
    x = arrays[0]
    return x.shape[0] * x.dtype.itemsize * (3 * n * d + 2 * n * k)


def main() -> None:
    """Print a Markdown table and write the times."""
    gpu = jax.default_backend() != "cpu"
    names = ACCELERATORS.get(jax.default_backend(), ["cpu_kernel", "xla_cpu", "xla", "reference", *ORDERS])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", help="n,d,k")
    parser.add_argument("--implementations", nargs="+", default=names)
    parser.add_argument("--dtype", default="bfloat16" if gpu else "float32")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    keep_freed_memory()
    chosen = [tuple(map(int, text.split(","))) for text in options.shapes or []] or (GPU_SHAPES if gpu else SHAPES)
    device = jax.devices()[0].device_kind if gpu else describe_processor()["cpu"]
    bandwidth = copy_bandwidth()
    print(f"jax {jax.__version__}, {device}, {options.dtype}, copy {bandwidth / 1e9:.0f} GB/s\n")
    print("| n, d, k | " + " | ".join(options.implementations) + " | first: share of bandwidth |")
    print("|---" * (len(options.implementations) + 2) + "|")
    records = []
    for n, d, k in chosen:
        times = measure((n, d, k), options.implementations, options.dtype, options.rounds)
        shown = [
            f"{statistics.median(times[name]):.2f} ({min(times[name]):.2f} to {max(times[name]):.2f})"
            if name in times
            else "-"
            for name in options.implementations
        ]
        bytes_moved = least_bytes(n, d, k, make_arrays(n, d, k, jnp.dtype(options.dtype)))
        best = times.get(options.implementations[0])
        share = f"{bytes_moved / (statistics.median(best) / 1e3) / bandwidth:.0%}" if best else "-"
        print(f"| {n}, {d}, {k} | " + " | ".join(shown) + f" | {share} |", flush=True)
        records.append({"n": n, "d": d, "k": k, "dtype": options.dtype, "milliseconds": times, "bytes": bytes_moved})
    if options.shapes or options.implementations != names:
        return
    folder = pathlib.Path("results/fm")
    folder.mkdir(parents=True, exist_ok=True)
    name = "-".join(re.findall(r"[a-z0-9.]+", re.sub("family|model", "", device.lower())))
    document = {"device": device, "jax": jax.__version__, "copy_bytes_per_second": bandwidth, "shapes": records}
    write_text(folder / f"{name}.json", json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
