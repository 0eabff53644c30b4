"""Row optimizers beside a float64 oracle that loops over rows, and beside optax where the rules must agree."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wukong_jax.config.optimizer import TableRule
from wukong_jax.embeddings.deduplicate import merge_by_slot, merge_by_sort
from wukong_jax.embeddings.optimizers import row_optimizer, update_rows

ROWS, COUNT, WIDTH, STEPS, RATE = 30, 64, 4, 5, 0.1
NAMES = ["sgd", "adagrad", "rowwise_adagrad", "adam"]


class Oracle:
    """One row at a time, in float64, from the papers' formulas."""

    def __init__(self, name: str, table: np.ndarray, start: float) -> None:
        self.name, self.table, self.step = name, table.astype(np.float64), 0
        self.sums = np.full(table.shape, start)
        self.row_sums = np.full(len(table), start)
        self.mean, self.square = np.zeros(table.shape), np.zeros(table.shape)

    def update(self, ids: np.ndarray, gradients: np.ndarray, rate: float, l2: float) -> None:
        self.step += 1
        for row in np.unique(ids[ids < len(self.table)]):
            g = gradients[ids == row].astype(np.float64).sum(axis=0) + l2 * self.table[row]
            if self.name == "sgd":
                change = g
            elif self.name == "adagrad":
                self.sums[row] += g**2
                change = g / np.sqrt(self.sums[row] + 1e-7)
            elif self.name == "rowwise_adagrad":
                self.row_sums[row] += (g**2).mean()
                change = g / np.sqrt(self.row_sums[row] + 1e-7)
            else:
                self.mean[row] = 0.9 * self.mean[row] + 0.1 * g
                self.square[row] = 0.999 * self.square[row] + 0.001 * g**2
                mean, square = self.mean[row] / (1 - 0.9**self.step), self.square[row] / (1 - 0.999**self.step)
                change = mean / (np.sqrt(square) + 1e-8)
            self.table[row] -= rate * change


def batches(rng: np.random.Generator, low: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Heavy duplicates, unused places, and rows below `low` never touched."""
    return [
        (
            rng.choice([*range(low, low + 9), ROWS], COUNT).astype(np.int32),
            rng.normal(size=(COUNT, WIDTH)).astype(np.float32),
        )
        for _ in range(STEPS)
    ]


def run(
    rule: TableRule, table: np.ndarray, data: list, *, slot: bool = True
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    @jax.jit
    def step(table, slots, scratch, ids, gradients, number):
        if slot:
            merged, scratch = merge_by_slot(ids, gradients, scratch)
        else:
            merged = merge_by_sort(ids, gradients, ROWS)
        return *update_rows(table, slots, merged, rule, jnp.float32(rule.learning_rate), number), scratch

    state = jnp.asarray(table), row_optimizer(rule).init(ROWS, WIDTH), jnp.zeros(ROWS, jnp.int32)
    for number, (ids, gradients) in enumerate(data):
        state = step(*state, ids, gradients, jnp.int32(number))
    return np.asarray(state[0]), {name: np.asarray(slot) for name, slot in state[1].items()}


@pytest.mark.parametrize("slot", [True, False])
@pytest.mark.parametrize("l2", [0.0, 0.3])
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_oracle_over_steps_with_duplicates(name, l2, slot, rng):
    table = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    data = batches(rng, low=10)
    rule = TableRule(name=name, learning_rate=RATE, l2=l2)
    found, slots = run(rule, table, data, slot=slot)
    oracle = Oracle(name, table, rule.initial_accumulator)
    for ids, gradients in data:
        oracle.update(ids, gradients, RATE, l2)
    np.testing.assert_allclose(found, oracle.table, rtol=1e-5, atol=1e-5)
    expected = {
        "sgd": {},
        "adagrad": {"sum_of_squares": oracle.sums},
        "rowwise_adagrad": {"sum_of_squares": oracle.row_sums},
        "adam": {"mean": oracle.mean, "square": oracle.square},
    }[name]
    assert slots.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(slots[key], value, rtol=1e-5, atol=1e-6)

    untouched = np.setdiff1d(np.arange(ROWS), np.concatenate([ids for ids, _ in data]))
    assert len(untouched) >= 21
    np.testing.assert_array_equal(found[untouched], table[untouched])
    for key, value in row_optimizer(rule).init(ROWS, WIDTH).items():
        np.testing.assert_array_equal(slots[key][untouched], np.asarray(value)[untouched])


DENSE = {
    "sgd": optax.sgd(RATE),
    "adagrad": optax.adagrad(RATE, initial_accumulator_value=0.1, eps=1e-7),
    "adam": optax.adam(RATE),
}


@pytest.mark.parametrize(
    ("name", "every_row"), [("sgd", True), ("sgd", False), ("adagrad", True), ("adagrad", False), ("adam", True)]
)
def test_equals_the_dense_rule(name, every_row, rng):
    """SGD and Adagrad whichever rows are touched; lazy Adam only where every row is touched in every step."""
    data = batches(rng)
    if every_row:
        data = [(rng.permutation(np.arange(COUNT) % ROWS).astype(np.int32), gradients) for _, gradients in data]
    table = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    found, _ = run(TableRule(name=name, learning_rate=RATE), table, data)

    optimizer, dense = DENSE[name], jnp.asarray(table)
    state = optimizer.init(dense)
    for ids, gradients in data:
        whole = jnp.zeros((ROWS, WIDTH)).at[ids].add(gradients, mode="drop")
        updates, state = optimizer.update(whole, state, dense)
        dense = optax.apply_updates(dense, updates)
    np.testing.assert_allclose(found, dense, rtol=1e-5, atol=2e-6)


def test_a_row_hit_many_times_is_updated_once_with_the_sum():
    """By hand: three gradients 1, 2, 3 and accumulator 0: Adagrad's first step is the rate, not three steps."""
    rule = TableRule(name="adagrad", learning_rate=RATE, initial_accumulator=0.0)
    gradients = np.array([1.0, 2.0, 3.0], np.float32)[:, None] * np.ones(WIDTH, np.float32)
    found, slots = run(rule, np.zeros((ROWS, WIDTH), np.float32), [(np.full(3, 4, np.int32), gradients)])
    np.testing.assert_allclose(found[4], -RATE, rtol=1e-6)
    np.testing.assert_allclose(slots["sum_of_squares"][4], 36.0)
    assert np.count_nonzero(found) == WIDTH


def test_a_lazy_row_keeps_its_moments_while_it_is_not_touched(rng):
    gradient = rng.normal(size=(1, WIDTH)).astype(np.float32)
    touched, idle = (np.array([3], np.int32), gradient), (np.array([5], np.int32), gradient)
    table = np.zeros((ROWS, WIDTH), np.float32)
    _, after_one = run(TableRule(name="adam"), table, [touched])
    _, after_three = run(TableRule(name="adam"), table, [touched, idle, idle])
    for name in ("mean", "square"):
        np.testing.assert_array_equal(after_three[name][3], after_one[name][3])
        assert after_one[name][3].all()


def test_a_zero_gradient_with_an_empty_accumulator_changes_nothing(rng):
    table = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    zeros = [(np.arange(COUNT, dtype=np.int32) % ROWS, np.zeros((COUNT, WIDTH), np.float32))]
    for name in ("adagrad", "rowwise_adagrad"):
        found, _ = run(TableRule(name=name, initial_accumulator=0.0), table, zeros)
        np.testing.assert_array_equal(found, table)
