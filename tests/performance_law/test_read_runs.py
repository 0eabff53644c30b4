"""Runs from tables and from records."""

import json

import numpy as np
import pytest

from wukong_jax.errors import ConfigError, DataError
from wukong_jax.performance_law.read_runs import read_runs

TABLE = """data,len,layers,dim,hr10,tokens,seed
ml,100,4,25,0.28,1e6,0
ml,100,8,25,0.29,1e6,1
ml,200,4,25,nan,2e6,0
ml,200, 8 ,50,0.31,2e6,0
"""


@pytest.fixture
def table(tmp_path):
    def write(text=TABLE):
        path = tmp_path / "runs.csv"
        path.write_text(text)
        return path

    return write


def test_a_table_becomes_runs(table):
    runs = read_runs(table(), "hr10", panel=["data", "len"], data="tokens", seed="seed")
    assert (runs.metric, runs.rising, runs.panels) == ("hr10", True, ("ml 100", "ml 200"))
    for found, expected in [
        (runs.layers, [4, 8, 8]),
        (runs.dim, [25, 25, 50]),
        (runs.y, [0.28, 0.29, 0.31]),
        (runs.panel, [0, 0, 1]),
        (runs.data, [1e6, 1e6, 2e6]),
        (runs.seeds, [0, 1, 0]),
    ]:
        np.testing.assert_array_equal(found, expected)


def test_a_run_that_diverged_is_left_out_and_listed(table):
    (left_out,) = read_runs(table(), "hr10").left_out
    assert left_out.where.endswith("line 4")
    assert left_out.reason == "hr10 is 'nan'"


def test_columns_are_named_by_the_caller(table):
    runs = read_runs(table("N,d,loss\n4,25,2.5\n8,25,2.4\n"), "loss", layers="N", dim="d")
    assert not runs.rising
    np.testing.assert_array_equal(runs.layers, [4, 8])
    assert runs.data is None
    assert runs.seeds is None


@pytest.mark.parametrize(
    ("old", "new", "options", "message"),
    [
        ("ml,100,8,25,0.29", "ml,100,8,25,", {}, "line 3: hr10 is '', expected a number; write nan for a run"),
        ("ml,100,8,25,0.29", "ml,100,,25,0.29", {}, "line 3: layers is '', expected a number\n"),
        ("ml,100,8,25,0.29", "ml,100,nan,25,0.29", {}, "line 3: layers is 'nan', expected a number"),
        ("ml,100,8,25,0.29", "ml,100,eight,25,0.29", {}, "line 3: layers is 'eight', expected a number"),
        ("ml,100,8,25,0.29", "ml,100,8,0,0.29", {}, "line 3: dim is '0', expected a number above 0"),
        ("ml,100,8,25,0.29", "ml,100,8,-25,0.29", {}, "line 3: dim is '-25', expected a number above 0"),
        ("0.29,1e6,1", "0.29,,1", {"data": "tokens"}, "line 3: tokens is '', expected a number"),
        ("0.29,1e6,1", "0.29,1e6,1.5", {"seed": "seed"}, "line 3: seed is '1.5', expected a whole number"),
        ("0.29,1e6,1", "0.29,1e6,1e30", {"seed": "seed"}, "line 3: seed is '1e30', expected a whole number"),
        (
            "ml,100,8,25,0.29,1e6,1",
            "ml,100,4,25,0.29,1e6,0",
            {"seed": "seed"},
            "two of one size (N = 4, d = 25) and one seed, 0 (",
        ),
        ("ml,100,8,25,0.29", ",100,8,25,0.29", {"panel": ["data"]}, "line 3: data is missing"),
        ("0.29,1e6,1", "0.29,1e6", {}, "line 3: 6 cells, expected 7"),
        ("tokens,seed", "hr10,seed", {}, "2 columns named 'hr10', expected one"),
        ("layers", "depth", {}, "no column 'layers', expected one; its columns: data, len, depth, dim"),
        (TABLE, "data,len,layers,dim,hr10\n", {}, "no run; expected one row a run"),
        (TABLE, "", {}, "its columns: none"),
        (TABLE, "layers,dim,hr10\n4,25,nan\n", {}, "no run has a finite hr10"),
    ],
)
def test_a_bad_table_names_line_and_column(table, old, new, options, message):
    assert old in TABLE
    with pytest.raises(DataError, match=r"runs\.csv") as caught:
        read_runs(table(TABLE.replace(old, new)), "hr10", **options)
    assert message in f"{caught.value}\n"


