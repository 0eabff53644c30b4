"""Collectives read from HLO: closed forms of small programs on 8 devices, and the forms that only GPUs write."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from wukong_jax.errors import DataError
from wukong_jax.scaling.collectives import PRESETS, ArrayType, Collective, find_collectives, largest_collective

BLOCK = 8 * 16 * 4  # bytes of the float32 block [8, 16] that each of 8 devices has
ROWS = 64


def programs() -> dict[str, Any]:
    """Functions of a block on a mesh of 4 x 2, compiled; and one that leaves its collective to the partitioner."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import AxisType, NamedSharding
    from jax.sharding import PartitionSpec as P

    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    both = ("data", "model")

    def branch(x: Any) -> Any:
        return jax.lax.cond(x.sum() > 0, lambda y: jax.lax.psum(y, both), lambda y: y, x)

    def rounds(x: Any) -> Any:
        count = (x.sum() > 0).astype(jnp.int32)
        with jax.named_scope("rounds"):
            return jax.lax.fori_loop(0, count, lambda i, y: jax.lax.all_to_all(y, both, 0, 0, tiled=True), x)

    def five_times(x: Any) -> Any:
        return jax.lax.scan(lambda y, _: (jax.lax.psum(y, both) / 2, None), x, None, length=5)[0]

    def all_to_all(x: Any, axes: Any = both, dtype: Any = jnp.float32) -> Any:
        return jax.lax.all_to_all(x.astype(dtype), axes, 0, 0, tiled=True).astype(jnp.float32)

    on_each = {
        "all-reduce": (lambda x: jax.lax.psum(x, both), P(both), P()),
        "all-reduce of pairs": (lambda x: jax.lax.psum(x, "model"), P(both), P("data")),
        "two in one": (lambda x: (jax.lax.psum(x, both), jax.lax.psum(x.sum(), both)), P(both), P()),
        "all-gather": (lambda x: jax.lax.all_gather(x, both, tiled=True), P(both), P()),
        "reduce-scatter": (lambda x: jax.lax.psum_scatter(x, both, tiled=True), P(), P(both)),
        "all-to-all": (all_to_all, P(both), P(both)),
        "all-to-all of pairs": (lambda x: all_to_all(x, "model"), P(both), P(both)),
        "all-to-all in bfloat16": (lambda x: all_to_all(x, both, jnp.bfloat16), P(both), P(both)),
        "permute": (lambda x: jax.lax.ppermute(x, "data", [(i, (i + 1) % 4) for i in range(4)]), P(both), P(both)),
        "branch": (branch, P(both), P(both)),
        "rounds": (rounds, P(both), P(both)),
        "five times": (five_times, P(both), P(both)),
        "none": (lambda x: 2 * x, P(both), P(both)),
    }
    x = jax.ShapeDtypeStruct((ROWS, 16), jnp.float32)
    found: dict[str, Any] = {}
    for name, (function, inside, outside) in on_each.items():
        spread = jax.shard_map(function, mesh=mesh, in_specs=inside, out_specs=outside, check_vma=False)
        found[name] = jax.jit(spread).lower(x)
    sharded, whole = NamedSharding(mesh, P(both)), NamedSharding(mesh, P())
    found["partitioner"] = jax.jit(lambda x: 2 * x, in_shardings=sharded, out_shardings=whole).lower(x)
    return {name: {"compiled": it.compile().as_text(), "asked": it.as_text("hlo")} for name, it in found.items()}


@pytest.fixture(scope="module")
def hlo() -> dict[str, dict[str, str]]:
    """The programs' texts, from a process of 8 devices."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    root = pathlib.Path(__file__).parents[2]
    environment["PYTHONPATH"] = str(root)
    done = subprocess.run(
        [sys.executable, __file__], env=environment, cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("name", "kind", "group", "times", "result", "sent"),
    [
        ("all-reduce", "all-reduce", 8, 1, BLOCK, 2 * BLOCK * 7 / 8),
        ("all-reduce of pairs", "all-reduce", 2, 1, BLOCK, BLOCK),
        ("two in one", "all-reduce", 8, 1, BLOCK + 4, 2 * (BLOCK + 4) * 7 / 8),
        ("all-gather", "all-gather", 8, 1, 8 * BLOCK, 7 * BLOCK),
        ("reduce-scatter", "reduce-scatter", 8, 1, BLOCK, 7 * BLOCK),
        ("all-to-all", "all-to-all", 8, 1, BLOCK, BLOCK * 7 / 8),
        ("all-to-all of pairs", "all-to-all", 2, 1, BLOCK, BLOCK / 2),
        ("permute", "collective-permute", 8, 1, BLOCK, BLOCK),
        ("branch", "all-reduce", 8, None, BLOCK, 2 * BLOCK * 7 / 8),
        ("rounds", "all-to-all", 8, None, BLOCK, BLOCK * 7 / 8),
        ("five times", "all-reduce", 8, 5, BLOCK, 2 * BLOCK * 7 / 8),
        ("partitioner", "all-gather", 8, 1, 8 * BLOCK, 7 * BLOCK),
    ],
)
def test_bytes_are_those_of_the_closed_form(hlo, name, kind, group, times, result, sent):
    (found,) = find_collectives(hlo[name]["compiled"])
    assert (found.kind, found.group, found.times) == (kind, group, times)
    assert (found.result_bytes, found.sent_bytes) == (result, sent)


def test_a_program_without_collectives_has_none(hlo):
    assert find_collectives(hlo["none"]["compiled"]) == ()
    assert largest_collective(()) is None


def test_the_scope_says_where_a_collective_comes_from(hlo):
    (found,) = find_collectives(hlo["rounds"]["compiled"])
    assert "/rounds/" in found.scope


def test_what_a_program_asks_for_is_counted_in_its_own_type(hlo):
    """Also where a compiler sends float32 instead; the partitioner has not come by then."""
    (found,) = find_collectives(hlo["all-to-all in bfloat16"]["asked"])
    assert (found.kind, found.group, found.sent_bytes) == ("all-to-all", 8, BLOCK / 2 * 7 / 8)
    assert find_collectives(hlo["partitioner"]["asked"]) == ()


def test_the_largest_collective_shows_a_table_put_together(hlo):
    """The test of a step: no all-gather or all-reduce as large as a table."""
    table = ROWS * 16 * 4
    everything = [found for name in hlo for found in find_collectives(hlo[name]["compiled"])]
    largest = largest_collective(everything, ("all-gather", "all-reduce"))
    assert largest is not None
    assert (largest.kind, largest.whole_bytes) == ("all-gather", table)
    scattered = largest_collective(everything, ("reduce-scatter",))
    assert scattered is not None
    assert scattered.whole_bytes == table
    exchanged = largest_collective(everything, ("all-to-all",))
    assert exchanged is not None
    assert exchanged.whole_bytes < table


GPU = """HloModule jit_step, is_scheduled=true, replica_count=1, num_partitions=16

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%wrapped (p: bf16[32,4]) -> bf16[32,4] {
  %p = bf16[32,4]{1,0} parameter(0)
  ROOT %exchange = bf16[32,4]{1,0} all-to-all(%p), replica_groups=[2,8]<=[16], dimensions={0}
}

