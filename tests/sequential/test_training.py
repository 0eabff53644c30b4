import dataclasses
import functools

import jax
import numpy as np
import pytest

from tests.sequential.tiny_sequences import DENSE, ITEMS, SPARSE, config, random_sequences, write
from tests.tiny import memory_console
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.sequences import SequencesConfig
from wukong_jax.config.sequential import (
    BCEConfig,
    FullSoftmaxConfig,
    HSTUConfig,
    LlamaConfig,
    SampledSoftmaxConfig,
    SASRecConfig,
)
from wukong_jax.data.pipeline import fill_batch
from wukong_jax.errors import ConfigError
from wukong_jax.sequential.examples import as_examples
from wukong_jax.training.program import build_program
from wukong_jax.training.run import load_best, train

pytestmark = pytest.mark.usefixtures("compile_quickly")
SLOW = pytest.mark.slow
SMALL = {"width": 8, "num_layers": 1, "max_length": 5, "dropout": 0.0}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write(tmp_path_factory.mktemp("sequences") / "store", random_sequences(users=200))


def batch_of(store, run):
    return as_examples(store, run).split("train").take(slice(0, run.train.batch_size))


MODELS = {
    "sasrec, sampled": (SASRecConfig(**SMALL), DENSE),
    "sasrec, sampled by sequence, row by row": (SASRecConfig(**SMALL), SPARSE),
    "hstu, full": (HSTUConfig(**SMALL, loss=FullSoftmaxConfig()), DENSE),
    "llama, bce, row by row": (LlamaConfig(**SMALL, loss=BCEConfig(4)), SPARSE),
}


OF_EACH = ("sasrec, sampled by sequence, row by row", "hstu, full")


@functools.cache
def program_of(path, name):
    model, tables = MODELS[name]
    return build_program(config(path, model, tables, batch_size=64), 60)


@pytest.mark.parametrize("name", [name if name in OF_EACH else pytest.param(name, marks=SLOW) for name in MODELS])
def test_training_learns_the_order_of_items(store, name):
    program = program_of(store.path, name)
    state, batch = program.init(), batch_of(store, program.config)
    losses = []
    for _ in range(60):
        before = state.loss_sum + 0
        state = program.train_step(state, batch)
        losses.append(float(state.loss_sum - before))
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    metrics = ranked(program, state, store)
    assert metrics["hr@2"] > 0.5, "nine of ten items follow the one before; by chance 2 of 17 would be hit"


def ranked(program, state, store, split="test"):
    rows = as_examples(store, program.config).split(split)
    return program.objective.evaluate(lambda m, b: program.eval_step(state, m, b), rows, 16)


