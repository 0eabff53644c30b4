import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wukong_jax.config.optimizer import TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, RunConfig
from wukong_jax.data.batch import Batch
from wukong_jax.data.schema import MultiHotFeature
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.embeddings.plan import EmbeddingPlan, plan_embeddings
from wukong_jax.models.registry import build_model, table_specs
from wukong_jax.training.state import init_variables, make_inputs


@dataclasses.dataclass
class Setup:
    """A model with random parameters (no initialiser runs, so that nothing is 0 or 1 by chance) and a random batch."""

    config: RunConfig
    model: nn.Module
    plan: EmbeddingPlan
    variables: dict[str, Any]
    stacks: dict[str, jax.Array]
    batch: Batch

    @property
    def params(self) -> Any:
        """Parameters in float64 NumPy."""
        return jax.tree.map(lambda x: np.asarray(x, np.float64), self.variables["params"])

    @property
    def tables(self) -> dict[str, np.ndarray]:
        """Each table by its name, in float64 NumPy."""
        found = {}
        for stack in self.plan.stacks:
            for spec, first in zip(stack.tables, stack.offsets, strict=True):
                found[spec.name] = np.asarray(self.stacks[stack.name], np.float64)[first : first + spec.rows]
        return found

    @property
    def inputs(self) -> Inputs:
        """The batch, looked up."""
        return make_inputs(self.plan, self.batch, self.stacks)

    def logits(self, **settings: Any) -> Any:
        """The model applied to the batch."""
        return self.model.apply(self.variables, self.inputs, **settings)


def filled(shapes: Any, rng: np.random.Generator) -> Any:
    """Random arrays: matrices at the scale that keeps variances, scales and variances about 1, the rest small."""

    def fill(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = path[-1].key
        values = rng.normal(size=leaf.shape)
        if len(leaf.shape) > 1:
            values /= np.sqrt(leaf.shape[0])
        elif name in ("scale", "var"):
            values = 1 + 0.3 * np.tanh(values)
        else:
            values *= 0.3
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, shapes)


@pytest.fixture
def set_up(rng):
    def make(model_config, schema, *rules: TableRule, rows: int = 6) -> Setup:
        config = RunConfig(
            "test", schema, DataConfig(store="s"), model_config, tables=TablesConfig(rules or (TableRule(),))
        )
        model = build_model(model_config, schema)
        plan = plan_embeddings(schema, table_specs(model_config, schema), config.tables)
        shapes = jax.eval_shape(lambda: init_variables(model, plan, config, jax.random.key(0)))
        stacks = {s.name: jnp.asarray(rng.normal(size=(s.rows, s.width)), jnp.float32) for s in plan.stacks}
        columns = [np.zeros((rows, 0))]
        for feature in schema.id_features:
            several = isinstance(feature, MultiHotFeature)
            low, length = (-1, feature.max_length) if several else (0, 1)
            columns.append(rng.integers(low, feature.vocabulary_size, (rows, length)))
        batch = Batch(
            jnp.asarray(np.concatenate(columns, axis=1), jnp.int32),
            jnp.asarray(rng.normal(size=(rows, len(schema.numeric))), jnp.float32),
            jnp.asarray(rng.normal(size=(rows, schema.vector_columns)), jnp.float32),
            jnp.asarray(rng.integers(0, 2, (rows, len(schema.labels))), jnp.float32),
            jnp.ones(rows),
        )
        return Setup(config, model, plan, filled(shapes, rng), stacks, batch)

    return make


@pytest.fixture(scope="module", autouse=True)
def _quick(compile_quickly: None) -> None:
    """Models are compiled for a handful of examples."""
