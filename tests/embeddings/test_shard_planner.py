"""Placements of tables: bytes against closed forms and a compiled step, choices against trying all of them."""

import dataclasses
import itertools
import json
import math
import os
import pathlib
import subprocess
import sys
from typing import Any
from unittest import mock

import jax
import numpy as np
import pytest

from wukong_jax.config.command_line import load_config_file
from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.mesh import MeshConfig, PlacementRule
from wukong_jax.config.models import WukongConfig
from wukong_jax.config.optimizer import TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, RunConfig, TrainConfig
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature
from wukong_jax.embeddings.optimizers import row_optimizer
from wukong_jax.embeddings.planner import (
    TABLE_SHARE,
    Load,
    StackModel,
    TableChoice,
    choices_of,
    hardware_of,
    placements_of,
    plan_placements,
)
from wukong_jax.embeddings.specs import FeatureSpec, TableSpec, TableSpecs
from wukong_jax.errors import ConfigError
from wukong_jax.models.registry import table_specs
from wukong_jax.scaling.collectives import PRESETS

ROOT = pathlib.Path(__file__).parents[2]
ADAGRAD = TableRule(name="rowwise_adagrad")
ADAM = TableRule(update="dense", name="adam")
H100 = PRESETS["h100"]


def plan(
    rows: list[int],
    mesh: MeshConfig,
    *,
    lengths: list[int] | None = None,
    width: int = 16,
    rule: TableRule = ADAGRAD,
    batch: int = 1024,
    memory: float = math.inf,
    hardware: str = "h100",
) -> tuple[TableChoice, ...]:
    """Choices for tables t0, t1, ... of one width, each read by a feature of its own."""
    names = [f"t{index}" for index in range(len(rows))]
    features = zip(names, rows, lengths or [1] * len(rows), strict=True)
    schema = DatasetSchema((), tuple(MultiHotFeature(*feature) for feature in features))
    specs = TableSpecs(
        tuple(TableSpec(name, count, width, 0.1) for name, count in zip(names, rows, strict=True)),
        tuple(FeatureSpec(name, name) for name in names),
    )
    device = dataclasses.replace(PRESETS[hardware], memory=memory)
    return plan_placements(specs, TablesConfig((rule,)), mesh, schema, batch, device)


def placements(choices: tuple[TableChoice, ...]) -> list[str]:
    return [choice.placement for choice in choices]


def given(placement: str, pattern: str = ".*") -> tuple[PlacementRule, ...]:
    return (PlacementRule(pattern, placement), PlacementRule())


def test_one_device_holds_everything():
    choices = plan([10, 10**7], MeshConfig())
    assert placements(choices) == ["replicated", "replicated"]
    assert [choice.bytes_moved for choice in choices] == [0, 0]
    assert choices[1].table_bytes == 10**7 * 16 * 4


def test_small_tables_are_replicated_and_large_ones_dealt_out():
    """Of one width and rule, on 64 devices of 8 hosts; two small ones alone are not worth a collective of their own."""
    choices = plan([10**6, *[50] * 20, 10**7], MeshConfig(64), width=100, batch=65536)
    assert placements(choices) == ["dealt_rows", *["replicated"] * 20, "dealt_rows"]
    assert all("dealt_rows" in choice.why for choice in choices)
    assert choices[-1].table_bytes == math.ceil(10**7 / 64) * 100 * 4
    assert placements(plan([10**6, 50, 50, 10**7], MeshConfig(64), width=100, batch=65536)) == ["dealt_rows"] * 4


def test_densely_updated_tables_stay_together_and_in_order():
    large = plan([10**6, *[50] * 20, 10**7], MeshConfig(64), width=100, batch=65536, rule=ADAM)
    assert placements(large) == ["rows"] * 22
    assert placements(plan([4, 5], MeshConfig(64), width=100, batch=65536, rule=ADAM)) == ["replicated"] * 2


