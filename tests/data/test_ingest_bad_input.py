"""Bad input: an error with file, line and fix; or set aside, counted, and never silently dropped."""

import gzip
import pathlib

import pytest

from wukong_jax.data.ingest import encode_frames, ingest
from wukong_jax.data.readers import blocks
from wukong_jax.data.sources import criteo_source, csv_source
from wukong_jax.data.spec import (
    CategoricalColumn,
    FileSplit,
    FractionSplit,
    IngestSpec,
    NumericColumn,
    TimeSplit,
    VectorColumn,
)
from wukong_jax.errors import DataError

SPEC = IngestSpec(
    categorical=(CategoricalColumn("user"), CategoricalColumn("count", bucketing="log2_square")),
    numeric=(NumericColumn("price"),),
    vectors=(VectorColumn("vector", 2),),
    group="user",
    weight="weight",
    time="time",
    split=FractionSplit(0.0, 0.0),
)
HEADER = "label,user,count,price,vector,weight,time"
GOOD = "1,anna,3,2.5,1;2,1,100"
LINE = 57

BAD_LINES = [
    (b"1,anna,3,2.5,1;2,1", "6 columns, expected 7"),
    (b"1,anna,3,2.5,1;2,1,100,x", "8 columns, expected 7"),
    (b"", "1 columns, expected 7"),
    (b"2,anna,3,2.5,1;2,1,100", "column 'label' holds '2', expected the label 0 or 1"),
    (b"-1,anna,3,2.5,1;2,1,100", "column 'label' holds '-1', expected the label 0 or 1"),
    (b",anna,3,2.5,1;2,1,100", "column 'label' holds nothing, expected the label 0 or 1"),
    (b"1,anna,3,cheap,1;2,1,100", "column 'price' holds 'cheap', expected a finite float32 number"),
    (b"1,anna,3,nan,1;2,1,100", "column 'price' holds 'nan', expected a finite"),
    (b"1,anna,3,inf,1;2,1,100", "column 'price' holds 'inf', expected a finite"),
    (b"1,anna,3,-1e39,1;2,1,100", "column 'price' holds '-1e39', expected a finite"),
    (b"1,anna,x,2.5,1;2,1,100", "column 'count' holds 'x', expected an integer"),
    (b"1,anna,3,2.5,1;2;3,1,100", "column 'vector' holds '1;2;3', expected 2 finite numbers"),
    (b"1,anna,3,2.5,1;x,1,100", "column 'vector' holds '1;x', expected 2 finite numbers"),
    (b"1,anna,3,2.5,1;nan,1,100", "column 'vector' holds '1;nan', expected 2 finite numbers"),
    (b"1,anna,3,2.5,,1,100", "column 'vector' holds nothing, expected 2 finite numbers"),
    (b"1,anna,3,2.5,1;2,-1,100", "column 'weight' holds '-1', expected a finite weight"),
    (b"1,anna,3,2.5,1;2,,100", "column 'weight' holds nothing, expected a finite weight"),
    (b"1,anna,3,2.5,1;2,1,noon", "column 'time' holds 'noon', expected a time as an integer"),
    (b"1,,3,2.5,1;2,1,100", "column 'user' holds nothing, expected a group"),
    (b"1,a\xffa,3,2.5,1;2,1,100", "not UTF-8 (invalid start byte at byte 4 of the row)"),
    (b'1,a"n"na,3,2.5,1;2,1,"1"00', 'quotes (") are out of place'),
]


@pytest.fixture(params=[256, 1 << 20], ids=["small blocks", "one block"])
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", request.param)


def write(tmp_path: pathlib.Path, bad: bytes) -> pathlib.Path:
    """A file of 100 rows of which the one on line `LINE` is bad."""
    lines = [HEADER.encode()] + [GOOD.replace("anna", f"user{i % 5}").encode() for i in range(100)]
    lines[LINE - 1] = bad
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.mark.usefixtures("block_bytes")
@pytest.mark.parametrize(("bad", "reason"), BAD_LINES)
def test_a_bad_line_is_named_or_set_aside(tmp_path: pathlib.Path, bad: bytes, reason: str) -> None:
    path, out = write(tmp_path, bad), tmp_path / "store"
    with pytest.raises(DataError) as caught:
        ingest(csv_source({"all": [path]}), SPEC, out)
    assert str(caught.value).startswith(f"{path}, line {LINE}: {reason}")
    assert "--on-bad-rows skip" in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.csv"]

    store = ingest(csv_source({"all": [path]}), SPEC, out, on_bad_rows="skip")
    assert store.split("train").rows == 99
    assert store.encoding["report"]["bad_rows"] == 1
    header, line = (tmp_path / "store.bad_rows.tsv").read_text().splitlines()
    assert header == "file\tline\treason\ttext"
    file, number, why, text = line.split("\t")
    assert (file, number) == (str(path), str(LINE))
    assert why.startswith(reason)
    assert text == bad.decode(errors="backslashreplace")


