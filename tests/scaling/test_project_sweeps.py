"""The project's own sweep files: they load, and their ladders keep to their budgets."""

import importlib
import pathlib

import pytest

from configs.sweeps.planted_models import RATES, RIVALS
from wukong_jax.scaling.flops import describe_cost
from wukong_jax.scaling.ladder import TOLERANCE, training_flops_of
from wukong_jax.scaling.sweep import load_sweep

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "configs" / "sweeps"


@pytest.fixture(autouse=True)
def _rates(monkeypatch):
    """Rates for all models, those that are not tuned yet too."""
    for series in RIVALS:
        monkeypatch.setitem(RATES, series, RATES.get(series, 2e-3))


SWEEPS = sorted(path.stem for path in FOLDER.glob("*.py") if "def get_sweep" in path.read_text())


PLANTED = [name for name in SWEEPS if name.startswith("planted")]


@pytest.mark.parametrize("name", SWEEPS)
def test_the_file_gives_a_sweep_of_its_name(name):
    assert load_sweep(FOLDER / f"{name}.py").name == name


@pytest.mark.parametrize("name", PLANTED)
def test_a_sweep_of_planted_data_has_every_model(name):
    sweep = load_sweep(FOLDER / f"{name}.py")
    assert {point.series for point in sweep.points} == {"Wukong", *RIVALS} == set(RATES)


@pytest.mark.parametrize("name", PLANTED)
def test_every_point_with_a_budget_keeps_to_it(name):
    points = [point for point in load_sweep(FOLDER / f"{name}.py").points if "budget_mflop" in point.varied]
    assert points
    for point in points:
        budget = 1e6 * point.varied["budget_mflop"]
        assert training_flops_of(point.config, point.config.model) == pytest.approx(budget, rel=TOLERANCE)


def test_the_halves_of_the_grid_are_the_grid_and_the_larger_costs_more():
    halves = [load_sweep(FOLDER / f"ml100k_{name}.py").points for name in ("small", "large")]
    cells = [{(point.varied["num_layers"], point.varied["width"]) for point in points} for points in halves]
    assert [len(half) for half in cells] == [10, 10]
    assert cells[0] | cells[1] == {(layers, width) for layers in (1, 2, 4, 8, 16) for width in (8, 16, 32, 64)}
    costs = [[describe_cost(point.config).inference_flops for point in points] for points in halves]
    assert max(costs[0]) <= min(costs[1])


def test_rates_fall_with_the_fourth_root_of_compute_above_one_mflop():
    planted = importlib.import_module("configs.sweeps.planted")
    for point in planted.ladder(0.3) + planted.ladder(1):
        assert point.config.optimizer.learning_rate == RATES[point.series]
    for point in planted.ladder(100):
        assert point.config.optimizer.learning_rate == pytest.approx(RATES[point.series] / 100**0.25)
        (rule,) = point.config.tables.rules
        assert rule.learning_rate == point.config.optimizer.learning_rate


def test_the_ablation_has_the_full_model_and_one_run_a_part():
    planted = importlib.import_module("configs.sweeps.planted")
    labels = [tuple(point.varied.values()) for point in planted.ablation()]
    assert labels[0] == (True, True, True)
    assert len(set(labels)) == len(labels) == 5
    for point in planted.ablation():
        model = point.config.model
        assert (model.use_fmb, model.use_lcb, model.residual) == tuple(point.varied.values())