@pytest.mark.parametrize("name", ["rowwise_adagrad", "adagrad"])
def test_no_mixture_of_placements_is_much_faster(name):
    """All 2^5 or 3^5 mixtures of five tables of random sizes: the cut by rows a place comes within 1 % of the best."""
    rng = np.random.default_rng(5)
    rule = TableRule(name=name)
    for _ in range(20):
        rows = [int(size) for size in np.exp(rng.uniform(1, 16, 5))]
        lengths = [int(length) for length in rng.choice([1, 1, 5, 30], 5)]
        width, devices = int(rng.choice([8, 50, 64])), int(rng.choice([2, 8, 64]))
        batch, hardware = int(rng.choice([512, 262144])), str(rng.choice(["h100", "cpu"]))
        model = StackModel(MeshConfig(devices), PRESETS[hardware], width, rule)

        def seconds(
            kinds: Any, rows: Any = rows, lengths: Any = lengths, batch: int = batch, model: Any = model
        ) -> Any:
            stacks = {kind: [index for index, own in enumerate(kinds) if own == kind] for kind in kinds}
            loads = {
                kind: Load(sum(rows[i] for i in own), batch * sum(lengths[i] for i in own))
                for kind, own in stacks.items()
            }
            return sum(model.seconds(load, kind) for kind, load in loads.items())

        kinds = ["replicated", "dealt_rows", *(["columns"] if width % devices == 0 else [])]
        best = min(seconds(mixture) for mixture in itertools.product(kinds, repeat=5))
        chosen = plan(
            rows, MeshConfig(devices), lengths=lengths, width=width, rule=rule, batch=batch, hardware=hardware
        )
        assert seconds(placements(chosen)) <= 1.01 * best


DEVICES, ROWS, WIDTH, PLACES = 8, 1000, 16, 4096
LOCAL, OTHERS = PLACES // DEVICES, 7 / 8
ROOM = 96  # 1.5 x 512 / 8


@pytest.mark.parametrize(
    ("rule", "placement", "rows", "sent"),
    [
        (ADAGRAD, "replicated", ROWS, 2 * OTHERS * ROWS * 17 * 4),
        (ADAGRAD, "replicated", 5000, OTHERS * PLACES * (4 + WIDTH * 4)),
        (ADAM, "replicated", 5000, 2 * OTHERS * 5000 * WIDTH * 4),
        (ADAGRAD, "dealt_rows", ROWS, 2 * 7 + 7 * ROOM * (4 + 2 * WIDTH * 4)),
        (ADAM, "rows", ROWS, 2 * 7 + 7 * ROOM * (4 + 2 * WIDTH * 4)),
        (TableRule(name="sgd"), "columns", ROWS, OTHERS * (PLACES * 4 + 2 * LOCAL * WIDTH * 4)),
        (ADAGRAD, "columns", ROWS, OTHERS * (PLACES * 4 + 2 * LOCAL * WIDTH * 4 + 2 * PLACES * 4)),
    ],
)
def test_bytes_sent_are_those_of_the_closed_form(rule, placement, rows, sent):
    model = StackModel(MeshConfig(DEVICES), H100, WIDTH, rule)
    assert model.moved(Load(rows, PLACES), placement) == pytest.approx(sent)


def test_a_whole_table_that_a_model_reads_is_gathered_and_its_gradient_scattered():
    model = StackModel(MeshConfig(DEVICES), H100, WIDTH, ADAM, whole=True)
    apart = dataclasses.replace(model, whole=False)
    more = model.moved(Load(ROWS, PLACES), "rows") - apart.moved(Load(ROWS, PLACES), "rows")
    assert more == pytest.approx(2 * OTHERS * ROWS * WIDTH * 4)


@pytest.mark.parametrize(("rows", "batch", "shares"), [([300, 100], 1024, [3, 1]), ([3000, 1000], 256, [1, 4])])
def test_what_a_stack_sends_is_shared_out_by_what_it_grows_with(rows, batch, shares):
    """An all-reduce with the rows, an all-gather with the places: here of 1 and 4 ids."""
    mesh = MeshConfig(8, placements=given("replicated"))
    first, second = plan(rows, mesh, lengths=[1, 4], batch=batch)
    assert first.bytes_moved / second.bytes_moved == pytest.approx(shares[0] / shares[1], rel=1e-4)
    stack = StackModel(mesh, H100, 16, ADAGRAD).moved(Load(sum(rows), 5 * batch), "replicated")
    assert first.bytes_moved + second.bytes_moved == pytest.approx(stack, abs=2)


