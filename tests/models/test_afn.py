import dataclasses

import jax
import numpy as np
import pytest

from tests.models import wukong_oracle
from tests.models.baseline_oracle import ONE, TWO, compare, embeddings, mlp
from wukong_jax.config.baselines import AFNConfig
from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.run import DataConfig, RunConfig, TrainConfig
from wukong_jax.errors import ConfigError
from wukong_jax.training.micro_batch import micro_batch_size

HIDDEN = MLPConfig((5, 4), "tanh", batch_norm=True)
LINEAR = MLPConfig((5, 4), "identity", batch_norm=True)  # powers saturate a tanh
CASES = {
    "cross features only": AFNConfig(3, 4, LINEAR),
    "plus": AFNConfig(3, 4, MLPConfig((5,), "relu"), HIDDEN),
    "plus, shared tables": AFNConfig(4, 3, LINEAR, MLPConfig((6,)), shared_tables=True),
}


def normed(x: np.ndarray, p, statistics) -> np.ndarray:
    """BatchNorm of [batch, n, d] for each of n; the batch's own statistics where none are given."""
    means = statistics["mean"] if statistics else x.mean(axis=(0, 2))
    variances = statistics["var"] if statistics else x.var(axis=(0, 2))
    out = np.empty_like(x)
    for i in range(x.shape[1]):
        out[:, i] = (x[:, i] - means[i]) / np.sqrt(variances[i] + 1e-5) * p["scale"][i] + p["bias"][i]
    return out


def crossed(p, x: np.ndarray, statistics=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logarithms, products of powers, and these with their BatchNorm."""
    statistics = statistics or {}
    logs = np.log(np.maximum(np.abs(x), 1e-5))
    powers = np.exp(normed(logs, p["batch_norm_log"], statistics.get("batch_norm_log")))
    products = np.stack(
        [np.prod([powers[:, i] ** order for i, order in enumerate(orders)], axis=0) for orders in p["kernel"].T], axis=1
    )
    return logs, products, normed(products, p["batch_norm_exp"], statistics.get("batch_norm_exp"))


def second_embeddings(setup) -> np.ndarray:
    """X0 from the tables of the DNN."""
    model, batch = setup.config.model, jax.tree.map(np.asarray, setup.batch)
    tables = {name.removesuffix(":dnn"): table for name, table in setup.tables.items() if name.endswith(":dnn")}
    lifts = setup.params.get("embedding_layer_dnn", {})
    return wukong_oracle.embed(lifts, tables, batch, model, setup.config.schema)


def flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def set_small_values(setup) -> None:
    """Embedding values between 0 and the clamp's 1e-5: the first of every row of the first table."""
    rows = setup.plan.stacks[0].tables[0].rows
    setup.stacks = {name: stack.at[:rows, 0].set(-1e-7) for name, stack in setup.stacks.items()}


@pytest.mark.parametrize("config", CASES.values(), ids=CASES.keys())
def test_equals_the_float64_forward_pass(config, set_up):
    setup = set_up(config, TWO)
    set_small_values(setup)
    p = setup.params
    statistics = jax.tree.map(lambda x: np.asarray(x, np.float64), setup.variables["batch_stats"]["logarithmic"])
    x = embeddings(setup)
    assert np.any(np.abs(x) < 1e-5)
    wanted = mlp(setup, "mlp", flat(crossed(p["logarithmic"], x, statistics)[2]), config.mlp)
    if config.dnn is not None:
        dnn = mlp(setup, "dnn", flat(x if config.shared_tables else second_embeddings(setup)), config.dnn)
        wanted = p["weight"][0] * wanted + p["weight"][1] * dnn + p["bias"]
    compare(setup, wanted)


def test_training_normalises_by_the_batch_and_keeps_running_statistics(set_up):
    config = AFNConfig(3, 4, MLPConfig((5,), "tanh"))
    setup = set_up(config, TWO)
    logs, products, out = crossed(setup.params["logarithmic"], embeddings(setup))
    found, changed = setup.logits(train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(found, mlp(setup, "mlp", flat(out), config.mlp), rtol=1e-4, atol=1e-5)
    for name, values in (("batch_norm_log", logs), ("batch_norm_exp", products)):
        old, new = (tree["batch_stats"]["logarithmic"][name] for tree in (setup.variables, changed))
        np.testing.assert_allclose(
            new["mean"], 0.9 * old["mean"] + 0.1 * values.mean(axis=(0, 2)), rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(new["var"], 0.9 * old["var"] + 0.1 * values.var(axis=(0, 2)), rtol=1e-4, atol=1e-5)


def test_the_dnn_of_afn_plus_has_tables_of_its_own(set_up):
    own, shared = (set_up(dataclasses.replace(CASES["plus"], shared_tables=value), ONE) for value in (False, True))
    assert set(own.tables) == set(shared.tables) | {f"{name}:dnn" for name in shared.tables}
    assert {name: table.shape for name, table in own.tables.items()} == {
        f"{name}{suffix}": table.shape for name, table in shared.tables.items() for suffix in ("", ":dnn")
    }


def test_the_batch_is_not_cut_even_if_the_mlps_have_no_batch_norm():
    run = RunConfig("t", TWO, DataConfig(store="s"), AFNConfig(), train=TrainConfig(batch_size=8, micro_batch=4))
    with pytest.raises(ConfigError, match="BatchNorm needs the statistics of the whole batch"):
        micro_batch_size(run, "cpu", 8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"log_neurons": 0}, "model.log_neurons: received 0"),
        ({"shared_tables": True}, "model.shared_tables: received True, but model.dnn is None"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        AFNConfig(**settings)
