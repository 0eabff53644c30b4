"""Synthetic data: the planted truth attains the stored floor, orders stay apart, bytes do not depend on chunks."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from wukong_jax.data.planted import Rows, SyntheticConfig, draw, plant, true_probabilities
from wukong_jax.data.store import open_store
from wukong_jax.data.synthetic import expected_auc, expected_logloss, schema, write_synthetic
from wukong_jax.errors import ConfigError

SMALL = SyntheticConfig(
    train=20_000, valid=1_000, test=50_000, vocabulary_sizes=(50, 20, 7, 2, 300, 1000), numeric=2, terms_per_order=3
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_synthetic(SMALL, tmp_path_factory.mktemp("synthetic") / "store")


def truth_of(store, split):
    """True probabilities and labels of the stored rows."""
    columns = store.split(split).columns
    rows = Rows(np.array(columns["ids"]), np.array(columns["numeric"]), np.zeros(len(columns["ids"])))
    return true_probabilities(plant(SMALL), rows), np.array(columns["labels"][:, 0])


def test_the_store_has_the_schema_and_the_rows(store):
    assert store.schema == schema(SMALL)
    assert {name: split.rows for name, split in store.splits.items()} == {
        "train": 20_000,
        "valid": 1_000,
        "test": 50_000,
    }
    assert open_store(store.path).encoding["synthetic"]["seed"] == 0
    ids = store.split("train").columns["ids"]
    assert ids.min() == 1
    assert ids.max(axis=0).tolist() <= list(SMALL.vocabulary_sizes)
    assert ids[:, 3].max() == 2


def test_the_true_probabilities_attain_the_stored_floor(store):
    truth, labels = truth_of(store, "test")
    floor = store.encoding["floor"]["test"]
    # Standard errors: of the mean loss from its own spread; of the AUC by Hanley and McNeil's bound.
    losses = -np.where(labels == 1, np.log(truth), np.log1p(-truth))
    assert floor["logloss"] == pytest.approx(log_loss(labels, truth), abs=4 * losses.std() / np.sqrt(len(losses)))
    error = 0.5 / float(np.sqrt(min(labels.sum(), len(labels) - labels.sum())))
    assert floor["auc"] == pytest.approx(roc_auc_score(labels, truth), abs=4 * error)
    assert floor["drawn_logloss"] == pytest.approx(log_loss(labels, truth), abs=1e-6)
    assert floor["positive_rate"] == pytest.approx(SMALL.positive_rate, abs=0.01)
    spread = np.sqrt(np.mean(truth * (1 - truth)) / len(labels))
    assert labels.mean() == pytest.approx(floor["positive_rate"], abs=4 * float(spread))


def test_no_distortion_of_the_truth_beats_it(store):
    truth, _ = truth_of(store, "test")
    best = expected_logloss(truth)
    for other in (0.9 * truth, 0.5 * truth + 0.12, truth**1.1):
        assert -np.mean(truth * np.log(other) + (1 - truth) * np.log1p(-other)) > best


@pytest.mark.parametrize("ties", [False, True])
def test_the_expected_auc_is_the_pairwise_formula(rng, ties):
    p = rng.random(60)
    p = np.round(p, 1) if ties else p
    above = total = 0.0
    for i, j in itertools.permutations(range(60), 2):
        weight = p[i] * (1 - p[j])
        above += weight * (1.0 if p[i] > p[j] else 0.5 if p[i] == p[j] else 0.0)
        total += weight
    assert expected_auc(p) == pytest.approx(above / total, rel=1e-12)


def test_the_expected_auc_is_the_mean_over_drawn_labels(rng):
    p = rng.beta(0.5, 1.5, 2_000)
    drawn = [roc_auc_score(rng.random(2_000) < p, p) for _ in range(200)]
    assert expected_auc(p) == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(200) + 1e-4)


@pytest.mark.parametrize(("p", "auc"), [([0.3] * 5, 0.5), ([0.0, 1.0], 1.0), ([1.0, 1.0], 0.5)])
def test_the_floor_of_degenerate_probabilities_is_finite(p, auc):
    assert expected_auc(np.array(p)) == auc
    assert np.isfinite(expected_logloss(np.array(p)))


def test_the_chunk_size_does_not_change_the_bytes(tmp_path):
    config = dataclasses.replace(SMALL, train=5_000, test=700)
    manifests = []
    for chunk_rows in (137, 1_000, 100_000):
        made = write_synthetic(config, tmp_path / str(chunk_rows), chunk_rows=chunk_rows)
        manifests.append(json.loads((made.path / "store.json").read_text()))
    assert manifests[0] == manifests[1] == manifests[2]


def test_more_training_rows_leave_the_other_rows_as_they_are(tmp_path, store):
    larger = write_synthetic(dataclasses.replace(SMALL, train=30_000), tmp_path / "store")
    for split in ("train", "valid", "test"):
        for kind, values in store.split(split).columns.items():
            np.testing.assert_array_equal(values, larger.split(split).columns[kind][: len(values)])
    assert not np.array_equal(store.split("valid").columns["ids"], store.split("test").columns["ids"][:1_000])


def test_another_seed_gives_other_data():
    first, second = draw(SMALL, 0, 0, 100), draw(dataclasses.replace(SMALL, seed=1), 0, 0, 100)
    assert not np.array_equal(first.ids, second.ids)
    assert plant(SMALL).terms != plant(dataclasses.replace(SMALL, seed=1)).terms


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0, 1.5])
def test_ids_follow_the_power_law(exponent):
    config = SyntheticConfig(vocabulary_sizes=(30,), zipf_exponent=exponent, orders=(1,))
    ranks = draw(config, 0, 0, 200_000).ids[:, 0]
    # Oracle: the integral of x^-a over [r, r + 1] by the midpoint rule on a fine grid.
    grid = np.arange(1.0, 31.0)[:, None] + (np.arange(1_000) + 0.5) / 1_000
    mass = (grid**-exponent).sum(axis=1)
    expected = 200_000 * mass / mass.sum()
    chi_square = ((np.bincount(ranks, minlength=31)[1:] - expected) ** 2 / expected).sum()
    assert chi_square < 60  # 29 degrees of freedom: 1 in 1,600


def all_pairs(config):
    """Every combination of ids of a config with few small fields, with its probability."""
    sizes = config.vocabulary_sizes
    ids = np.array(list(itertools.product(*(range(1, size + 1) for size in sizes))), np.int32)
    edges = [np.arange(1.0, size + 2.0) ** (1.0 - config.zipf_exponent) for size in sizes]
    masses = [np.diff(edge) / (edge[-1] - edge[0]) for edge in edges]
    mass = np.prod([masses[f][ids[:, f] - 1] for f in range(len(sizes))], axis=0)
    rows = Rows(ids, np.zeros((len(ids), 0), np.float32), np.zeros(len(ids)))
    truth = true_probabilities(plant(config), rows)
    return ids, mass, np.log(truth / (1 - truth))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_only_the_planted_order_carries_signal(order):
    config = SyntheticConfig(
        vocabulary_sizes=(5, 2, 6, 4), orders=(order,), terms_per_order=2, zipf_exponent=0.8, strength=1.2
    )
    ids, mass, logit = all_pairs(config)
    mean = (mass * logit).sum()
    logit = logit - mean
    # Exact over all combinations: the variance is strength^2, and the mean given fewer than `order` fields is 0.
    assert (mass * logit**2).sum() == pytest.approx(config.strength**2, rel=1e-5)
    explained = {}
    for size in (1, 2, 3, 4):
        explained[size] = 0.0
        for fields in itertools.combinations(range(4), size):
            _, cell = np.unique(ids[:, fields], axis=0, return_inverse=True)
            weight = np.bincount(cell.ravel(), mass)
            explained[size] += (np.bincount(cell.ravel(), mass * logit) ** 2 / weight).sum()
    for size in range(1, order):
        assert explained[size] == pytest.approx(0.0, abs=1e-9)
    assert explained[order] == pytest.approx(config.strength**2, rel=1e-5)


def explained_by(ids, mass, logit, fields):
    """Variance of the centred logit's mean given these fields."""
    _, cell = np.unique(ids[:, fields], axis=0, return_inverse=True)
    weight = np.bincount(cell.ravel(), mass)
    return (np.bincount(cell.ravel(), mass * logit) ** 2 / weight).sum()


