"""MovieLens recipes: both sources give one table, the split is per user in time order, bad sources are refused."""

import datetime
import gzip
import hashlib
import shutil
import zipfile

import numpy as np
import polars as pl
import pytest

from wukong_jax.data.obtain import SourceUnavailable, download_wheel
from wukong_jax.data.recipes import movielens, movielens_1m, movielens_100k
from wukong_jax.errors import DataError

LAND_BEFORE_TIME, UNKNOWN_MOVIE = "1412", "267"


@pytest.fixture(scope="module")
def wheel_cache(tmp_path_factory):
    """A cache with the wheel of RecBole, through pip's own settings."""
    cache = tmp_path_factory.mktemp("wheel")
    try:
        download_wheel(movielens_100k.WHEEL, cache)
    except SourceUnavailable as error:
        pytest.skip(f"no package index: {error}")
    return cache


@pytest.fixture(scope="module")
def tables(shared_data, tmp_path_factory):
    return movielens_100k.obtain(shared_data / "ml-100k", tmp_path_factory.mktemp("cache"))[1]


@pytest.fixture(scope="module")
def store(shared_data, tmp_path_factory):
    cache = tmp_path_factory.mktemp("ml100k")
    return movielens_100k.prepare(cache / "store", source=shared_data / "ml-100k", cache=cache)


@pytest.fixture
def no_grouplens(monkeypatch):
    monkeypatch.setattr(movielens_100k, "URL", "http://localhost:1/ml-100k.zip")
    monkeypatch.setattr(movielens_1m, "URL", "http://localhost:1/ml-1m.zip")


def test_the_archive_and_the_wheel_give_one_table(tables, wheel_cache, no_grouplens):
    origin, other = movielens_100k.obtain(None, wheel_cache)
    assert origin.endswith("recbole-1.2.1-py3-none-any.whl")
    for mine, theirs in zip(tables, other, strict=True):
        assert mine.equals(theirs)
    assert movielens.canonical(tables).equals(movielens.canonical(other))


def test_grouplens_out_of_reach_falls_back_to_the_wheel_once(tmp_path, wheel_cache, no_grouplens, monkeypatch, capsys):
    def from_cache(requirement, cache):
        return shutil.copy(wheel_cache / movielens_100k.WHEEL_FILE, cache / movielens_100k.WHEEL_FILE)

    monkeypatch.setattr(movielens_100k, "download_wheel", from_cache)
    first = movielens_100k.obtain(None, tmp_path)
    assert first[0] == "recbole==1.2.1"
    assert capsys.readouterr().out.count("GroupLens' archive cannot be had") == 1

    def offline(*arguments):
        raise AssertionError("the second run must need no network")

    monkeypatch.setattr(movielens_100k, "download_wheel", offline)
    monkeypatch.setattr(movielens_100k, "download", offline)
    second = movielens_100k.obtain(None, tmp_path)
    assert second[1].ratings.equals(first[1].ratings)
    assert capsys.readouterr().out == ""


