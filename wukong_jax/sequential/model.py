"""A backbone on the rows of the item table: from a batch to the vector of each position's next item."""

import flax.linen as nn
from jaxtyping import Array, Float

from wukong_jax.config.sequential import BackboneConfig
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.embeddings.lookup import Inputs
from wukong_jax.embeddings.specs import FeatureSpec, TableSpec, TableSpecs
from wukong_jax.sequential.backbone import build_backbone, reads_times
from wukong_jax.sequential.schema import ITEM_TABLE, ITEMS, SEGMENTS, TIMES


class NextItemModel(nn.Module):
    """Look up all items of a row but its last, and run the backbone over them."""

    config: BackboneConfig
    times: bool = False
    """Whether batches hold times; a backbone that reads none leaves them aside."""
    packed: bool = False
    """Whether rows of training hold several users."""

    @nn.compact
    def __call__(self, inputs: Inputs, *, train: bool = False) -> Float[Array, "batch length width"]:
        """Position t's vector, made of the items up to t, is compared with item t + 1; 0 where there is no item t."""
        lookup = inputs.plan.lookup(ITEMS, ITEM_TABLE)
        width = len(lookup.columns)
        x = inputs.rows[lookup.stack][:, lookup.first_slot : lookup.first_slot + width - 1]
        valid = inputs.ids[:, : width - 1] >= 0
        times, request_times, segments = None, None, None
        if self.times and reads_times(self.config):
            seconds = inputs.ids[:, width : 2 * width]
            times, request_times = seconds[:, :-1], seconds[:, 1:]
        first = (1 + self.times) * width
        if self.packed and inputs.ids.shape[1] > first:  # a row of training; one of an evaluation holds one user
            segments = inputs.ids[:, first : first + width - 1]
        return build_backbone(self.config)(x, valid, times, request_times, segments, train=train)


def next_item_model(config: BackboneConfig, schema: DatasetSchema) -> NextItemModel:
    """The module of a config for a schema of batches."""
    names = [feature.name for feature in schema.multi_hot]
    return NextItemModel(config, TIMES in names, SEGMENTS in names)


def item_tables(config: BackboneConfig, schema: DatasetSchema) -> TableSpecs:
    """One table of items, read by the sequence and by the negatives drawn for it."""
    features = {feature.name: feature for feature in schema.multi_hot}
    table = TableSpec(ITEM_TABLE, features[ITEMS].vocabulary_size, config.width, config.init_stddev)
    return TableSpecs(
        (table,), tuple(FeatureSpec(name, ITEM_TABLE) for name in features if name not in (TIMES, SEGMENTS))
    )