@pytest.mark.parametrize("latent_mean", [0.3, 0.8])
def test_with_a_mean_a_term_casts_binomial_shadows_on_lower_orders(latent_mean):
    config = SyntheticConfig(
        vocabulary_sizes=(5, 2, 6), orders=(3,), terms_per_order=1, latent_width=1, zipf_exponent=0.8, strength=0.5,
        latent_mean=latent_mean,
    )  # fmt: skip
    ids, mass, logit = all_pairs(config)
    logit = logit - (mass * logit).sum()
    total = (mass * logit**2).sum()
    assert total == pytest.approx(config.strength**2, rel=0.03)  # calibrated on drawn rows
    q = 1 - latent_mean**2
    for order in (1, 2):
        # The mean given all fields of a subset explains that subset and all within it: q^j m^(2 (3 - j)) each.
        share = sum(
            math.comb(order, j) * q**j * latent_mean ** (2 * (3 - j)) for j in range(1, order + 1)
        ) / (1 - latent_mean**6)  # fmt: skip
        for fields in itertools.combinations(range(3), order):
            assert explained_by(ids, mass, logit, fields) == pytest.approx(share * total, rel=1e-4)


def test_terms_decay_by_the_power_of_their_place():
    config = SyntheticConfig(
        vocabulary_sizes=(5, 3, 6, 4), orders=(1,), terms_per_order=4, zipf_exponent=0.8, strength=2.0, term_decay=1.0
    )
    ids, mass, logit = all_pairs(config)
    logit = logit - (mass * logit).sum()
    found = [explained_by(ids, mass, logit, (field,)) for (field,) in plant(config).terms]
    weights = np.array([1.0, 1 / 4, 1 / 9, 1 / 16])
    np.testing.assert_allclose(found, 4.0 * weights / weights.sum(), rtol=1e-4)


