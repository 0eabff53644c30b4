"""Files of events: every format gives the same sequences, rows are put in order and counted, bad cells are named."""

import datetime
import gzip
import itertools

import numpy as np
import polars as pl
import pytest

from wukong_jax.errors import DataError
from wukong_jax.sequential.read_events import format_of, read_events

ROWS = [("7", "30", 5), ("7", "4", 1), ("10", "30", 9), ("7", "100", 5), ("10", "4", 2), ("-3", "4", 0)]
"""User, item, time: users and items with gaps, not in time order, one tie (30 before 100) and one user of one event."""
LISTS = {"-3": ["4"], "7": ["4", "30", "100"], "10": ["4", "30"]}
TIMES = [0, 1, 5, 5, 2, 9]


def named(sequences):
    """Original ids: user to items."""
    return {
        user: sequences.item_names[sequences.of(number)].tolist()
        for number, user in enumerate(sequences.user_names.tolist())
    }


def write(path, text):
    (path.write_bytes if isinstance(text, bytes) else path.write_text)(text)
    return path


def table(rows, separator=",", header=("user", "item", "time")):
    return "".join(separator.join(map(str, row)) + "\n" for row in [header, *rows])


def frame(rows, kind):
    columns = list(zip(*rows, strict=True))
    return pl.DataFrame({"user": columns[0], "item": columns[1], "time": columns[2]}).cast({"user": kind, "item": kind})


@pytest.fixture(params=["csv", "tsv", "csv.gz", "integers", "text", "categories"])
def file_of_rows(request, tmp_path):
    if request.param in ("integers", "text", "categories"):
        kind = {"integers": pl.Int64, "text": pl.String, "categories": pl.Categorical}[request.param]
        table_of_rows = frame(ROWS, pl.String).cast({"user": kind, "item": kind})
        table_of_rows.write_parquet(tmp_path / "events.parquet")
        return tmp_path / "events.parquet"
    text = table(ROWS, "\t" if request.param == "tsv" else ",")
    content = gzip.compress(text.encode()) if request.param.endswith(".gz") else text
    return write(tmp_path / f"events.{request.param}", content)


def test_every_kind_of_table_gives_the_users_in_time_order(file_of_rows):
    read = read_events(file_of_rows)
    assert named(read.sequences) == LISTS
    assert read.sequences.times.tolist() == TIMES
    assert (read.duplicates, read.out_of_order, read.ties) == (0, 2, 1)
    assert read.sequences.user_names.tolist() == ["-3", "7", "10"]
    assert read.sequences.item_names.tolist() == ["4", "30", "100"]
    assert read.sequences.items.dtype == np.int32
    assert read.sequences.origin == str(file_of_rows)


def test_columns_are_chosen_by_name_among_others(tmp_path):
    rows = [("x", time, user, "y", item) for user, item, time in ROWS]
    path = write(tmp_path / "log.csv", table(rows, header=("a", "at", "who", "b", "what")))
    assert named(read_events(path, "who", "what", "at").sequences) == LISTS


def test_ids_of_text_are_numbered_as_they_first_appear(tmp_path):
    rows = [("zoe", "b", 2), ("adam", "a", 1), ("zoe", "10", 1), ("adam", "b", 3)]
    sequences = read_events(write(tmp_path / "e.csv", table(rows))).sequences
    assert sequences.user_names.tolist() == ["zoe", "adam"]
    assert sequences.item_names.tolist() == ["b", "a", "10"]
    assert named(sequences) == {"zoe": ["10", "b"], "adam": ["a", "b"]}


def test_different_texts_of_one_number_are_different_ids(tmp_path):
    rows = [("01", "5", 1), ("1", "5", 1), ("1", "05", 2)]
    assert named(read_events(write(tmp_path / "e.csv", table(rows))).sequences) == {"01": ["5"], "1": ["5", "05"]}


def test_rows_in_any_order_give_the_same_but_for_ties(tmp_path, rng):
    rows = [(user, item, time) for user in range(9) for time, item in enumerate(rng.integers(0, 30, 12).tolist())]
    shuffled = [rows[place] for place in rng.permutation(len(rows))]
    straight, mixed = (
        read_events(write(tmp_path / f"{name}.csv", table(one))) for name, one in (("a", rows), ("b", shuffled))
    )
    np.testing.assert_array_equal(straight.sequences.items, mixed.sequences.items)
    np.testing.assert_array_equal(straight.sequences.offsets, mixed.sequences.offsets)
    assert straight.out_of_order == 0
    own = [[row[2] for row in shuffled if row[0] == user] for user in range(9)]
    assert mixed.out_of_order == sum(now < before for one in own for before, now in itertools.pairwise(one))