@pytest.mark.usefixtures("block_bytes")
def test_all_bad_rows_are_counted_in_line_order(tmp_path: pathlib.Path) -> None:
    lines = [HEADER.encode()]
    expected = []
    for i, (bad, _) in enumerate(BAD_LINES):
        lines += [GOOD.encode()] * (i % 4) + [bad]
        expected.append(len(lines))
    lines += [GOOD.encode()]
    (tmp_path / "rows.csv").write_bytes(b"\n".join(lines))
    store = ingest(csv_source({"all": [tmp_path / "rows.csv"]}), SPEC, tmp_path / "store", on_bad_rows="skip")
    table = [line.split("\t") for line in (tmp_path / "store.bad_rows.tsv").read_text().splitlines()[1:]]
    assert [int(row[1]) for row in table] == expected
    assert store.split("train").rows + len(table) == len(lines) - 1


def test_line_numbers_count_line_ends_inside_quotes(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('label,user\n1,"a\nb\nc"\n0,b\n2,c\n')
    spec = IngestSpec(categorical=(CategoricalColumn("user"),), split=FractionSplit(0.0, 0.0))
    with pytest.raises(DataError, match="line 6: column 'label' holds '2'"):
        ingest(csv_source({"all": [path]}), spec, tmp_path / "store")


def test_a_quote_that_is_never_closed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("label,user\n1,a\n1,a\n" + '1,"a\n' + "1,a\n" * 500)
    spec = IngestSpec(categorical=(CategoricalColumn("user"),), split=FractionSplit(0.0, 0.0))
    with pytest.raises(DataError, match=r"line 4: a quote \(\"\) is opened and never closed"):
        ingest(csv_source({"all": [path]}), spec, tmp_path / "store")
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    with pytest.raises(DataError, match="line 4: this row does not end within"):
        ingest(csv_source({"all": [path]}), spec, tmp_path / "store")


def test_an_outdated_file_of_bad_rows_is_removed(tmp_path: pathlib.Path) -> None:
    ingest(csv_source({"all": [write(tmp_path, b"")]}), SPEC, tmp_path / "store", on_bad_rows="skip")
    ingest(csv_source({"all": [write(tmp_path, GOOD.encode())]}), SPEC, tmp_path / "store")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["rows.csv", "store"]


def test_a_bad_row_to_be_scored_is_an_error(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, GOOD.encode())
    store = ingest(csv_source({"all": [path]}), SPEC, tmp_path / "store")
    with pytest.raises(DataError, match=f"line {LINE}: column 'price' holds 'cheap'"):
        list(encode_frames(store, csv_source({"all": [write(tmp_path, b"1,anna,3,cheap,1;2,1,100")]})))


def expect(tmp_path: pathlib.Path, files: list[str], message: str, spec: IngestSpec = SPEC) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match=message):
        ingest(csv_source({"all": [tmp_path / name for name in files]}), spec, tmp_path / "store")
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_file(tmp_path: pathlib.Path) -> None:
    expect(tmp_path, ["rows.csv"], r"rows.csv: no such file")


def test_a_glob_that_matches_nothing(tmp_path: pathlib.Path) -> None:
    expect(tmp_path, ["*.csv"], r"\*.csv: the glob matches no file")


