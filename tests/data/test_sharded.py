"""Preparation by map and merge over shards: the store of one process, byte for byte, and its errors, word for word."""

import gzip
import itertools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from tests.data.sharded_inputs import INPUTS, ROWS, InTurn, digest, frame, one_file, several_files, small_shards, spec
from wukong_jax.data import shards
from wukong_jax.data.engines.ray_engine import RayEngine
from wukong_jax.data.fit import merged_counts
from wukong_jax.data.ingest import ingest
from wukong_jax.data.map_shards import Job, ToFit, ToRead, fit_shard, read_shard
from wukong_jax.data.merge_shards import first_rows, merge_fits
from wukong_jax.data.readers import blocks
from wukong_jax.data.readers.blocks import read_blocks
from wukong_jax.data.readers.spans import cut_stretches, spans, tally
from wukong_jax.data.shards import Piece, plan_shards
from wukong_jax.data.sources import FileSource, csv_source
from wukong_jax.data.spec import (
    CategoricalColumn,
    FractionSplit,
    GroupTimeSplit,
    IngestSpec,
    NumericColumn,
    SplitRule,
    TimeSplit,
)
from wukong_jax.errors import ConfigError, DataError, UserError

Input = Callable[[pathlib.Path], tuple[FileSource, IngestSpec]]
ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def several_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch)


def planned(source: FileSource, size: int = 8000) -> list[shards.Shard]:
    return plan_shards(source, size, lambda stretches: map(tally, stretches))


@pytest.mark.parametrize(("given", "workers"), [*((given, 1) for given in INPUTS), (one_file, 6), (several_files, 6)])
def test_the_store_is_that_of_one_process(tmp_path: pathlib.Path, given: Input, workers: int) -> None:
    source, columns = given(tmp_path)
    before = sorted(tmp_path.iterdir())
    whole = ingest(source, columns, tmp_path / "whole", origin={"recipe": "x"})
    sharded = ingest(source, columns, tmp_path / "sharded", origin={"recipe": "x"}, engine=InTurn(workers))
    assert len(planned(source)) > 1
    assert digest(sharded.path) == digest(whole.path)
    assert sharded.digest == whole.digest
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "sharded", tmp_path / "whole"])


def test_a_call_that_is_made_again_changes_nothing(tmp_path: pathlib.Path) -> None:
    source, columns = several_files(tmp_path)
    whole = ingest(source, columns, tmp_path / "whole")
    assert digest(ingest(source, columns, tmp_path / "sharded", engine=InTurn(1, calls=2)).path) == digest(whole.path)


@pytest.mark.parametrize(
    ("places", "rule"),
    [
        ([37, 38, 500], FractionSplit(0.2, 0.1, seed=7)),
        ([*range(0, ROWS, 7), ROWS - 1], FractionSplit(0.2, 0.1, seed=7)),
        (list(range(1, 350)), GroupTimeSplit(0.1, 0.1)),
    ],
    ids=["few", "many", "more than a shard"],
)
def test_bad_rows_of_all_shards_are_set_aside_in_order(
    tmp_path: pathlib.Path, places: list[int], rule: SplitRule
) -> None:
    """The rows after them change their draw."""
    table = frame().with_columns(pl.col("city").replace("two\nlines", "one line"))
    bad = pl.int_range(pl.len()).is_in(places)
    table = table.with_columns(pl.when(bad).then(pl.lit("x")).otherwise(pl.col("age")).alias("age"))
    table.write_csv(tmp_path / "rows.csv")
    source, columns = csv_source({"all": [tmp_path / "rows.csv"]}), spec(rule)
    stores = [
        ingest(source, columns, tmp_path / name, on_bad_rows="skip", engine=engine)
        for name, engine in (("whole", None), ("sharded", InTurn(1)))
    ]
    assert digest(stores[0].path) == digest(stores[1].path)
    assert stores[1].encoding["report"]["bad_rows"] == len(places)
    whole, sharded = (tmp_path / f"{name}.bad_rows.tsv" for name in ("whole", "sharded"))
    assert sharded.read_bytes() == whole.read_bytes()
    assert [int(line.split("\t")[1]) for line in sharded.read_text().splitlines()[1:]] == [i + 2 for i in places]