def test_duplicates_are_dropped_and_repeats_are_kept(tmp_path):
    rows = [(1, 5, 10), (1, 6, 10), (1, 5, 10), (1, 5, 11), (2, 5, 10), (1, 5, 10)]
    read = read_events(write(tmp_path / "e.csv", table(rows)))
    assert named(read.sequences) == {"1": ["5", "6", "5"], "2": ["5"]}
    assert (read.duplicates, read.out_of_order, read.ties) == (2, 1, 1)


@pytest.mark.parametrize(
    ("cells", "times"),
    [
        (["3", "2", "1"], [1, 2, 3]),
        (["3.0", "2.", " 1"], [1, 2, 3]),
        (["1.75", "1.5", "-1.25"], [-2, 1, 1]),
        (["1.5e9", "1.4e9", "2"], [2, 1_400_000_000, 1_500_000_000]),
        (["2024-05-01 12:30:00", "2024-05-01 12:29:59", "1970-01-01 00:00:01"], [1, 1714566599, 1714566600]),
        (["2024-05-01", "2024-04-30", "1970-01-02"], [86_400, 1714435200, 1714521600]),
        (["2024-05-01T12:30:00+02:00", "2024-05-01T12:29:59+02:00", "1970-01-01T00:00:01+00:00"],
         [1, 1714559399, 1714559400]),
    ],
)  # fmt: skip
def test_times_are_integers_decimals_or_dates(tmp_path, cells, times):
    """The rows are in falling order of time, so that items must come out as 3, 2, 1."""
    rows = [(1, item, cell) for item, cell in zip((1, 2, 3), cells, strict=True)]
    sequences = read_events(write(tmp_path / "e.csv", table(rows))).sequences
    assert sequences.times.tolist() == times
    assert named(sequences) == {"1": ["3", "2", "1"]}


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_dates_of_parquet_files_are_seconds(tmp_path, unit):
    moments = [datetime.datetime(2024, 5, 1, 12, 30, second) for second in (1, 0)]
    events = pl.DataFrame({"user": [1, 1], "item": [1, 2], "time": moments})
    events.cast({"time": pl.Datetime(unit)}).write_parquet(tmp_path / "e.parquet")
    sequences = read_events(tmp_path / "e.parquet").sequences
    assert sequences.times.tolist() == [1714566600, 1714566601]
    assert named(sequences) == {"1": ["2", "1"]}


@pytest.mark.parametrize("time", [datetime.time(12, 30), datetime.timedelta(seconds=5), True, [5], b"5"])
def test_parquet_columns_that_are_no_times_are_refused(tmp_path, time):
    pl.DataFrame({"user": [1], "item": [2], "time": [time]}).write_parquet(tmp_path / "e.parquet")
    with pytest.raises(DataError, match=r"(?s)row 1: column 'time' .the time. is .*; expected an integer, a decimal"):
        read_events(tmp_path / "e.parquet")


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["20", "9"])])
def test_times_of_parquet_categories_are_their_text(tmp_path, kind):
    events = pl.DataFrame({"user": [1, 1], "item": [1, 2], "time": ["20", "9"]})
    events.cast({"time": kind}).write_parquet(tmp_path / "e.parquet")
    assert read_events(tmp_path / "e.parquet").sequences.times.tolist() == [9, 20]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_lists_of_items_keep_their_order(tmp_path, suffix):
    text = b"7 4 30 100\n\n-3 4\r\n10 4 30\n8\n"
    path = write(tmp_path / f"data.txt{suffix}", gzip.compress(text) if suffix else text)
    read = read_events(path, format="lists")
    assert named(read.sequences) == {"-3": ["4"], "7": ["4", "30", "100"], "8": [], "10": ["4", "30"]}
    assert read.sequences.times is None
    assert read[1:] == (0, 0, 0)


@pytest.mark.parametrize("separator", [" ", "\t"])
def test_pairs_keep_their_order(tmp_path, separator):
    pairs = [("7", "4"), ("10", "4"), ("7", "30"), ("-3", "4"), ("10", "30"), ("7", "100")]
    path = write(tmp_path / "pairs.txt", "".join(separator.join(pair) + "\n" for pair in pairs))
    assert named(read_events(path, format="pairs").sequences) == LISTS


@pytest.mark.parametrize(
    ("name", "format"), [("a.csv", "csv"), ("a.b.tsv.gz", "tsv"), ("a.csv.zst", "csv"), ("x.parquet", "parquet")]
)
def test_the_name_tells_the_format(tmp_path, name, format):
    assert format_of(tmp_path / name) == format


