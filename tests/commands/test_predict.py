"""python -m wukong_jax predict: the scores are evaluation's, row by row."""

import dataclasses

import numpy as np
import polars as pl
import pytest
import scipy.special

from tests.sequential.tiny_sequences import config as sequential_config
from wukong_jax.cli import main
from wukong_jax.commands.open_run import open_run
from wukong_jax.config.sequential import HSTUConfig
from wukong_jax.data.pipeline import evaluation_batches
from wukong_jax.training.run import load_best


def scores_of_evaluation(trained, split):
    """Probabilities from the very logits that the evaluator sees, in float64."""
    program, best = load_best(trained.folder, pytest.fail)
    rows = trained.store.split(split)
    batches = evaluation_batches(rows, batch_size=trained.config.train.eval_batch_size)
    logits = np.concatenate([np.asarray(program.eval_step(best.state, (), batch)[1]) for batch in batches])
    return scipy.special.expit(logits[: rows.rows].astype(np.float64))


def predicted(trained, out, *arguments):
    assert main(["predict", "--run", str(trained.folder), "--out", str(out), *map(str, arguments)]) == 0
    return pl.read_csv(out) if out.suffix == ".csv" else pl.read_parquet(out)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_split_gets_the_scores_of_evaluation_in_the_order_of_its_rows(trained, tmp_path, suffix):
    frame = predicted(trained, tmp_path / f"scores{suffix}", "--split", "test")
    expected = scores_of_evaluation(trained, "test")
    assert frame.columns == ["label"]
    assert frame.height == 45
    np.testing.assert_allclose(frame.to_numpy(), expected, rtol=3e-7, atol=0)  # float32 sigmoid
    assert len(np.unique(expected)) > 30, "equal scores would hide a wrong order"


def test_raw_rows_get_the_same_scores_as_their_split(trained, tmp_path):
    """Users and items that training did not see are in the file: both ways they get the out-of-vocabulary row."""
    assert (trained.store.split("test").columns["ids"][:, 0] == 0).any()
    split = predicted(trained, tmp_path / "split.parquet", "--split", "test")
    raw = predicted(trained, tmp_path / "raw.parquet", "--files", trained.raw["test"])
    assert raw.equals(split)


def test_labels_and_other_columns_may_be_absent_or_present(trained, tmp_path):
    split = predicted(trained, tmp_path / "split.parquet", "--split", "test")
    frame = pl.read_csv(trained.raw["test"])
    frame.select("price", "tags", "item", "user").write_csv(tmp_path / "bare.csv")
    frame.with_columns(note=pl.lit("x"), label=pl.lit(1)).write_csv(tmp_path / "more.csv")
    frame.write_parquet(tmp_path / "new.parquet")
    frame.write_csv(tmp_path / "new.tsv", separator="\t")
    for arguments in (
        ["bare.csv"],
        ["more.csv"],
        ["new.parquet", "--format", "parquet"],
        ["new.tsv", "--format", "tsv"],
    ):
        name, *options = arguments
        found = predicted(trained, tmp_path / "found.parquet", "--files", tmp_path / name, *options)
        assert found.equals(split), name


def test_several_files_are_scored_one_after_another(trained, tmp_path):
    both = predicted(trained, tmp_path / "both.csv", "--files", trained.raw["valid"], trained.raw["test"])
    parts = [predicted(trained, tmp_path / f"{split}.csv", "--split", split) for split in ("valid", "test")]
    # the same rows lie in other places of their batches, so that sums over them may round differently
    np.testing.assert_allclose(both.to_numpy(), pl.concat(parts).to_numpy(), rtol=1e-6)


def test_every_label_has_its_column(two_labels, tmp_path):
    frame = predicted(two_labels, tmp_path / "scores.parquet", "--split", "valid")
    assert frame.columns == ["click", "buy"]
    np.testing.assert_allclose(frame.to_numpy(), scores_of_evaluation(two_labels, "valid"), rtol=3e-7)


def refused(trained, capsys, *arguments):
    out = [] if "--out" in arguments else ["--out", "never.csv"]
    assert main(["predict", "--run", str(trained.folder), *out, *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_bad_options_are_errors_with_exit_code_2(trained, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    csv = trained.raw["test"]
    assert "either --split or --files" in refused(trained, capsys)
    assert "either --split or --files" in refused(trained, capsys, "--split", "test", "--files", csv)
    assert "ends in '.txt', expected .csv or .parquet" in refused(trained, capsys, "--split", "test", "--out", "x.txt")
    for form in ("csv", "parquet"):
        assert "--format: is the form of raw files given with --files; leave it out with --split" in refused(
            trained, capsys, "--split", "test", "--format", form
        )
    assert "no split 'tset'; it has ['test', 'train', 'valid']" in refused(trained, capsys, "--split", "tset")
    assert "nowhere.csv" in refused(trained, capsys, "--files", tmp_path / "nowhere.csv")
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(trained, capsys, "--split", "test", "--out", tmp_path / "file" / "x.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_run_on_sequences_reads_no_raw_files(trained, capsys, tmp_path, monkeypatch):
    def open_as_sequences(folder, store, console):
        opened = open_run(folder, store, console)
        settings = sequential_config(trained.store.path, HSTUConfig(width=8, num_layers=1, max_length=5))
        return dataclasses.replace(opened, program=dataclasses.replace(opened.program, config=settings))

    monkeypatch.setattr("wukong_jax.commands.open_run.open_run", open_as_sequences)
    monkeypatch.chdir(tmp_path)
    said = refused(trained, capsys, "--format", "csv")
    assert "--format: is the form of raw files, and this run recommends items to the users of its store" in said
    assert not list(tmp_path.iterdir())


def test_bad_raw_rows_are_named_and_nothing_is_written(trained, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text("user,item,tags,price\nu1,i1,t1,0.5\nu1,i1,t1,cheap\n")
    message = refused(trained, capsys, "--files", "bad.csv")
    assert "bad.csv" in message
    assert "line 3" in message
    assert "cheap" in message
    (tmp_path / "short.csv").write_text("user,item,tags\nu1,i1,t1\n")
    assert "price" in refused(trained, capsys, "--files", "short.csv")
    (tmp_path / "empty.csv").write_text("")
    assert "empty.csv" in refused(trained, capsys, "--files", "empty.csv")
    assert not (tmp_path / "never.csv").exists()


def test_a_file_with_a_header_and_no_rows(trained, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none.csv").write_text("user,item,tags,price\n")
    code = main(["predict", "--run", str(trained.folder), "--out", "scores.csv", "--files", "none.csv"])
    if code == 0:
        assert (tmp_path / "scores.csv").read_text() == "label\n"
    else:
        assert code == 2
        assert "none.csv" in capsys.readouterr().err
