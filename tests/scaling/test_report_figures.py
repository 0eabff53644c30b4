"""What the figures show, read from their axes, against what was planted; and that they differ in black and white."""

import itertools
import math
import statistics

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.scaling.report_made import (
    ABLATION,
    BATCH,
    FLOOR,
    KNOBS,
    SIZES,
    Made,
    ablation,
    data,
    dlrm_law,
    joint_law,
    knobs,
    ladder,
    write_made,
    wukong_law,
)
from wukong_jax.scaling.report import make_report
from wukong_jax.scaling.report_changes import ablation_figure, knob_figure
from wukong_jax.scaling.report_curves import data_curves, data_figure, ladder_figure
from wukong_jax.scaling.report_data import read_runs, study_of
from wukong_jax.scaling.report_effects import PUBLISHED, effects
from wukong_jax.scaling.report_laws import curve_laws, joint_laws
from wukong_jax.scaling.report_style import MARKERS, logarithmic, rendered, style


def study(folder, runs, name):
    return study_of(read_runs(write_made(folder, runs)), name)


def shown_points(axes):
    """(x, y) of every plotted line that has a marker and data, by its marker."""
    found = {}
    for line in axes.get_lines():
        if line.get_marker() in tuple(MARKERS) and len(line.get_xdata()):
            found.setdefault(line.get_marker(), []).extend(zip(line.get_xdata(), line.get_ydata(), strict=True))
    return found


