"""MovieLens-100K from the raw files through training to scores, as a user would do it."""

import json
import pathlib

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

import train
from wukong_jax import cli
from wukong_jax.data.store import open_store
from wukong_jax.training.record import read_records
from wukong_jax.training.run import CURVES_FILE, RECORD_FILE


@pytest.fixture(scope="module")
def movielens(shared_data: pathlib.Path) -> pathlib.Path:
    source = shared_data / "ml-100k"
    if not source.is_dir():
        pytest.skip(f"no MovieLens-100K: {source} does not exist")
    return source


def test_movielens_from_raw_files_to_scores(movielens, tmp_path, capsys, monkeypatch, pytestconfig):
    monkeypatch.chdir(pytestconfig.rootpath)
    run = tmp_path / "run"
    options = ["--data.source", str(movielens), "--data.root", str(tmp_path / "data"), "--train.epochs", "2"]
    assert train.main([*options, "--run-dir", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "LogLoss" in shown

    record = next(read_records(run / RECORD_FILE))
    assert sum(record["examples"].values()) == 100_000
    assert record["steps"] == 2 * (record["examples"]["train"] // record["config"]["train"]["batch_size"])
    # two epochs beat both the guess of the mean (NE 1, AUC 0.5) by far; the settings' own scores are for the benchmarks
    assert 0.72 < record["results"]["test"]["auc"] < 0.85
    assert record["results"]["test"]["ne"] < 0.93
    assert (run / CURVES_FILE).stat().st_size > 1000

    assert cli.main(["evaluate", "--run", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: found[name] for name in record["results"]["test"]} == record["results"]["test"]

    assert cli.main(["predict", "--run", str(run), "--split", "test", "--out", str(tmp_path / "scores.parquet")]) == 0
    scores = pl.read_parquet(tmp_path / "scores.parquet").to_numpy().reshape(-1)
    (store,) = (path for path in (tmp_path / "data").iterdir() if (path / "store.json").is_file())
    labels = np.asarray(open_store(store).split("test").columns["labels"]).reshape(-1)
    assert len(scores) == record["examples"]["test"]
    # probabilities are float32: a few logits that differ may give the same one
    assert roc_auc_score(labels, scores) == pytest.approx(record["results"]["test"]["auc"], abs=1e-6)
