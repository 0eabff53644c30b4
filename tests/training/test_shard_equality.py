"""A run over eight devices is the run of one device: in float64 to 1e-8 over 200 steps, whatever lies where.

The devices are eight of one CPU (tests/conftest.py), or half of them each of two processes'.
"""

import functools
import os
import pathlib
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.shard_cases import (
    CASES,
    STEPS,
    batches,
    double_precision,
    slots,
    small_exchange_rooms,
    tables,
    trained,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("compile_quickly")
close = functools.partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-8)
SLOW = (
    "rows, tensor",
    "each table elsewhere, in parts",
    "each table elsewhere, in parts looked up ahead",
    "semi-synchronous, dealt rows",
    "dense replicated",
    "rows",
    "dense columns, fsdp",
    "dcnv2",
)
TWO_PROCESSES = (
    "rows of two devices",
    "dcnv2",
    "rows, tensor",
    "each table elsewhere, in parts",
    "dense columns, fsdp",
    "dlrm",
)
EVERY_CASE = [pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case for case in CASES]


@pytest.fixture(scope="module", autouse=True)
def float64() -> Iterator[None]:
    with double_precision(), small_exchange_rooms():
        yield


@pytest.mark.parametrize("case", EVERY_CASE)
def test_the_mesh_changes_nothing(case: str):
    one, many = trained(CASES[case].on_one_device()), trained(CASES[case])
    assert many.losses.dtype == jnp.float64
    close(many.losses, one.losses)
    jax.tree.map(close, many.state.params, one.state.params)
    jax.tree.map(close, tables(many.program, many.state.tables), tables(one.program, one.state.tables))
    jax.tree.map(close, slots(many.program, many.state.slots), slots(one.program, one.state.slots))
    if case.startswith("dealt rows"):
        assert sum(int(count) for count in many.state.exchange.values()) > STEPS


@pytest.mark.parametrize("case", EVERY_CASE)
def test_nothing_of_a_split_tables_size_is_kept_on_a_device(case: str):
    many = trained(CASES[case])
    for stack in many.program.plan.stacks:
        table = many.state.tables[stack.name]
        share = 1 if stack.placement == "replicated" else stack.devices
        assert table.addressable_shards[0].data.size * share == table.size


@pytest.mark.parametrize("case", ["columns, fsdp", pytest.param("dense rows, tensor", marks=pytest.mark.slow)])
def test_diagnostics_are_those_of_one_device(case: str):
    one, many = trained(CASES[case].on_one_device()), trained(CASES[case])
    batch = batches()[-1]
    figures, reference = (
        found.program.diagnose(found.state, jax.device_put(batch, found.program.batch_shardings))
        for found in (many, one)
    )
    assert figures.keys() == reference.keys() >= {"gradient_norm/table/item", "update_ratio/table/user"}
    for name, value in reference.items():
        np.testing.assert_allclose(figures[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.slow  # test_shard_processes.py has two processes of train.py in the default suite
@pytest.mark.parametrize("case", TWO_PROCESSES)
def test_two_processes_change_nothing(case: str, tmp_path: pathlib.Path):
    devices, (losses, params, found_tables, found_slots) = in_two_processes(case, tmp_path / "found")
    assert devices == CASES[case].mesh.devices
    assert losses.dtype == np.float64
    one = trained(CASES[case].on_one_device())
    close(losses, one.losses)
    jax.tree.map(close, params, one.state.params)
    jax.tree.map(close, found_tables, tables(one.program, one.state.tables))
    jax.tree.map(close, found_slots, slots(one.program, one.state.slots))


def in_two_processes(case: str, out: pathlib.Path) -> tuple[int, tuple]:
    """Devices; losses, parameters, tables and slots as process 0 saw them."""
    with socket.create_server(("", 0)) as free:
        port = str(free.getsockname()[1])
    flags = f"--xla_force_host_platform_device_count={CASES[case].mesh.devices // 2}"
    # compiled as this process does: exponentials are other ones where XLA optimises
    own = {"XLA_FLAGS": flags, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "tests.training.shard_process"]
    started = [
        subprocess.Popen(
            [*words, str(process), port, case, str(out)],
            cwd=ROOT,
            env=os.environ | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in (0, 1)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    processes, devices, found = pickle.loads(out.read_bytes())
    assert processes == 2
    return devices, found
