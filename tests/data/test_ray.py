"""Preparation on a real Ray of two workers: the store of one process; killed workers and drivers; bad input."""

import functools
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from tests.data.sharded_inputs import digest, frame, one_file, several_files, small_shards
from wukong_jax.commands.prepare import main
from wukong_jax.data.engines.ray_engine import RayEngine
from wukong_jax.data.ingest import ingest
from wukong_jax.data.sources import csv_source
from wukong_jax.errors import ConfigError, DataError

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own warnings are not ours to mend
ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ray() -> Iterator[RayEngine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # the workers import this module
        with RayEngine(workers=2) as engine:
            yield engine


class Lethal:
    """Calls whose process is killed when it has written all its files, the first time that each function runs."""

    workers = 2

    def __init__(self, engine: RayEngine, marks: pathlib.Path):
        self.engine, self.marks = engine, marks

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        return self.engine.map(functools.partial(killed_once, self.marks, function), items)


def killed_once(marks: pathlib.Path, function: Any, item: Any) -> Any:
    mark = marks / getattr(function, "func", function).__name__
    if mark.exists():
        return function(item)
    rename = pathlib.Path.rename

    def kill(*_: object) -> None:
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)

    pathlib.Path.rename = kill
    try:
        return function(item)
    finally:
        pathlib.Path.rename = rename


def killed_always(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refused(number: int) -> int:
    """The later mistake is found first."""
    if number == 1:
        time.sleep(1)
    if number in (1, 3):
        raise DataError(f"mistake {number}")
    return number


def squared(number: int) -> int:
    time.sleep(0.3 if number % 3 == 0 else 0.0)
    return number * number


def test_results_come_in_order(ray: RayEngine) -> None:
    assert ray.workers == 2
    assert list(ray.map(squared, range(20))) == [i * i for i in range(20)]
    assert list(ray.map(squared, [])) == []


def test_the_error_is_that_of_the_first_item(ray: RayEngine) -> None:
    results = ray.map(refused, range(8))
    assert next(results) == 0
    with pytest.raises(DataError, match=r"^mistake 1$"):
        next(results)


def test_a_worker_that_always_dies_is_an_error_in_the_end(ray: RayEngine) -> None:
    with pytest.raises(DataError, match=r"died 4 times over one shard.*give fewer --workers"):
        list(ray.map(killed_always, range(4)))


@pytest.mark.parametrize("given", [one_file, several_files])
def test_the_store_is_that_of_one_process_also_where_workers_are_killed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, ray: RayEngine, given: Any
) -> None:
    small_shards(monkeypatch)
    source, columns = given(tmp_path)
    whole = digest(ingest(source, columns, tmp_path / "whole").path)
    assert digest(ingest(source, columns, tmp_path / "calm", engine=ray).path) == whole
    (tmp_path / "marks").mkdir()
    killed = ingest(source, columns, tmp_path / "killed", engine=Lethal(ray, tmp_path / "marks"))
    assert digest(killed.path) == whole
    assert digest(tmp_path / "marks").keys() == {"read_shard", "fit_shard", "encode_shard"}
    entries = {entry.name for entry in tmp_path.iterdir()}
    assert entries - {path.name for _, path in source.files} >= {"whole", "calm", "killed", "marks"}
    assert not any("spill" in name or "partial" in name for name in entries)


def test_a_bad_row_in_a_late_shard_is_named_as_in_one_process(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, ray: RayEngine
) -> None:
    small_shards(monkeypatch)
    source, columns = one_file(tmp_path)
    path = source.files[0][1]
    path.write_text(path.read_text() + "1,u\n" + frame(100).write_csv(include_header=False) + "x\n")
    said = []
    for engine in (None, ray):
        with pytest.raises(DataError) as caught:
            ingest(csv_source({"all": [path]}), columns, tmp_path / "store", engine=engine)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


PREPARED = """
import os, pathlib, signal, sys
import pytest
from tests.data.sharded_inputs import one_file, small_shards
from wukong_jax.data.engines.ray_engine import RayEngine
from wukong_jax.data.ingest import ingest

small_shards(pytest.MonkeyPatch())

def tell(phase, rows):
    if phase == sys.argv[2] and rows > 200:
        os.kill(os.getpid(), signal.SIGKILL)

with RayEngine(workers=2) as engine:
    source, columns = one_file(pathlib.Path(sys.argv[1]))
    ingest(source, columns, pathlib.Path(sys.argv[1]) / "store", progress=tell, engine=engine)
"""


def test_a_killed_driver_leaves_no_store_and_can_be_run_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_shards(monkeypatch)
    source, columns = one_file(tmp_path)
    whole = digest(ingest(source, columns, tmp_path / "whole").path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for phase, code in (("read", -signal.SIGKILL), ("encode", -signal.SIGKILL), ("never", 0)):
        command = [sys.executable, "-c", PREPARED, str(tmp_path), phase]
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert (tmp_path / "store").exists() == (phase == "never")
    assert digest(tmp_path / "store") == whole
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["rows.csv", "store", "whole"]


def run(*arguments: str, folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wukong_jax", "prepare", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)


def test_the_command_with_relative_paths(tmp_path: pathlib.Path) -> None:
    frame(300).write_csv(tmp_path / "rows.csv")
    given = "--files rows.csv --categorical user --numeric age:standardise --on-bad-rows skip --out".split()
    assert run(*given, "whole", folder=tmp_path).returncode == 0
    done = run(*given, "sharded", "--engine", "ray", "--workers", "2", folder=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert digest(tmp_path / "whole") == digest(tmp_path / "sharded")
    (tmp_path / "rows.csv").write_text("label,user,age\n0,a,1\n1,b,old\n")
    refusals = [run(*given[:-3], "--out", "new", *more, folder=tmp_path) for more in ((), ("--engine", "ray"))]
    assert [done.returncode for done in refusals] == [2, 2]
    assert refusals[0].stderr.splitlines()[-1] == refusals[1].stderr.splitlines()[-1]
    assert "rows.csv, line 3: column 'age' holds 'old'" in refusals[1].stderr
    assert "Traceback" not in refusals[1].stderr


def test_an_address_where_nothing_answers(tmp_path: pathlib.Path) -> None:
    frame(10).write_csv(tmp_path / "rows.csv")
    given = f"--files {tmp_path}/rows.csv --categorical user --out {tmp_path}/store --engine ray --ray-address".split()
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(ConfigError, match=r"nothing answers there.*ray start --head"):
            main([*given, address])
    assert not (tmp_path / "store").exists()
