"""Next-item recommendation as an objective: its loss over all positions, its ranking over all items."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from wukong_jax.agreement import process_count, process_index
from wukong_jax.config.run import RunConfig, drawn_negatives
from wukong_jax.config.sequential import BackboneConfig, FullSoftmaxConfig
from wukong_jax.data.batch import Batch
from wukong_jax.data.pipeline import evaluation_batches
from wukong_jax.data.store import Split
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.embeddings.plan import EmbeddingPlan, plan_embeddings
from wukong_jax.errors import ConfigError
from wukong_jax.evaluation.ranking import compute_ranking, init_ranking, rank_targets, update_ranking
from wukong_jax.sequential.losses import draw_negatives, rows_loss, score_vectors, table_loss
from wukong_jax.sequential.model import item_tables
from wukong_jax.sequential.packing import PackedSplit
from wukong_jax.sequential.schema import ITEM_TABLE, ITEMS, NEGATIVES, SequenceSchema


class NextItemObjective:
    """The loss of a config's backbone at every position with a next item, its ranking of each row's last item.

    Where the item table is updated densely, the loss reads it whole and draws negatives for each position. Where it is
    updated row by row, negatives are drawn for each sequence and shared by its positions, so that a step touches
    batch x (length + negatives) rows.
    """

    loss_name = "loss"
    task_weights: tuple[float, ...] = ()

    def __init__(self, config: RunConfig, plan: EmbeddingPlan) -> None:
        """The objective of a config of sequences, its tables placed as in `plan`."""
        assert isinstance(config.schema, SequenceSchema)
        assert config.sequences is not None
        self._config, self._schema, self._protocol = config, config.schema, config.sequences
        model: Any = config.model
        self._model: BackboneConfig = model
        self._negatives = drawn_negatives(config)
        """Of each sequence, as columns of its batch; 0 where the table is passed whole."""
        self._packed = config.sequences.packing
        self._columns_per_event = 2 if config.schema.times else 1
        """In an evaluation; rows that hold several users have one more, in training."""
        self._placements = {spec.name: stack.placement for stack in plan.stacks for spec in stack.tables}
        self._check_order()

    def training_plan(self, ids: jax.Array) -> EmbeddingPlan:
        """The lookups of prepared ids [..., columns], which hold the negatives too."""
        return self._plan(self._trained_items(ids) - 1, self._negatives, self._packed)

    def example_plan(self, ids: np.ndarray) -> EmbeddingPlan:
        """The lookups of ids [..., columns] of the training split, before negatives are drawn for them."""
        return self._plan(ids.shape[-1] // (self._columns_per_event + self._packed) - 1, 0, self._packed)

    def evaluation_plan(self, ids: jax.Array | np.ndarray) -> EmbeddingPlan:
        """The lookups of ids [..., columns] of an evaluation."""
        return self._plan(ids.shape[-1] // self._columns_per_event - 1, 0, False)

    @functools.cache  # noqa: B019, a handful of lengths, as long as the objective lives
    def _plan(self, length: int, negatives: int, packed: bool) -> EmbeddingPlan:
        schema = self._schema.of_batch(length, negatives, packed=packed)
        devices = self._config.mesh.devices
        return plan_embeddings(schema, item_tables(self._model, schema), self._config.tables, self._placements, devices)

    def _check_order(self) -> None:
        if self._placements[ITEM_TABLE] == "dealt_rows":
            raise ConfigError(
                f"mesh.placements: the ranking reads the table {ITEM_TABLE!r} in order; received dealt_rows, expected "
                "rows, columns or replicated"
            )

    def prepare(self, parts: Batch, key: jax.Array) -> Batch:
        """The parts with each sequence's negatives appended to its ids."""
        if not self._negatives:
            return parts
        shape = parts.ids.shape[:-1]
        drawn = draw_negatives(key, self._model.loss, shape, self._schema.num_items)
        return parts._replace(ids=jnp.concatenate([parts.ids, drawn], axis=-1))

    def weight(self, parts: Batch) -> jax.Array:
        """The number of positions with a next item."""
        return jnp.maximum((self._targets(parts.ids) >= 0).sum(), 1).astype(jnp.float32)

    def loss(
        self,
        outputs: Float[Array, "batch length width"],
        inputs: Inputs,
        part: Batch,
        key: jax.Array,
        total_weight: jax.Array,
    ) -> jax.Array:
        """This part's sum over its positions, divided by the positions of the whole batch."""
        targets = self._targets(part.ids)
        valid, loss = targets >= 0, self._model.loss
        targets = jnp.maximum(targets, 0)
        if not self._negatives or isinstance(loss, FullSoftmaxConfig):
            drawn = None
            if not isinstance(loss, FullSoftmaxConfig):
                drawn = draw_negatives(jax.random.fold_in(key, 1), loss, targets.shape, self._schema.num_items)
            return table_loss(loss, outputs, targets, valid, inputs.table(ITEM_TABLE), drawn) / total_weight
        items, negatives = (inputs.plan.lookup(name, ITEM_TABLE) for name in (ITEMS, NEGATIVES))
        rows = inputs.rows[items.stack]
        positives = rows[:, items.first_slot + 1 : items.first_slot + len(items.columns)]
        drawn_rows = rows[:, negatives.first_slot : negatives.first_slot + len(negatives.columns)]
        drawn = part.ids[:, negatives.columns[0] : negatives.columns[-1] + 1]

        def of_sequence(*arrays: jax.Array) -> jax.Array:
            users, target, used, positive, ids, vectors = arrays
            return rows_loss(loss, users[None], target[None], used[None], positive[None], ids, vectors)

        totals = jax.vmap(of_sequence)(outputs, targets, valid, positives, drawn, drawn_rows)
        return totals.sum() / total_weight

    def score(self, metrics: Any, outputs: jax.Array, tables: dict[str, jax.Array], batch: Batch) -> Any:
        """Add the ranks of each row's last item, from the vector of the position before it."""
        if not metrics:
            return metrics
        items = batch.ids[:, : batch.ids.shape[1] // self._columns_per_event]
        last = jnp.maximum((items >= 0).sum(axis=1) - 1, 1)[:, None]
        target = jnp.take_along_axis(items, last, axis=1)[:, 0]
        users = jnp.take_along_axis(outputs, last[:, :, None] - 1, axis=1)[:, 0]
        history = jnp.where(jnp.arange(items.shape[1]) == last, -1, items) if self._protocol.remove_history else None
        stack, offset, rows = self._plan(1, 0, False).table_rows(ITEM_TABLE)
        vectors = tables[stack.name][offset : offset + rows]
        ranked = rank_targets(*score_vectors(self._model.loss, users, vectors), jnp.maximum(target, 0), history)
        return update_ranking(metrics, ranked, batch.weights, ks=self._protocol.cutoffs)

    def evaluate(self, eval_step: Any, split: Split, batch_size: int, *, exact: bool = False) -> dict[str, float]:
        """HR@k, NDCG@k, MRR and the cross-entropy over all items; they are exact either way."""
        if isinstance(split, PackedSplit):
            raise ConfigError(
                "sequences.packing: rows of the training split hold several users, of whom no last item is ranked; "
                "choose valid or test"
            )
        metrics = init_ranking(self._protocol.cutoffs)
        own = {"process_index": process_index(), "process_count": process_count()}
        for batch in evaluation_batches(split, batch_size=batch_size, **own):
            metrics, _ = eval_step(metrics, batch)
        return compute_ranking(metrics, self._protocol.cutoffs)

    def _trained_items(self, ids: jax.Array) -> int:
        return (ids.shape[-1] - self._negatives) // (self._columns_per_event + self._packed)

    def _targets(self, ids: Int[Array, "*parts columns"]) -> Int[Array, "*parts length"]:
        """The item after each position, -1 behind the last one of a user."""
        width = self._trained_items(ids)
        targets = ids[..., 1:width]
        if self._packed:
            first = self._columns_per_event * width
            segments = ids[..., first : first + width]
            targets = jnp.where(segments[..., 1:] == segments[..., :-1], targets, -1)
        return targets
