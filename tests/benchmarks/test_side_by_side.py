"""The speed benchmark's own maths: cells, batches, grouping, report; the peer where torch is."""

import ctypes
import json
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from benchmarks.side_by_side.allocator import environment
from benchmarks.side_by_side.batches import distinct_rows, make_batches, zipf_ids
from benchmarks.side_by_side.cells import Cell, field_sizes, grid, select
from benchmarks.side_by_side.driver import main
from benchmarks.side_by_side.measure import NotEqualError, compare
from benchmarks.side_by_side.mkl_path import STRONG_AVX2, STRONG_AVX512, other_path, variables_of
from benchmarks.side_by_side.peers import NAIVE, OURS, STRONG, memory_needed, residents
from benchmarks.side_by_side.report import markdown, plot_ratios, ratios, speeds, write_section
from benchmarks.side_by_side.run_config import cell_cost
from benchmarks.side_by_side.source import step_digest
from wukong_jax.errors import ConfigError

MACHINE = {
    "vendor": "GenuineIntel",
    "cpu": "Some CPU, family 6, model 1",
    "cores": 2,
    "memory_gib": 24,
    "python": "3.11",
    "jax": "0.10.2",
    "platform": "cpu",
    "device": "cpu",
    "torch": "2.13.0",
}


@pytest.mark.parametrize(
    ("shape", "forward", "parameters"), [("S", 0.19e6, 0.07e6), ("M", 5.92e6, 2.5e6), ("L", 47.7e6, 21.3e6)]
)
def test_shapes_cost_what_was_published(shape: str, forward: float, parameters: float) -> None:
    infer = cell_cost(Cell(shape, 64, 10**6, "infer"))
    assert infer.flops == pytest.approx(forward, rel=0.005)
    assert infer.dense_parameters == pytest.approx(parameters, rel=0.05)
    assert cell_cost(Cell(shape, 64, 10**6, "train")).flops == 3 * infer.flops


@pytest.mark.parametrize("rows", [100_000, 10**6, 10**7, 5 * 10**7])
def test_field_sizes_add_up_and_keep_the_small_fields(rows: int) -> None:
    sizes = field_sizes(rows, 26)
    assert sum(sizes) == rows
    assert min(sizes) >= 3
    if rows <= 10**7:
        assert sizes[8] == 3
        assert sizes[5] == 24


def test_zipf_ids_follow_the_law_in_head_and_tail() -> None:
    size, draws = 200_000, 400_000
    ids = zipf_ids(size, draws, np.random.default_rng(0))
    weights = np.arange(1, size + 1.0) ** -1.05
    expected = draws * weights / weights.sum()
    for low, high in ((0, 1), (1, 2), (9, 10), (10, 1000), (1000, 65_536), (65_536, 100_000), (100_000, size)):
        count, mean = np.sum((ids >= low) & (ids < high)), expected[low:high].sum()
        assert abs(count - mean) < 5 * np.sqrt(mean)


@pytest.mark.parametrize(
    ("batch", "rows", "low", "high"),
    [(4096, 10**6, 23_500, 28_000), (4096, 10**7, 24_000, 28_000), (16384, 10**6, 64_000, 80_000)],
)
def test_batches_touch_as_many_rows_as_was_published(batch: int, rows: int, low: int, high: int) -> None:
    cell = Cell("S", batch, rows, "train")
    batches = make_batches(cell, count=1)
    touched = distinct_rows(cell, batches["ids"][0])
    assert low <= len(touched) <= high
    assert touched[0] >= 0
    assert touched[-1] < rows
    assert 0.2 < batches["labels"].mean() < 0.3


def test_selection_takes_words_of_the_label() -> None:
    cells = grid(gpu=False)
    assert len({cell.label for cell in cells}) == len(cells)
    chosen = select(cells, ("M 16384 1M",))
    assert {cell.label for cell in chosen} == {
        "M 16384 1M train rowwise_adagrad float32",
        "M 16384 1M infer rowwise_adagrad float32",
    }
    assert select(cells, ()) == cells
    assert not any(cell.shape_name == "L+" for cell in cells)
    assert any(cell.shape_name == "L+" for cell in grid(gpu=True))


def test_peers_that_do_not_fit_together_are_grouped_with_ours() -> None:
    needs = {OURS: 3, STRONG: 4, STRONG_AVX2: 4, NAIVE: 15}
    assert residents(needs, 30) == [[OURS, STRONG, STRONG_AVX2, NAIVE]]
    assert residents(needs, 20) == [[OURS, STRONG, STRONG_AVX2], [OURS, NAIVE]]
    assert residents(needs, 8) == [[OURS, STRONG], [OURS, STRONG_AVX2]]
    assert residents(needs, 1) == [[OURS]]