def test_without_any_source_every_reason_and_the_fix_are_named(tmp_path, no_grouplens, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    message = r"no source could be reached \(http://localhost:1/.*pip download recbole==1\.2\.1.*give the zip"
    with pytest.raises(DataError, match=message):
        movielens_100k.prepare(tmp_path / "store", source=None, cache=tmp_path / "cache")
    assert not (tmp_path / "store").exists()


def test_a_zip_of_the_archive_is_read_from_a_path_or_the_cache(tmp_path, shared_data, tables):
    with zipfile.ZipFile(tmp_path / "ml-100k.zip", "w") as archive:
        for name in movielens_100k.GROUPLENS:
            archive.writestr(f"ml-100k/{name}", gzip.decompress((shared_data / "ml-100k" / f"{name}.gz").read_bytes()))
    for source in (tmp_path / "ml-100k.zip", None):
        found = movielens_100k.obtain(source, tmp_path)[1]
        assert all(mine.equals(theirs) for mine, theirs in zip(found, tables, strict=True))


def test_a_wrong_checksum_refuses_the_file(tmp_path, shared_data):
    for name in movielens_100k.GROUPLENS:
        (tmp_path / name).write_bytes(gzip.decompress((shared_data / "ml-100k" / f"{name}.gz").read_bytes()))
    content = (tmp_path / "u.user").read_bytes()
    (tmp_path / "u.user").write_bytes(content.replace(b"1|24|M|", b"1|42|M|", 1))
    with pytest.raises(DataError, match=r"u\.user: SHA-256 [0-9a-f]{64}, expected f120e114"):
        movielens_100k.prepare(tmp_path / "store", source=tmp_path, cache=tmp_path)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("missing", ["u.data", "u.user", "u.item"])
def test_a_folder_that_lacks_a_file_names_it(tmp_path, shared_data, missing):
    for name in movielens_100k.GROUPLENS:
        if name != missing:
            shutil.copyfile(shared_data / "ml-100k" / f"{name}.gz", tmp_path / f"{name}.gz")
    with pytest.raises(DataError, match=f"lacks the file {missing}"):
        movielens_100k.prepare(tmp_path / "store", source=tmp_path, cache=tmp_path)


def test_the_canonical_table_says_what_the_raw_files_say(tables, shared_data):
    table = movielens.canonical(tables)
    assert table.height == 100_000
    assert table["label"].value_counts().sort("label").rows() == [("0", 44_625), ("1", 55_375)]
    users = gzip.decompress((shared_data / "ml-100k" / "u.user.gz").read_bytes()).decode().splitlines()
    ages = {line.split("|")[0]: int(line.split("|")[1]) for line in users}
    zips = {line.split("|")[0]: line.split("|")[4] for line in users}
    lines = gzip.decompress((shared_data / "ml-100k" / "u.data.gz").read_bytes()).decode().splitlines()
    for row in (0, 1, 777, 99_999):
        user, item, rating, timestamp = lines[row].split("\t")
        moment = datetime.datetime.fromtimestamp(int(timestamp), datetime.UTC)
        bracket = max(lower for lower in (1, 18, 25, 35, 45, 50, 56) if ages[user] >= lower)
        expected = {"label": str(int(int(rating) >= 4)), "user_id": user, "item_id": item, "timestamp": timestamp}
        expected |= {"hour": str(moment.hour), "weekday": str(moment.isoweekday()), "age": str(bracket)}
        expected |= {"zip_prefix": zips[user][:3]}
        found = table.row(row, named=True)
        assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("item", "year", "genres"),
    [
        ("1", "1995", "Animation|Children's|Comedy"),
        ("181", "1983", "Action|Adventure|Romance|Sci-Fi|War"),
        (LAND_BEFORE_TIME, "1995", "Animation|Children's"),
        (UNKNOWN_MOVIE, "", "unknown"),
    ],
)
def test_years_and_genres_survive_the_quirks(tables, item, year, genres):
    assert tables.items.row(by_predicate=pl.col("item_id") == item) == (item, year, genres)


def test_the_store_has_the_schema_of_the_recipe(store):
    assert store.schema == movielens_100k.SCHEMA
    assert {name: split.rows for name, split in store.splits.items()} == {
        "train": 80_808,
        "valid": 9_596,
        "test": 9_596,
    }
    assert store.encoding["origin"]["recipe"] == "movielens_100k"


def test_each_user_trains_on_the_past_and_is_tested_on_the_future(store):
    times, counts = {}, {}
    for name in ("train", "valid", "test"):
        columns = store.split(name).columns
        frame = pl.DataFrame({"user": np.array(columns["group"]), "time": np.array(columns["time"])})
        grouped = frame.group_by("user").agg(
            pl.col("time").min().alias("first"), pl.col("time").max().alias("last"), pl.len()
        )
        times[name] = {user: (first, last) for user, first, last, _ in grouped.rows()}
        counts[name] = {user: count for user, _, _, count in grouped.rows()}
    assert len(times["train"]) == len(times["valid"]) == len(times["test"]) == 943
    for user in times["train"]:
        assert times["train"][user][1] <= times["valid"][user][0]
        assert times["valid"][user][1] <= times["test"][user][0]
        total = sum(counts[name][user] for name in counts)
        assert counts["test"][user] == counts["valid"][user] == total // 10


USERS = "1::F::1::10::48067\n2::M::56::16::70072-1234\n"
MOVIES = (
    "1::Toy Story (1995)::Animation|Children's|Comedy\n2::Léon: 2 (1994) (1996)::Drama\n3::Ceux (2000)::Film-Noir\n"
)


def write_1m(folder, ratings):
    """A small data set in the form of MovieLens 1M; returns the pins that fit it."""
    files = {"ratings.dat": ratings, "users.dat": USERS, "movies.dat": MOVIES}
    for name, text in files.items():
        (folder / name).write_bytes(text.encode("latin-1"))
    return {name: hashlib.sha256(files[name].encode("latin-1")).hexdigest() for name in movielens_1m.USERS_AND_MOVIES}


def small_ratings():
    lines = [f"{user}::{i % 3 + 1}::{i % 5 + 1}::{978_300_000 + 3_600 * i}" for user in (1, 2) for i in range(20)]
    return "".join(f"{line}\n" for line in lines)


