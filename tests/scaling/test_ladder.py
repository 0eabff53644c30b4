"""Budgets become configs: every model over the whole range of a CPU, monotone, refused where nothing fits."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from wukong_jax.config.baselines import (
    AFNConfig,
    AutoIntConfig,
    DCNv2Config,
    DeepFMConfig,
    DLRMConfig,
    DNNConfig,
    FinalMLPConfig,
    FinalNetConfig,
    MaskNetConfig,
    WideDeepConfig,
    XDeepFMConfig,
)
from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.models import FactorizationMachineConfig, LayerOverride, LogisticRegressionConfig, WukongConfig
from wukong_jax.config.run import DataConfig, RunConfig, TrainConfig
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema
from wukong_jax.errors import ConfigError
from wukong_jax.models.registry import OF_SEQUENCES, REGISTRY
from wukong_jax.scaling import ladder
from wukong_jax.scaling.flops import describe_cost
from wukong_jax.scaling.ladder import flops_per_example, over_budgets, pf_days, rung, smallest_rung, training_flops_of
from wukong_jax.scaling.memory import step_memory
from wukong_jax.scaling.schedules import shapes
from wukong_jax.scaling.sweep import points_of

MLP = MLPConfig((64, 64), dropout=0.1)
NORMED = MLPConfig((64,), batch_norm=True)
MODELS = {
    "wukong": WukongConfig(16, head=MLP),
    "wukong attentive": WukongConfig(16, fm="attentive", fmb_mlp=MLP),
    "wukong full": WukongConfig(16, fm="full", head=MLPConfig()),
    "dnn": DNNConfig(16, MLP),
    "wide & deep": WideDeepConfig(16, MLP),
    "deepfm": DeepFMConfig(16, MLP),
    "dlrm": DLRMConfig(16, "dot", MLP),
    "dcnv2": DCNv2Config(16, mlp=MLP),
    "dcnv2 mixture": DCNv2Config(16, "parallel", 3, "mixture", 8, 4, NORMED),
    "finalmlp": FinalMLPConfig(16, MLP, NORMED, 4, MLPConfig((64,)), ("f0",), ("f1",)),
    "autoint": AutoIntConfig(16),
    "autoint+": AutoIntConfig(16, dnn=MLP, linear=True),
    "afn": AFNConfig(16, mlp=MLP),
    "afn+": AFNConfig(16, mlp=MLP, dnn=MLP, shared_tables=True),
    "xdeepfm": XDeepFMConfig(16, (8, 8, 8), MLP),
    "xdeepfm, cin only": XDeepFMConfig(16, dnn=None),
    "masknet serial": MaskNetConfig(16, "serial", (64, 64, 64), 2.0),
    "masknet parallel": MaskNetConfig(16, "parallel", (64, 64, 64, 64), mlp=MLP),
    "finalnet": FinalNetConfig(16, block2=NORMED, self_distillation=True),
}
WITHOUT_LADDER = (LogisticRegressionConfig(), FactorizationMachineConfig(16))
BUDGETS = (0.3e6, 1e6, 3e6, 10e6, 30e6, 100e6)
CASES = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())


def base(model, fields: int = 16, rows: int = 100, **train) -> RunConfig:
    schema = DatasetSchema(tuple(CategoricalFeature(f"f{i}", rows) for i in range(fields)))
    return RunConfig("t", schema, DataConfig(store="s"), model, train=TrainConfig(**train))


def flops(config: RunConfig) -> int:
    return training_flops_of(config, config.model)


def hidden_layers(config) -> dict[str, int]:
    mlps = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {name: len(mlp.widths) for name, mlp in mlps.items() if isinstance(mlp, MLPConfig)}


def test_every_model_has_a_ladder_or_is_refused():
    assert {type(model) for model in (*MODELS.values(), *WITHOUT_LADDER)} == set(REGISTRY) - set(OF_SEQUENCES)
    for model in WITHOUT_LADDER:
        with pytest.raises(ConfigError, match=rf"received {type(model).__name__}, which has no size .* DLRM, .*Wukong"):
            rung(base(model), 1e6)


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda budget: f"{budget / 1e6:g}M")
@CASES
def test_a_rung_costs_what_was_asked(model, budget):
    """Within 10 % below 1 MFLOP and 5 % from there on."""
    start = base(model)
    found = rung(start, budget)
    assert flops(found) == pytest.approx(budget, rel=0.05 if budget >= 1e6 else 0.1)
    assert dataclasses.replace(found, model=start.model) == start
    assert (type(found.model), found.model.width, found.model.embedding) == (type(model), 16, model.embedding)
    for name, layers in hidden_layers(found.model).items():
        assert layers in (0, hidden_layers(model)[name]) or name == "mlp1"


@CASES
def test_more_compute_never_gives_a_smaller_model(model):
    start = base(model)
    least = flops(smallest_rung(start))
    budgets = [float(budget) for budget in np.geomspace(0.3e6, 120e6, 60) if budget >= least]
    found = [flops(rung(start, budget)) for budget in budgets]
    assert all(left <= right for left, right in itertools.pairwise(found))
    assert len(set(found)) > 30
    assert rung(start, budgets[20]) == rung(start, budgets[20])


@CASES
def test_a_rung_costs_the_same_in_the_traced_program(model):
    """The ladder counts by formulas."""
    found = rung(base(model), 1e6)
    cost = describe_cost(found)
    assert cost.training_flops == flops(found) == pytest.approx(1e6, rel=0.05)
    assert cost.dense_total > describe_cost(smallest_rung(base(model))).dense_total


@pytest.mark.parametrize("fields", [16, 40])
@pytest.mark.parametrize("width", [16, 64])
@CASES
def test_the_lowest_rung_is_below_300_kflop_up_to_40_fields_of_width_64(model, fields, width):
    """Not for a few whose first products alone take more: all pairs of 40 x 64 (DLRM's dot products, the full FM, CIN
    maps, attention between them), the experts of a mixture."""
    start = base(dataclasses.replace(model, width=width), fields)
    least = flops(smallest_rung(start)) / 1e6
    known = {"wukong full": 0.81, "dlrm": 0.66, "xdeepfm": 0.75, "xdeepfm, cin only": 0.63, "dcnv2 mixture": 0.45}
    names = [name for name, known_model in MODELS.items() if known_model is model]
    limit = known.get(names[0], 0.3) if (fields, width) == (40, 64) else 0.3
    assert least < limit


def test_wukong_grows_its_layers_first_then_embeddings_rank_and_mlps_together():
    found = [rung(base(MODELS["wukong"]), budget).model for budget in BUDGETS]
    assert [model.num_layers for model in found] == [2, 4, 8, 8, 8, 8]
    assert [model.num_fmb for model in found] == [6, 8, 10, 16, 28, 40]
    for model in found:
        assert model.num_fmb == model.num_lcb == model.rank
        assert model.head.widths == 2 * model.fmb_mlp.widths
        assert model.head.dropout == 0.1
    widths = [model.fmb_mlp.widths[0] for model in found[2:]]
    assert widths == sorted(widths)
    # 8/15 d n_F, the paper's 8192 at d = 160 and n_F = 96, as long as the next shape is out of reach
    assert all(1 <= width / (8 / 15 * 16 * model.num_fmb) < 2 for width, model in zip(widths, found[2:], strict=True))


def test_layers_with_settings_of_their_own_become_equal():
    own = dataclasses.replace(MODELS["wukong"], layers=(LayerOverride(rank=3), LayerOverride()))
    assert rung(base(own), 1e6).model == rung(base(MODELS["wukong"]), 1e6).model


def test_rivals_grow_by_their_own_knobs():
    def at(name: str, budget: float):
        return rung(base(MODELS[name]), budget).model

    assert (at("dcnv2", 0.3e6).rank, at("dcnv2", 100e6).rank, at("dcnv2", 100e6).cross) == (16, 64, "low_rank")
    assert at("masknet parallel", 0.3e6).mask_ratio < at("masknet parallel", 1e6).mask_ratio < 1
    assert (at("masknet parallel", 100e6).mask_ratio, len(at("masknet parallel", 100e6).blocks)) == (1, 4)
    assert at("autoint+", 0.3e6).attention_width < at("autoint+", 100e6).attention_width == 4 * 16
    assert at("afn+", 1e6).log_neurons * 2 == at("afn+", 1e6).mlp.widths[0] <= at("afn+", 1e6).dnn.widths[0]
    streams = at("finalmlp", 10e6)
    first, second, gates = (mlp.widths[0] for mlp in (streams.mlp1, streams.mlp2, streams.gates))
    assert (second, gates) == pytest.approx((first / 4, first / 2), rel=0.05)
    lowest = smallest_rung(base(MODELS["finalmlp"])).model
    assert (lowest.gates, lowest.context1) == (None, ())


@CASES
def test_shapes_start_higher_and_higher(model):
    """Else one would be left out, or a rung be smaller than a cheaper one."""
    start = base(model)
    entries = []
    for shape in shapes(model, start.schema):
        entries.append(training_flops_of(start, shape.at(0)))
        if entries[-1] > 100e6:
            break
    assert all(left < right for left, right in itertools.pairwise(entries))


def test_widths_are_multiples_of_8_from_64_on_and_of_the_heads():
    for budget in (1e6, 3e6, 10e6):
        assert rung(base(MODELS["dnn"]), budget).model.mlp.widths[0] % 8 == 0
    five = FinalMLPConfig(16, MLPConfig((80,)), MLPConfig((80,)), 5)
    model = rung(base(five), 10e6).model
    assert (model.mlp1.widths[-1] % 40, model.mlp2.widths[-1] % 10) == (0, 0)


@CASES
def test_a_budget_below_the_smallest_model_is_refused_with_its_size(model):
    start = base(model)
    least = flops(smallest_rung(start))
    assert flops(rung(start, least)) == least
    with pytest.raises(ConfigError, match=rf"received {least - 1:,} per example, but the smallest \w+ .* {least:,}"):
        rung(start, least - 1)


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_that_is_no_positive_number_is_refused(budget):
    with pytest.raises(ConfigError, match="expected a number above 0"):
        rung(base(MODELS["dnn"]), budget)


def test_a_budget_far_from_every_rung_names_the_rungs_beside_it():
    start = base(FinalMLPConfig(16, MLPConfig((80,)), MLPConfig((80,)), 5, None), 40)
    with pytest.raises(ConfigError, match="more than 10% away") as refused:
        rung(start, 0.66e6)
    beside = [float(number.replace(",", "")) for number in re.findall(r"[\d,]+\d", str(refused.value))[1:3]]
    assert beside[0] < 0.66e6 < beside[1]
    for budget in beside:
        assert flops(rung(start, budget)) == budget


def test_cross_layers_alone_have_no_ladder():
    with pytest.raises(ConfigError, match="received 'cross_only'"):
        rung(base(DCNv2Config(16, "cross_only", mlp=MLPConfig())), 1e6)


def memory(config: RunConfig) -> int:
    return step_memory(config, describe_cost(config)).total


def test_activations_are_those_of_the_examples_worked_off_at_a_time():
    config = base(MODELS["wukong"], batch_size=64, micro_batch=16)
    cost = describe_cost(config)
    needed = step_memory(config, cost)
    assert (needed.examples, needed.activations) == (16, 16 * cost.activation_bytes)
    assert cost.activation_bytes > 0


def test_a_rung_that_fits_is_given_and_one_byte_less_refused():
    start = base(MODELS["dlrm"])
    needed = memory(rung(start, 3e6))
    assert rung(start, 3e6, memory_bytes=needed) == rung(start, 3e6)
    with pytest.raises(ConfigError, match=r"need .* MiB"):
        rung(start, 3e6, memory_bytes=needed - 1)


def test_the_refusal_names_rows_batch_and_budget_that_do_fit():
    start = base(MODELS["dlrm"], rows=40_000, batch_size=4096)
    limit = int(0.8 * memory(rung(start, 3e6)))
    with pytest.raises(ConfigError, match="what would fit") as refused:
        rung(start, 3e6, memory_bytes=limit)
    said = str(refused.value)
    rows, examples, budget = (
        int(re.search(pattern, said).group(1).replace(",", ""))
        for pattern in (r"at most ([\d,]+) rows", r"at most ([\d,]+) examples", r"a budget of ([\d,]+) ")
    )
    fewer = base(MODELS["dlrm"], rows=rows // 16, batch_size=4096)
    smaller = base(MODELS["dlrm"], rows=40_000, batch_size=examples)
    for config, flop in ((fewer, 3e6), (smaller, 3e6), (start, budget)):
        assert memory(rung(config, flop, memory_bytes=limit)) > 0.8 * limit


def test_nothing_fits_where_the_tables_alone_do_not():
    with pytest.raises(ConfigError, match=r"at most .* rows in the tables instead of 160,000") as refused:
        rung(base(MODELS["dlrm"], rows=10_000, batch_size=8), 1e6, memory_bytes=2**22)
    assert "examples at a time" not in str(refused.value)
    assert "a budget of" not in str(refused.value)
    with pytest.raises(ConfigError, match="nothing but more memory"):
        rung(base(MODELS["dlrm"]), 1e6, memory_bytes=1000)


def test_pf_days():
    """A PFLOP/s for 86,400 s; the paper's largest model, 108 GFLOP, on 146 billion examples is 182.5."""
    assert flops_per_example(1, 8.64e19) == 1
    assert flops_per_example(2.5, 1e9) == pytest.approx(2.5 * 86_400 * 1e15 / 1e9, rel=1e-12)
    assert pf_days(108e9, 146e9) == pytest.approx(182.5, rel=1e-12)
    assert pf_days(flops_per_example(7, 123), 123) == pytest.approx(7, rel=1e-12)
    for bad in ((0, 1e9), (1, 0), (float("nan"), 1), (1, float("inf"))):
        with pytest.raises(ConfigError, match="expected a number above 0"):
            flops_per_example(*bad)


def test_a_sweep_runs_over_budgets_cheap_ones_first():
    points = points_of("ladder", {"Wukong": base(MODELS["wukong"]), "DLRM": base(MODELS["dlrm"])})
    found = over_budgets(points, (1, 3))
    assert [(point.series, dict(point.varied)) for point in found] == [
        (series, {"budget_mflop": budget}) for budget in (1, 3) for series in ("Wukong", "DLRM")
    ]
    assert [point.config for point in found[:2]] == [rung(point.config, 1e6) for point in points]


def test_a_sweep_takes_no_budget_that_does_not_fit_the_machine(monkeypatch):
    points = points_of("ladder", {"DLRM": base(MODELS["dlrm"])})
    needed = memory(rung(points[0].config, 3e6))
    monkeypatch.setattr(ladder, "machine_memory", lambda: needed - 1)
    with pytest.raises(ConfigError, match=r"DLRM, seed 0, budget of 3 MFLOP: memory: .* what would fit"):
        over_budgets(points, (1, 3))
    assert len(over_budgets(points, (1, 3), memory_bytes=needed)) == 2
