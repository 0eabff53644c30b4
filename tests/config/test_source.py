"""Settings written as a configuration file give equal settings when it is loaded."""

import dataclasses
import pathlib

import pytest

from wukong_jax.config.command_line import load_config_file
from wukong_jax.config.layers import EmbeddingConfig, FeatureGroup, ImportantFeature
from wukong_jax.config.source import LINE, run_source

ROOT = pathlib.Path(__file__).parents[2]


def reloaded(config, folder):
    text = run_source(config, "A test's.")
    assert max(map(len, text.splitlines())) <= LINE
    (folder / "again.py").write_text(text)
    return load_config_file(folder / "again.py")


@pytest.mark.parametrize("name", ["criteo_terabyte", "frappe", "movielens_1m", "synthetic"])
def test_the_projects_configs_come_back_equal(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_config_file(ROOT / "configs" / f"{name}.py")
    assert reloaded(config, tmp_path) == config


def test_quotes_nested_tuples_and_single_items(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_config_file(ROOT / "configs" / "synthetic.py")
    embedding = EmbeddingConfig(
        important=(ImportantFeature("C1", 2),), groups=(FeatureGroup(("C2", 'a "quoted" \\ näme'), 3),)
    )
    changed = dataclasses.replace(config, name="it's", model=dataclasses.replace(config.model, embedding=embedding))
    assert reloaded(changed, tmp_path) == changed


def test_defaults_are_left_out(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = run_source(load_config_file(ROOT / "configs" / "frappe.py"), "A test's.")
    assert "batch_size=4096" in text
    assert "eval_batch_size" not in text
    assert "None" not in text