def test_movielens_1m_is_prepared_from_its_own_format(tmp_path, monkeypatch):
    pins = write_1m(tmp_path, small_ratings())
    monkeypatch.setattr(movielens_1m, "USERS_AND_MOVIES", pins)
    monkeypatch.setattr(movielens_1m, "RATINGS", 40)
    store = movielens_1m.prepare(tmp_path / "store", source=tmp_path, cache=tmp_path)
    assert {name: split.rows for name, split in store.splits.items()} == {"train": 32, "valid": 4, "test": 4}
    test = store.split("test").columns
    # The last two ratings of each user are numbers 18 and 19: ratings 18 % 5 + 1 = 4 and 5.
    assert test["labels"][:, 0].tolist() == [1.0] * 4
    assert sorted(test["time"].tolist()) == [978_300_000 + 3_600 * i for i in (18, 18, 19, 19)]
    assert store.schema.feature_names == movielens_1m.SCHEMA.feature_names
    years = pl.read_parquet(store.path / "vocabularies" / "year.parquet")["value"].to_list()
    assert sorted(years) == ["1995", "1996", "2000"]
    prefixes = pl.read_parquet(store.path / "vocabularies" / "zip_prefix.parquet")["value"].to_list()
    assert sorted(prefixes) == ["480", "700"]
    known = store.encoding["origin"]["source_files"]
    assert {name: (tmp_path / name).stat().st_size for name in ("ratings.dat", *pins)}.items() <= known.items()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ratings: ratings[: ratings.rindex("\n", 0, -1) + 1], r"ratings\.dat of .* has 39 rows, expected 40"),
        (lambda ratings: ratings[:-11], r"ratings\.dat, row 40: .*expected user_id, item_id, rating, timestamp"),
        (lambda ratings: ratings.replace("1::1::1::", "1::99::1::", 1), "name item_id '99'"),
        (lambda ratings: ratings.replace("\n2::", "\n7::", 1), "name user_id '7'"),
        (
            lambda ratings: ratings.replace("1::1::1::", "1::1::five::", 1),
            r"ratings\.dat, row 1: rating is 'five', expected a rating of 1 to 5",
        ),
        (lambda ratings: ratings.replace("1::1::1::978300000", "1::1::6::978300000", 1), r"rating is '6'"),
    ],
)
def test_bad_ratings_of_movielens_1m_are_refused(tmp_path, monkeypatch, change, message):
    pins = write_1m(tmp_path, change(small_ratings()))
    monkeypatch.setattr(movielens_1m, "USERS_AND_MOVIES", pins)
    monkeypatch.setattr(movielens_1m, "RATINGS", 40)
    with pytest.raises(DataError, match=message):
        movielens_1m.prepare(tmp_path / "store", source=tmp_path, cache=tmp_path)
    assert not (tmp_path / "store").exists()


def test_movielens_1m_names_what_is_wrong_with_a_source(tmp_path, no_grouplens):
    with pytest.raises(DataError, match=r"lacks the file ratings\.dat"):
        movielens_1m.prepare(tmp_path / "store", source=tmp_path, cache=tmp_path)
    with pytest.raises(DataError, match=r"ml-1m\.zip: no such file"):
        movielens_1m.prepare(tmp_path / "store", source=tmp_path / "ml-1m.zip", cache=tmp_path)
    with pytest.raises(DataError, match=r"localhost:1/ml-1m\.zip.*give the zip or its unpacked folder"):
        movielens_1m.prepare(tmp_path / "store", source=None, cache=tmp_path)
    write_1m(tmp_path, small_ratings())
    with pytest.raises(DataError, match=r"users\.dat: SHA-256 .*, expected 1dc3a953"):
        movielens_1m.prepare(tmp_path / "store", source=tmp_path, cache=tmp_path)


@pytest.mark.slow
def test_movielens_1m_has_its_schema_with_the_true_users_movies_and_order(tmp_path, shared_data):
    """Ratings and times are made up, users, movies and their order are the real ones."""
    source = shared_data / "ml-1m"
    lines = [
        gzip.decompress((source / f"{name}.csv.gz").read_bytes()).decode().splitlines() for name in ("train", "test")
    ]
    made = []
    for number, line in enumerate(line for part in lines for line in part):
        user, movie = (part.split("-")[0] for part in line.split(","))
        made.append(f"{user}::{movie}::{number % 5 + 1}::{956_700_000 + 60 * number}\n")
    (tmp_path / "ratings.dat").write_text("".join(made))
    for name in movielens_1m.USERS_AND_MOVIES:
        shutil.copyfile(source / f"{name}.gz", tmp_path / f"{name}.gz")
    store = movielens_1m.prepare(tmp_path / "store", source=tmp_path, cache=tmp_path)
    assert store.schema == movielens_1m.SCHEMA
