"""The dense side beside optimizers written out in float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wukong_jax.config.optimizer import OptimizerConfig, ParameterRule, ScheduleConfig, TableRule, TablesConfig
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema
from wukong_jax.embeddings.plan import plan_embeddings
from wukong_jax.embeddings.specs import FeatureSpec, TableSpec, TableSpecs
from wukong_jax.errors import ConfigError
from wukong_jax.training.optim import apply_scaled, dense_optimizer, schedule

SCHEMA = DatasetSchema((CategoricalFeature("a", 5), CategoricalFeature("b", 4)))
SPECS = TableSpecs(
    (TableSpec("a", 5, 2, 0.1), TableSpec("b", 4, 3, 0.1)), (FeatureSpec("a", "a"), FeatureSpec("b", "b"))
)
STEPS, RATE, TABLE_RATE = 4, 0.1, 0.03


def make(config: OptimizerConfig, rule: TableRule, total_steps: int = 100):
    plan = plan_embeddings(SCHEMA, SPECS, TablesConfig((rule,)))
    return plan, dense_optimizer(config, plan, total_steps)


def tree(rng: np.random.Generator, plan) -> dict:
    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    tables = {stack.name: draw(stack.rows, stack.width) for stack in plan.dense}
    return {
        "params": {"layer_0": {"kernel": draw(3, 2), "bias": draw(2)}, "head": {"kernel": draw(2, 1)}},
        "tables": tables,
    }


def flat(tree: dict) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(key.key for key in path): np.asarray(leaf, np.float64) for path, leaf in leaves}


class Oracle:
    """One array under adam, adamw, adagrad or sgd; L2 and clipping have been applied to the gradient before."""

    def __init__(self, name: str, w: np.ndarray, rate: float, decay: float = 0.0) -> None:
        self.name, self.w, self.rate, self.decay, self.step = name, w.copy(), rate, decay, 0
        self.m, self.v, self.sums = 0.0, 0.0, np.full(w.shape, 0.1)

    def update(self, g: np.ndarray, factor: float = 1.0) -> None:
        self.step += 1
        if self.name in ("adam", "adamw"):
            self.m, self.v = 0.9 * self.m + 0.1 * g, 0.999 * self.v + 0.001 * g**2
            g = self.m / (1 - 0.9**self.step) / (np.sqrt(self.v / (1 - 0.999**self.step)) + 1e-8)
        elif self.name == "adagrad":
            self.sums += g**2
            g = g / np.sqrt(self.sums + 1e-7)
        self.w -= factor * self.rate * (g + self.decay * self.w)


def follow(optimizer, params: dict, gradients: list[dict], scale: float = 1.0) -> dict[str, np.ndarray]:
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for g in gradients:
        updates, state = update(g, state, params)
        params = apply_scaled(params, updates, jnp.float32(scale))
    return flat(params)


@pytest.mark.parametrize("name", ["adam", "adamw", "adagrad", "sgd"])
@pytest.mark.parametrize("l2", [0.0, 0.2])
def test_every_optimizer_with_coupled_l2_clipping_rules_and_rates(name, l2, rng):
    """L2 is added to the gradient, over whole tables too; then one norm over all; then each part's own rate."""
    table_name = "adam" if name == "adamw" else name
    rule = TableRule(update="dense", name=table_name, learning_rate=TABLE_RATE, l2=2 * l2)
    rules = (ParameterRule("bias", 0.5), ParameterRule("layer_0|bias", 2.0, l2), ParameterRule(".*", l2=3 * l2))
    decay = 0.3 if name == "adamw" else 0.0
    config = OptimizerConfig(name, RATE, clip_norm=1.0, weight_decay=decay, rules=rules)
    plan, optimizer = make(config, rule)
    params, gradients = tree(rng, plan), [tree(rng, plan) for _ in range(STEPS)]
    for table in gradients[0]["tables"]:  # rows that no example touched decay all the same
        gradients[0]["tables"][table] = jnp.zeros_like(gradients[0]["tables"][table])

    settings = {
        "params/layer_0/bias": (0.5, 0.0),
        "params/layer_0/kernel": (2.0, l2),
        "params/head/kernel": (1.0, 3 * l2),
    }
    oracles = {}
    for path, w in flat(params).items():
        if path in settings:
            oracles[path] = (Oracle(name, w, RATE * settings[path][0], decay), settings[path][1])
        else:
            oracles[path] = (Oracle(table_name, w, TABLE_RATE), 2 * l2)
    for g in gradients:
        whole = {path: value + oracles[path][1] * oracles[path][0].w for path, value in flat(g).items()}
        norm = np.sqrt(sum((value**2).sum() for value in whole.values()))
        assert norm > 1
        for path, value in whole.items():
            oracles[path][0].update(value / norm)

    found = follow(optimizer, params, gradients)
    assert len(found) == 5
    for path, (oracle, _) in oracles.items():
        np.testing.assert_allclose(found[path], oracle.w, rtol=2e-5, atol=1e-5, err_msg=path)


def test_a_small_gradient_is_not_clipped(rng):
    rule = TableRule(update="dense", name="sgd", learning_rate=TABLE_RATE)
    plan, optimizer = make(OptimizerConfig("sgd", RATE, clip_norm=1e3), rule)
    params, gradients = tree(rng, plan), [tree(rng, plan)]
    found = follow(optimizer, params, gradients)
    for path, w in flat(params).items():
        rate = RATE if path.startswith("params") else TABLE_RATE
        np.testing.assert_allclose(found[path], w - rate * flat(gradients[0])[path], rtol=1e-5, atol=1e-6)


