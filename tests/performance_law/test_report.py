"""The page and its figures, read back: what they show is what was found."""

import dataclasses
import re

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from tests.performance_law.planted_law import certain, grid_runs, peak
from wukong_jax.performance_law.budgets import Budget, size
from wukong_jax.performance_law.comparison import compare
from wukong_jax.performance_law.fit import UNDEFINED
from wukong_jax.performance_law.lattice import Lattice
from wukong_jax.performance_law.next_run import next_run
from wukong_jax.performance_law.noise import noise_of
from wukong_jax.performance_law.optimum import optimum
from wukong_jax.performance_law.report import parts, write_report
from wukong_jax.performance_law.report_figures import (
    profiles_figure,
    region_figure,
    residuals_figure,
    surface_figure,
)
from wukong_jax.performance_law.report_findings import Findings, plain
from wukong_jax.performance_law.report_tables import fit_lines, law_line, next_table, optima_table, residuals_table
from wukong_jax.performance_law.runs import LeftOut
from wukong_jax.performance_law.search import Search, allowed


@pytest.fixture(scope="module")
def findings():
    """A planted quadratic, two forms, one budget."""
    rng = np.random.default_rng(1)
    law = certain(grid_runs(), "quadratic", peak(17.8, 51.7))
    runs = grid_runs(y=lambda n, d: law.predict(n, d) + 0.001 * rng.standard_normal(len(n)))
    comparison = compare(runs, ["quadratic", "log-linear"], draws=200)
    search = Search(comparison.fit("quadratic"))
    lattice = search.measured.lattice()
    budget = [Budget("N d", 400.0, size)]
    optima = {"overall": optimum(search, lattice), "N d at most 400": optimum(search, lattice, budget)}
    following = next_run(search, *allowed(lattice, []), noise_of(search.law))
    return Findings("planted", comparison, search.law, 0, None, lattice, optima, following)


def lines_of(axes, marker):
    return [line for line in axes.get_lines() if line.get_marker() == marker and len(line.get_xdata())]


def test_the_surface_shows_runs_best_size_and_the_next_runs(findings):
    found, search = findings.optima["overall"], findings.search
    figure = surface_figure(search, found, findings.lattice, findings.following)
    axes = figure.axes[0]
    [measured] = lines_of(axes, "o")
    assert {*zip(measured.get_xdata(), measured.get_ydata(), strict=True)} == {
        *zip(search.measured.layers, search.measured.dims, strict=True)
    }
    [best] = lines_of(axes, "*")
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (found.best.layers, found.best.dim)
    [after] = lines_of(axes, "P")
    np.testing.assert_array_equal(after.get_xdata(), findings.following.layers[findings.following.shown(3)])
    assert axes.get_xscale() == axes.get_yscale() == "log"


@pytest.mark.parametrize("rising", [True, False])
def test_lighter_is_better_on_the_surface(rising):
    sign = 1 if rising else -1
    runs = grid_runs(rising=rising, y=lambda n, d: np.zeros(len(n)))
    search = Search(certain(runs, "quadratic", sign * peak(12, 50)))
    lattice = search.measured.lattice()
    axes = surface_figure(search, optimum(search, lattice), lattice, None).axes[0]
    shades = next(c for c in axes.collections if getattr(c, "filled", False))
    brightness = shades.cmap(shades.norm(shades.get_array()))[:, 0]
    assert np.all(sign * np.diff(brightness) > 0)


def test_residuals_are_measured_minus_law_with_their_sign_in_the_fill(findings):
    plane, against = residuals_figure(findings.fit, findings.panel).axes
    runs = findings.fit.runs
    residuals = runs.y - findings.fit.predict(runs.layers, runs.dim)
    above, below = against.collections
    assert sorted(np.concatenate([above.get_offsets()[:, 1], below.get_offsets()[:, 1]])) == pytest.approx(
        sorted(residuals)
    )
    assert np.all(above.get_offsets()[:, 1] > 0)
    assert np.all(below.get_offsets()[:, 1] <= 0)
    assert to_rgb(above.get_facecolor()[0][:3]) == (0, 0, 0)
    assert to_rgb(below.get_facecolor()[0][:3]) == (1, 1, 1)
    areas = np.concatenate([c.get_sizes() for c in plane.collections])
    assert sorted(areas) == pytest.approx(sorted(8 + 900 * np.abs(residuals) / np.abs(residuals).max()))


def test_profiles_pass_through_the_best_size(findings):
    found = findings.optima["overall"]
    figure = profiles_figure(findings.search, found, findings.lattice)
    for number, axes in enumerate(figure.axes):
        [law] = [line for line in axes.get_lines() if len(line.get_xdata()) > 50]
        at = np.asarray(law.get_xdata())
        sizes = (at, found.best.dim) if number == 0 else (found.best.layers, at)
        np.testing.assert_allclose(law.get_ydata(), findings.fit.predict(*sizes))
        star = (found.layers, found.dim)[number].at.value
        [dashed] = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
        assert dashed.get_xdata()[0] == star


