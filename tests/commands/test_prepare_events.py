"""python -m wukong_jax prepare --events: a file of events becomes a store and a config that trains on it."""

import pytest

from wukong_jax.cli import main
from wukong_jax.config.command_line import load_config_file
from wukong_jax.sequential.examples import as_examples
from wukong_jax.sequential.store import open_sequence_store

EVENTS = [("ann", "tea", 3), ("bob", "tea", 1), ("ann", "milk", 1), ("ann", "rye", 2), ("bob", "rye", 4)]
MORE = [("ann", "jam", 9), ("ann", "rye", 12), ("ann", "rye", 12)]


@pytest.fixture
def log(tmp_path):
    rows = [",".join(map(str, row)) for row in (*EVENTS, *MORE)]
    (tmp_path / "log.csv").write_text("\n".join(["who,what,when", *rows]) + "\n")
    return tmp_path / "log.csv"


def prepared(log, text="--user who --item what --time when"):
    return main(["prepare", "--events", str(log), "--out", str(log.parent / "store"), *text.split()])


def test_events_in_time_order_without_duplicates_are_in_the_store(log, capsys):
    assert prepared(log) == 0
    sequences = open_sequence_store(log.parent / "store").sequences
    items = {name: sequences.item_names[sequences.of(i)].tolist() for i, name in enumerate(sequences.user_names)}
    assert items == {"ann": ["milk", "rye", "tea", "jam", "rye"], "bob": ["tea", "rye"]}
    assert sequences.times.tolist() == [1, 2, 3, 9, 12, 1, 4]
    said = capsys.readouterr().out
    assert "7 events of 2 users with 4 items, with times" in said
    assert "1 duplicate rows dropped, 1 rows earlier" in said


def test_the_written_config_fits_the_store(log, monkeypatch):
    monkeypatch.chdir(log.parent)
    assert prepared(log, "--user who --item what --time when --write-config own.py") == 0
    config = load_config_file(log.parent / "own.py")
    examples = as_examples(open_sequence_store(log.parent / "store"), config)
    assert {name: split.rows for name, split in examples.splits.items()} == {"train": 1, "valid": 1, "test": 2}
    assert prepared(log, "--user who --item what --time when --write-config own.py") == 2, "it may hold changes"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "column"),
        ("--format pairs --user who", "--user: a file of pairs has no named columns; leave it out"),
        ("--user who --item what --time who", "received who, what, who for user, item and time"),
        ("--label clicked", "--label"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(log, capsys, given, message):
    try:
        code = prepared(log, given)
    except SystemExit as end:  # of the option parser
        code = end.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert list(log.parent.iterdir()) == [log]