def test_naive_peer_needs_six_tables() -> None:
    cell = Cell("M", 4096, 10**7, "train")
    more = memory_needed(NAIVE, cell, 0, None) - memory_needed(STRONG, cell, 0, None)
    assert more == pytest.approx(5 * 4 * 64 * 10**7, rel=0.02)


def test_a_micro_batch_bounds_the_activations() -> None:
    cell = Cell("L", 16384, 10**6, "train")
    whole, part = (memory_needed(STRONG, cell, 1000, size) for size in (None, 1024))
    assert whole - part == 1000 * (16384 - 1024) // 2


@pytest.mark.parametrize(
    ("theirs", "message"),
    [([0.7, 0.6 * (1 + 3e-4)], "loss_after_1_step"), ([0.70001, 0.6], "loss"), ([0.7, float("nan")], "NaN")],
)
def test_a_peer_with_another_loss_is_refused(theirs: list[float], message: str) -> None:
    cell = Cell("S", 4096, 10**6, "train")
    with pytest.raises(NotEqualError, match=message):
        compare({"losses": [0.7, 0.6]}, {"losses": theirs}, cell, same_updates=True, gpu=False)
    assert compare({"losses": [0.7, 0.6]}, {"losses": [0.7, 9.0]}, cell, same_updates=False, gpu=False) == {"loss": 0.0}


def test_logits_are_compared_relative_to_their_size() -> None:
    cell = Cell("S", 4096, 10**6, "infer")
    with pytest.raises(NotEqualError):
        compare({"logits": [1e-3, -1e-3]}, {"logits": [1e-3, -1.001e-3]}, cell, same_updates=True, gpu=False)


def made_record(cell: Cell) -> dict[str, Any]:
    """Ours 0.1 s a step, strong 0.2 s, naive 1 s, in two groups; ours is slower in the second."""

    def result(seconds: float) -> dict[str, Any]:
        rounds = [{"steps": 10, "seconds": 10 * seconds * factor, "others": 0.0} for factor in (0.9, 1.0, 1.2)]
        return {"warm_compile_s": 0.5, "rounds": rounds, "peak_rss_mib": 700.0, "peak_gflops": 100.0}

    return {
        "cell": cell.to_json(),
        "flops": 10**6,
        "variant": {"naive": False, "form": "fused", "compile": True, "micro_batch": 512},
        "checks": {
            OURS: {"cold_compile_s": 3.0},
            STRONG: {"cold_compile_s": 28.0, "tables": "TBE", "loss": 1e-7},
            NAIVE: {"cold_compile_s": 0.0, "tables": "dense", "loss": 2e-7},
        },
        "groups": [{OURS: result(0.1), STRONG: result(0.2)}, {OURS: result(0.125), NAIVE: result(1.0)}],
        "left_out": [STRONG_AVX2],
        "code": f"code of {cell.mode}",
    }


def test_ratios_are_taken_within_the_rounds_timed_together() -> None:
    record = made_record(Cell("M", 1000, 10**6, "train"))
    assert speeds(record)[OURS] == pytest.approx((10_000, 1000 / 0.12, 1000 / 0.09))
    assert ratios(record) == pytest.approx({STRONG: 2.0, NAIVE: 8.0})