def test_the_scale_of_the_plateau_and_the_schedule_act_on_every_rate(rng):
    rule = TableRule(update="dense", name="sgd", learning_rate=TABLE_RATE)
    plan, optimizer = make(OptimizerConfig("sgd", RATE, ScheduleConfig(warmup_steps=4)), rule)
    params, gradients = tree(rng, plan), [tree(rng, plan)] * 2
    found = follow(optimizer, params, gradients, scale=0.1)
    for path, w in flat(params).items():
        rate = 0.1 * (RATE if path.startswith("params") else TABLE_RATE) * (1 / 4 + 2 / 4)
        np.testing.assert_allclose(found[path], w - rate * flat(gradients[0])[path], rtol=1e-5, atol=1e-6)


def test_the_decay_of_squares_is_that_of_parameters_and_dense_tables(rng):
    rule = TableRule(update="dense", name="adam", learning_rate=TABLE_RATE)
    plan, optimizer = make(OptimizerConfig("adam", RATE, adam_b2=0.5), rule)
    params, gradients = tree(rng, plan), [tree(rng, plan), tree(rng, plan)]
    found = follow(optimizer, params, gradients)
    first, second = map(flat, gradients)
    for path, w in flat(params).items():
        g, h = first[path], second[path]
        mean, squares = (0.09 * g + 0.1 * h) / (1 - 0.9**2), (0.25 * g**2 + 0.5 * h**2) / (1 - 0.5**2)
        rate = RATE if path.startswith("params") else TABLE_RATE
        wanted = w - rate * (g / (np.abs(g) + 1e-8) + mean / (np.sqrt(squares) + 1e-8))
        np.testing.assert_allclose(found[path], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("start", [0.0, 2.0])
def test_the_sum_of_squares_of_a_dense_table_starts_where_its_rule_says(start, rng):
    rule = TableRule(update="dense", name="adagrad", learning_rate=TABLE_RATE, initial_accumulator=start)
    plan, optimizer = make(OptimizerConfig("sgd", RATE), rule)
    params, gradient = tree(rng, plan)["tables"], tree(rng, plan)["tables"]
    found, before, g = follow(optimizer, {"tables": params}, [{"tables": gradient}]), flat(params), flat(gradient)
    assert len(found) == 2
    for name, w in before.items():
        wanted = w - TABLE_RATE * g[name] / np.sqrt(start + g[name] ** 2 + 1e-7)
        np.testing.assert_allclose(found[f"tables/{name}"], wanted, rtol=1e-5, atol=1e-6)


def test_a_scale_of_0_freezes(rng):
    rules = (ParameterRule("^layer_0", 0.0), ParameterRule(".*"))
    plan, optimizer = make(OptimizerConfig(rules=rules), TableRule())
    params = tree(rng, plan)
    found = follow(optimizer, params, [tree(rng, plan)])
    before = flat(params)
    assert {path for path in found if np.array_equal(found[path], before[path])} == {
        "params/layer_0/bias",
        "params/layer_0/kernel",
    }


def test_row_sparse_tables_are_not_on_the_dense_side(rng):
    plan, optimizer = make(OptimizerConfig(), TableRule())
    assert plan.dense == ()
    assert len(plan.row_sparse) == 2
    shapes = [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(lambda: optimizer.init(tree(rng, plan))))]
    assert (5, 2) not in shapes


def test_a_parameter_that_no_rule_covers_is_named(rng):
    plan, optimizer = make(OptimizerConfig(rules=(ParameterRule("kernel"),)), TableRule())
    with pytest.raises(ConfigError, match=r"no rule matches the parameter 'layer_0/bias'; end the rules with"):
        optimizer.init(tree(rng, plan))


def values(config: ScheduleConfig, total: int) -> list[float]:
    factor = schedule(config, total)
    return [float(factor(step)) for step in range(total + 1)]


def test_schedules():
    assert values(ScheduleConfig(), 3) == [1, 1, 1, 1]
    warm = values(ScheduleConfig(warmup_steps=4), 10)
    np.testing.assert_allclose(warm, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1, 1], rtol=1e-6)
    assert values(ScheduleConfig(warmup_steps=1), 3) == [1, 1, 1, 1]
    np.testing.assert_allclose(values(ScheduleConfig(warmup_fraction=0.4), 10), warm, rtol=1e-6)
    cosine = values(ScheduleConfig("cosine", warmup_steps=2), 10)
    wanted = [0.5, 1, *[(1 + np.cos(np.pi * step / 8)) / 2 for step in range(9)]]
    np.testing.assert_allclose(cosine, wanted, rtol=1e-5, atol=1e-7)
    assert cosine[-1] == pytest.approx(0, abs=1e-7)
    assert min(values(ScheduleConfig("cosine"), 5)[:5]) > 0, "the last step still moves"


def test_a_step_keeps_the_type_of_the_parameter():
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    moved = apply_scaled(params, {"w": jnp.full(3, 0.5, jnp.bfloat16)}, jnp.float32(0.5))
    assert moved["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(moved["w"].astype(jnp.float32), 1.25)