def test_repetitions_of_other_seeds_or_panels_and_runs_made_anew_are_taken(table):
    text = TABLE + "ml,100,4,25,0.27,1e6,5\nml,200,8,25,0.3,1e6,1\nml,200,4,25,0.26,2e6,0\n"
    assert len(read_runs(table(text), "hr10", panel=["len"], seed="seed").y) == 6


def test_a_column_seed_is_read_without_being_named(table):
    text = TABLE + "ml,100,4,25,0.27,1e6,5\nml,100,4,25,0.27,1e6,5\n"
    with pytest.raises(DataError, match=r"two of one size .* and one seed, 5"):
        read_runs(table(text), "hr10", panel=["len"])


@pytest.mark.parametrize("value", ["-0.1", "100.5"])
def test_a_share_that_is_none_is_named_with_its_line(table, value):
    with pytest.raises(DataError, match=rf"line \d+: hr10 is {value}, expected a share"):
        read_runs(table(TABLE + f"ml,100,4,25,{value},1e6,5\n"), "hr10", panel=["len"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "hr10"}, "layers and metric: received the column 'hr10' for both"),
        ({"dim": "layers"}, "layers and dim: received the column 'layers' for both"),
        ({"data": "tokens", "seed": "tokens"}, "data and seed: received the column 'tokens' for both"),
        ({"data": "tokens", "quality": "tokens"}, "data and quality: received the column 'tokens' for both"),
        ({"quality": "tokens"}, "quality: received 'tokens' without data"),
    ],
)
def test_one_column_is_not_two_things(table, options, message):
    with pytest.raises(ConfigError, match=message):
        read_runs(table(), "hr10", **options)


def test_a_table_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_runs(tmp_path / "none.csv", "hr10")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read"):
        read_runs(tmp_path / "binary.csv", "hr10")


def test_the_caller_knows_better_which_way_a_metric_goes(table):
    assert not read_runs(table(), "hr10", rising=False).rising


HALF = {"type": "TrainingPart", "users": 0.5, "last": None, "copies": 1}


def record(layers=4, width=32, value=0.25, max_length=None, **more):
    model = {"num_layers": layers, "width": width, "max_length": max_length}
    return {
        "record_version": 1,
        "config": {"model": model, "data": {"length": 200}},
        "numerics_revision": 1,
        "seed": 3,
        "results": {"test": {"hr@10": value, "loss": 2.5}},
    } | more


def with_sequences(**changes):
    """A record of another depth each time it has other settings, so that size and seed do not meet."""
    found = record(8 + len(changes) + len(changes.get("holdout", "")))
    found["config"]["sequences"] = {"holdout": "last_two", "remove_history": True} | changes
    return found


def write(path, *records):
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return path


def test_a_folder_of_records_becomes_runs(tmp_path):
    write(tmp_path / "a.jsonl", record())
    write(tmp_path / "b.jsonl", record(8, 64, 0.5), record(16, 64, None))
    failed = {"failed": "its loss is not finite", "numerics_revision": 1, "seed": 1}
    failed["config"] = record(32, 64)["config"]
    (tmp_path / "c.failed.json").write_text(json.dumps(failed))
    (tmp_path / "b.failed.json").write_text(json.dumps(failed | {"failed": "trained anew since"}))
    runs = read_runs(tmp_path, "hr@10", panel=["config.data.length"])
    np.testing.assert_array_equal(runs.layers, [4, 8])
    np.testing.assert_array_equal(runs.dim, [32, 64])
    np.testing.assert_array_equal(runs.y, [0.25, 0.5])
    np.testing.assert_array_equal(runs.seeds, [3, 3])
    assert runs.panels == ("200",)
    assert [one.reason for one in runs.left_out] == ["hr@10 is 'nan'", "its loss is not finite"]
    assert not read_runs(tmp_path / "a.jsonl", "loss").rising


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([record(results={"test": {"auc": 0.5}})], "no test metric 'hr@10'; its metrics: auc"),
        ([record(results=None)], "its metrics: none"),
        ([record(), record()], "two of one size .N = 4, d = 32. and one seed, 3 "),
        ([record(model="HSTU"), record(8, model="SASRec")], r"1\.jsonl differ in model .HSTU and SASRec."),
        ([with_sequences(), with_sequences(remove_history=False)], "differ in config.sequences.remove_history"),
        ([with_sequences(), with_sequences(holdout="last")], "differ in config.sequences.holdout .last_two and last."),
        ([with_sequences(), with_sequences(training=HALF)], "differ in config.sequences.training"),
        ([record(), record(8, max_length=50)], "differ in config.model.max_length .None and 50."),
        ([record(config={})], "config.model.num_layers is None, expected a number"),
        ([record(layers=True)], "config.model.num_layers is True, expected a number"),
        ([record(), record(8, numerics_revision=2)], "differ in numerics_revision"),
        ([record(store_digest="a"), record(8, store_digest="b")], "differ in store_digest .a and b."),
    ],
)
def test_records_that_are_none_of_a_grid_are_errors(tmp_path, records, message):
    for number, one in enumerate(records):
        write(tmp_path / f"{number}.jsonl", one)
    with pytest.raises(DataError, match=message):
        read_runs(tmp_path, "hr@10")


