import dataclasses
import json
import subprocess
import sys

import pytest

from wukong_jax.config.codec import difference, from_plain, stable_hash, to_plain
from wukong_jax.config.layers import EmbeddingConfig, FeatureGroup, ImportantFeature, MLPConfig
from wukong_jax.config.mesh import MeshConfig
from wukong_jax.config.models import (
    AttentiveConfig,
    FactorizationMachineConfig,
    LayerOverride,
    LogisticRegressionConfig,
    WukongConfig,
)
from wukong_jax.config.optimizer import OptimizerConfig, ParameterRule, ScheduleConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, PlateauConfig, RunConfig, TrainConfig
from wukong_jax.data.schema import (
    CategoricalFeature,
    DatasetSchema,
    MultiHotFeature,
    NumericFeature,
    VectorFeature,
)
from wukong_jax.errors import ConfigError

SCHEMA = DatasetSchema(
    (CategoricalFeature("user", 100),),
    (MultiHotFeature("genres", 20, 3, "mean"),),
    (NumericFeature("age"),),
    (VectorFeature("text", 8),),
    labels=("click", "buy"),
    group="user_id",
)
WUKONG = WukongConfig(
    num_layers=2,
    fm="attentive",
    attentive=AttentiveConfig(3, MLPConfig((5,), "gelu", 0.25, True)),
    layers=(LayerOverride(num_fmb=3), LayerOverride(rank=2, fmb_mlp=MLPConfig())),
    embedding=EmbeddingConfig((ImportantFeature("user", 2),), (FeatureGroup(("genres",), 4),)),
)
RUN = RunConfig(
    "all",
    SCHEMA,
    DataConfig(store="store"),
    WUKONG,
    OptimizerConfig(
        "adamw", 1e-2, ScheduleConfig("cosine", 10), 1.0, 0.1, (ParameterRule("bias", 0.5), ParameterRule(".*"))
    ),
    TablesConfig((TableRule("user", 1000, "dense", "adam", 0.1, 1e-5), TableRule())),
    TrainConfig(task_weights=(1.0, 0.5), plateau=PlateauConfig(0.5), max_steps=7),
    MeshConfig(2, 1),
)
VALUES = [
    RUN,
    dataclasses.replace(RUN, model=LogisticRegressionConfig()),
    dataclasses.replace(RUN, model=FactorizationMachineConfig(4)),
    dataclasses.replace(RUN, data=DataConfig(recipe="frappe")),
    *[getattr(RUN, field.name) for field in dataclasses.fields(RUN)[1:]],
    *[AttentiveConfig(), LayerOverride(), MLPConfig((3,)), ImportantFeature("a", 2), FeatureGroup(("a", "b"), 3)],
    *[
        EmbeddingConfig(),
        ScheduleConfig(),
        ParameterRule("x"),
        TableRule(),
        PlateauConfig(),
        LogisticRegressionConfig(),
    ],
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_json_round_trip(value):
    text = json.dumps(to_plain(value))
    again = from_plain(type(value), json.loads(text))
    assert again == value
    assert stable_hash(again) == stable_hash(value)


def test_the_hash_is_pinned_and_the_same_in_another_process():
    assert stable_hash(SCHEMA) == SCHEMA.hash() == "d77100a20441ed3c"
    program = (
        "from wukong_jax.data.schema import *; print(DatasetSchema((CategoricalFeature('user', 100),),"
        "(MultiHotFeature('genres', 20, 3, 'mean'),), (NumericFeature('age'),), (VectorFeature('text', 8),),"
        "labels=('click', 'buy'), group='user_id').hash())"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == SCHEMA.hash()


def test_the_hash_sees_every_field():
    plain = to_plain(RUN)
    hashes = {stable_hash(plain)}
    leaves = 0

    def change(node):
        nonlocal leaves
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(value, dict | list) and value:
                change(value)
                continue
            leaves += 1
            node[key] = "changed"
            hashes.add(stable_hash(plain))
            node[key] = value

    change(plain)
    assert leaves > 80
    assert len(hashes) == leaves + 1


def test_identity_leaves_out_only_where_files_lie_and_how_often_they_are_written():
    moved = dataclasses.replace(
        RUN,
        data=DataConfig(store="elsewhere", root="r"),
        train=dataclasses.replace(RUN.train, keep_last=9, tensorboard=True, diagnostics_every_steps=7),
    )
    assert moved.identity_hash() == RUN.identity_hash()
    assert moved.hash() != RUN.hash()
    for other in (
        dataclasses.replace(RUN, train=dataclasses.replace(RUN.train, seed=1)),
        dataclasses.replace(RUN, data=DataConfig(store="store", shuffle=False)),
        dataclasses.replace(RUN, model=dataclasses.replace(WUKONG, width=8)),
    ):
        assert other.identity_hash() != RUN.identity_hash()


@pytest.mark.parametrize(
    "record",
    ["frappe/frappe-seed0-5a4bfdf1472f266f", "performance_law/ml100k_small/ml100k_grid-seed0-09a0b3ac38ecc018"],
)
def test_settings_that_came_later_leave_the_identity_of_earlier_runs(pytestconfig, record):
    """The records and the hashes in their names were written before there were such settings."""
    plain = json.loads((pytestconfig.rootpath / "results" / f"{record}.jsonl").read_text())["config"]
    assert "training" not in (plain.get("sequences") or {})
    config = from_plain(RunConfig, plain)
    assert config.identity_hash() == record.rpartition("-")[2]
    later = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, adam_b2=0.97))
    assert later.identity_hash() != config.identity_hash()


