import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from tests.sequential.tiny_sequences import ITEMS, config, random_sequences, write
from tests.tiny import memory_console
from wukong_jax.cli import main
from wukong_jax.config.sequences import SequencesConfig
from wukong_jax.config.sequential import HSTUConfig
from wukong_jax.sequential.examples import as_examples
from wukong_jax.sequential.recommend import best_items
from wukong_jax.training.run import load_best, train

pytestmark = pytest.mark.usefixtures("compile_quickly")
LENGTH = 5


@pytest.fixture(
    scope="module",
    params=[True, pytest.param(False, marks=pytest.mark.slow)],
    ids=["history removed", "history kept"],
)
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("recommend")
    store = write(folder / "store", random_sequences(users=60))
    model = HSTUConfig(width=8, num_layers=1, max_length=LENGTH)
    protocol = SequencesConfig(remove_history=request.param, cutoffs=(2,))
    train(config(store.path, model, sequences=protocol, epochs=1, eval_batch_size=32), folder / "run", memory_console())
    return folder, store, request.param


def predicted(folder, *arguments):
    assert main(["predict", "--run", str(folder / "run"), "--out", str(folder / "top.csv"), *arguments]) == 0
    return pl.read_csv(folder / "top.csv")


def expected(folder, store, removed):
    """User by user, a row of the last items and nothing after them."""
    program, best = load_best(folder / "run", pytest.fail)
    split = as_examples(store, program.config).split("test")
    table = np.asarray(next(iter(best.state.tables.values())), np.float64)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    found = {}
    for user in range(store.sequences.num_users):
        items = store.sequences.of(user)[-LENGTH:]
        start, stop = store.sequences.offsets[user], store.sequences.offsets[user + 1]
        times = store.sequences.times[start:stop]
        since = times[-LENGTH:] - times[-LENGTH - 1 :][0]
        row = np.full((32, 2 * (LENGTH + 1)), -1, np.int32)
        row[0, : len(items)] = items
        row[0, LENGTH + 1 : LENGTH + 1 + len(items)] = since
        row[0, LENGTH + 1 + len(items)] = since[-1]
        batch = split.take(np.zeros(32, int))._replace(ids=row)
        _, outputs = program.eval_step(best.state, (), batch)
        vector = np.asarray(outputs, np.float64)[0, len(items) - 1]
        scores = table @ vector / np.linalg.norm(vector) / 0.05
        if removed:
            scores[items] = -np.inf
        found[f"u{user}"] = scores
    return found


@pytest.mark.parametrize("item_chunk", [1, 4, 7, 22, 100])
@pytest.mark.parametrize("remove", [True, False])
def test_the_best_items_are_those_of_a_sort_in_chunks_of_any_size(remove, item_chunk, rng):
    users, items = rng.integers(-2, 3, (9, 3)).astype(np.float32), rng.integers(-2, 3, (22, 3)).astype(np.float32)
    history = np.where(rng.random((9, 6)) < 0.7, rng.integers(0, 22, (9, 6)), -1)
    history[0] = -1
    for top in (1, 5, 22):
        given = jnp.asarray(history) if remove else None
        chosen, scores = best_items(jnp.asarray(users), jnp.asarray(items), top, given, item_chunk=item_chunk)
        for user in range(9):
            left = [v for v in range(22) if not remove or v not in history[user]]
            best = sorted(left, key=lambda v: (-float(users[user] @ items[v]), v))[:top]
            missing = top - len(best)
            assert chosen[user].tolist() == best + [-1] * missing
            expected = [users[user] @ items[v] for v in best] + [-np.inf] * missing
            np.testing.assert_array_equal(scores[user], np.array(expected))


def test_each_user_gets_the_items_of_the_highest_scores(run):
    folder, store, removed = run
    frame = predicted(folder, "--top", "3")
    scores = expected(folder, store, removed)
    assert set(frame["user"]) == set(scores)
    for (user,), rows in frame.group_by(["user"], maintain_order=True):
        best = np.sort(scores[user])[::-1][:3]
        np.testing.assert_allclose(rows["score"], best, rtol=1e-4, atol=1e-4)
        assert rows["rank"].to_list() == [1, 2, 3]
        numbers = [int(name[1:]) for name in rows["item"]]
        np.testing.assert_allclose(scores[user][numbers], best, rtol=1e-4, atol=1e-4)


def test_with_more_places_than_items_the_history_is_what_is_missing(run):
    folder, store, removed = run
    frame = predicted(folder, "--top", "100")
    for (user,), rows in frame.group_by(["user"]):
        history = set(store.sequences.of(int(user[1:]))[-LENGTH:].tolist()) if removed else set()
        assert sorted(int(name[1:]) for name in rows["item"]) == sorted(set(range(ITEMS)) - history)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "test"], "leave --split and --files out"),
        (["--top", "0"], "--top: received 0, expected a number above 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(run, capsys, arguments, message):
    out = ["--out", str(run[0] / "bad.csv")]
    assert main(["predict", "--run", str(run[0] / "run"), *out, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (run[0] / "bad.csv").exists()
