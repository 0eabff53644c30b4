"""Losses that a model adds to its training loss: FinalNet's self-distillation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.test_micro_batch import batch, run_config
from wukong_jax.config.baselines import FinalNetConfig
from wukong_jax.config.layers import MLPConfig
from wukong_jax.config.optimizer import TableRule, TablesConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.training.program import build_program
from wukong_jax.training.state import make_inputs

pytestmark = pytest.mark.usefixtures("compile_quickly")

PLAIN = FinalNetConfig(4, MLPConfig((6,), "identity"), MLPConfig((4,), "tanh"))
DISTILLED = dataclasses.replace(PLAIN, self_distillation=True)
TASK_WEIGHTS = np.array([1.0, 0.3])


def config_of(model, micro_batch: int | None = None) -> RunConfig:
    tables = TablesConfig((TableRule(".*", update="dense", name="sgd", learning_rate=0.2),))
    return dataclasses.replace(run_config(model, micro_batch=micro_batch, progressive=False), tables=tables)


def after_a_step(model, micro_batch: int | None = None):
    program = build_program(config_of(model, micro_batch), 10)
    rng = np.random.default_rng(7)

    def fill(leaf: jax.Array) -> jax.Array:  # predictions that differ, so that there is something to distil
        return jnp.asarray(0.5 * rng.normal(size=leaf.shape), leaf.dtype)

    before = program.init()
    before = before.replace(params=jax.tree.map(fill, before.params), tables=jax.tree.map(fill, before.tables))
    kept = jax.tree.map(jnp.copy, (before.params, before.tables))
    after = program.train_step(before, jax.device_put(batch()))
    return program, kept, after


def test_a_step_follows_them_and_the_reported_loss_leaves_them_out():
    """SGD: parameters and tables differ by the rate times the gradient of the weighted mean of the own losses."""
    _, _, plain = after_a_step(PLAIN)
    program, (params, tables), distilled = after_a_step(DISTILLED)
    assert float(distilled.loss_sum) == float(plain.loss_sum)

    def block_logits(params, tables):
        inputs = make_inputs(program.plan, jax.device_put(batch()), tables)
        _, found = program.model.apply(
            {"params": params}, inputs, train=True, mutable=["intermediates"],
            capture_intermediates=lambda module, _: module.name in ("head_1", "head_2"),
        )  # fmt: skip
        return [found["intermediates"][name]["__call__"][0] for name in ("head_1", "head_2")]

    teacher = jax.nn.sigmoid(sum(block_logits(params, tables)) / 2)  # a constant to the gradient

    def own_loss(params, tables):
        losses = sum(
            -teacher * jax.nn.log_sigmoid(z) - (1 - teacher) * jax.nn.log_sigmoid(-z)
            for z in block_logits(params, tables)
        )
        weights = batch().weights
        return (losses @ TASK_WEIGHTS.astype(np.float32) * weights).sum() / weights.sum()

    gradients = jax.grad(own_loss, argnums=(0, 1))(params, tables)
    for rate, without, with_them, gradient in (
        (0.3, plain.params, distilled.params, gradients[0]),
        (0.2, plain.tables, distilled.tables, gradients[1]),
    ):
        for one, other, step in zip(*map(jax.tree.leaves, (without, with_them, gradient)), strict=True):
            np.testing.assert_allclose(other - one, -rate * step, rtol=1e-3, atol=1e-6)
        assert any(np.abs(step).max() > 1e-2 for step in jax.tree.leaves(gradient))


def test_parts_of_a_batch_add_up():
    _, _, whole = after_a_step(DISTILLED)
    _, _, parts = after_a_step(DISTILLED, micro_batch=12)
    for one, other in zip(jax.tree.leaves(whole.params), jax.tree.leaves(parts.params), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
