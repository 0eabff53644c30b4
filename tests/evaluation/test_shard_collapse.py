"""Information abundance of tables that lie on several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding

from tests.tiny import SCHEMA, table_rule
from wukong_jax.config.mesh import MeshConfig
from wukong_jax.config.models import WukongConfig
from wukong_jax.embeddings.plan import plan_embeddings
from wukong_jax.embeddings.relayout import stored_rows
from wukong_jax.embeddings.sharded import table_spec
from wukong_jax.evaluation import collapse
from wukong_jax.evaluation.collapse import table_abundance
from wukong_jax.models.registry import table_specs
from wukong_jax.training.sharding import AXES, make_mesh


@pytest.mark.parametrize("placement", ["replicated", "rows", "dealt_rows", "columns"])
def test_abundance_does_not_depend_on_where_the_rows_lie(placement, rng, monkeypatch):
    monkeypatch.setattr(collapse, "CHUNK", 40)
    mesh, specs = make_mesh(MeshConfig(4, 2)), table_specs(WukongConfig(width=8), SCHEMA)
    tables = table_rule("row_sparse", "adagrad")
    (whole,) = plan_embeddings(SCHEMA, specs, tables).stacks
    plan = plan_embeddings(SCHEMA, specs, tables, dict.fromkeys(SCHEMA.feature_names, placement), 8)
    (split,) = plan.stacks
    rows = rng.normal(size=(whole.rows, whole.width)).astype(np.float32)
    seen = rng.random(whole.rows) < 0.7
    expected = table_abundance(
        plan_embeddings(SCHEMA, specs, tables), {whole.name: jnp.asarray(rows)}, {whole.name: seen}
    )
    placed = jax.device_put(stored_rows(split, jnp.asarray(rows)), NamedSharding(mesh, table_spec(split, AXES)))
    found = table_abundance(plan, {split.name: placed}, {split.name: seen})
    assert found.keys() == expected.keys()
    for name, figures in expected.items():
        assert found[name] == pytest.approx(figures, abs=1e-6)
