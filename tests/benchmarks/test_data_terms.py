import dataclasses
import json

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from benchmarks.data_terms import main, straight_line
from configs.sweeps.ml100k_data import get_sweep
from wukong_jax.config.codec import to_plain
from wukong_jax.sequential.obtain import sequence_store_path
from wukong_jax.sequential.sequences import Sequences, as_names, offsets_of
from wukong_jax.sequential.store import write_sequence_store
from wukong_jax.training.record import RECORD_VERSION

ITEMS = 1682


@pytest.fixture
def place(tmp_path, rng):
    """A store where the recipe's would be, and a record of every run, whose metrics follow the tokens."""
    lengths = rng.integers(3, 90, 40)
    items = np.concatenate([rng.permutation(ITEMS)[:length] for length in lengths]).astype(np.int32)
    names = as_names([str(i) for i in range(ITEMS)])
    times = np.arange(len(items))
    sequences = Sequences(items, offsets_of(lengths), ITEMS, as_names([str(u) for u in range(40)]), names, times)
    config = get_sweep().points[0].config
    path = sequence_store_path(dataclasses.replace(config.data, root=str(tmp_path)), config.schema)
    write_sequence_store(path, sequences, {"recipe": "movielens_100k"})
    (tmp_path / "records").mkdir()
    for number, point in enumerate(get_sweep().points):
        part = point.config.sequences.training
        order = sequences.without_last(2).last(part.last or 50)
        users = np.ceil(part.users * 40)
        y = float(np.log(users / 40 * order.num_events))
        scores = {"hr@10": y, "ndcg@10": y / 2, "loss": -y}
        record = {"record_version": RECORD_VERSION, "config": to_plain(point.config), "results": {"test": scores}}
        (tmp_path / "records" / f"{number}.jsonl").write_text(json.dumps(record))
    return tmp_path


def test_measures_are_those_of_what_is_trained_on(place, capsys):
    arguments = ["--records", str(place / "records"), "--root", str(place), "--out", str(place / "out.md")]
    assert main(arguments) == 0
    text = (place / "out.md").read_text()
    assert text in capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    parts = {tuple(row[:3]): float(row[3].replace(",", "")) for row in rows if row[0][0] in "01"}
    assert len(parts) == 12
    assert parts["0.25", "all", "4"] == 4 * parts["0.25", "all", "1"]
    assert parts["1", "6", "1"] <= 6 * 40
    assert parts["0.125", "all", "1"] < parts["0.25", "all", "1"] < parts["0.5", "all", "1"] < parts["1", "all", "1"]


def test_a_line_is_that_of_ordinary_regression(rng):
    x, noise = rng.uniform(1e3, 1e5, 9), rng.normal(size=9)
    y = 0.3 * np.log(x) + 0.1 * noise
    line = straight_line(x, y)
    design = np.log(x)[:, None]
    left_out = cross_val_predict(LinearRegression(), design, y, cv=LeaveOneOut())
    assert line.r2 == pytest.approx(LinearRegression().fit(design, y).score(design, y))
    assert line.left_out_rmse == pytest.approx(np.sqrt(np.mean((left_out - y) ** 2)))


def test_too_few_parts_are_refused(place, capsys):
    for path in sorted((place / "records").iterdir())[3:]:
        path.unlink()
    assert main(["--records", str(place / "records"), "--root", str(place)]) == 2
    assert "runs on 3 parts of the data, expected at least 4" in capsys.readouterr().err