def shown_laws(axes):
    """(x, y) of every line without markers, in the order of the series."""
    lines = [line for line in axes.get_lines() if line.get_marker() == "None" and len(line.get_xdata()) == 100]
    return [(np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in lines]


def bars_of(axes):
    """Lower and upper end of every error bar."""
    segments = [c.get_segments() for c in axes.collections if hasattr(c, "get_segments")]
    return [(float(s[0][1]), float(s[1][1])) for part in segments for s in part]


def legend_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


@pytest.fixture(scope="module")
def climbed(tmp_path_factory):
    """A ladder of two models, its laws and figure."""
    folder = tmp_path_factory.mktemp("ladder")
    found = study(folder, ladder(np.random.default_rng(3)), "ladder")
    laws = curve_laws(folder, "logloss")
    return found, laws, ladder_figure(found, laws)


def test_the_ladder_shows_means_and_deviations_over_the_seeds(climbed):
    found, _, figure = climbed
    left, right = figure.axes
    planted = {"o": wukong_law, "s": dlrm_law}
    for axes, floor in ((left, 0.0), (right, FLOOR)):
        points = shown_points(axes)
        assert set(points) == {"o", "s"}
        for marker, law in planted.items():
            for x, y in points[marker]:
                if x in SIZES[:-1]:
                    assert y == pytest.approx(law(x) - floor, abs=0.0015)
        ends = bars_of(axes)
        assert len(ends) == 13, "7 points of Wukong and 6 of DLRM with two seeds each"
        expected = []
        for setting in found.settings:
            values = [run.logloss for run in setting.runs]
            mean, std = statistics.mean(values) - floor, statistics.stdev(values)
            expected.append((mean - std, mean + std))
        np.testing.assert_allclose(sorted(ends), sorted(expected), rtol=1e-9)
    assert (left.get_xscale(), left.get_yscale()) == ("log", "linear")
    assert (right.get_xscale(), right.get_yscale()) == ("log", "log")


def test_the_ladder_shows_the_laws_within_their_bands(climbed):
    _, laws, figure = climbed
    for axes, floor in zip(figure.axes, (0.0, FLOOR), strict=True):
        for (x, y), law, series in zip(shown_laws(axes), (wukong_law, dlrm_law), ("Wukong", "DLRM"), strict=True):
            np.testing.assert_allclose(y, np.array([law(at) for at in x]) - floor, atol=0.002)
            np.testing.assert_allclose(y, laws.best(series).predict(x) - floor, rtol=1e-12)
        bands = [c for c in axes.collections if c.get_paths() and not hasattr(c, "get_segments")]
        assert len(bands) == 2
        low, high = laws.best("Wukong").band(np.array([SIZES[0]]))
        edge = [y for x, y in bands[0].get_paths()[0].vertices if math.isclose(x, SIZES[0])]
        assert (min(edge), max(edge)) == (pytest.approx(low[0] - floor), pytest.approx(high[0] - floor))


def test_a_run_that_diverged_is_marked_at_the_top_edge(climbed):
    _, _, figure = climbed
    for axes in figure.axes:
        crosses = [line for line in axes.get_lines() if line.get_marker() == "x"]
        assert [list(line.get_xdata()) for line in crosses] == [[SIZES[-1]], [SIZES[-1]]], "one a seed"
        figure.draw_without_rendering()
        for line in crosses:
            at = line.get_transform().transform((SIZES[-1], line.get_ydata()[0]))
            assert 0.9 < axes.transAxes.inverted().transform(at)[1] < 1
    assert legend_of(figure).count("diverged (at the top edge)") == 1


def test_the_ranking_and_laws_of_the_ladder(climbed):
    _, laws, _ = climbed
    assert [one.series for one in laws.ranking] == ["Wukong", "DLRM"]
    assert laws.ranking[1].exploded_x == SIZES[-1]
    exponent = laws.comparisons[0].fit("known-floor").parameters["alpha"]
    assert exponent.low < 0.3 < exponent.high


def test_one_seed_has_no_error_bars_and_two_sizes_no_law(tmp_path):
    found = study(tmp_path, ladder(np.random.default_rng(3), seeds=(0,), sizes=SIZES[:2]), "ladder")
    laws = curve_laws(tmp_path, "logloss")
    assert set(laws.refused) == {"Wukong", "DLRM"}
    figure = ladder_figure(found, laws)
    assert not any(axes.collections for axes in figure.axes)
    joined = [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 2]
    assert [line.get_linestyle() for line in joined] == ["-", "--"]
    assert legend_of(figure) == ["Wukong: no law fitted", "DLRM: no law fitted"]


def test_without_a_floor_there_is_no_gap(tmp_path):
    runs = [Made("Wukong", "ladder", {}, size, 0.5 / size, changes={"best_possible": None}) for size in (1.0, 2.0)]
    found = study(tmp_path, runs, "ladder")
    assert found.floor is None
    assert len(ladder_figure(found, curve_laws(tmp_path, "logloss")).axes) == 1


def test_the_knobs_are_lines_from_the_base(tmp_path):
    figure = knob_figure(effects(study(tmp_path, knobs(), "knob")))
    (axes,) = figure.axes
    lines = sorted({name for name, _ in KNOBS})
    assert legend_of(figure) == [*lines, "base", "diverged (at the top edge)"]
    by_marker = shown_points(axes)
    for index, name in enumerate(lines):
        planted = [(compute, percent) for (knob, _), (compute, percent) in KNOBS.items() if knob == name]
        shown = [point for point in by_marker[style(index).marker] if point[0] != 12.0]
        np.testing.assert_allclose(sorted(shown), sorted(planted), atol=1e-9)
        (path,) = [
            list(zip(line.get_xdata(), line.get_ydata(), strict=True))
            for line in axes.get_lines()
            if line.get_linestyle() == style(index).line and line.get_marker() == "None" and len(line.get_xdata()) > 1
        ][-1:]
        np.testing.assert_allclose(path, [(3.0, 0.0), *sorted(planted)], atol=1e-9)
    assert {text.get_text() for text in axes.texts} == {"4", "8", "16", "32", "2 × 128"}
    assert [line.get_xdata()[0] for line in axes.get_lines() if line.get_marker() == "x"] == [12.0, 12.0]


def test_knobs_changed_together_are_a_line_of_their_own(tmp_path):
    base = {"rank": 8, "num_fmb": 8}
    changes = ({}, {"rank": 16}, {"num_fmb": 16}, {"rank": 16, "num_fmb": 16})
    runs = [Made("Wukong", "knob", base | more, 1.0 + number, 0.5) for number, more in enumerate(changes)]
    figure = knob_figure(effects(study(tmp_path, runs, "knob")))
    assert legend_of(figure) == ["num_fmb", "rank", "rank + num_fmb", "base"]


def test_the_bars_of_the_ablation_stand_beside_the_papers(tmp_path):
    figure = ablation_figure(effects(study(tmp_path, ablation(), "ablation")))
    (axes,) = figure.axes
    names = [tick.get_text() for tick in axes.get_xticklabels()]
    assert names == ["no FMB", "no LCB", "no residual", "no LCB and no residual"]
    ours, paper = axes.containers[0], axes.containers[-1]
    np.testing.assert_allclose([bar.get_height() for bar in ours], [percent + 0.05 for percent in ABLATION.values()])
    np.testing.assert_allclose([bar.get_height() for bar in paper], [0.80, 0.03, 0.08, 1.84])
    assert {bar.get_hatch() for bar in paper} == {"//"}
    assert {bar.get_hatch() for bar in ours} == {""}
    ends = [(percent, percent + 0.1) for percent in ABLATION.values()]
    np.testing.assert_allclose(bars_of(axes), ends, err_msg="three seeds: mean ± 0.05")
    for place, (left, right) in enumerate(zip(ours, paper, strict=True)):
        assert left.get_x() + left.get_width() == pytest.approx(right.get_x()), "side by side"
        assert (left.get_x() + right.get_x() + right.get_width()) / 2 == pytest.approx(place)


def test_variants_that_the_paper_has_not_have_no_bar_of_it(tmp_path):
    runs = [
        Made("Wukong", "ablation", {"fm": kind}, compute, 0.5) for kind, compute in (("low_rank", 1.0), ("full", 2.0))
    ]
    runs.append(Made("Wukong", "ablation", {"fm": "attentive"}, 3.0, None))
    figure = ablation_figure(effects(study(tmp_path, runs, "ablation")))
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["fm attentive", "fm full"]
    assert legend_of(figure) == ["Wukong"]
    assert {text.get_text() for text in figure.axes[0].texts} == {" diverged", "+0.00"}


@pytest.fixture(scope="module")
def sized(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    found = study(folder, data(np.random.default_rng(5), seeds=(0,)), "data")
    return found, joint_laws(folder, "logloss")


def test_the_data_sizes_are_curves_with_the_joint_law(sized):
    found, laws = sized
    figure = data_figure(found, laws)
    (axes,) = figure.axes
    assert legend_of(figure) == [f"Wukong, {size} MFLOP" for size in ("0.5", "2", "8", "32")]
    examples = [steps * BATCH for steps in (100, 400, 1600, 6400)]
    for (marker, points), (x, y), compute in zip(
        shown_points(axes).items(), shown_laws(axes), (0.5, 2.0, 8.0, 32.0), strict=True
    ):
        assert marker in "osD^"
        assert [at for at, _ in points] == examples
        np.testing.assert_allclose(
            [gap for _, gap in points], joint_law(compute, np.array(examples)) - FLOOR, atol=8e-4
        )
        np.testing.assert_allclose(y, joint_law(compute, x) - FLOOR, atol=8e-4)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_the_allocation_of_the_joint_law(sized):
    """With E + A N^-a + B D^-b and C = N D: N* = (a A / (b B))^(1 / (a + b)) C^(b / (a + b))."""
    _, laws = sized
    spent = [compute * steps * BATCH for compute in (0.5, 32.0) for steps in (100, 6400)]
    expected = [math.sqrt(min(spent) * max(spent)), max(spent), 10 * max(spent)]
    (allocations,) = laws.allocations
    np.testing.assert_allclose([one.budget for one in allocations], expected)
    for one in allocations:
        best = (0.4 * 0.05 / (0.5 * 3.0)) ** (1 / 0.9) * one.budget ** (0.5 / 0.9)
        assert one.compute.low < best < one.compute.high


def test_curves_of_one_size_are_told_apart_by_what_else_was_varied(tmp_path):
    runs = [
        Made("Wukong", "data", {"rate": rate, "examples": steps}, size, 0.5, steps=steps)
        for rate, size in ((0.1, 1.0), (0.2, 1.0), (0.1, 2.0))
        for steps in (20, 10)
    ]
    curves = data_curves(study(tmp_path, runs, "data").settings)
    assert list(curves) == ["Wukong, 1 MFLOP, rate 0.1", "Wukong, 1 MFLOP, rate 0.2", "Wukong, 2 MFLOP"]
    assert [s.examples for s in curves["Wukong, 2 MFLOP"]] == [10 * BATCH, 20 * BATCH]


def test_styles_differ_without_colour():
    styles = [style(index) for index in range(13)]
    assert len({one.marker for one in styles}) == 13
    assert len({str(style(index).line) for index in range(5)}) == 5
    many = [(one.marker, str(one.line)) for one in map(style, range(65))]
    assert len(set(many)) == 65
    for one in styles:
        assert one.grey == "black" or 0.3 <= float(one.grey) <= 0.65, "grey, and dark enough on white"


def test_every_colour_of_the_figures_is_a_grey(climbed):
    _, _, figure = climbed
    from matplotlib.colors import to_rgb

    for axes in figure.axes:
        for line in axes.get_lines():
            for colour in (line.get_color(), line.get_markerfacecolor()):
                assert len(set(to_rgb(colour))) == 1


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (0.3, 100, "0.5 1 2 5 10 20 50 100"),
        (2e3, 3e6, "10k 100k 1M"),
        (0.11, 0.12, "0.11 0.112 0.114 0.116 0.118 0.12"),
    ],
)
def test_ticks_of_a_log_axis_are_plain_numbers(low, high, shown):
    axes = Figure().subplots()
    axes.set_xlim(low, high)
    logarithmic(axes.xaxis)
    axes.set_xlim(low, high)
    ticks = [value for value in axes.get_xticks() if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
    assert " ".join(axes.xaxis.get_major_formatter()(value) for value in ticks) == shown


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_figure_is_the_same_bytes_each_time(tmp_path, kind):
    runs = list(itertools.chain(knobs(), ablation()))
    write_made(tmp_path, runs)
    first, second = (make_report(tmp_path).section("knob").figure for _ in range(2))
    assert rendered(first, kind) == rendered(second, kind)
    assert rendered(first, kind).startswith(b"\x89PNG" if kind == "png" else b"<?xml")


def test_the_papers_figures():
    assert PUBLISHED == {"no FMB": 0.80, "no LCB": 0.03, "no residual": 0.08, "no LCB and no residual": 1.84}
