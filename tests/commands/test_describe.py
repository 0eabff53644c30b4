"""python -m wukong_jax describe: numbers of a config, without data."""

import json
import re

import pytest

from wukong_jax.cli import main
from wukong_jax.config.command_line import load_config_file
from wukong_jax.scaling.flops import describe_cost

CONFIG = "configs/movielens_100k.py"


@pytest.fixture(autouse=True)
def _at_the_root(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)


def test_the_json_holds_the_numbers_of_the_cost(capsys, pytestconfig):
    assert main(["describe", "--config", CONFIG, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    cost = describe_cost(load_config_file(pytestconfig.rootpath / CONFIG))
    for name in ("dense_total", "sparse_total", "inference_flops", "training_flops"):
        assert found[name] == getattr(cost, name)
    assert found["dense_parameters"] == cost.dense_parameters
    assert found["forward_flops"] == cost.forward_flops
    assert found["memory_bytes"]["tables"] == cost.table_bytes == 4 * cost.sparse_total


def test_the_tables_show_every_component_and_its_sum(capsys, pytestconfig):
    assert main(["describe", "--config", CONFIG]) == 0
    shown = capsys.readouterr().out
    cost = describe_cost(load_config_file(pytestconfig.rootpath / CONFIG))
    for name in cost.forward_flops:
        assert name in shown
    totals = re.search(r"total\W+([\d,]+)\W+([\d,]+)\W+([\d,]+)", shown)
    numbers = [int(text.replace(",", "")) for text in totals.groups()]
    assert numbers == [cost.dense_total, sum(cost.forward_flops.values()), cost.training_flops]
    assert f"{cost.sparse_total:,}" in shown


@pytest.mark.parametrize(
    ("config", "parameters", "mflop"),
    [
        ("dlrm", 26_136_307_201, 4.62),
        ("dcnv2", 26_179_364_097, 262.35),
        ("masknet", 26_160_209_153, 147.40),
        ("afn_plus", 26_436_527_675, 1826.50),
    ],
)
def test_the_papers_counts_on_criteo_terabyte(capsys, config, parameters, mflop):
    """Table 3 of the Wukong paper: 26 billion parameters, none of them allocated."""
    options = ["--config", f"configs/paper/{config}_criteo_tb.py"]
    assert main(["describe", *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == parameters
    assert found["training_flops"] / 1e6 == pytest.approx(mflop, rel=0.05)
    assert main(["describe", *options]) == 0
    assert f"parameters in all: {parameters:,}" in capsys.readouterr().out


def test_the_saving_of_the_low_rank_product_is_shown(capsys, pytestconfig):
    """n k d against n^2 d, layer by layer; a rival has none."""
    assert main(["describe", "--config", CONFIG]) == 0
    shown = capsys.readouterr().out
    config = load_config_file(pytestconfig.rootpath / CONFIG)
    model = config.model
    n, later = len(config.schema.feature_names), model.num_fmb + model.num_lcb
    for layer, size in enumerate([n, *[later] * (model.num_layers - 1)]):
        low_rank, full = 4 * size * model.rank * model.width, 2 * size * size * model.width
        row = rf"layer_{layer}\W+{size}\W+{model.rank}\W+{low_rank:,}\W+{full:,}\W+{full / low_rank:.2f}"
        assert re.search(row, shown)
    assert main(["describe", "--config", "configs/baselines/dlrm_frappe.py"]) == 0
    assert "X X^T" not in capsys.readouterr().out


def test_overrides_count_and_no_data_is_needed(capsys, tmp_path):
    arguments = ["--config", CONFIG, "--json", "--data.store", str(tmp_path / "nowhere")]
    assert main(["describe", *arguments]) == 0
    small = json.loads(capsys.readouterr().out)
    assert main(["describe", *arguments, "--model.num-layers", "4"]) == 0
    deep = json.loads(capsys.readouterr().out)
    assert deep["dense_total"] > small["dense_total"]
    assert deep["sparse_total"] == small["sparse_total"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.num-fmb", "0"], "model.num_fmb: received 0"),
        (["--model.rank", "-1"], "model.rank: received -1"),
        (["--train.epochs", "0"], "train.epochs: received 0"),
    ],
)
def test_bad_values_are_errors_with_exit_code_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as left:
        raise SystemExit(main(["describe", "--config", CONFIG, *arguments]))
    assert left.value.code == 2
    captured = capsys.readouterr()
    assert message in re.sub(r"\s+", " ", re.sub("[│╭╮╰╯─]", "", captured.out + captured.err))