def test_a_metric_may_be_of_the_validation(tmp_path):
    results = {"valid": {"loss": 2.25, "hr@10": 0.5}, "test": {"loss": 3.5}}
    write(tmp_path / "a.jsonl", record(results=results), record(8, results=results))
    runs = read_runs(tmp_path, "valid.loss")
    np.testing.assert_array_equal(runs.y, [2.25, 2.25])
    assert (runs.metric, runs.rising) == ("valid.loss", False)
    assert read_runs(tmp_path, "valid.hr@10").rising
    np.testing.assert_array_equal(read_runs(tmp_path, "loss").y, read_runs(tmp_path, "test.loss").y)
    with pytest.raises(DataError, match=r"no validation metric 'mrr'; its metrics: hr@10, loss"):
        read_runs(tmp_path, "valid.mrr")
    write(tmp_path / "b.jsonl", record(16, results={"test": {"loss": 3.5}}))
    with pytest.raises(DataError, match=r"b\.jsonl: no validation metric 'loss'; its metrics: none"):
        read_runs(tmp_path, "valid.loss")


def test_panels_and_data_tell_runs_apart(tmp_path):
    write(tmp_path / "a.jsonl", record(model="HSTU"), record(8, model="SASRec"))
    assert read_runs(tmp_path, "hr@10", panel=["model"]).panels == ("HSTU", "SASRec")
    other = with_sequences(training=HALF, store_digest="b")
    other["config"]["model"]["max_length"] = 25
    write(tmp_path / "a.jsonl", with_sequences() | {"tokens": 7.0}, other | {"tokens": 5.0})
    np.testing.assert_array_equal(read_runs(tmp_path, "hr@10", data="tokens").data, [7.0, 5.0])


def test_tokens_and_quality_may_be_two_columns(tmp_path, table):
    text = "layers,dim,hr10,tokens,quality\n4,25,.2,1000,.5\n8,25,.3,2000,.25\n"
    np.testing.assert_array_equal(read_runs(table(text), "hr10", data="tokens", quality="quality").data, [500, 500])
    with pytest.raises(DataError, match="line 3: quality is '0', expected a number above 0"):
        read_runs(table(text.replace(".25", "0")), "hr10", data="tokens", quality="quality")
    rows = [record(size) | {"tokens": 7.0, "apen": quality} for size, quality in ((4, 2.0), (8, 3.0))]
    write(tmp_path / "a.jsonl", *rows)
    np.testing.assert_array_equal(read_runs(tmp_path, "hr@10", data="tokens", quality="apen").data, [14.0, 21.0])


def test_a_panel_a_data_set_is_no_mixture(tmp_path):
    other = record(8, store_digest="b")
    other["config"]["data"] = {"length": 50}
    write(tmp_path / "a.jsonl", record(store_digest="a"), other)
    assert len(read_runs(tmp_path, "hr@10", panel=["config.data.length"]).y) == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"failed": 3}'])
def test_a_broken_note_of_a_failed_run_is_an_error(tmp_path, text):
    write(tmp_path / "a.jsonl", record())
    (tmp_path / "b.failed.json").write_text(text)
    with pytest.raises(DataError, match=r"b.failed.json.*move the file away"):
        read_runs(tmp_path, "hr@10")


def test_an_empty_folder_has_no_run(tmp_path):
    with pytest.raises(DataError, match=r"no \.jsonl run record in .*; give a CSV file, a \.jsonl file or a folder"):
        read_runs(tmp_path, "hr@10")