HEADER = b"label,user,price\n"
GOOD = b"".join(b"%d,u%d,%d.5\n" % (i % 2, i % 7, i) for i in range(600))


BROKEN = {
    "a bad label": {"a.csv": HEADER + GOOD + b"2,u,1\n" + GOOD},
    "the first of two bad rows": {"a.csv": HEADER + GOOD + b"1,u,cheap\n" + GOOD + b"1,u\n"},
    "a bad row in the second file": {"a.csv": HEADER + GOOD, "b.csv": HEADER + GOOD + b"1,u\n"},
    "a quote that is never closed": {"a.csv": HEADER + GOOD + b'1,"u,1\n' + GOOD},
    "a quote that is closed late": {"a.csv": HEADER + GOOD + b'1,"u\n\n",1\n1,"u\n' + GOOD},
    "a very long row": {"a.csv": HEADER + GOOD + b"1,u" + b"x" * 20_000 + b",1\n" + GOOD},
    "another header in the second file": {"a.csv": HEADER + GOOD, "b.csv": b"label,user,cost\n" + GOOD},
    "a name twice": {"a.csv": b"label,user,user\n" + GOOD},
    "a header that is not UTF-8": {"a.csv": b"label,\xff,price\n" + GOOD},
    "an empty file": {"a.csv": HEADER + GOOD, "b.csv": b""},
    "a header without rows": {"a.csv": HEADER + GOOD, "b.csv": HEADER},
    "a truncated packed file": {"a.csv": HEADER + GOOD, "b.csv.gz": gzip.compress(HEADER + GOOD)[:-5]},
}


@pytest.mark.parametrize("files", BROKEN.values(), ids=BROKEN)
def test_an_error_is_that_of_one_process(tmp_path: pathlib.Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    columns = IngestSpec(categorical=(CategoricalColumn("user"),), numeric=(NumericColumn("price"),))
    source = csv_source({"all": [tmp_path / name for name in files]})
    said = []
    for engine in (None, InTurn(1)):
        with pytest.raises(DataError) as caught:
            ingest(source, columns, tmp_path / "store", engine=engine)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(files)


@pytest.mark.parametrize(
    ("columns", "skip"),
    [
        (IngestSpec(categorical=(CategoricalColumn("user"),), time="price", split=TimeSplit(-5, 1)), False),
        (IngestSpec(categorical=(CategoricalColumn("user"),), labels=("price",)), True),
    ],
    ids=["an empty split", "bad rows only"],
)
def test_what_only_all_rows_show_is_the_same_error(tmp_path: pathlib.Path, columns: IngestSpec, skip: bool) -> None:
    (tmp_path / "rows.csv").write_bytes(HEADER + GOOD.replace(b".5", b"00"))
    source = csv_source({"all": [tmp_path / "rows.csv"]})
    said = []
    for engine in (None, InTurn()):
        with pytest.raises(DataError) as caught:
            ingest(source, columns, tmp_path / "store", on_bad_rows="skip" if skip else "error", engine=engine)
        said.append((str(caught.value), digest(tmp_path)))
    assert said[0] == said[1]


def random_text(rng: np.random.Generator, quotes: bool) -> bytes:
    """Lines of very different lengths; line ends, doubled quotes and separators between quotes."""
    lines = [b"\xef\xbb\xbfname,note"] if rng.random() < 0.3 else [b"name,note"]
    for _ in range(int(rng.integers(2, 80))):
        text = b"x" * int(rng.choice([0, 1, 5, 40, 200]))
        if quotes and rng.random() < 0.3:
            text = b'"' + text + [b"\n", b'""', b",", b'\n\n""\n'][int(rng.integers(4))] + text + b'"'
        lines.append(b"a," + text)
    text = [b"\n", b"\r\n"][int(rng.integers(2))].join(lines)
    return text + b"\n" if rng.random() < 0.7 else text


@pytest.mark.parametrize("quote", [None, b'"'])
def test_spans_have_the_blocks_of_the_whole_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, quote: bytes | None
) -> None:
    monkeypatch.setattr(blocks, "MAX_RECORD_BLOCKS", 10_000)
    cuts = 0
    for _ in range(80):
        (tmp_path / "rows").write_bytes(random_text(rng, quote is not None))
        block_bytes = int(rng.choice([1, 7, 64, 300]))
        monkeypatch.setattr(blocks, "BLOCK_BYTES", block_bytes)
        parts = cut_stretches(tmp_path / "rows", quote, int(rng.integers(1, 900)), block_bytes)
        found = spans(parts, [tally(part) for part in parts])
        assert found[0].start == 0
        assert all(one.stop == other.start for one, other in itertools.pairwise(found))
        assert found[-1].stop == (tmp_path / "rows").stat().st_size
        whole = list(read_blocks(tmp_path / "rows", quote=quote))
        assert [block for s in found for block in read_blocks(tmp_path / "rows", quote=quote, span=s)] == whole
        cuts += len(found) - 1
    assert cuts > 300


