"""A prepared store as the Python source of a configuration file."""

import json

from wukong_jax.config.sequences import SequencesConfig
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.sequential.schema import SequenceSchema


def schema_source(schema: DatasetSchema) -> str:
    """The schema as Python source, one feature a line; evaluating it gives an equal schema."""
    lines = ["DatasetSchema("]
    for kind in ("categorical", "multi_hot", "numeric", "vectors"):
        features = getattr(schema, kind)
        if features:
            lines += [f"    {kind}=(", *(f"        {_double_quoted(feature)}," for feature in features), "    ),"]
    lines.append(f"    labels={_tuple(schema.labels)},")
    lines += [
        f"    {name}={_text(getattr(schema, name))},"
        for name in ("group", "weight", "time")
        if getattr(schema, name) is not None
    ]
    return "\n".join([*lines, ")"])


def config_source(name: str, store: str, schema: DatasetSchema) -> str:
    """Source of a configuration file whose `get_config()` trains a Wukong on the store."""
    kinds = {type(feature).__name__ for feature in (*schema.id_features, *schema.numeric, *schema.vectors)}
    return f'''"""Wukong on {_text(store)[1:-1]}, as prepared by `python -m wukong_jax prepare`.

    python train.py --config this_file.py
"""

from wukong_jax.config.models import WukongConfig
from wukong_jax.config.run import DataConfig, RunConfig
from wukong_jax.data.schema import {", ".join(sorted({"DatasetSchema", *kinds}))}

SCHEMA = {schema_source(schema)}


def get_config() -> RunConfig:
    """The run: change what you like here, or on the command line."""
    return RunConfig(name={_text(name)}, data=DataConfig(store={_text(store)}), schema=SCHEMA, model=WukongConfig())
'''


def sequence_config_source(name: str, store: str, schema: SequenceSchema) -> str:
    """Source of a configuration file whose `get_config()` trains a SASRec on the store of sequences."""
    cutoffs = tuple(k for k in SequencesConfig().cutoffs if k < schema.num_items) or (schema.num_items // 2,)
    return f'''"""SASRec on {_text(store)[1:-1]}, as prepared by `python -m wukong_jax prepare --events`.

    python train.py --config this_file.py
"""

from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, PlateauConfig, RunConfig, TrainConfig
from wukong_jax.config.sequences import SequencesConfig
from wukong_jax.config.sequential import SASRecConfig
from wukong_jax.sequential.schema import SequenceSchema


def get_config() -> RunConfig:
    """The run: change what you like here, or on the command line."""
    return RunConfig(
        name={_text(name)},
        schema=SequenceSchema(num_items={schema.num_items}, times={schema.times}),
        data=DataConfig(store={_text(store)}),
        model=SASRecConfig(max_length=50),
        optimizer=OptimizerConfig(name="adamw", adam_b2=0.98),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=1e-3),)),
        train=TrainConfig(
            batch_size=128, epochs=100, monitor="ndcg@{cutoffs[0]}", plateau=PlateauConfig(patience=5, stop_after=10)
        ),
        sequences=SequencesConfig(cutoffs={cutoffs}),
    )
'''


def _double_quoted(feature: object) -> str:
    fields = ", ".join(
        f"{name}={_text(value) if isinstance(value, str) else value}" for name, value in vars(feature).items()
    )
    return f"{type(feature).__name__}({fields})"


def _tuple(values: tuple[str, ...]) -> str:
    return "(" + ", ".join(map(_text, values)) + ("," if len(values) == 1 else "") + ")"


def _text(value: str) -> str:
    """A string literal in double quotes, as the formatter has it; JSON's is one of Python's too."""
    return json.dumps(value, ensure_ascii=False)