ENTRY %main (a: f32[10,4], b: bf16[32,4]) -> f32[80,4] {
  %a = f32[10,4]{1,0:T(8,128)} parameter(0)
  %b = bf16[32,4]{1,0} parameter(1)
  %start = (f32[10,4]{1,0}, f32[80,4]{1,0}) all-gather-start(%a), channel_id=1, replica_groups=[2,8]<=[8,2]T(1,0), \
dimensions={0}
  %done = f32[80,4]{1,0} all-gather-done(%start)
  %sums = (f32[10,4]{1,0}, f32[3]{0}) all-reduce-start(%a, %c), replica_groups={}, to_apply=%add
  %sums.done = (f32[10,4]{1,0}, f32[3]{0}) all-reduce-done(%sums)
  %next = (f32[10,4]{1,0}, f32[10,4]{1,0}, u32[], u32[]) collective-permute-start(%a), source_target_pairs={{0,1},{1,0}}
  %part = f32[5,4]{1,0} reduce-scatter(%a), channel_id=2, \
replica_groups=mesh['x'=2,'y'=1,'z'=8], device_ids=([8,2]T(1,0)) {'x','y'}, dimensions={0}, to_apply=%add
  %both = ((f32[10,4]{1,0}, s8[6]{0}), (f32[20,4]{1,0}, s8[12]{0})) all-gather-start(%a, %e), \
replica_groups=mesh['x'=4,'y'=4] {'x':(1)2}, dimensions={0}
  %swap = ((bf16[32,4]{1,0}), bf16[32,4]{1,0}, u32[]) async-start(%b), calls=%wrapped
  %swapped = bf16[32,4]{1,0} async-done(%swap), calls=%wrapped
  ROOT %copy = f32[80,4]{1,0} copy(%done), metadata={op_name="jit(step)/ all-to-all(x) calls=%none"}
}
"""


def test_asynchronous_forms_and_all_ways_to_write_groups():
    kinds = [(found.kind, found.group, found.result_bytes) for found in find_collectives(GPU)]
    assert kinds == [
        ("all-gather", 8, 80 * 4 * 4),
        ("all-reduce", 16, (40 + 3) * 4),
        ("collective-permute", 2, 40 * 4),
        ("reduce-scatter", 2, 20 * 4),
        ("all-gather", 2, 80 * 4 + 12),
        ("all-to-all", 8, 32 * 4 * 2),
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("all-to-all(", "ragged-all-to-all(", "ragged-all-to-all is not counted"),
        ("replica_groups=[2,8]<=[16]", "replica_groups=new", "replica groups in a form"),
        ("calls=%wrapped", "calls=%lost", "calls 'lost'"),
        ("ENTRY ", "", "no ENTRY computation"),
    ],
)
def test_unknown_forms_are_errors(old, new, message):
    """A collective that is left out of the count would pass every test of sizes."""
    with pytest.raises(DataError, match=message):
        find_collectives(GPU.replace(old, new))


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [
        ("f32", (3, 5), 60),
        ("bf16", (7,), 14),
        ("pred", (9,), 9),
        ("s4", (5,), 3),
        ("f8e4m3fn", (6,), 6),
        ("s32", (), 4),
    ],
)
def test_bytes_of_types(dtype, shape, size):
    assert ArrayType(dtype, shape).bytes == size


def test_links_bound_collectives_within_a_host_and_between_hosts():
    """All rings of a host share its ports; of an all-to-all all but 7 in 255 parts leave the host."""
    h100, gigabyte = PRESETS["h100"], 1e9
    start = h100.latency + 256 * h100.latency_per_device
    assert h100.ring_seconds(gigabyte, 256) - start == pytest.approx(1 / 400)
    assert h100.exchange_seconds(gigabyte, 256) - start == pytest.approx(248 / 255 / 50)
    start = h100.latency + 8 * h100.latency_per_device
    assert h100.ring_seconds(gigabyte, 8) - start == pytest.approx(1 / 450)
    assert h100.exchange_seconds(gigabyte, 8) - start == pytest.approx(1 / 450)


def test_one_device_sends_nothing():
    found = Collective("all-reduce", (ArrayType("f32", (4,)),), 1, 1, "")
    assert found.sent_bytes == 0


if __name__ == "__main__":
    print(json.dumps(programs()))