def test_a_border_is_found_far_behind_its_place(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wukong_jax.data.readers.spans.FIRST_LOOK", 4)
    (tmp_path / "rows").write_bytes(b'a,"1\n2"\n' + b'b,"' + b"\n" * 500 + b'"\n')
    parts = cut_stretches(tmp_path / "rows", b'"', 100, 10)
    found = spans(parts, [tally(part) for part in parts])
    assert [(span.start, span.stop, span.first_line) for span in found] == [(0, 8, 1), (8, 513, 3)]


def test_large_text_is_cut_and_small_files_are_grouped(tmp_path: pathlib.Path) -> None:
    source, _ = several_files(tmp_path)
    found = planned(source, 5000)
    pieces = [piece for shard in found for piece in shard]
    assert list(dict.fromkeys(piece.path for piece in pieces)) == [path for _, path in source.files]
    assert sum(piece.size for piece in pieces) == sum(path.stat().st_size for _, path in source.files)
    assert {piece.path.name for piece in pieces if piece.span is not None} == {"rows1.csv", "rows4.csv"}
    assert any(len(shard) > 1 for shard in found)
    assert all(sum(piece.size for piece in shard) <= 5000 for shard in found if len(shard) > 1)


def test_packed_and_parquet_files_stay_whole(tmp_path: pathlib.Path) -> None:
    (tmp_path / "rows.csv.gz").write_bytes(os.urandom(20_000))
    source = csv_source({"all": [tmp_path / "rows.csv.gz"]})
    assert planned(source) == [(Piece(tmp_path / "rows.csv.gz", None, None, 20_000),)]


def test_counts_of_parts_add_up() -> None:
    codes = [np.array([2, 0], np.int32), np.array([1, 2, 3], np.int32)]
    counts = [np.array([5, 1]), np.array([1, 7, 0])]
    assert merged_counts(codes, counts, 5).tolist() == [1, 1, 12, 0, 0]


def test_counts_and_statistics_against_a_plain_reading(tmp_path: pathlib.Path) -> None:
    """The map and the merge alone, on training rows drawn by the global row number."""
    source, columns = one_file(tmp_path)
    job = Job(source, columns, tmp_path, False, 64)
    parts = [read_shard(job, ToRead(i, shard)) for i, shard in enumerate(planned(source))]
    firsts = first_rows(parts)
    fits = [
        fit_shard(job, ToFit(part, tuple(p.spilled for p in parts[i + 1 :]), firsts[i], firsts[-1]))
        for i, part in enumerate(parts)
    ]
    merged = merge_fits(columns, fits)
    table = frame()
    whole = ingest(source, columns, tmp_path / "whole")
    train = whole.split("train").columns["time"]
    assert firsts[-1] == ROWS == sum(merged.rows.values())
    assert merged.rows["train"] == len(train)
    assert (merged.statistics["time"].minimum, merged.statistics["time"].maximum) == (train.min(), train.max())
    assert merged.statistics["time"].mean == pytest.approx(float(train.mean()), rel=1e-12)
    values = [pl.read_ipc(tmp_path / f"read-{i:05}" / "values-0.arrow")["value"].to_list() for i in range(len(parts))]
    assert sorted(set().union(*values)) == sorted(set(table["user"]))
    counted = sum(int(np.load(tmp_path / f"fit-{i:05}" / "counts-0.npy").sum()) for i in range(len(parts)))
    assert counted == len(train)


def test_spill_of_a_shard_that_is_cut_short_is_an_error(tmp_path: pathlib.Path) -> None:
    source, columns = one_file(tmp_path)
    job = Job(source, columns, tmp_path, False, 64)
    part = read_shard(job, ToRead(0, planned(source)[0]))
    with (tmp_path / "read-00000" / "ids").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(DataError, match="ids holds fewer rows than"):
        fit_shard(job, ToFit(part, (), 0, part.spilled.rows))


def test_a_folder_that_a_worker_does_not_see_is_named(tmp_path: pathlib.Path) -> None:
    source, columns = one_file(tmp_path)
    job = Job(source, columns, tmp_path / "elsewhere", False, 64)
    with pytest.raises(DataError, match=r"elsewhere cannot be written on .*--out in a folder that every node sees"):
        read_shard(job, ToRead(0, planned(source)[0]))


def test_a_source_without_files_has_no_shards(tmp_path: pathlib.Path) -> None:
    source, columns = one_file(tmp_path)
    with pytest.raises(ConfigError, match="expected a source of files"):
        ingest(lambda: source(), columns, tmp_path / "store", engine=InTurn())


# Kills itself when the count-th event comes: a progress call, or a rename of a folder.
KILLED = """
import os, pathlib, signal, sys
import pytest
from tests.data.sharded_inputs import InTurn, one_file, small_shards
from wukong_jax.data.ingest import ingest

small_shards(pytest.MonkeyPatch())
left = int(sys.argv[2])

def event(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

rename = pathlib.Path.rename
def killing_rename(self, target):
    event()
    return rename(self, target)
pathlib.Path.rename = killing_rename
source, columns = one_file(pathlib.Path(sys.argv[1]))
ingest(source, columns, pathlib.Path(sys.argv[1]) / "store", progress=event, engine=InTurn(1))
print("events left", left)
"""


def run_killed(folder: pathlib.Path, after: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", KILLED, str(folder), str(after)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


def test_a_killed_driver_leaves_no_half_store_and_can_be_run_again(tmp_path: pathlib.Path) -> None:
    source, columns = one_file(tmp_path)
    whole = digest(ingest(source, columns, tmp_path / "whole").path)
    events = 10**6 - int(run_killed(tmp_path, 10**6).stdout.split()[-1])
    assert digest(tmp_path / "store") == whole
    for after in (events // 3, events - 2):
        shutil.rmtree(tmp_path / "store")
        assert run_killed(tmp_path, after).returncode == -signal.SIGKILL
        assert not (tmp_path / "store").exists()
        assert digest(ingest(source, columns, tmp_path / "store", engine=InTurn(1)).path) == whole
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["rows.csv", "store", "whole"]


def test_ray_that_is_not_installed_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"Ray is not installed .*`pip install ray`"):
        RayEngine()


def test_a_number_of_workers_below_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--workers: received 0, expected at least 1"):
        RayEngine(workers=0)