def test_profiles_show_the_runs_of_the_data_asked_about():
    law = certain(grid_runs(), "quadratic", peak(17.8, 51.7))
    runs = grid_runs(y=law.predict, repeats=2)
    much = np.arange(len(runs.y)) % 2 == 1
    runs = dataclasses.replace(runs, y=runs.y + 0.1 * much, data=np.where(much, 1e7, 1e6))
    search = Search(compare(runs, ["quadratic"], draws=200).fits[0], 0, 9e6)
    lattice = search.measured.lattice()
    for axes in profiles_figure(search, optimum(search, lattice), lattice).axes:
        [shown] = lines_of(axes, "o")
        assert set(shown.get_ydata()) < set(runs.y[much])


def test_the_region_figure_shows_the_shares(findings):
    found = findings.optima["overall"]
    axes = region_figure(findings.search, found, findings.lattice).axes[0]
    mesh = axes.collections[0]
    shown = np.sort(np.asarray(mesh.get_array()).ravel())[::-1][: len(found.region.share)]
    np.testing.assert_allclose(shown, np.sort(found.region.share)[::-1])


def test_one_depth_can_be_drawn():
    search = Search(certain(grid_runs(), "quadratic", peak(12, 50)))
    lattice = Lattice(np.array([16.0]), np.arange(25.0, 101))
    found = optimum(search, lattice)
    for figure in (
        surface_figure(search, found, lattice, None),
        region_figure(search, found, lattice),
        profiles_figure(search, found, lattice),
    ):
        assert figure.axes


def test_the_page_is_one_file_that_needs_no_other(findings, tmp_path):
    written = write_report(findings, tmp_path / "one", ("png", "svg"))
    names = sorted(path.name for path in written)
    figures = ("profiles", "region", "residuals", "surface")
    assert names == sorted([f"{name}.{kind}" for name in figures for kind in ("png", "svg")] + ["report.html"])
    page = (tmp_path / "one" / "report.html").read_text()
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)"', page))
    assert not re.search(r"<(script|link)", page)
    assert page.count("<section") == page.count("</section>") == len(parts(findings))
    for question in findings.optima:
        assert question in page
    assert findings.optima["overall"].promise.verdict in page


def test_the_same_findings_make_the_same_bytes(findings, tmp_path):
    for name in ("one", "two"):
        write_report(findings, tmp_path / name, ("png",))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_tables_carry_the_answers(findings):
    table = optima_table(findings.optima, "hr10")
    assert [row[0] for row in table.rows] == list(findings.optima)
    best = findings.optima["overall"].best
    assert f"N = {best.layers:g}, d = {best.dim:g}" in table.rows[0]
    shown = next_table(findings.following, np.ones(len(findings.following.layers), bool))
    assert shown.rows[0][:2] == (f"{findings.following.layers[0]:g}", f"{findings.following.dims[0]:g}")
    runs = residuals_table(findings.fit)
    assert len(runs.rows) == len(findings.fit.runs.y)
    law = float(findings.fit.predict(findings.fit.runs.layers, findings.fit.runs.dim)[3])
    assert runs.rows[3][4] == f"{law:.5g}"


def test_runs_left_out_are_told_with_the_law(findings):
    assert f"; {len(findings.fit.runs.y)} runs" in law_line(findings.fit, 0)
    lost = tuple(LeftOut(f"line {number}", "hr10 is 'nan'") for number in (7, 9, 11, 13))
    runs = dataclasses.replace(findings.fit.runs, left_out=lost[:1])
    said = law_line(dataclasses.replace(findings.fit, runs=runs), 0)
    assert said.endswith(f"{len(runs.y)} runs, 1 left out: line 7: hr10 is 'nan'")
    runs = dataclasses.replace(runs, left_out=lost)
    assert "4 left out: line 7: hr10 is 'nan'; line 9" in law_line(dataclasses.replace(findings.fit, runs=runs), 0)


def test_no_run_is_recommended_where_none_is_worth_making(findings):
    settled = dataclasses.replace(findings, following=dataclasses.replace(findings.following, now=0.0))
    answers = parts(settled)[0]
    assert "No further run is worth making" in answers.text[-1]
    assert len(answers.tables) == 1
    assert len(parts(findings)[0].tables) == 2


def test_weights_that_are_not_determined_are_not_numbers():
    runs = grid_runs(y=lambda n, d: 0.3 + 0.01 * np.sin(37 * n))
    comparison = compare(runs, ["released"], draws=200)
    fit = comparison.fits[0]
    nothing = dict.fromkeys(fit.parameters, UNDEFINED)
    lines = fit_lines(comparison._replace(fits=(dataclasses.replace(fit, parameters=nothing),)))
    assert any("Scaling potential: w1 not determined, w2 not determined;" in line for line in lines)
    assert not any("nan" in line for line in lines)


def test_plain_values_say_what_is_infinite_and_what_is_undefined():
    value = {"a": np.array([1.0, np.inf]), "b": (np.float64(np.nan), -np.inf), "c": np.bool_(True), "d": "text"}
    assert plain(value) == {"a": [1.0, "inf"], "b": [None, "-inf"], "c": True, "d": "text"}
