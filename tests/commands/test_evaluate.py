"""python -m wukong_jax evaluate."""

import json
import re
import shutil

import jax
import pytest

from tests.tiny import write_store
from wukong_jax.cli import main
from wukong_jax.data.store import StoreWriter
from wukong_jax.training.program import Program


def evaluated(capsys, *arguments):
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_scores_are_those_of_the_record(trained, capsys, split):
    found = evaluated(capsys, "--run", trained.folder, "--split", split)
    assert (found.pop("step"), found.pop("split")) == (trained.record["best_step"], split)
    assert found.pop("run") == str(trained.folder)
    assert found == trained.record["results"][split]


def test_on_devices_that_share_a_cpu_a_step_ends_before_the_next_is_started(trained, capsys, monkeypatch):
    waited = []
    monkeypatch.setattr(Program, "one_at_a_time", True)
    monkeypatch.setattr(jax, "block_until_ready", lambda found: waited.append(found) or found)
    assert evaluated(capsys, "--run", trained.folder)["examples"] == 45
    assert len(waited) == -(-45 // trained.config.train.eval_batch_size) > 1


def test_several_labels(two_labels, capsys):
    found = evaluated(capsys, "--run", two_labels.folder)
    assert {"auc/click", "auc/buy"} <= set(found)
    assert {name: found[name] for name in two_labels.record["results"]["test"]} == two_labels.record["results"]["test"]


def test_the_table_shows_every_metric(trained, capsys):
    assert main(["evaluate", "--run", str(trained.folder)]) == 0
    shown = capsys.readouterr().out
    for name, value in trained.record["results"]["test"].items():
        assert re.search(
            rf"\b{name}\b.*" + (f"{value:,.0f}" if name in ("examples", "nonfinite") else f"{value:.6f}"), shown
        ), name


def test_another_store_of_the_same_schema(trained, capsys, tmp_path):
    with StoreWriter(tmp_path / "other", trained.store.schema, trained.store.encoding) as writer:
        for file in (trained.store.path / "vocabularies").iterdir():
            writer.add_file(f"vocabularies/{file.name}", file.read_bytes())
        writer.append("test", {kind: values[:20] for kind, values in trained.store.split("test").columns.items()})
    found = evaluated(capsys, "--run", trained.folder, "--store", tmp_path / "other")
    assert found["examples"] == 20
    assert found["logloss"] != trained.record["results"]["test"]["logloss"]


def test_a_store_that_encodes_values_in_another_way_is_refused(trained, capsys, tmp_path):
    other = write_store(tmp_path / "other", trained.store.schema)
    assert "encodes values in another way" in refused(capsys, "--run", trained.folder, "--store", other.path)


def refused(capsys, *arguments):
    assert main(["evaluate", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_bad_input_is_an_error_with_exit_code_2(trained, two_labels, capsys, tmp_path):
    assert "no split 'tset'; it has ['test', 'train', 'valid']" in refused(
        capsys, "--run", trained.folder, "--split", "tset"
    )
    assert "is no run folder" in refused(capsys, "--run", tmp_path / "nothing")
    assert "does not exist" in refused(capsys, "--run", trained.folder, "--store", tmp_path / "nothing")
    other = refused(capsys, "--run", trained.folder, "--store", two_labels.store.path)
    assert "does not have the schema of the config" in other
    assert 'labels: ["label"] -> ["click", "buy"]' in other


def test_a_run_without_a_checkpoint(trained, capsys, tmp_path):
    (tmp_path / "run").mkdir()
    shutil.copy(trained.folder / "config.json", tmp_path / "run")
    assert "holds no whole checkpoint; train the run first" in refused(capsys, "--run", tmp_path / "run")
    (tmp_path / "run" / "checkpoints").mkdir()
    assert "holds no whole checkpoint; train the run first" in refused(capsys, "--run", tmp_path / "run")


def test_a_damaged_best_checkpoint_is_said_and_the_latest_used(trained, capsys, tmp_path):
    shutil.copytree(trained.folder, tmp_path / "run")
    best = trained.record["best_step"]
    shutil.rmtree(tmp_path / "run" / "checkpoints" / str(best) / "state" / "d")
    assert main(["evaluate", "--run", str(tmp_path / "run"), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["step"] != best
    said = " ".join(captured.err.split())
    assert "is damaged" in said
    assert "using that of step 10" in said


def test_the_information_abundance_is_that_of_the_record(trained, capsys):
    found = evaluated(capsys, "--run", trained.folder, "--collapse")
    assert found["information_abundance"] == trained.record["information_abundance"]
    assert set(found["information_abundance"]) == {"user", "item", "tags"}
    assert all(1 < one["information_abundance"] <= one["width"] == 4 for one in found["information_abundance"].values())
    assert found["information_abundance"]["user"]["rows"] == 8, "of 9: no training example has the unknown user"
    assert main(["evaluate", "--run", str(trained.folder), "--collapse"]) == 0
    shown = capsys.readouterr().out
    for name, one in found["information_abundance"].items():
        assert re.search(rf"\b{name}\b.*{one['information_abundance']:.3f}.*\b4\b.*\b{one['rows']}\b", shown), name


def test_the_abundance_needs_the_store_of_the_training(trained, capsys):
    assert "leave --store out" in refused(capsys, "--run", trained.folder, "--store", trained.store.path, "--collapse")