def test_rows_in_bfloat16_take_half_the_bytes():
    load = Load(10**6, PLACES)
    full, half = (
        StackModel(MeshConfig(DEVICES, exchange_dtype=dtype), H100, WIDTH, ADAGRAD) for dtype in ("float32", "bfloat16")
    )
    saved = full.moved(load, "dealt_rows") - half.moved(load, "dealt_rows")
    assert saved == 7 * ROOM * WIDTH * 4
    assert full.moved(load, "columns") - half.moved(load, "columns") == OTHERS * LOCAL * WIDTH * 4


@pytest.mark.parametrize("name", ["sgd", "adagrad", "rowwise_adagrad", "adam"])
@pytest.mark.parametrize("placement", ["replicated", "dealt_rows", "columns"])
def test_bytes_of_slots_are_those_of_the_optimizer(name, placement):
    rule = TableRule(name=name)
    rows, width = {"dealt_rows": (125, 16), "columns": (1000, 2)}.get(placement, (1000, 16))
    slots = jax.eval_shape(lambda: row_optimizer(rule).init(rows, width))
    expected = sum(4 * math.prod(slot.shape) for slot in slots.values())
    found = StackModel(MeshConfig(8), H100, 16, rule).memory(1000, placement)
    assert found == (4 * rows * width, expected)


def test_tables_that_would_not_fit_are_sharded_the_largest_first():
    """Without a bound both are replicated; with one the larger goes, and only it."""
    rows, mesh = [3000, 2000, 10], MeshConfig(8)
    assert placements(plan(rows, mesh)) == ["replicated"] * 3
    bound = plan(rows, mesh, memory=(2010 + 375) * (16 + 1) * 4 / TABLE_SHARE)
    assert placements(bound) == ["dealt_rows", "replicated", "replicated"]
    assert "would not fit" in bound[0].why
    dense = plan(rows, mesh, memory=1000 * 16 * 16 / TABLE_SHARE, rule=ADAM)
    assert placements(dense) == ["rows"] * 3


@pytest.mark.parametrize(("devices", "kind"), [(1, "auto"), (8, "auto"), (8, "replicated")])
def test_tables_that_fit_nowhere_are_an_error_that_says_how_many_devices_would_do(devices, kind):
    table = 10**6 * 17 * 4
    memory = table / 16 if kind == "auto" else table / 2
    needed = math.ceil(table / (TABLE_SHARE * memory))
    with pytest.raises(ConfigError, match=rf"mesh: .* a h100 has .* fit on {needed} devices"):
        plan([10**6], MeshConfig(devices, placements=given(kind)), memory=memory)


def test_placements_that_the_config_names_are_kept():
    rules = tuple(PlacementRule(str(index), kind) for index, kind in enumerate(("rows", "columns", "replicated")))
    choices = plan([10, 10, 10**8], MeshConfig(8, placements=rules))
    assert placements(choices) == ["rows", "columns", "replicated"]
    assert [choice.why for choice in choices] == ["mesh.placements"] * 3


@pytest.mark.parametrize(
    ("rule", "mesh", "message"),
    [
        (ADAGRAD, MeshConfig(32, placements=given("columns")), "width 16 cannot be split by columns over 32 .* dealt_"),
        (ADAM, MeshConfig(8, placements=given("dealt_rows")), "received dealt_rows for table 't0'.*expected rows"),
        (ADAM, MeshConfig(8, placements=(*given("rows", "0")[:1], PlacementRule("1", "columns"))), "updated together"),
        (ADAGRAD, MeshConfig(8, placements=given("rows", "0")[:1]), "no rule matches table 't1'"),
        (
            ADAGRAD,
            MeshConfig(8, placements=given("rows", "^0$")),
            r"pattern '\^0\$', which matches no .* t0, t1;.*leave",
        ),
    ],
)
def test_placements_that_cannot_be_are_errors(rule, mesh, message):
    with pytest.raises(ConfigError, match=message):
        plan([10, 10], mesh, rule=rule)


def test_one_densely_updated_table_takes_its_group_along():
    mesh = MeshConfig(8, placements=given("columns", "1"))
    assert placements(plan([10, 20, 30], mesh, rule=ADAM)) == ["columns"] * 3


