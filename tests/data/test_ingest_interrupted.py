"""`prepare` that is killed, runs out of space, or may not write: never a half store, never a lost one."""

import errno
import hashlib
import io
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest

from wukong_jax.data import spill, store
from wukong_jax.data.ingest import ingest
from wukong_jax.data.readers import blocks
from wukong_jax.data.sources import csv_source
from wukong_jax.data.spec import CategoricalColumn, FractionSplit, IngestSpec, MultiHotColumn, NumericColumn
from wukong_jax.data.store import open_store
from wukong_jax.errors import DataError

SPEC = IngestSpec(
    categorical=(CategoricalColumn("user", min_count=2), CategoricalColumn("item", hash_buckets=50)),
    multi_hot=(MultiHotColumn("tags", 2),),
    numeric=(NumericColumn("price", "standardise"),),
    split=FractionSplit(0.1, 0.1),
)
ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the processes that are killed: block sizes may change the last bit of a mean."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(spill, "BLOCK_ROWS", 500)


@pytest.fixture
def raw(tmp_path: pathlib.Path) -> pathlib.Path:
    lines = ["label,user,item,tags,price"]
    lines += [f"{i % 2},u{i * i % 97},i{i % 61},t{i % 3}|t{i % 5},{i % 11}.5" for i in range(5000)]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "rows.csv"


def digest(folder: pathlib.Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def entries(folder: pathlib.Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# Kills itself when the count-th event comes: a progress call, or a rename of a folder.
KILLED = """
import os, pathlib, signal, sys
from wukong_jax.data import spill
from wukong_jax.data.readers import blocks
from wukong_jax.data.ingest import ingest
from wukong_jax.data.sources import csv_source
from tests.data.test_ingest_interrupted import SPEC

blocks.BLOCK_BYTES, spill.BLOCK_ROWS = 20_000, 500
left = int(sys.argv[3])

def event(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

rename = pathlib.Path.rename
def killing_rename(self, target):
    event()
    result = rename(self, target)
    event()
    return result
pathlib.Path.rename = killing_rename
ingest(csv_source({"all": [sys.argv[1]]}), SPEC, sys.argv[2], progress=event)
print("events left", left)
"""


def run_killed(raw: pathlib.Path, out: pathlib.Path, after: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(raw), str(out), str(after)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


def test_killed_at_any_moment_and_run_again_gives_the_same_store(
    raw: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = digest(ingest(csv_source({"all": [raw]}), SPEC, tmp_path / "undisturbed").path)
    out = tmp_path / "store"
    events = 10**6 - int(run_killed(raw, out, 10**6).stdout.split()[-1])
    assert digest(out) == whole
    # The last four are before and after the two renames that put a store in the place of another.
    for after in (2, events // 2, events - 1):
        assert run_killed(raw, out, after).returncode == -signal.SIGKILL
        assert digest(open_store(out).path) == whole
        ingest(csv_source({"all": [raw]}), SPEC, out)
        assert digest(out) == whole
        assert entries(tmp_path) == ["rows.csv", "store", "undisturbed"]


def test_killed_between_the_two_renames_keeps_the_old_store(raw: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "store"
    whole = digest(ingest(csv_source({"all": [raw]}), SPEC, out).path)
    events = 10**6 - int(run_killed(raw, out, 10**6).stdout.split()[-1])
    assert run_killed(raw, out, events - 2).returncode == -signal.SIGKILL
    assert not out.exists()
    assert digest(open_store(out).path) == whole
    ingest(csv_source({"all": [raw]}), SPEC, out)
    assert entries(tmp_path) == ["rows.csv", "store"]


def test_killed_without_an_older_store_leaves_none(raw: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert run_killed(raw, tmp_path / "store", 20).returncode == -signal.SIGKILL
    with pytest.raises(DataError, match="no such folder; make it with"):
        open_store(tmp_path / "store")


@pytest.mark.parametrize("module", [spill, store])
def test_a_full_disk_leaves_the_old_store_and_nothing_else(
    raw: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, module: object
) -> None:
    out = tmp_path / "store"
    whole = digest(ingest(csv_source({"all": [raw]}), SPEC, out).path)
    opened = pathlib.Path.open
    name = "ids" if module is spill else "ids.i32"

    def open_full(self: pathlib.Path, *args: object, **kwargs: object) -> object:
        if self.name != name:
            return opened(self, *args, **kwargs)
        return _Full()

    monkeypatch.setattr(pathlib.Path, "open", open_full)
    with pytest.raises(DataError, match=r"store.* cannot be written: No space left on device; free some space"):
        ingest(csv_source({"all": [raw]}), SPEC, out)
    monkeypatch.setattr(pathlib.Path, "open", opened)
    assert digest(open_store(out).path) == whole
    assert entries(tmp_path) == ["rows.csv", "store"]


class _Full(io.BytesIO):
    """A file on a disk without space: writing, flushing and the first closing fail."""

    def write(self, _: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        if not self.closed:
            super().close()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_limit_on_file_sizes_is_a_clear_error(raw: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The real thing: the kernel refuses to let a file grow, in the middle of buffered writes."""
    program = """
import resource, signal, sys
from wukong_jax.data.ingest import ingest
from wukong_jax.data.sources import csv_source
from wukong_jax.errors import DataError
from tests.data.test_ingest_interrupted import SPEC
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    ingest(csv_source({"all": [sys.argv[1]]}), SPEC, sys.argv[2])
except DataError as error:
    print(error)
"""
    for limit in (30_000, 45_000):  # the spill's ids need 80,000 bytes, its numbers 40,000, the store's ids 64,000
        command = [sys.executable, "-c", program, str(raw), str(tmp_path / "store"), str(limit)]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert "cannot be written: File too large" in done.stdout
        assert entries(tmp_path) == ["rows.csv"]


def test_a_read_only_target(raw: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The superuser may write anywhere, so the refusal is simulated."""

    def refuse(self: pathlib.Path, *args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
    with pytest.raises(DataError, match=r"cannot be made: Read-only file system; choose another --out"):
        ingest(csv_source({"all": [raw]}), SPEC, tmp_path / "store")
    assert entries(tmp_path) == ["rows.csv"]


def test_an_error_in_the_middle_leaves_the_old_store(raw: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "store"
    whole = digest(ingest(csv_source({"all": [raw]}), SPEC, out).path)
    raw.write_text(raw.read_text() + "1,2\n")
    with pytest.raises(DataError, match="line 5002: 2 columns, expected 5"):
        ingest(csv_source({"all": [raw]}), SPEC, out)
    assert digest(open_store(out).path) == whole
    assert entries(tmp_path) == ["rows.csv", "store"]


def test_a_folder_that_is_no_store_is_not_replaced(raw: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("...")
    with pytest.raises(DataError, match="exists and is not a store"):
        ingest(csv_source({"all": [raw]}), SPEC, tmp_path / "precious")
    assert entries(tmp_path / "precious") == ["thesis.tex"]