BAD_TABLES = {
    "empty": ("", "e.csv is empty"),
    "header only": (table([]), "has a header but no rows"),
    "unknown column": (
        table(ROWS, header=("usr", "item", "time")),
        "no column 'user' .the user.; its columns are usr, i",
    ),
    "missing item": (
        table([(1, 2, 3), (1, "", 4)]),
        "e.csv, line 3: column 'item' .the item. is empty; fill in or rem",
    ),
    "blank user": (table([(1, 2, 3), (" ", 1, 4)]), "line 3: column 'user' .the user. is empty"),
    "missing time": (table([(1, 2, 3), (1, 2, 4), (1, 2, "")]), "line 4: column 'time' .the time. is empty"),
    "short row": ("user,item,time\n1,2,3\n1,2\n", "e.csv, line 3: 2 columns, expected 3"),
    "no time": (table([(1, 2, 3), (1, 2, "soon")]), "line 3: column 'time' .the time. is 'soon'; expected an integer"),
    "infinite": (table([(1, 2, "1.5"), (1, 2, "inf")]), "line 3: column 'time' .the time. is 'inf'; expected"),
    "not a number": (table([(1, 2, "1.5"), (1, 2, "nan")]), "line 3: column 'time' .the time. is 'nan'; expected"),
    "too large": (
        table([(1, 2, "1.5"), (1, 2, "2.5"), (1, 2, 10**17)]),
        "line 4: column 'time' .the time. is '1000000000000",
    ),
    "two kinds": (table([(1, 2, "2024-05-01"), (1, 2, "2024-05-02"), (1, 2, 5)]), "line 4: column 'time'"),
    "two of one name": (table(ROWS, header=("user", "user", "time")), "column names .'user'. occur more than once"),
}


@pytest.mark.parametrize(("text", "message"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_a_table_that_cannot_be_used_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_events(write(tmp_path / "e.csv", text))


@pytest.mark.parametrize(
    ("format", "text", "message"),
    [
        ("lists", b"", "is empty"),
        ("lists", b"1\n2\n", "no line has an item"),
        ("lists", b"1 2\n3 4\n1 5\n", "line 3: user 1 is also on line 1; expected one line"),
        ("lists", b"1 2\n\xff 4\n", "line 2: not UTF-8"),
        ("pairs", b"1 2\n3\n", "line 2: 1 columns, expected 2"),
        ("pairs", b"1 2\n3 \n", "line 2: column 'item' .the item. is empty"),
        ("pairs", b"1 2 3\n", "line 1: 3 columns, expected 2"),
    ],
)
def test_lines_that_cannot_be_used_are_refused(tmp_path, format, text, message):
    with pytest.raises(DataError, match=message):
        read_events(write(tmp_path / "e.txt", text), format=format)


def test_cells_of_parquet_are_named_by_their_row(tmp_path):
    events = pl.DataFrame({"user": [1, 2, 3], "item": [1, None, 3], "time": [1.0, 2.0, None]})
    events.write_parquet(tmp_path / "e.parquet")
    with pytest.raises(DataError, match="row 2: column 'item'"):
        read_events(tmp_path / "e.parquet")
    events.with_columns(item=pl.Series([1.5, 2.0, 3.0])).write_parquet(tmp_path / "e.parquet")
    with pytest.raises(DataError, match="column 'item' holds Float64, expected integers or text"):
        read_events(tmp_path / "e.parquet")


def test_a_line_far_into_a_file_of_many_blocks_is_named(tmp_path, monkeypatch):
    from wukong_jax.data.readers import blocks

    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    rows = [(user, user % 7, time) for time, user in enumerate(range(500))]
    assert read_events(write(tmp_path / "e.csv", table(rows))).sequences.num_events == 500
    rows[333] = (333, "", 333)
    with pytest.raises(DataError, match="line 335: column 'item'"):
        read_events(write(tmp_path / "e.csv", table(rows)))


def test_lines_are_right_where_rows_go_over_two_of_them(tmp_path, monkeypatch):
    from wukong_jax.data.readers import blocks

    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    for wrong in range(20, 35):
        rows = [(7, f'"a\nb{row}"', "" if row == wrong else row) for row in range(40)]
        with pytest.raises(DataError, match=f"line {2 + 2 * wrong}: column 'time'"):
            read_events(write(tmp_path / "e.csv", table(rows)))


def test_files_that_are_not_there_or_tell_nothing_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        read_events(tmp_path / "none.csv")
    with pytest.raises(DataError, match="is a folder, expected a file"):
        read_events(tmp_path)
    with pytest.raises(DataError, match="the name does not tell the format"):
        read_events(write(tmp_path / "events.dat", "1 2 3\n"))
    with pytest.raises(DataError, match="received user, user, time for user, item and time, expected three"):
        read_events(write(tmp_path / "e.csv", table(ROWS)), item="user")