def test_report_shows_ratios_share_of_peak_and_what_was_left_out(tmp_path: pathlib.Path) -> None:
    records = [made_record(Cell("M", 1000, 10**6, mode)) for mode in ("train", "infer")]
    section = markdown(MACHINE, "libjemalloc", json.loads(json.dumps(records)), "plot.png")
    row = next(line for line in section.splitlines() if line.startswith("| M 1000 1M | 10.0k"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:5] == ["10.0k (8,333 to 11.1k)", "5,000 (4,167 to 5,556)", "-", "1,000 (833 to 1,111)"]
    assert cells[5:8] == ["2.00", "-", "8.00"]
    assert cells[8:] == ["10, 5", "10%, 5%"]
    assert "libjemalloc" in section
    assert "strong_avx2 at M 1000 1M" in section
    assert "by its digest: code of train (1 cells), code of infer (1 cells)." in section
    assert "3.0 (0.5) | 28.0 (0.5)" in section
    assert plot_ratios(tmp_path / "plot.png", records)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_only_the_measured_path_of_mkl_has_a_column() -> None:
    record = made_record(Cell("M", 1000, 10**6, "train"))
    record["groups"][0][STRONG_AVX512], record["left_out"] = record["groups"][0][STRONG], []
    section = markdown(MACHINE, "libjemalloc", [record], None)
    assert "ours / strong, AVX-512" in section
    assert "ours / strong, AVX2" not in section


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_other_path_of_mkl_is_avx2_on_intel_and_avx512_told_of_intel_elsewhere(tmp_path: pathlib.Path) -> None:
    assert other_path("GenuineIntel") == STRONG_AVX2
    assert variables_of(STRONG_AVX2, {}, tmp_path) == {"MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    assert other_path("AuthenticAMD") == STRONG_AVX512
    preloaded = variables_of(STRONG_AVX512, {"LD_PRELOAD": "/lib/libjemalloc.so.2"}, tmp_path)["LD_PRELOAD"]
    allocator, library = preloaded.split(":")
    assert allocator == "/lib/libjemalloc.so.2"
    assert ctypes.CDLL(library).mkl_serv_intel_cpu_true() == 1
    assert variables_of(STRONG, {"LD_PRELOAD": "a"}, tmp_path) == {}


def test_section_replaces_itself_and_nothing_else(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text("# Performance\n\nBefore.\n")
    write_section(path, "a", "first\n")
    write_section(path, "b", "other machine\n")
    write_section(path, "a", r"second \1" + "\n")
    text = path.read_text()
    assert text.startswith("# Performance\n\nBefore.\n")
    assert "first" not in text
    assert text.count(r"second \1") == 1
    assert text.count("other machine") == 1


def test_every_process_gets_the_same_allocator(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "something.so")
    assert "LD_PRELOAD" not in environment("default", tmp_path)
    assert "hugetlb=1" in environment("glibc_tuned", tmp_path)["GLIBC_TUNABLES"]
    library = tmp_path / "libjemalloc.so.2"
    library.touch()
    assert environment(str(library), tmp_path)["LD_PRELOAD"] == str(library)
    with pytest.raises(ConfigError, match="--allocator"):
        environment("jemalloc", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["train", "infer"])
@pytest.mark.parametrize("peer", [STRONG, NAIVE])
def test_peers_compute_what_ours_computes(tmp_path: pathlib.Path, mode: str, peer: str) -> None:
    pytest.importorskip("torch", reason="the PyTorch peers need torch: pip install '.[experiments]'")
    from benchmarks.side_by_side.batches import write_batches
    from benchmarks.side_by_side.measure import check_equality
    from benchmarks.side_by_side.peers import NAIVE_VARIANT, QUICK_VARIANT, Bench

    cell = Cell("S", 256, 10_000, mode)
    bench = Bench(tmp_path, environment("default", pathlib.Path(__file__).resolve().parents[2]))
    write_batches(cell, tmp_path / "batches.npz")
    variant = NAIVE_VARIANT if peer == NAIVE else QUICK_VARIANT | {"micro_batch": 64}
    checks = check_equality(bench, cell, {OURS: variant, peer: variant})
    assert checks[peer]["logits" if mode == "infer" else "loss"] < 1e-4


def test_the_digest_of_the_step_follows_its_sources_alone(tmp_path: pathlib.Path) -> None:
    def write(name: str, text: str) -> str:
        path = tmp_path / "wukong_jax" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return step_digest(tmp_path)

    first = write("ops/fm.py", "1")
    kernel = write("ops/cpu/fm.cc", "1")
    assert kernel != first
    assert write("cli.py", "1") == write("training/notes.txt", "1") == kernel
    assert write("training/step.py", "") not in (first, kernel)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--all", "--cells", "M 4096"], "--cells: received ['M 4096'] and --all"),
        (["--write", "a.md"], "--write: received a.md, but a quick run"),
        (["--quick", "--all", "--rounds", "3"], "--rounds: received 3, but a quick run"),
        (["--cells", "M 4096", "--seconds", "0"], "--seconds: received 0.0, expected more than 0"),
        (["--cells", "none such"], "--cells: received ['none such'], which selects none of"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["speed.py", *words])
    monkeypatch.setattr("benchmarks.side_by_side.driver.describe_machine", lambda *_: MACHINE)
    assert main("description") == 2
    assert message in capsys.readouterr().err


def test_what_the_peers_share_with_us_does_not_load_jax() -> None:
    program = (
        "import sys; import benchmarks.side_by_side.cells, benchmarks.side_by_side.batches; print('jax' in sys.modules)"
    )
    root = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
