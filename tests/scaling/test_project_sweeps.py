"""The project's own sweep files: they load, and their ladders keep to their budgets."""

import functools
import importlib
import pathlib

import pytest

from configs.sweeps.planted_models import RATES, RIVALS
from wukong_jax.comparison.records import read_folder
from wukong_jax.scaling.flops import describe_cost
from wukong_jax.scaling.ladder import TOLERANCE, training_flops_of
from wukong_jax.scaling.sweep import Sweep, load_sweep

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "configs" / "sweeps"


SWEEPS = sorted(path.stem for path in FOLDER.glob("*.py") if "def get_sweep" in path.read_text())


PLANTED = [name for name in SWEEPS if name.startswith("planted")]


@functools.cache
def sweep_of(name: str) -> Sweep:
    return load_sweep(FOLDER / f"{name}.py")


@pytest.mark.parametrize("name", SWEEPS)
def test_the_file_gives_a_sweep_of_its_name(name):
    assert sweep_of(name).name == name


@pytest.mark.parametrize("name", PLANTED)
def test_a_sweep_of_planted_data_has_every_model(name):
    sweep = sweep_of(name)
    assert {point.series for point in sweep.points} == {"Wukong", *RIVALS} == set(RATES)


@pytest.mark.parametrize("name", PLANTED)
def test_every_point_with_a_budget_keeps_to_it(name):
    points = [point for point in sweep_of(name).points if "budget_mflop" in point.varied]
    assert points
    for point in points:
        budget = 1e6 * point.varied["budget_mflop"]
        assert training_flops_of(point.config, point.config.model) == pytest.approx(budget, rel=TOLERANCE)


def test_the_halves_of_the_grid_are_the_grid_and_the_larger_costs_more():
    halves = [sweep_of(f"ml100k_{name}").points for name in ("small", "large")]
    cells = [{(point.varied["num_layers"], point.varied["width"]) for point in points} for points in halves]
    assert [len(half) for half in cells] == [10, 10]
    assert cells[0] | cells[1] == {(layers, width) for layers in (1, 2, 4, 8, 16) for width in (8, 16, 32, 64)}
    costs = [[describe_cost(point.config).inference_flops for point in points] for points in halves]
    assert max(costs[0]) <= min(costs[1])


@pytest.mark.parametrize(("budget", "tuned_at"), [(0.3, 0.3), (1, 1), (3, 1), (10, 10), (30, 30), (100, 30)])
def test_a_rate_is_that_of_the_largest_tuned_budget_below(budget, tuned_at):
    planted = importlib.import_module("configs.sweeps.planted")
    for point in planted.ladder(budget):
        assert point.config.optimizer.learning_rate == RATES[point.series][tuned_at]
        (rule,) = point.config.tables.rules
        assert rule.learning_rate == point.config.optimizer.learning_rate


def test_the_rates_are_the_best_recorded_ones_by_validation():
    runs = read_folder(FOLDER.parents[1] / "results" / "scaling" / "planted_rates")
    losses: dict[tuple[str, float], dict[float, float]] = {}
    for run in runs:
        varied = run.record["varied"]
        of_size = losses.setdefault((run.record["series"], varied["budget_mflop"]), {})
        of_size[varied["rate"]] = run.record["results"]["valid"]["logloss"]
    best = {key: min(found, key=found.__getitem__) for key, found in losses.items()}
    assert best == {(s, c): rate for s, rates in RATES.items() for c, rate in rates.items() if (s, c) in best}
    assert len(best) == 19, "all but FinalMLP at 30"


@pytest.mark.parametrize("name", ["planted", "frappe"])
def test_the_ablation_has_the_full_model_and_one_run_a_part(name):
    points = [point for point in sweep_of(name).points if point.study == "ablation"]
    labels = [tuple(point.varied.values()) for point in points]
    assert labels[0] == (True, True, True)
    assert len(set(labels)) == 5
    assert len(labels) == 15, "three seeds"
    for point in points:
        model = point.config.model
        assert (model.use_fmb, model.use_lcb, model.residual) == tuple(point.varied.values())
