"""Logistic regression and FM beside sums written out in NumPy."""

import itertools

import jax
import numpy as np
import pytest

from wukong_jax.config.models import FactorizationMachineConfig, LogisticRegressionConfig
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema, MultiHotFeature, NumericFeature, VectorFeature

FEATURES = (
    (CategoricalFeature("a", 9), CategoricalFeature("b", 5)),
    (MultiHotFeature("mean", 7, 3, "mean"), MultiHotFeature("sum", 6, 2)),
    (NumericFeature("x"),),
    (VectorFeature("v", 2),),
)
ONE, TWO = DatasetSchema(*FEATURES), DatasetSchema(*FEATURES, labels=("click", "buy"))


def terms(setup, schema, example: int, suffix: str) -> list[np.ndarray]:
    """The rows that each field adds, pooled as the schema says."""
    found = []
    for feature in schema.id_features:
        ids = np.asarray(setup.batch.ids)[example, schema.id_slices()[feature.name]]
        rows = [setup.tables[feature.name + suffix][i] for i in ids if i >= 0]
        total = np.sum(rows, axis=0) if rows else np.zeros(setup.tables[feature.name + suffix].shape[1])
        mean = getattr(feature, "combiner", None) == "mean"
        found.append(total / max(len(rows), 1) if mean else total)
    return found


def values(setup, example: int) -> np.ndarray:
    return np.concatenate([np.asarray(setup.batch.numeric)[example], np.asarray(setup.batch.vectors)[example]]).astype(
        float
    )


@pytest.mark.parametrize("schema", [ONE, TWO], ids=["one task", "two tasks"])
def test_logistic_regression_is_a_sum_of_weights(schema, set_up):
    setup = set_up(LogisticRegressionConfig(), schema)
    p = setup.params["linear"]
    for example, logits in enumerate(np.asarray(setup.logits())):
        wanted = (
            p["bias"] + sum(terms(setup, schema, example, ":weight")) + values(setup, example) @ p["numeric"]["kernel"]
        )
        np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("schema", [ONE, TWO], ids=["one task", "two tasks"])
def test_the_factorization_machine_adds_all_pairwise_products(schema, set_up):
    width, tasks = 3, len(schema.labels)
    setup = set_up(FactorizationMachineConfig(width), schema)
    p = setup.params
    for example, logits in enumerate(np.asarray(setup.logits())):
        x = values(setup, example)
        wanted = (
            p["linear"]["bias"] + sum(terms(setup, schema, example, ":weight")) + x @ p["linear"]["numeric"]["kernel"]
        )
        vectors = terms(setup, schema, example, "") + [value * v for value, v in zip(x, p["numeric"], strict=True)]
        for one, two in itertools.combinations(vectors, 2):
            wanted = wanted + np.array(
                [one[t * width : (t + 1) * width] @ two[t * width : (t + 1) * width] for t in range(tasks)]
            )
        np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-5)


def test_their_parameters_are_few(set_up):
    setup = set_up(FactorizationMachineConfig(3), ONE)
    assert jax.tree.map(np.shape, setup.params) == {
        "linear": {"bias": (1,), "numeric": {"kernel": (3, 1)}},
        "numeric": (3, 3),
    }
    assert {name: table.shape for name, table in setup.tables.items()} == {
        "a": (9, 3), "b": (5, 3), "mean": (7, 3), "sum": (6, 3),
        "a:weight": (9, 1), "b:weight": (5, 1), "mean:weight": (7, 1), "sum:weight": (6, 1),
    }  # fmt: skip
