"""MovieLens 1M with sampled negatives: who gets which negatives, the split, one store from both sources."""

import gzip
import hashlib

import numpy as np
import polars as pl
import pytest

from wukong_jax.data.recipes import movielens_1m, movielens_1m_sampled
from wukong_jax.data.recipes.movielens_1m_sampled import SCHEMA, SEED, as_ratings, prepare, sample
from wukong_jax.errors import DataError

NUM_FILMS = 60
USERS = "1::F::1::10::48067\n2::M::56::16::70072-1234\n" + "".join(f"{i}::M::25::4::5{i}117\n" for i in range(3, 16))
MOVIES = "".join(
    f"{2 * i}::Film {i} ({1940 + i})::{'Drama|War' if i % 2 else 'Comedy'}\n" for i in range(1, NUM_FILMS + 2)
)
# Films by user in time order. Film 122 is in movies.dat only; user 2 has rated 39 of 60, so that 21 are left for 78.
FILMS = {
    user: list(range(2, 80, 2)) if user == 2 else [2 * ((7 * i + user) % NUM_FILMS + 1) for i in range(10 + user % 11)]
    for user in range(1, 16)
}


def ratings_file(films=FILMS, mixed=True):
    """`ratings.dat` with two ratings a second; `mixed` interleaves the users, later seconds first."""
    lines = [
        (978_300_000 + number // 2, f"{user}::{film}::{number % 5 + 1}::{978_300_000 + number // 2}\n")
        for user, rated in films.items()
        for number, film in enumerate(rated)
    ]
    return "".join(line for _, line in (sorted(lines, key=lambda pair: -pair[0]) if mixed else lines))


def ordered_files(films=FILMS):
    """`train.csv` and `test.csv`, the last row of each user in the latter."""
    lines = {user: [f"{user}-9001-9002-9003,{film}-77\n" for film in rated] for user, rated in films.items()}
    return {
        "train.csv": "".join(line for rows in lines.values() for line in rows[:-1]),
        "test.csv": "".join(rows[-1] for rows in lines.values()),
    }


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a small data set into a folder, as what is published; `ratings.dat` alone has no checksum."""

    def write_files(name="source", pack=False, **files):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        files = {f"{key}.csv" if key in ("train", "test") else f"{key}.dat": text for key, text in files.items()}
        files = {"users.dat": USERS, "movies.dat": MOVIES} | files
        for file, text in files.items():
            content = text.encode("latin-1")
            (folder / f"{file}{'.gz' * pack}").write_bytes(gzip.compress(content) if pack else content)
        pins = {file: hashlib.sha256(text.encode("latin-1")).hexdigest() for file, text in files.items()}
        monkeypatch.setattr(movielens_1m, "USERS_AND_MOVIES", {k: pins[k] for k in ("users.dat", "movies.dat")})
        monkeypatch.setattr(movielens_1m_sampled, "ORDERED", {k: v for k, v in pins.items() if k.endswith(".csv")})
        return folder

    monkeypatch.setattr(movielens_1m, "RATINGS", sum(map(len, FILMS.values())))
    return write_files


@pytest.fixture
def store(write, tmp_path):
    return prepare(tmp_path / "store", source=write(ratings=ratings_file()), cache=tmp_path)


def rows_of(store):
    """Split, user, film, label and position of every row, in the store's order, as raw values."""
    frames = []
    words = {
        name: np.array([0, *map(int, pl.read_parquet(store.path / "vocabularies" / f"{name}.parquet")["value"])])
        for name in ("user_id", "item_id")
    }
    slices = store.schema.id_slices()
    for name, split in store.splits.items():
        ids, columns = split.columns["ids"], split.columns
        user, film = (words[key][ids[:, slices[key]].ravel()] for key in ("user_id", "item_id"))
        np.testing.assert_array_equal(columns["group"], user)
        label, position = columns["labels"][:, 0] == 1, columns["time"].astype(int)
        frames.append(
            pl.DataFrame({"user": user, "film": film, "label": label, "position": position}).with_columns(
                split=pl.lit(name)
            )
        )
    return pl.concat(frames)


def splitmix64(seed, number):
    """The first 53 bits of SplitMix64's output `number`, from the mixed seed (Steele, Lea and Flood 2014)."""

    def mix(z):
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    return mix((mix(seed) + (number + 1) * 0x9E3779B97F4A7C15) % 2**64) >> 11


def drawn_by_hand(user_row, rated, films):
    """The user's negatives, in the order drawn."""
    left = [number for number, film in enumerate(films) if film not in rated]
    left.sort(key=lambda number: splitmix64(SEED, user_row * len(films) + number))
    return [films[number] for number in left[: 2 * len(rated)]]


def test_every_positive_is_followed_by_two_negatives_drawn_by_splitmix64(store):
    rows = rows_of(store)
    films = sorted({film for rated in FILMS.values() for film in rated})
    assert len(films) == NUM_FILMS
    for user in FILMS.keys() - {2}:
        negatives = iter(drawn_by_hand(user - 1, FILMS[user], films))
        expected = []
        for position, film in enumerate(FILMS[user]):
            expected += [(film, True, position), (next(negatives), False, position), (next(negatives), False, position)]
        assert rows.filter(pl.col("user") == user).select("film", "label", "position").rows() == expected


def test_too_few_films_are_spread_evenly_over_the_positives(store):
    """User 2 has 21 for 39 positives: one or none each, and all of them are used."""
    rows = rows_of(store).filter(pl.col("user") == 2)
    films = sorted({film for rated in FILMS.values() for film in rated})
    negatives = rows.filter(~pl.col("label"))
    assert negatives["film"].to_list() == drawn_by_hand(1, FILMS[2], films)
    assert negatives["position"].to_list() == [next(i for i in range(39) if (i + 1) * 21 // 39 > k) for k in range(21)]
    assert rows.filter(pl.col("label"))["film"].to_list() == FILMS[2]


def test_no_negative_is_rated_by_its_user_and_no_pair_occurs_twice(store):
    rows = rows_of(store)
    assert rows.height == 3 * sum(map(len, FILMS.values())) - 57
    assert not rows.select("user", "film").is_duplicated().any()
    assert sorted(rows.filter("label").select("user", "film").rows()) == sorted((u, f) for u in FILMS for f in FILMS[u])
    assert 122 not in rows["film"]


def test_the_split_is_by_time_on_the_positives_and_negatives_go_with_theirs(store):
    rows = rows_of(store)
    for user, rated in FILMS.items():
        held = len(rated) // 10
        border = len(rated) - 2 * held
        for position, split in rows.filter(pl.col("user") == user).select("position", "split").rows():
            assert split == ("train" if position < border else "valid" if position < border + held else "test")


def test_a_user_of_one_positive_trains_on_it():
    examples = sample(np.array([0, 1, 1]), np.array([2, 0, 1]), 9)
    assert examples.split.tolist() == [0] * 9
    assert examples.label.tolist() == [True, False, False] * 3


def test_features_are_those_of_the_user_and_the_film(store):
    sizes = [feature.vocabulary_size for feature in store.schema.id_features]
    assert store.schema.feature_names == SCHEMA.feature_names
    assert sizes == [16, 4, 3, 4, 16, NUM_FILMS + 1, NUM_FILMS + 1, 4]
    ids, slices = store.split("train").columns["ids"], store.schema.id_slices()
    table = {name: ids[:, part] for name, part in slices.items()}
    words = {name: ["", *pl.read_parquet(store.path / "vocabularies" / f"{name}.parquet")["value"]] for name in slices}
    users = {line.split("::")[0]: line.split("::") for line in USERS.splitlines()}
    movies = {line.split("::")[0]: line.split("::") for line in MOVIES.splitlines()}
    for row in range(len(ids)):
        found = {name: [words[name][code] for code in part[row] if code >= 0] for name, part in table.items()}
        user, movie = users[found["user_id"][0]], movies[found["item_id"][0]]
        assert [found[name] for name in ("gender", "age", "occupation")] == [[cell] for cell in user[1:4]]
        assert found["zip_prefix"] == [user[4][:3]]
        assert found["year"] == [movie[1][-5:-1]]
        assert found["genres"] == movie[2].split("|")


@pytest.mark.parametrize("pack", [False, True], ids=["plain", "gzip"])
def test_the_ordered_files_and_the_timestamps_give_the_same_store(write, tmp_path, store, pack):
    other = prepare(
        tmp_path / "other",
        source=write("ordered", pack, **{k[:-4]: v for k, v in ordered_files().items()}),
        cache=tmp_path,
    )
    assert other.digest == store.digest
    there = {"source": "", "source_files": {}}
    assert other.encoding["origin"] | there == store.encoding["origin"] | there
    assert other.encoding["origin"]["source_files"].keys() == {
        f"{name}{'.gz' * pack}" for name in ("users.dat", "movies.dat", "train.csv", "test.csv")
    }
    assert other.encoding["origin"]["seed"] == SEED


def test_ratings_of_one_second_keep_their_order_in_the_file(write, tmp_path, store):
    swapped = {user: [rated[1], rated[0], *rated[2:]] for user, rated in FILMS.items()}
    other = prepare(tmp_path / "other", source=write(ratings=ratings_file(swapped)), cache=tmp_path)
    first = rows_of(other).filter("label").group_by("user", maintain_order=True).agg(pl.col("film").first())
    assert dict(first.rows()) == {user: rated[0] for user, rated in swapped.items()}
    assert other.digest != store.digest


def test_which_films_are_drawn_does_not_depend_on_the_ratings_order(write, tmp_path, store):
    reversed_films = {user: rated[::-1] for user, rated in FILMS.items()}
    other = prepare(tmp_path / "other", source=write(ratings=ratings_file(reversed_films)), cache=tmp_path)
    drawn = [rows_of(each).filter(~pl.col("label")).select("user", "film") for each in (store, other)]
    assert drawn[0].sort("user", "film").equals(drawn[1].sort("user", "film"))


def test_preparing_twice_gives_the_same_store(write, tmp_path, store):
    again = prepare(tmp_path / "again", source=write(ratings=ratings_file(mixed=False)), cache=tmp_path)
    assert again.digest == store.digest


def test_negatives_are_uniform_over_the_films_left():
    """Chi-square of 2 x 3 of 17 films over 4,000 users: 16 degrees of freedom, less than 40 with probability .999."""
    users, items = np.repeat(np.arange(4_000), 3), np.tile([3, 7, 19], 4_000)
    examples = sample(users, items, 20)
    counts = np.bincount(examples.item[~examples.label], minlength=20)
    left = np.setdiff1d(np.arange(20), [3, 7, 19])
    assert counts.sum() == counts[left].sum() == 24_000
    expected = 24_000 / 17
    # Without replacement the counts vary less than the multinomial's, by (17 - 6) / (17 - 1).
    assert ((counts[left] - expected) ** 2 / expected).sum() / (11 / 16) < 40


def test_another_seed_draws_other_films():
    users, items = np.zeros(5, np.int64), np.arange(5)
    drawn = [sample(users, items, 500, seed).item for seed in (1, 1, 2)]
    assert drawn[0].tolist() == drawn[1].tolist() != drawn[2].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: text.rindex("\n", 0, -1) + 1], r"has 241 ratings, expected 242"),
        (lambda text: text[:-11], r"ratings\.dat, row 242: .*expected user_id, item_id, rating, timestamp"),
        (lambda text: text.replace("\n1::4::", "\n1::999::"), "name item_id '999'"),
        (lambda text: text.replace("\n1::4::", "\n99::4::"), "name user_id '99'"),
        (lambda text: text.replace("\n1::18::", "\n1::4::"), "two ratings of film 4 by user 1, expected one"),
    ],
)
def test_bad_ratings_are_refused(write, tmp_path, change, message):
    source = write(ratings=change(ratings_file()))
    with pytest.raises(DataError, match=message):
        prepare(tmp_path / "store", source=source, cache=tmp_path)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("name", ["train.csv", "test.csv", "users.dat", "movies.dat"])