def test_a_folder_in_the_place_of_a_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "rows").mkdir()
    expect(tmp_path, ["rows"], "is a folder; name its files")


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
def test_an_empty_file(tmp_path: pathlib.Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
    expect(tmp_path, [name], f"{name} is empty")


def test_a_header_without_rows(tmp_path: pathlib.Path) -> None:
    (tmp_path / "rows.csv").write_text(HEADER + "\n")
    expect(tmp_path, ["rows.csv"], "has a header but no rows")


def test_a_header_that_lacks_a_named_column(tmp_path: pathlib.Path) -> None:
    (tmp_path / "rows.csv").write_text("label,user,price\n1,a,2\n")
    expect(
        tmp_path, ["rows.csv"], r"no column 'count', 'vector', 'weight', 'time'; it has \['label', 'user', 'price'\]"
    )


def test_a_second_file_that_lacks_a_column(tmp_path: pathlib.Path) -> None:
    write(tmp_path, GOOD.encode())
    (tmp_path / "second.csv").write_text(HEADER.replace("price", "cost") + "\n" + GOOD + "\n")
    expect(tmp_path, ["rows.csv", "second.csv"], "second.csv: no column 'price'")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"label,user,user", r"line 1: the column names \['user'\] occur more than once"),
        (b"label,,user", "line 1: a column has no name"),
        (b"label,\xff", "line 1: the header is not UTF-8"),
    ],
)
def test_a_bad_header(tmp_path: pathlib.Path, header: bytes, message: str) -> None:
    (tmp_path / "rows.csv").write_bytes(header + b"\n1,2,3\n")
    expect(tmp_path, ["rows.csv"], message)


def test_a_truncated_gz_names_the_file(tmp_path: pathlib.Path) -> None:
    packed = gzip.compress(write(tmp_path, GOOD.encode()).read_bytes())
    for size in (5, len(packed) // 2, len(packed) - 3):
        (tmp_path / "rows.csv.gz").write_bytes(packed[:size])
        expect(tmp_path, ["rows.csv.gz"], "rows.csv.gz is truncated")


def test_a_truncated_zst_names_the_file(tmp_path: pathlib.Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    packed = zstandard.ZstdCompressor().compress(write(tmp_path, GOOD.encode()).read_bytes())
    (tmp_path / "rows.csv.zst").write_bytes(packed[: len(packed) // 2])
    expect(tmp_path, ["rows.csv.zst"], "rows.csv.zst is truncated")


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_damaged_packed_file(tmp_path: pathlib.Path, suffix: str) -> None:
    if suffix == "zst":
        pytest.importorskip("zstandard")
    (tmp_path / f"rows.csv.{suffix}").write_bytes(b"label,user\n1,a\n")
    expect(tmp_path, [f"rows.csv.{suffix}"], f"rows.csv.{suffix} is damaged")


def test_a_damaged_gz_checksum(tmp_path: pathlib.Path) -> None:
    packed = bytearray(gzip.compress(write(tmp_path, GOOD.encode()).read_bytes()))
    packed[-6] ^= 1
    (tmp_path / "rows.csv.gz").write_bytes(packed)
    expect(tmp_path, ["rows.csv.gz"], "rows.csv.gz is damaged")


def test_an_empty_split(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, GOOD.encode())
    spec = IngestSpec(numeric=(NumericColumn("price"),), time="time", split=TimeSplit(50, 200))
    with pytest.raises(DataError, match="the split 'train' is empty"):
        ingest(csv_source({"all": [path]}), spec, tmp_path / "store")
    with pytest.raises(DataError, match="files are given for"):
        csv_source({"valid": [path]})


def test_a_file_with_bad_rows_only(tmp_path: pathlib.Path) -> None:
    (tmp_path / "rows.csv").write_text("label,user\n5,a\n6,b\n")
    spec = IngestSpec(categorical=(CategoricalColumn("user"),), split=FractionSplit(0.0, 0.0))
    with pytest.raises(DataError, match=r"no row could be used: all 2 are bad, see .*store.bad_rows.tsv"):
        ingest(csv_source({"all": [tmp_path / "rows.csv"]}), spec, tmp_path / "store", on_bad_rows="skip")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["rows.csv", "store.bad_rows.tsv"]


def test_an_empty_validation_file_set(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, GOOD.encode())
    with pytest.raises(DataError, match="no files are given for 'valid'"):
        csv_source({"train": [path], "valid": []})
    spec = IngestSpec(numeric=(NumericColumn("price"),), split=FileSplit())
    assert set(ingest(csv_source({"train": [path]}), spec, tmp_path / "store").splits) == {"train"}


def test_criteo_lines_of_another_length(tmp_path: pathlib.Path) -> None:
    row = "\t".join(["1"] + ["2"] * 13 + ["ab"] * 26)
    (tmp_path / "day_0").write_text(f"{row}\n{row}\n{row}\tx\n{row}\n")
    spec = IngestSpec(categorical=(CategoricalColumn("C1"),), split=FractionSplit(0.0, 0.0))
    with pytest.raises(DataError, match="day_0, line 3: 41 columns, expected 40"):
        ingest(criteo_source({"all": [tmp_path / "day_0"]}), spec, tmp_path / "store")
