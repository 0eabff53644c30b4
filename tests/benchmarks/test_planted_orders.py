"""The planted logit taken apart by order of interaction, on all combinations of small fields."""

import itertools

import numpy as np
import pytest

from benchmarks.planted_orders import best_logloss, logits_by_order
from wukong_jax.data.planted import Rows, SyntheticConfig, plant, true_probabilities

CONFIG = SyntheticConfig(
    vocabulary_sizes=(2, 3, 4, 3), zipf_exponent=0.0, orders=(2, 4), latent_mean=0.6, terms_per_order=3
)
IDS = np.array(list(itertools.product(*(range(1, size + 1) for size in CONFIG.vocabulary_sizes))), np.int32)


@pytest.fixture(scope="module")
def parts():
    return logits_by_order(plant(CONFIG), IDS)


def test_the_parts_add_up_to_the_planted_logit(parts):
    planted = plant(CONFIG)
    rows = Rows(IDS, np.zeros((len(IDS), 0), np.float32), np.zeros(len(IDS)))
    expected = true_probabilities(planted, rows)
    np.testing.assert_allclose(1 / (1 + np.exp(-parts.sum(axis=0) - planted.bias)), expected, rtol=1e-4)


def test_a_part_has_no_mean_given_fewer_fields_than_its_order(parts):
    for order in (1, 2, 3, 4):
        cells = parts[order].reshape(CONFIG.vocabulary_sizes)
        for kept in itertools.combinations(range(4), order - 1):
            away = tuple(set(range(4)) - set(kept))
            np.testing.assert_allclose(cells.mean(axis=away), 0, atol=1e-6 * np.abs(cells).max())


def test_the_weights_of_the_parts_are_fitted():
    rng = np.random.default_rng(0)
    part = rng.normal(size=(1, 100_000))
    logits = 0.5 - 2.0 * part[0]
    labels = rng.random(100_000) < 1 / (1 + np.exp(-logits))
    truth = np.mean(np.logaddexp(0, logits) - labels * logits)
    found = best_logloss(np.concatenate([np.full_like(part, 9.0), part]), labels)
    assert found == pytest.approx(truth, abs=1e-4)
    assert found < truth
