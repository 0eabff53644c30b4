"""python -m wukong_jax prepare: options that no named column reads."""

import pytest

from wukong_jax.cli import main
from wukong_jax.commands.prepare import PrepareOptions, spec_of
from wukong_jax.data.store import open_store


@pytest.fixture
def raw(tmp_path):
    lines = [f"{i % 2},u{i % 9},s{i % 7},a;b,{i}" for i in range(60)]
    (tmp_path / "clicks.csv").write_text("\n".join(["label,user,shop,tags,count", *lines]) + "\n")
    return tmp_path / "clicks.csv"


def prepared(raw, text):
    return main(["prepare", "--files", str(raw), "--out", str(raw.parent / "store"), *text.split()])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--hashed user:50 shop:9 --min-count 3", "--min-count: received 3, but every named column has a count of its"),
        ("--numeric count --min-count 3", "--min-count: received 3, but"),
        ("--categorical user:2 shop:5 --bucketed count:4 --min-count 3", "--min-count: received 3, but"),
        ("--categorical user --item-separator ;", "--item-separator: is for --multi-hot columns; name one or leave it"),
        ("--hashed user:50 --item-separator ;", "--item-separator: is for --multi-hot columns"),
    ],
)
def test_options_that_no_named_column_reads_are_refused(raw, capsys, given, message):
    assert prepared(raw, given) == 2
    assert message in capsys.readouterr().err
    assert list(raw.parent.iterdir()) == [raw]


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ("--categorical user --min-count 3", 10),
        ("--categorical user shop:2 --min-count 8", 1),
        ("--hashed user:50 --categorical shop --min-count 3", 50),
        ("--hashed user:50 --bucketed count --min-count 3", 50),
        ("--hashed user:50 --multi-hot tags:2 --item-separator ; --min-count 3", 50),
    ],
)
def test_options_that_a_column_reads_are_taken(raw, given, size):
    assert prepared(raw, given) == 0
    features = {feature.name: feature for feature in open_store(raw.parent / "store").schema.id_features}
    assert features["user"].vocabulary_size == size


def test_what_is_wrong_with_the_columns_is_said_first(raw, capsys):
    assert prepared(raw, "--format libfm --min-count 3") == 2
    assert "name the fields after the label" in capsys.readouterr().err
    assert prepared(raw, "--hashed user --min-count 3") == 2
    assert "--hashed: received 'user', expected NAME:NUMBER" in capsys.readouterr().err


def test_the_usual_columns_of_criteo_read_the_least_count(raw, capsys):
    assert prepared(raw, "--format criteo --min-count 3") == 2
    assert "--min-count" not in capsys.readouterr().err, "the file is wrong, the option is not"
    spec = spec_of(PrepareOptions(raw.parent / "store", files=(str(raw),), format="criteo", min_count=3))
    assert {column.min_count for column in spec.categorical} == {3}
