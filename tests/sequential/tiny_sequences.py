"""Small stores of sequences and configs on them, shared by the tests of training."""

import dataclasses
import pathlib

import numpy as np

from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, RunConfig, TrainConfig
from wukong_jax.config.sequences import SequencesConfig
from wukong_jax.config.sequential import BackboneConfig, SASRecConfig
from wukong_jax.sequential.schema import SequenceSchema
from wukong_jax.sequential.sequences import Sequences, as_names, offsets_of
from wukong_jax.sequential.store import SequenceStore, write_sequence_store

ITEMS = 17
DENSE = TablesConfig((TableRule(update="dense", name="adam", learning_rate=5e-2),))
SPARSE = TablesConfig((TableRule(name="rowwise_adagrad", learning_rate=5e-2),))


def random_sequences(seed: int = 0, users: int = 40, *, times: bool = True) -> Sequences:
    """Users of 1 to 12 items, each item mostly the successor of the one before, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 13, users)
    lengths[:3] = (1, 2, 12)
    lists = []
    for length in lengths:
        steps = np.where(rng.random(length) < 0.9, 1, rng.integers(0, ITEMS, length))
        lists.append(np.cumsum(steps) % ITEMS)
    items = np.concatenate(lists).astype(np.int32)
    clock = np.concatenate([10**9 + np.cumsum(rng.integers(0, 10**5, length)) for length in lengths])
    names = as_names([f"u{user}" for user in range(users)]), as_names([f"i{item}" for item in range(ITEMS)])
    return Sequences(items, offsets_of(lengths), ITEMS, *names, times=clock if times else None)


def write(path: pathlib.Path, sequences: Sequences) -> SequenceStore:
    """A store of them."""
    return write_sequence_store(path, sequences, {"source": "made up"})


def config(
    path: pathlib.Path,
    model: BackboneConfig | None = None,
    tables: TablesConfig = DENSE,
    *,
    times: bool = True,
    sequences: SequencesConfig | None = None,
    **train: object,
) -> RunConfig:
    """A run of a few steps on a store."""
    settings = {"batch_size": 8, "epochs": 2, "eval_batch_size": 16, "monitor": "ndcg@2", "log_every_steps": 2, **train}
    return RunConfig(
        "tiny_sequences",
        SequenceSchema(ITEMS, times),
        DataConfig(store=str(path)),
        model or SASRecConfig(width=8, num_layers=1, max_length=5, dropout=0.1),
        OptimizerConfig(name="adamw", learning_rate=1e-2, adam_b2=0.98),
        tables,
        dataclasses.replace(TrainConfig(), **settings),
        sequences=sequences or SequencesConfig(cutoffs=(2, 5)),
    )