def test_an_altered_or_missing_file_is_refused(write, tmp_path, name):
    source = write(**{key[:-4]: text for key, text in ordered_files().items()})
    with (source / name).open("a") as file:
        file.write("1-2-3-4,6-7\n")
    with pytest.raises(DataError, match=rf"{name}: SHA-256 .*, expected"):
        prepare(tmp_path / "store", source=source, cache=tmp_path)
    (source / name).unlink()
    with pytest.raises(DataError, match=rf"lacks the file .*{name}"):
        prepare(tmp_path / "store", source=source, cache=tmp_path)
    assert not (tmp_path / "store").exists()


def test_a_source_that_is_none_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(movielens_1m, "URL", "http://localhost:1/ml-1m.zip")
    with pytest.raises(DataError, match=r"lacks the file ratings\.dat or train\.csv \(plain or \.gz\)"):
        prepare(tmp_path / "store", source=tmp_path, cache=tmp_path)
    with pytest.raises(DataError, match=r"ml-1m\.zip: no such file"):
        prepare(tmp_path / "store", source=tmp_path / "ml-1m.zip", cache=tmp_path)
    with pytest.raises(DataError, match=r"localhost:1/ml-1m\.zip.*give the zip or its unpacked folder"):
        prepare(tmp_path / "store", source=None, cache=tmp_path)


