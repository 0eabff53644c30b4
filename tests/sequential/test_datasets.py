"""Public data sets as sequences: sizes as published, order kept, and other files refused."""

import gzip
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from wukong_jax.errors import ConfigError, DataError
from wukong_jax.sequential.datasets import S3REC, load_sequences

SIZES = {
    "amazon_beauty": (22_363, 12_101, 198_502),
    "amazon_sports": (35_598, 18_357, 296_337),
    "amazon_toys": (19_412, 11_924, 167_597),
    "lastfm": (1_090, 3_646, 52_551),
}


def sizes(sequences):
    return sequences.num_users, sequences.num_items, sequences.num_events


@pytest.mark.parametrize("name", SIZES)
def test_the_files_of_s3rec_have_their_published_sizes(name, shared_data, tmp_path):
    folder = shared_data / "sequences" / "s3rec"
    sequences = load_sequences(name, folder, tmp_path)
    assert sizes(sequences) == SIZES[name]
    assert sequences.origin == str(folder / f"{S3REC[name].name}.gz")
    with gzip.open(folder / f"{S3REC[name].name}.gz", "rt") as lines:
        user, *items = next(lines).split()
    number = sequences.user_names.tolist().index(user)
    assert sequences.item_names[sequences.of(number)].tolist() == items


def test_a_file_of_s3rec_may_be_given_itself_and_unpacked(shared_data, tmp_path):
    packed = shared_data / "sequences" / "s3rec" / "LastFM.txt.gz"
    with gzip.open(packed) as source, (tmp_path / "LastFM.txt").open("wb") as target:
        shutil.copyfileobj(source, target)
    given = [load_sequences("lastfm", path, tmp_path) for path in (packed, tmp_path / "LastFM.txt", tmp_path)]
    for one in given[1:]:
        np.testing.assert_array_equal(one.items, given[0].items)


def test_movielens_100k_is_every_rating_in_time_order(shared_data, tmp_path):
    sequences = load_sequences("movielens_100k", shared_data / "ml-100k", tmp_path)
    assert sizes(sequences) == (943, 1682, 100_000)
    with gzip.open(shared_data / "ml-100k" / "u.data.gz", "rt") as lines:
        rows = [tuple(map(int, line.split())) for line in lines]
    own = sorted([row for row in rows if row[0] == 405], key=lambda row: row[3])
    number = sequences.user_names.tolist().index("405")
    assert [int(name) for name in sequences.item_names[sequences.of(number)]] == [row[1] for row in own]
    own_times = sequences.times[sequences.offsets[number] : sequences.offsets[number + 1]]
    assert own_times.tolist() == [row[3] for row in own]


def test_movielens_1m_from_rows_in_time_order_has_no_times(shared_data, tmp_path):
    sequences = load_sequences("movielens_1m", shared_data / "ml-1m", tmp_path)
    assert sizes(sequences) == (6_040, 3_706, 1_000_209)
    assert sequences.times is None
    assert "without times" in sequences.origin
    with gzip.open(shared_data / "ml-1m" / "test.csv.gz", "rt") as lines:
        last = {line.split("-")[0]: line.split(",")[1].split("-")[0] for line in lines}
    ends = sequences.item_names[sequences.last(1).items]
    assert dict(zip(sequences.user_names.tolist(), ends.tolist(), strict=True)) == last


def test_movielens_1m_with_ratings_is_sorted_by_its_times(shared_data, tmp_path, monkeypatch):
    from wukong_jax.data.recipes import movielens_1m

    source = tmp_path / "ml-1m"
    source.mkdir()
    for name in ("users.dat.gz", "movies.dat.gz"):
        shutil.copy(shared_data / "ml-1m" / name, source / name)
    (source / "ratings.dat").write_text("2::1193::5::30\n1::661::3::20\n2::661::1::10\n")
    with pytest.raises(DataError, match="has 3 ratings, expected 1000209"):
        load_sequences("movielens_1m", source, tmp_path)
    monkeypatch.setattr(movielens_1m, "RATINGS", 3)
    sequences = load_sequences("movielens_1m", source, tmp_path)
    assert sequences.item_names[sequences.items].tolist() == ["661", "661", "1193"]
    assert sequences.times.tolist() == [20, 10, 30]


def test_another_preparation_of_the_same_data_is_refused(tmp_path):
    (tmp_path / "Beauty.txt").write_text("1 2 3\n2 3 4\n")
    with pytest.raises(DataError, match=r"Beauty\.txt: SHA-256 .*not the published file"):
        load_sequences("amazon_beauty", tmp_path, tmp_path)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(DataError, match=r"amazon_toys: .*give as the source the file Toys_and_Games\.txt"):
        load_sequences("amazon_toys", None, tmp_path)
    with pytest.raises(DataError, match=r"it lacks the file LastFM\.txt \(plain or \.gz\)"):
        load_sequences("lastfm", tmp_path, tmp_path)
    with pytest.raises(DataError, match=r"missing does not exist; expected the file LastFM\.txt"):
        load_sequences("lastfm", tmp_path / "missing", tmp_path)
    with pytest.raises(
        ConfigError, match="received 'netflix', expected one of movielens_100k, movielens_1m, amazon_be"
    ):
        load_sequences("netflix", None, tmp_path)


def test_naming_the_data_sets_imports_nothing_heavy():
    code = "import sys, wukong_jax.sequential.datasets; print({'jax', 'polars', 'flax'} & set(sys.modules))"
    root = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "set()"