def test_a_step_in_parts_is_the_step_at_once(store):
    plain = TablesConfig((TableRule(update="dense", name="sgd", learning_rate=1.0),))
    model = SASRecConfig(**SMALL, loss=FullSoftmaxConfig())
    whole = config(store.path, model, plain, batch_size=16, micro_batch=None)
    whole = dataclasses.replace(whole, optimizer=OptimizerConfig(name="sgd", learning_rate=1.0))
    parts = dataclasses.replace(whole, train=dataclasses.replace(whole.train, micro_batch=4))
    states = []
    for run in (whole, parts):
        program = build_program(run, 10)
        states.append(program.train_step(program.init(), batch_of(store, run)))
    assert float(states[0].loss_sum) == pytest.approx(float(states[1].loss_sum), rel=1e-5)
    for one, other in zip(
        *map(jax.tree.leaves, (states[0].params | states[0].tables, states[1].params | states[1].tables)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-6)


def test_a_batch_cut_to_its_longest_user_gives_the_same_step(store):
    run = config(store.path, SASRecConfig(**SMALL, loss=FullSoftmaxConfig()))
    program, batch = build_program(run, 10), batch_of(store, run)
    short = np.flatnonzero((batch.ids[:, :6] >= 0).sum(axis=1) <= 4)[:2]
    rows = type(batch)(*(np.asarray(array)[short] for array in batch))
    cut = rows._replace(ids=np.concatenate([rows.ids[:, :4], rows.ids[:, 6:10]], axis=1))
    losses = [float(program.train_step(program.init(), one).loss_sum) for one in (rows, cut)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("remove_history", [True, pytest.param(False, marks=SLOW)])
def test_the_ranking_is_that_of_all_scores_sorted(store, remove_history):
    protocol = SequencesConfig(remove_history=remove_history, cutoffs=(2, 5))
    run = config(store.path, HSTUConfig(**SMALL), sequences=protocol)
    program = build_program(run, 10)
    state = program.train_step(program.init(), batch_of(store, run))
    rows = as_examples(store, run).split("test").take(slice(0, 1000))
    _, users = program.eval_step(state, (), fill_batch(rows, len(rows.weights)))
    table = np.asarray(next(iter(state.tables.values())), np.float64)
    unit = lambda x: x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-6)  # noqa: E731
    ranks = []
    for ids, vectors in zip(rows.ids, np.asarray(users, np.float64), strict=True):
        items = [item for item in ids[:6] if item >= 0]
        scores = unit(table) @ unit(vectors[len(items) - 2])
        target, history = items[-1], set(items[:-1]) if remove_history else set()
        others = [scores[item] for item in range(ITEMS) if item != target and item not in history]
        ranks.append(1 + sum(score >= scores[target] for score in others))
    ranks = np.array(ranks)
    found = ranked(program, state, store)
    assert found["hr@2"] == pytest.approx((ranks <= 2).mean())
    assert found["ndcg@5"] == pytest.approx(np.where(ranks <= 5, 1 / np.log2(1 + ranks), 0).mean(), rel=1e-5)
    assert found["mrr"] == pytest.approx((1 / ranks).mean(), rel=1e-5)
    assert found["examples"] == len(ranks)


def test_negatives_row_by_row_are_new_in_every_step(store):
    program = program_of(store.path, "sasrec, sampled by sequence, row by row")
    batch = batch_of(store, program.config)
    losses = {float(program.train_step(state_of(program, step), batch).loss_sum) for step in (0, 0, 1, 2)}
    assert len(losses) == 3


def test_negatives_are_not_taken_for_times(store):
    """With as many negatives as items and times, columns alone do not tell them apart."""
    run = config(store.path, HSTUConfig(**SMALL, loss=SampledSoftmaxConfig(num_negatives=20)), SPARSE, times=False)
    params = jax.eval_shape(build_program(run, 10).init).params
    assert "time_bias" not in str(jax.tree_util.tree_structure(params))


def state_of(program, step):
    state = program.init()
    return dataclasses.replace(state, step=state.step + step)


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    run = config(store.path, HSTUConfig(**SMALL), epochs=3)
    return folder, run, train(run, folder, memory_console())


def test_a_run_leaves_a_record_of_its_ranking(trained):
    record = trained[2]
    assert set(record["results"]) == {"valid", "test"}
    for scores in record["results"].values():
        assert {"hr@2", "hr@5", "ndcg@2", "ndcg@5", "mrr", "loss"} <= set(scores)
    validations = [point for point in record["history"] if point["split"] == "valid"]
    assert len(validations) == 3
    best = max(validations, key=lambda point: point["ndcg@2"])
    assert record["best_step"] == best["step"]
    assert record["results"]["valid"]["ndcg@2"] == pytest.approx(best["ndcg@2"])
    assert record["information_abundance"]["item"]["rows"] == ITEMS
    assert all("loss" in point for point in record["history"] if point["split"] == "train")
    assert record["model"] == "HSTU"


def test_the_best_checkpoint_scores_as_the_record_says(trained, store):
    folder, _, record = trained
    program, best = load_best(folder, pytest.fail)
    assert ranked(program, best.state, store)["ndcg@5"] == pytest.approx(record["results"]["test"]["ndcg@5"])


def test_a_run_goes_on_where_it_stopped(trained, store, tmp_path):
    _, run, record = trained
    half = dataclasses.replace(run, train=dataclasses.replace(run.train, checkpoint_every_steps=5))

    class Stop(Exception):
        pass

    def stop(progress):
        raise Stop

    with pytest.raises(Stop):
        train(half, tmp_path / "run", memory_console(), on_evaluation=stop)
    console = memory_console()
    again = train(half, tmp_path / "run", console)
    assert "resuming after step" in console.file.getvalue()
    assert again["results"] == record["results"]
    assert again["history"] == record["history"]


def test_without_validation_the_last_checkpoint_counts_and_the_test_is_watched(store, tmp_path):
    run = config(store.path, SASRecConfig(**SMALL), sequences=SequencesConfig("last", cutoffs=(2,)))
    record = train(run, tmp_path / "run", memory_console())
    watched = [point for point in record["history"] if point["split"] == "test"]
    assert len(watched) == 2
    assert record["best_step"] == record["steps"] == watched[-1]["step"]
    assert set(record["results"]) == {"test"}
    assert record["results"]["test"]["hr@2"] == pytest.approx(watched[-1]["hr@2"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: {"sequences": None}, "sequences: received None, expected a SequencesConfig"),
        (
            lambda run: {"train": dataclasses.replace(run.train, monitor="auc")},
            "train.monitor: received 'auc', expected one of ndcg@2, ndcg@5, hr@2, hr@5, mrr, loss",
        ),
        (
            lambda run: {"train": dataclasses.replace(run.train, progressive=True)},
            "train.progressive: received True, but sequences have no such scores",
        ),
        (
            lambda run: {"sequences": SequencesConfig(cutoffs=(2, 5), lengths=(3, 5))},
            "sequences.lengths: received .3, 5., expected lengths below model.max_length 5",
        ),
        (
            lambda run: {"sequences": SequencesConfig(cutoffs=(2, 17))},
            "sequences.cutoffs: received .2, 17. for 17 items, .* hr@17 would be 1 of any model; expected",
        ),
        (
            lambda run: {"model": SASRecConfig(**SMALL, loss=FullSoftmaxConfig()), "tables": SPARSE},
            "model.loss: the full softmax reads all items",
        ),
    ],
)
def test_what_does_not_fit_sequences_is_refused(store, change, message):
    run = config(store.path)
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(run, **change(run))