def test_items_of_sequences_stay_in_order(request):
    """Evaluation ranks all of them, whatever their update."""
    config = load_config_file(request.config.rootpath / "configs/sequential/sasrec_ml1m.py")
    mesh = MeshConfig(4, placements=given("dealt_rows"))
    config = dataclasses.replace(config, mesh=mesh, tables=TablesConfig())
    with pytest.raises(ConfigError, match="dealt_rows for table 'item'"):
        choices_of(config, table_specs(config.model, config.batch_schema), H100)


@pytest.mark.parametrize(
    ("kind", "platform", "name", "memory"),
    [
        ("cpu", "cpu", "cpu", math.inf),
        ("NVIDIA H200", "gpu", "h200", 141e9),
        ("NVIDIA A100-SXM4-80GB", "gpu", "a100", 80e9),
        ("TPU v5e", "tpu", "TPU v5e", math.inf),
        ("NVIDIA GH200 480GB", "gpu", "NVIDIA GH200 480GB", math.inf),
        ("NVIDIA A1000", "gpu", "NVIDIA A1000", math.inf),
    ],
)
def test_hardware_is_that_of_the_devices(kind, platform, name, memory):
    """An accelerator that is not known is never refused for its memory."""
    found = hardware_of(mock.Mock(spec=jax.Device, device_kind=kind, platform=platform))
    assert (found.name, found.memory) == (name, memory)


def every_kind() -> RunConfig:
    """A small Wukong on 4 x 2 devices whose stacks have all placements; of the replicated ones `t4` gathers rows."""
    rows = (50_000, 3000, 300, 7, 20_000)
    schema = DatasetSchema(
        tuple(CategoricalFeature(f"t{index}", count) for index, count in enumerate(rows)),
        (MultiHotFeature("m", 1000, 3),),
    )
    rules = (
        TableRule("t2", update="dense", name="sgd"),
        TableRule("t3", update="dense", name="adam"),
        TableRule("t4", name="sgd"),
        TableRule(),
    )
    kinds = {"t0": "dealt_rows", "t1": "columns", "t2": "rows", ".*": "replicated"}
    mesh = MeshConfig(4, 2, placements=tuple(PlacementRule(pattern, kind) for pattern, kind in kinds.items()))
    mlp = MLPConfig((8,))
    return RunConfig(
        "planned",
        schema,
        DataConfig(store="none"),
        WukongConfig(width=16, num_layers=1, num_fmb=2, num_lcb=2, rank=2, fmb_mlp=mlp, head=mlp),
        tables=TablesConfig(rules),
        train=TrainConfig(batch_size=512, eval_batch_size=512),
        mesh=mesh,
    )


def compiled_step() -> dict[str, Any]:
    """What the compiled step sends, and its largest collective; needs 8 devices."""
    from wukong_jax.scaling.collectives import find_collectives, largest_collective
    from wukong_jax.training.program import build_program
    from wukong_jax.training.state import blank_batch

    config = every_kind()
    program = build_program(config, 10)
    state, blank = program.abstract_state(), jax.eval_shape(lambda: blank_batch(config, 512))
    batch = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        blank,
        program.batch_shardings,
    )
    collectives = find_collectives(program.train_step.lower(state, batch).compile().as_text())
    return {
        "sent": sum(one.sent_bytes for one in collectives if one.times == 1),
        "largest": largest_collective(collectives).whole_bytes,
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params)),
        "table_bytes": sum(
            4 * math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(state.tables)
        ),
        "placements": placements_of(config),
    }


def test_the_compiled_step_sends_what_the_plan_says():
    """Besides the all-reduce of the dense gradient, the loss and the weights; nothing as large as a large table."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, __file__], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    step, config = json.loads(done.stdout), every_kind()
    choices = choices_of(config, table_specs(config.model, config.batch_schema), PRESETS["cpu"])
    assert {choice.table.name: choice.placement for choice in choices} == step["placements"]
    assert step["table_bytes"] == sum(choice.table_bytes for choice in choices)
    dense = 2 * OTHERS * 4 * (step["parameters"] + 2)
    # what a table sends of its stack's is rounded to whole bytes
    assert step["sent"] - dense == pytest.approx(sum(choice.bytes_moved for choice in choices), abs=len(choices))
    assert step["largest"] < 20_000 * 16 * 4


if __name__ == "__main__":
    print(json.dumps(compiled_step()))
