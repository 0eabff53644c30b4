"""The run record: what it holds, and that it can be read by later commands."""

import json
import math
import re

import jax
import pytest

import wukong_jax
from tests.tiny import memory_console, plain_config
from wukong_jax.config.codec import from_plain
from wukong_jax.config.run import RunConfig
from wukong_jax.data.store import open_store
from wukong_jax.errors import DataError
from wukong_jax.scaling.flops import describe_cost
from wukong_jax.training.progress import Progress
from wukong_jax.training.record import RECORD_VERSION, make_record, read_records, write_records
from wukong_jax.training.run import RECORD_FILE, train

pytestmark = pytest.mark.usefixtures("compile_quickly")


@pytest.fixture(scope="module")
def trained(tiny_store, tmp_path_factory):
    config = plain_config(tiny_store)
    folder = tmp_path_factory.mktemp("record") / "run"
    return config, train(config, folder, memory_console()), folder


def test_every_fact_of_a_run_is_there(trained):
    config, record, folder = trained
    store = open_store(config.data.store)
    cost = describe_cost(config)
    assert record["record_version"] == RECORD_VERSION
    assert from_plain(RunConfig, record["config"]) == config
    assert (record["config_hash"], record["schema_hash"]) == (config.hash(), config.schema.hash())
    assert record["store_digest"] == store.digest
    assert (record["seed"], record["version"], record["jax_version"]) == (0, wukong_jax.__version__, jax.__version__)
    assert (record["device"], record["platform"], record["devices"]) == ("cpu", "cpu", 1)
    assert re.fullmatch(r".+, \d+ threads?", record["processor"])
    assert record["examples"] == {"train": 70, "valid": 25, "test": 30}
    assert (record["dense_parameters"], record["sparse_parameters"]) == (cost.dense_total, cost.sparse_total)
    assert record["training_flops_per_example"] == cost.training_flops
    assert record["forward_flops_per_example"] == sum(cost.forward_flops.values())
    assert record["steps"] == 12
    assert record["wall_seconds"] > 0
    assert (folder / "checkpoints" / str(record["best_step"])).samefile(record["checkpoint"])


def test_every_metric_has_its_split_and_step(trained):
    _, record, _ = trained
    assert {(point["split"], point["step"]) for point in record["history"]} == {
        *(("train", step) for step in (3, 6, 9, 12)),
        *(("valid", step) for step in (4, 8, 12)),
    }
    for split, rows in (("valid", 25), ("test", 30)):
        metrics = record["results"][split]
        assert {"logloss", "auc", "gauc", "ne", "calibration", "positive_rate"} <= set(metrics)
        assert metrics["examples"] == rows
        assert metrics["nonfinite"] == 0


def test_the_tables_of_the_best_checkpoint_have_their_abundance(trained):
    _, record, _ = trained
    found = record["information_abundance"]
    assert set(found) == {"user:weight", "item:weight", "tags:weight"}
    assert {name: one["width"] for name, one in found.items()} == dict.fromkeys(found, 1)
    assert all(one["information_abundance"] == 1 for one in found.values()), "there is but one direction"
    assert found["user:weight"]["rows"] <= 9


def test_loss_spikes_are_those_of_the_history(trained):
    config, record, folder = trained
    assert record["loss_spikes"] == []
    losses = [0.5] * 20 + [1.0, 2.0, 0.5]
    history = [{"split": "train", "step": 3 * (i + 1), "logloss": loss} for i, loss in enumerate(losses)]
    store, progress = open_store(config.data.store), Progress(history=history)
    made = make_record(config, store, describe_cost(config), progress, {}, {}, folder, 1)
    assert made["loss_spikes"] == [{"step": 63, "loss": 2.0, "typical": 0.5}]


def test_the_file_reads_back_as_it_was_written(trained, tmp_path):
    _, record, folder = trained
    plain = json.loads(json.dumps(record))
    assert list(read_records(folder / RECORD_FILE)) == [plain]
    write_records(tmp_path / "all.jsonl", [record, record | {"seed": 1}])
    assert list(read_records(tmp_path / "all.jsonl")) == [plain, plain | {"seed": 1}]
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 2


def test_nan_and_infinity_become_null(tmp_path):
    record = {"record_version": RECORD_VERSION, "a": [1.5, math.nan], "b": {"c": (math.inf, -math.inf)}, "n": 3}
    write_records(tmp_path / "r.jsonl", [record])
    assert "NaN" not in (tmp_path / "r.jsonl").read_text()
    assert list(read_records(tmp_path / "r.jsonl")) == [
        {"record_version": RECORD_VERSION, "a": [1.5, None], "b": {"c": [None, None]}, "n": 3}
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not a run record"),
        ("[]", "line 2: not a run record"),
        ("{}", "line 2: not a run record"),
        ('{"record_version": 99}', "line 2: record version 99, expected 1"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path, line, message):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"record_version": RECORD_VERSION}) + "\n" + line + "\n")
    with pytest.raises(DataError, match=message):
        list(read_records(path))


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "r.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"r\.jsonl: it cannot be read as text"):
        list(read_records(tmp_path / "r.jsonl"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.jsonl: no such file"):
        list(read_records(tmp_path / "nowhere.jsonl"))
