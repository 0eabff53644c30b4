"""What a run needs of the validation split is checked before training."""

import dataclasses

import numpy as np
import pytest

from tests.tiny import STEPS_PER_EPOCH, memory_console, plain_config, write_store
from wukong_jax.config.run import PlateauConfig
from wukong_jax.data.store import open_store
from wukong_jax.errors import ConfigError
from wukong_jax.training.run import check_validation, train

pytestmark = pytest.mark.usefixtures("compile_quickly")


def test_a_plateau_without_a_validation_split_is_refused(tmp_path):
    store = write_store(tmp_path / "store", rows={"train": 70}).path
    with pytest.raises(ConfigError, match=r"train.plateau: store .* no rows in the split 'valid'"):
        train(plain_config(store, plateau=PlateauConfig()), tmp_path / "run", memory_console())
    assert not (tmp_path / "run").exists()


def test_an_undefined_monitor_is_refused_before_training(tmp_path):
    store = write_store(tmp_path / "store", rows={"train": 70, "valid": 1, "test": 9}).path
    with pytest.raises(
        ConfigError, match=r"label 'label' is [01] in all rows of the split 'valid'.*--train.monitor logloss"
    ):
        train(plain_config(store), tmp_path / "run", memory_console())
    assert (
        train(plain_config(store, monitor="logloss"), tmp_path / "run", memory_console())["steps"]
        == 3 * STEPS_PER_EPOCH
    )


@pytest.mark.parametrize("monitor", ["auc", "logloss"])
def test_only_validation_rows_that_count_are_looked_at(tiny_store, monitor):
    store = open_store(tiny_store)
    split = store.split("valid")

    def weighted(weights):
        columns = split.columns | {"weights": weights.astype(np.float32)}
        return dataclasses.replace(store, splits=store.splits | {"valid": dataclasses.replace(split, columns=columns)})

    config = plain_config(tiny_store, monitor=monitor)
    labels = split.columns["labels"][:, 0]
    check_validation(config, weighted(np.ones(split.rows)))
    with pytest.raises(ConfigError, match=r"schema.weight: .* is 0 in all rows of the split 'valid'"):
        check_validation(config, weighted(np.zeros(split.rows)))
    if monitor == "auc":
        with pytest.raises(ConfigError, match="is 1 in all rows of the split 'valid' that count"):
            check_validation(config, weighted(labels))
    else:
        check_validation(config, weighted(labels))
