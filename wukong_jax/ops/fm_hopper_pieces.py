"""Pieces of the Hopper kernels of the FM: sizes and padding, copies to and from shared memory, products, sums.

All are traced inside a Pallas Mosaic GPU kernel of one warpgroup with warpgroup semantics (layouts are inferred).
In Pallas' interpret mode two things are replaced by plain JAX, and only these are not covered by it: wgmma on a
transposed operand and register loads past shared memory (jax 0.10's interpreter knows neither).
"""

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float32

ROWS = 64  # of F at a time: the M of one wgmma
SHARED_BYTES = 227 * 1024  # of one block on Hopper
SCRATCH_BYTES = 4096  # left for barriers, alignment and the compiler's own reductions


def round_up(size: int, multiple: int) -> int:
    """The next multiple at or above a size."""
    return -(-size // multiple) * multiple


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of one problem, as the caller has them and as the hardware wants them."""

    batch: int
    n: int
    d: int
    k: int
    interpret: bool = False

    @property
    def rows(self) -> int:
        """Rows of X in global memory: whole tiles of 8."""
        return round_up(self.n, 8)

    @property
    def columns(self) -> int:
        """Columns of X: whole tiles of 16, and the M of one wgmma."""
        return max(64, round_up(self.d, 16))

    @property
    def n_pad(self) -> int:
        """Rows of X in shared memory: whole blocks."""
        return round_up(self.n, ROWS)

    @property
    def k_out(self) -> int:
        """Columns of the result in global memory: whole 16 bytes."""
        return round_up(self.k, 8)

    @property
    def k_pad(self) -> int:
        """Columns of Y, P and F on the chip: whole tiles of 16."""
        return round_up(self.k, 16)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Where the column chunks of width 64 start; the last may overlap the one before it."""
        return (*range(0, self.columns - 64, 64), self.columns - 64)

    @property
    def blocks(self) -> int:
        """Blocks of 64 rows of one example."""
        return self.n_pad // ROWS

    def tiled(self, *shape: int) -> Any:
        """Shared memory that wgmma can read; one swizzle for all, as wgmma wants of its operands."""
        swizzle = plgpu.find_swizzle(16 * math.gcd(self.columns, self.k_pad))
        return plgpu.SMEM(
            shape,
            jnp.bfloat16,
            transforms=(plgpu.TilingTransform((8, swizzle // 2)), plgpu.SwizzleTransform(swizzle)),
        )

    def shared_elements(self, y_rows: int) -> int:
        """Of the larger of the two kernels that hold X: X, Y, P and two blocks of [64, k]."""
        return self.n_pad * self.columns + (y_rows + self.columns + 2 * ROWS) * self.k_pad

    @property
    def y_rows(self) -> int:
        """Rows of Y in shared memory at a time: all where they fit beside X, else one block."""
        fits = 2 * self.shared_elements(self.n_pad) <= SHARED_BYTES - SCRATCH_BYTES
        return self.n_pad if fits else ROWS


def padded(array: Array, *shape: int) -> Array:
    """Zeros added at the end of each axis; the array itself where nothing is missing."""
    missing = [(0, size - have) for size, have in zip(shape, array.shape, strict=True)]
    return jnp.pad(array, missing) if any(after for _, after in missing) else array


def kernel(body: Callable, interpret: bool, **settings: Any) -> Callable:
    """A Mosaic GPU kernel of one warpgroup; interpret mode runs it on CPU."""
    if interpret:
        # Public only from jax 0.11 on.
        from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

        settings["interpret"] = InterpretGPUParams()
    compiler = plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Warpgroup)
    return plgpu.kernel(body, compiler_params=compiler, **settings)


def block_of(index: Any) -> Any:
    """The 64 rows of a block."""
    return pl.ds(index * ROWS, ROWS)


# jax 0.10 wants an index, 0.11 warns of one.
_NO_INDEX = (None,) if inspect.signature(plgpu.load).parameters["idx"].default is inspect.Parameter.empty else ()


def read(s: Sizes, ref: Any) -> Array:
    """An array from global memory into registers, past shared memory."""
    return ref[...] if s.interpret else plgpu.load(ref, *_NO_INDEX, optimized=False)


def load(source: Any, target: Any, arrived: Any) -> None:
    """Copies from global to shared memory and waits."""
    plgpu.copy_gmem_to_smem(source, target, arrived)
    plgpu.barrier_wait(arrived)


def store(source: Any, target: Any) -> None:
    """Copies what was just written to shared memory to global memory and waits."""
    plgpu.commit_smem()
    plgpu.copy_smem_to_gmem(source, target)
    plgpu.wait_smem_to_gmem(0)


def with_rows(s: Sizes, block: Any, copy: Callable[[int], None]) -> None:
    """copy(rows) with the number of rows that a block has in global memory: 64, or fewer in the last."""
    full, rest = divmod(s.rows, ROWS)
    if full and rest:
        pl.when(block < full)(lambda: copy(ROWS))
        pl.when(block == full)(lambda: copy(rest))
    else:
        copy(rest or ROWS)


def load_rows(s: Sizes, block: Any, source: Any, target: Any, arrived: Any) -> None:
    """Starts the copy of a block's rows of source [rows, columns]; no waiting."""
    with_rows(
        s,
        block,
        lambda rows: plgpu.copy_gmem_to_smem(source.at[pl.ds(block * ROWS, rows)], target.at[pl.ds(0, rows)], arrived),
    )


def store_rows(s: Sizes, block: Any, source: Any, target: Any) -> None:
    """Copies the real rows of a block, just written to shared memory, to target [rows, columns] and waits."""
    with_rows(s, block, lambda rows: store(source.at[pl.ds(0, rows)], target.at[pl.ds(block * ROWS, rows)]))


def clear_last_block(s: Sizes, x: Any) -> None:
    """Zeros in the padding rows of X, where no copy ever writes; real rows are overwritten."""
    if s.rows != s.n_pad:
        x[block_of(x.shape[0] // ROWS - 1), :] = jnp.zeros((ROWS, s.columns), x.dtype)
        plgpu.commit_smem()


def y_blocks(s: Sizes, y_all: Any, y: Any, arrived: Any) -> Callable[[Any], Any]:
    """Y's rows of a block in shared memory: loaded here once where Y fits as a whole, else at each call."""
    if s.y_rows == s.n_pad:
        load(y_all, y, arrived)
        return lambda block: y.at[block_of(block)]

    def streamed(block: Any) -> Any:
        plgpu.commit_smem()  # nobody reads the block before any more
        load(y_all.at[block_of(block)], y, arrived)
        return y

    return streamed


def product(a: Any, b: Any) -> Float32[Array, "64 columns"]:
    """A B of two operands in shared memory, summed in float32."""

    def multiply(total: Any) -> Array:
        plgpu.wgmma(total, a, b)
        return total[...]

    return pl.run_scoped(multiply, plgpu.ACC((a.shape[0], b.shape[1]), jnp.float32))


def product_right_transposed(s: Sizes, *pairs: tuple[Any, Any]) -> Float32[Array, "64 columns"]:
    """The sum of A B^T over pairs of operands in shared memory, in float32."""

    def multiply(total: Any) -> Array:
        for a, b in pairs:
            plgpu.wgmma(total, a, b.transpose((1, 0)))
        return total[...]

    if s.interpret:
        return sum(a[...].astype(jnp.float32) @ b[...].astype(jnp.float32).T for a, b in pairs)
    return pl.run_scoped(multiply, plgpu.ACC((pairs[0][0].shape[0], pairs[0][1].shape[0]), jnp.float32))


def product_left_transposed(s: Sizes, x: Any, right: Callable[[Any], Any], target: Any) -> None:
    """Writes X^T R [d, k] to shared memory, where right(block) gives a block of R's rows in shared memory."""

    def multiply(*totals: Any) -> list[Array]:
        @pl.loop(0, s.blocks)
        def _add(block: Any) -> None:
            rows = right(block)
            for total, start in zip(totals, s.chunks, strict=True):
                plgpu.wgmma(total, x.at[block_of(block), pl.ds(start, 64)].transpose((1, 0)), rows)
            plgpu.wgmma_wait(0)

        return [total[...] for total in totals]

    def interpreted() -> list[Array]:
        def add(block: Any, totals: list[Array]) -> list[Array]:
            rows = right(block)[...].astype(jnp.float32)
            left = [x[block_of(block), pl.ds(start, 64)].astype(jnp.float32) for start in s.chunks]
            return [total + columns.T @ rows for total, columns in zip(totals, left, strict=True)]

        return lax.fori_loop(0, s.blocks, add, [jnp.zeros((64, s.k_pad), jnp.float32) for _ in s.chunks])

    shapes = [plgpu.ACC((64, s.k_pad), jnp.float32) for _ in s.chunks]
    results = interpreted() if s.interpret else pl.run_scoped(multiply, *shapes)
    for result, start in zip(results, s.chunks, strict=True):
        target[pl.ds(start, 64), :] = result.astype(target.dtype)
    plgpu.commit_smem()


def real(s: Sizes, block: Any) -> Array:
    """Which of the values of a block [64, k_pad] are no padding."""
    shape = (ROWS, s.k_pad)
    rows = lax.broadcasted_iota(jnp.int32, shape, 0) + block * ROWS
    return (rows < s.n) & (lax.broadcasted_iota(jnp.int32, shape, 1) < s.k)


def total(rows: Float32[Array, " rows"], sums: Any) -> Float32[Array, ""]:
    """The sum of one value a row, through shared memory so that every thread has it."""
    columns = lax.broadcast_in_dim(rows, (ROWS, 8), (0,)).sum(axis=0)
    sums[...] = lax.broadcast_in_dim(columns, (ROWS, 8), (1,)).max(axis=1)
    plgpu.commit_smem()
    total = sums[0]
    plgpu.commit_smem()
    return total


def statistics(s: Sizes, values_of: Callable[[Any], Array], sums: Any, epsilon: float) -> tuple[Array, Array]:
    """Mean and 1 / sqrt(variance + epsilon) of all real values, blocks merged by Chan's formula: no cancellation."""

    def merge(block: Any, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        count, mean, squares = carry
        values = values_of(block)
        weight = jnp.where(real(s, block), 1.0, 0.0)
        more = weight.sum(axis=1)
        center = values.sum(axis=1) / jnp.maximum(more, 1.0)
        off = (values - lax.broadcast_in_dim(center, values.shape, (0,))) * weight
        both = count + more
        share = more / jnp.maximum(both, 1.0)
        step = center - mean
        return both, mean + step * share, squares + (off * off).sum(axis=1) + step * step * count * share

    zeros = jnp.zeros((ROWS,), jnp.float32)
    count, means, squares = lax.fori_loop(0, s.blocks, merge, (zeros, zeros, zeros))
    mean = total(count * means, sums) / (s.n * s.k)
    off = means - mean
    variance = total(squares + count * off * off, sums) / (s.n * s.k)
    return mean, lax.rsqrt(variance + epsilon)
