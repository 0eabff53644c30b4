"""The project's own sweep files: they load, and their ladders keep to their budgets."""

import importlib
import pathlib

import pytest

from configs.sweeps.planted_models import RATES, RIVALS
from wukong_jax.scaling.ladder import TOLERANCE, training_flops_of
from wukong_jax.scaling.sweep import load_sweep

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "configs" / "sweeps"


@pytest.fixture(autouse=True)
def _rates(monkeypatch):
    """Rates for all models, those that are not tuned yet too."""
    for series in RIVALS:
        monkeypatch.setitem(RATES, series, RATES.get(series, 2e-3))


SWEEPS = sorted(path.stem for path in FOLDER.glob("*.py") if "def get_sweep" in path.read_text())


@pytest.mark.parametrize("name", SWEEPS)
def test_the_file_gives_a_sweep_of_its_name(name):
    sweep = load_sweep(FOLDER / f"{name}.py")
    assert sweep.name == name
    assert {point.series for point in sweep.points} == {"Wukong", *RIVALS} == set(RATES)


@pytest.mark.parametrize("name", SWEEPS)
def test_every_point_with_a_budget_keeps_to_it(name):
    points = [point for point in load_sweep(FOLDER / f"{name}.py").points if "budget_mflop" in point.varied]
    assert points
    for point in points:
        budget = 1e6 * point.varied["budget_mflop"]
        assert training_flops_of(point.config, point.config.model) == pytest.approx(budget, rel=TOLERANCE)


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