def test_a_numeric_feature_has_the_mean_too():
    config = SyntheticConfig(
        vocabulary_sizes=(4,), numeric=2, orders=(3,), terms_per_order=1, latent_width=1, latent_mean=0.6
    )
    rows = draw(config, 0, 0, 200_000)
    planted = plant(config)
    truth = true_probabilities(planted, rows)
    logit = np.log(truth / (1 - truth))
    z = [0.6 + 0.8 * np.ravel(planted.latents[i]) * rows.numeric[:, i - 1] for i in (1, 2)]
    product = planted.latents[0][rows.ids[:, 0] - 1, 0] * z[0] * z[1]
    assert np.corrcoef(product, logit)[0, 1] == pytest.approx(1.0, abs=1e-6)
    assert logit.std() == pytest.approx(config.strength, rel=0.02)


def test_orders_share_the_variance_equally():
    config = SyntheticConfig(
        vocabulary_sizes=(5, 3, 6, 4), orders=(1, 3), terms_per_order=2, zipf_exponent=0.8, strength=2.0
    )
    ids, mass, logit = all_pairs(config)
    logit = logit - (mass * logit).sum()
    first = sum(
        (np.bincount(ids[:, f], mass * logit)[1:] ** 2 / np.bincount(ids[:, f], mass)[1:]).sum() for f in range(4)
    )
    assert first == pytest.approx(2.0, rel=1e-4)
    assert (mass * logit**2).sum() == pytest.approx(4.0, rel=1e-4)


def test_numeric_features_have_unit_variance_and_carry_signal():
    config = SyntheticConfig(vocabulary_sizes=(4,), numeric=3, orders=(1,), terms_per_order=4)
    rows = draw(config, 0, 0, 100_000)
    np.testing.assert_allclose(rows.numeric.mean(axis=0), 0.0, atol=0.02)
    np.testing.assert_allclose(rows.numeric.std(axis=0), 1.0, atol=0.02)
    truth = true_probabilities(plant(config), rows)
    logit = np.log(truth / (1 - truth))
    slopes = [np.polyfit(rows.numeric[:, i], logit, 1)[0] for i in range(3)]
    # Each term has a quarter of the variance 1.5^2.
    np.testing.assert_allclose(np.abs(slopes), 0.75, atol=0.02)


@pytest.mark.parametrize(
    "change",
    [
        {"zipf_exponent": 0.0},
        {"zipf_exponent": 10.0},
        {"strength": 0.0},
        {"strength": 20.0, "positive_rate": 0.001},
        {"vocabulary_sizes": (2,) * 12, "orders": (8, 12), "zipf_exponent": 1.0},
        {"numeric": 4, "latent_width": 1, "orders": (4, 20)},
        {"latent_mean": 0.99, "orders": (1, 8), "term_decay": 10.0},
        {"latent_mean": 0.5, "strength": 0.0},
    ],
)
def test_extreme_settings_stay_finite(tmp_path, change):
    config = SyntheticConfig(**{"train": 500, "valid": 100, "test": 100} | change)
    floor = write_synthetic(config, tmp_path / "store").encoding["floor"]["train"]
    assert 0 <= floor["logloss"] <= np.log(2)
    assert 0.5 - 1e-9 <= floor["auc"] <= 1.0
    assert plant(config).terms
    if config.strength == 0:
        assert floor["auc"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": 0}, "train: received 0, expected at least 1 row"),
        ({"vocabulary_sizes": (5, 1)}, "vocabulary_sizes.*2 values or more"),
        ({"vocabulary_sizes": ()}, "vocabulary_sizes"),
        ({"orders": ()}, "orders"),
        ({"orders": (2, 2)}, "orders.*each once"),
        ({"orders": (17,)}, r"orders from 1 to 16 \(fields\)"),
        ({"strength": float("nan")}, "strength.*0 .pure noise. to 20"),
        ({"zipf_exponent": -1.0}, "zipf_exponent"),
        ({"positive_rate": 1.0}, "positive_rate.*between 0 and 1"),
        ({"seed": -1}, "seed"),
        ({"latent_width": 0}, "latent_width"),
        ({"latent_mean": 1.0}, "latent_mean.*0 .pure orders. to below 1"),
        ({"term_decay": -0.1}, "term_decay"),
        ({"terms_per_order": 0}, "terms_per_order"),
        ({"numeric": -1}, "numeric"),
    ],
)
def test_a_bad_value_is_named(change, message):
    with pytest.raises(ConfigError, match=f"synthetic\\..*{message}"):
        SyntheticConfig(**change)