def changed(path: str, value: object) -> dict:
    plain = json.loads(json.dumps(to_plain(RUN)))
    *parents, last = path.split(".")
    node = plain
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node[part]
    node[last] = value
    return plain


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("train.epoch", 3, r"train: unknown fields \['epoch'\]; expected some of \['batch_size'"),
        ("train.epochs", "3", r'train.epochs: received "3", expected int'),
        ("train.epochs", 3.5, r"train.epochs: received 3.5, expected int"),
        ("train.epochs", True, r"train.epochs: received true, expected int"),
        ("train.max_steps", "many", r'train.max_steps: received "many", expected int or NoneType'),
        ("train.task_weights", 1.0, r"train.task_weights: received 1.0, expected a list"),
        ("train.task_weights", [1.0, "a"], r'train.task_weights\[1\]: received "a", expected float'),
        ("train.monitor", "acc", r"train.monitor: received 'acc', expected one of auc, logloss"),
        ("tables.deduplicate", "sorted", r"""tables.deduplicate: received "sorted", expected one of \['auto'"""),
        ("train", [1], r"train: received \[1\], expected an object with the fields of TrainConfig"),
        ("train.type", "DataConfig", r'train.type: received "DataConfig", expected TrainConfig'),
        ("model.type", "DeepFM", r"""model.type: received "DeepFM", expected one of \['AFNConfig'"""),
        ("model", "Wukong", r'model: received "Wukong", expected WukongConfig or'),
        (
            "model.layers.1.fmb_mlp.widths",
            [4, None],
            r"model.layers\[1\].fmb_mlp.widths\[1\]: received null, expected int",
        ),
        ("model.layers.1.fmb_mlp.type", "MLP", r'model.layers\[1\].fmb_mlp.type: received "MLP", expected one of'),
        ("schema.categorical.0.size", 4, r"schema.categorical\[0\]: unknown fields \['size'\]"),
        ("optimizer.rules.0.l2", -1.0, r"optimizer.rules: l2: received -1.0, expected 0 or more"),
    ],
)
def test_what_does_not_fit_is_named_by_its_path(path, value, message):
    with pytest.raises(ConfigError, match=message):
        from_plain(RunConfig, changed(path, value))


def test_a_missing_field_is_named():
    plain = to_plain(RUN)
    del plain["model"], plain["schema"]["categorical"][0]["vocabulary_size"]
    with pytest.raises(
        ConfigError, match=r"schema.categorical\[0\].vocabulary_size: missing; CategoricalFeature needs it"
    ):
        from_plain(RunConfig, plain)


def test_a_whole_number_is_taken_for_a_float():
    value = from_plain(TrainConfig, changed("train.task_weights", [1, 2])["train"])
    assert [type(weight) for weight in value.task_weights] == [float, float]


def test_difference_names_what_changed():
    other = dataclasses.replace(
        RUN,
        model=dataclasses.replace(WUKONG, width=8, layers=()),
        optimizer=dataclasses.replace(RUN.optimizer, rules=(ParameterRule("bias", 0.25), ParameterRule(".*"))),
    )
    lines = difference(to_plain(RUN), to_plain(other))
    assert lines[0] == "model.width: 32 -> 8"
    assert lines[1].startswith('model.layers: [{"type": "LayerOverride"')
    assert lines[1].endswith("... -> []")
    assert lines[2] == "optimizer.rules[0].learning_rate_scale: 0.5 -> 0.25"
    assert len(lines) == 3
    assert difference(to_plain(RUN), to_plain(RUN)) == []
    assert difference({"a": 1, "b": 2}, {"b": 2, "c": 3}) == ["a: 1 -> (absent)", "c: (absent) -> 3"]
    of_models = difference(to_plain(RUN.model), to_plain(LogisticRegressionConfig()))
    assert of_models[0] == 'type: "WukongConfig" -> "LogisticRegressionConfig"'
    assert "init_stddev: (absent) -> 0.0001" in of_models
