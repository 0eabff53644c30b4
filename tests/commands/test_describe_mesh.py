"""python -m wukong_jax describe --mesh: what each device would hold and send, with no such device here."""

import dataclasses
import json
import math
import pathlib
import re
import typing

import jax
import pytest

from wukong_jax.cli import main
from wukong_jax.commands.describe import DescribeOptions
from wukong_jax.config.command_line import load_config_file
from wukong_jax.config.mesh import MeshConfig
from wukong_jax.models.registry import build_model
from wukong_jax.scaling.collectives import PRESETS
from wukong_jax.scaling.flops import describe_cost
from wukong_jax.scaling.memory import device_memory
from wukong_jax.training.program import plan_of
from wukong_jax.training.state import init_variables

CONFIG = "configs/criteo_terabyte.py"
BATCH = ["--train.batch-size", "131072"]


@pytest.fixture(autouse=True)
def _at_the_root(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)


def described(capsys, *arguments: str) -> dict[str, typing.Any]:
    assert main(["describe", "--config", CONFIG, "--json", *BATCH, *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_json_adds_up_table_by_table(capsys):
    """128 devices; this process has fewer."""
    found = described(capsys, "--mesh", "8x16")
    mesh, cost = found["mesh"], describe_cost(load_config_file(pathlib.Path(CONFIG)))
    assert (mesh["data"], mesh["model"]) == (8, 16)
    assert [(table["name"], table["rows"], table["width"]) for table in mesh["tables"]] == [
        (spec.name, spec.rows, spec.width) for spec, _ in cost.tables
    ]
    for table in mesh["tables"]:
        own = {"replicated": table["rows"] * 128, "columns": table["rows"]}
        values = own.get(table["placement"], math.ceil(table["rows"] / 128) * 128)
        assert table["table_bytes"] == 4 * values
        assert table["why"]
        assert min(table["seconds"].values()) > 0
    assert {table["placement"] for table in mesh["tables"]} >= {"replicated"}
    assert mesh["tables"][0]["placement"] != "replicated"
    assert mesh["memory_bytes"]["tables"] == sum(table["table_bytes"] for table in mesh["tables"])
    assert mesh["bytes_moved"] == sum(table["bytes_moved"] for table in mesh["tables"])
    assert "activations (at most, 1024 examples at a time)" in mesh["memory_bytes"]


def test_without_a_mesh_nothing_of_it_is_said(capsys):
    assert "mesh" not in described(capsys)


def test_what_one_device_needs_is_told_beside(capsys):
    alone, spread = described(capsys), described(capsys, "--mesh", "8x1")
    assert spread.pop("mesh")
    assert spread == alone


def test_the_tables_show_placements_totals_and_reasons(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["describe", "--config", CONFIG, *BATCH, "--mesh", "8x16"]) == 0
    shown = capsys.readouterr().out
    assert main(["describe", "--config", CONFIG, *BATCH, "--mesh", "8x16", "--json"]) == 0
    mesh = json.loads(capsys.readouterr().out)["mesh"]
    assert "on 8 x 16 devices (h100)" in shown
    for table in mesh["tables"]:
        sizes = [f"{table[name] / 2**20:,.2f}" for name in ("table_bytes", "slot_bytes", "bytes_moved")]
        row = r"\W+".join(map(re.escape, [table["name"], f"{table['rows']:,}", "128", table["placement"], *sizes]))
        assert re.search(row, shown), table["name"]
    assert f"why 1: {mesh['tables'][0]['why']}" in shown
    assert re.search(rf"total\W+64,466,528\W+{mesh['memory_bytes']['tables'] / 2**20:,.2f}", shown)
    assert shown.count("MiB on each device") == 4


@pytest.mark.parametrize("dense", ["replicated", "fsdp", "tensor"])
def test_dense_parameters_are_split_as_the_config_says(dense):
    """Adam: parameters, gradient and two moments. An independent count of the kernels that `fsdp` splits."""
    config = load_config_file(pathlib.Path(CONFIG))
    config = dataclasses.replace(config, mesh=MeshConfig(8, 16, dense=dense))
    cost = describe_cost(config)
    found = device_memory(config, cost, (), "gpu").dense
    plan, model = plan_of(dataclasses.replace(config, mesh=MeshConfig())), build_model(config.model, config.schema)
    shapes = jax.eval_shape(lambda key: init_variables(model, plan, config, key), jax.random.key(0))["params"]
    total = 0
    for leaf in jax.tree.leaves(shapes):
        size = math.prod(leaf.shape)
        split = dense == "fsdp" and size >= 2**16 and any(length % 16 == 0 for length in leaf.shape)
        total += size // 16 if split else size
    if dense == "tensor":  # its pairs of layers are the layout's own matter
        assert 16 * cost.dense_total / 16 < found < 16 * cost.dense_total
    else:
        assert found == 16 * total


def test_every_preset_can_be_named():
    hints = typing.get_type_hints(DescribeOptions, include_extras=True)
    names, none = typing.get_args(hints["hardware"])
    assert none is type(None)
    assert set(typing.get_args(names)) == set(PRESETS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--mesh", "7x16"],
            "train.batch_size: received 131072, expected a multiple of the 112 devices of mesh 7 x 16",
        ),
        (["--mesh", "128"], "--mesh: received '128', expected the devices as data x model, such as 8x16"),
        (["--mesh", "0x2"], "mesh.data: received 0, expected a number above 0"),
        (["--hardware", "h200"], "--hardware: received 'h200', which is for a plan; add --mesh, such as 8x16"),
    ],
)
def test_a_mesh_that_cannot_be_is_an_error_with_exit_code_2(capsys, arguments, message):
    assert main(["describe", "--config", CONFIG, *BATCH, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_configs_own_mesh_is_planned_too(capsys):
    by_option = described(capsys, "--mesh", "8x16", "--hardware", "h200")
    by_config = described(capsys, "--mesh.data", "8", "--mesh.model", "16", "--hardware", "h200")
    assert by_config["mesh"] == by_option["mesh"]
    assert "mesh" not in described(capsys)


def test_nothing_is_cut_where_no_terminal_is(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["describe", "--config", CONFIG, *BATCH, "--mesh", "8x16"]) == 0
    shown = capsys.readouterr().out
    tables = load_config_file(pathlib.Path(CONFIG)).batch_schema.id_features
    assert {f"{table.vocabulary_size:,}" for table in tables} <= set(shown.split())
    assert {"dealt_rows", "replicated"} <= set(shown.split())
    assert "…" not in shown