def test_ordered_lines_become_ratings_numbered_from_0():
    assert as_ratings(b"1-6041-6042-6043,3186-3711\n23-1-2-3,7-8\n") == b"1\t3186\t1\t0\n23\t7\t1\t1\n"


@pytest.mark.slow
def test_the_whole_set_has_its_schema_rows_and_draw(tmp_path, shared_data):
    source = shared_data / "ml-1m"
    store = prepare(tmp_path / "store", source=source, cache=tmp_path)
    assert store.schema == SCHEMA
    rows = {name: split.rows for name, split in store.splits.items()}
    assert rows == {"train": 2_407_726, "valid": 291_078, "test": 291_084}
    positives = {name: int(split.columns["labels"].sum()) for name, split in store.splits.items()}
    assert positives == {"train": 805_443, "valid": 97_383, "test": 97_383}
    table = rows_of(store)
    assert not table.select("user", "film").is_duplicated().any()
    text = gzip.decompress((source / "train.csv.gz").read_bytes() + (source / "test.csv.gz").read_bytes()).decode()
    log = {tuple(int(part.split("-")[0]) for part in line.split(",")) for line in text.splitlines()}
    assert set(table.filter("label").select("user", "film").iter_rows()) == log
    # The draw itself, so that no version of any library changes it unnoticed.
    drawn = (
        table.filter(~pl.col("label")).sort("user", "position", maintain_order=True).select("user", "film").to_numpy()
    )
    assert (
        hashlib.sha256(drawn.astype("<i4").tobytes()).hexdigest()
        == "37d398a6adef066c3ea9cc90d330088017b199098d73e9b793c353dd8ba02b0f"
    )
