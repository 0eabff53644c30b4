"""Everything that decides a training run; `get_config()` of a config file returns one `RunConfig`."""

import dataclasses
from typing import Annotated, Any, Literal

import tyro

from wukong_jax.config.checks import check_not_negative, check_positive
from wukong_jax.config.codec import stable_hash, to_plain
from wukong_jax.config.mesh import MeshConfig, PlacementRule
from wukong_jax.config.models import ModelConfig
from wukong_jax.config.optimizer import OptimizerConfig, TablesConfig
from wukong_jax.config.sequences import SequencesConfig, TrainingPart
from wukong_jax.config.sequential import BackboneConfig, FullSoftmaxConfig
from wukong_jax.data.schema import DatasetSchema
from wukong_jax.errors import ConfigError
from wukong_jax.sequential.schema import ITEM_TABLE, SequenceSchema

# Settings that change where files lie, how often they are written and what is looked at, but no parameter and no score.
NOT_IDENTITY = {
    "data": ("source", "store", "root", "verify"),
    "train": ("checkpoint_every_steps", "keep_last", "diagnostics_every_steps", "tensorboard"),
}
# Settings that came later, left out of hashes where they have the value that runs before them had.
LATER = (
    ((), "sequences", None),
    (("sequences",), "training", to_plain(TrainingPart())),
    (("sequences",), "packing", False),
    (("optimizer",), "adam_b2", 0.999),
    (("optimizer", "schedule"), "epochs", None),
    (("mesh",), "placements", to_plain((PlacementRule(),))),
    (("mesh",), "dense", "replicated"),
    (("mesh",), "dense_min_parameters", 2**16),
    (("mesh",), "exchange_capacity", 1.5),
    (("mesh",), "exchange_dtype", "float32"),
    (("mesh",), "lookup_ahead", False),
    (("train",), "semi_synchronous", False),
    (("model",), "self_distillation", False),
)
# A run may go on with other devices, its parts placed otherwise: the result is the same but for rounding, and for the
# masks of dropout where `train.micro_batch` auto cuts batches on one device only.
ANY_MESH = {"data": 1, "model": 1}
PLACES = ("placements", "dense", "dense_min_parameters", "exchange_capacity", "lookup_ahead")
LABEL_MONITORS = ("auc", "logloss")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the examples come from."""

    recipe: str | None = None
    """Public data set that is obtained and prepared where the store is not there yet."""
    source: str | None = None
    """Local folder or file with the raw data, for the recipe."""
    store: str | None = None
    """Prepared store; with a recipe its default is <root>/<recipe>-<schema hash>."""
    root: str = "data"
    """Folder for stores and downloads that recipes make."""
    shuffle: bool = True
    """Read the training rows in a seeded order, another in each epoch; False keeps the store's order."""
    verify: bool = True
    """Check the store's checksums before training."""

    def __post_init__(self) -> None:
        """Check that there is a source; raises `ConfigError`."""
        if self.recipe is None and self.store is None:
            raise ConfigError("data: neither recipe nor store is given; name one, for example `--data.store my_store`")


@dataclasses.dataclass(frozen=True)
class PlateauConfig:
    """Reduce-on-plateau and early stopping on the validation score (the BARS recipe)."""

    factor: float = 0.1
    """Factor on all learning rates after an evaluation that brings no better score."""
    patience: int = 1
    """Evaluations without a better score before the rate falls."""
    min_scale: float = 1e-3
    """Lower bound of the product of all factors."""
    stop_after: int = 2
    """Evaluations in a row without a better score before training stops."""
    min_delta: float = 0.0
    """A score counts as better only if it is so by more than this."""

    def __post_init__(self) -> None:
        """Check ranges; raises `ConfigError`."""
        for name in ("factor", "patience", "min_scale", "stop_after"):
            check_positive(f"train.plateau.{name}", getattr(self, name))
        check_not_negative("train.plateau.min_delta", self.min_delta)
        for name in ("factor", "min_scale"):
            if getattr(self, name) > 1:
                raise ConfigError(f"train.plateau.{name}: received {getattr(self, name)}, expected at most 1")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The training loop."""

    batch_size: int = 1024
    """Examples per step; the remainder of each epoch, another one each time, is left out."""
    micro_batch: int | Literal["auto"] | None = "auto"
    """Examples worked off at a time within a step, a divisor of batch_size; None for all at once. The update is that of
    the whole batch, to rounding; dropout draws other masks, sampled losses other negatives.
    auto: on CPU what fits its caches, elsewhere None."""
    epochs: int = 5
    """Passes over the training split."""
    max_steps: int | None = None
    """Stop after so many steps, if earlier."""
    seed: int = 0
    """Seed of initialisation, order and dropout."""
    task_weights: tuple[float, ...] = ()
    """Weight of each label's loss; empty for 1 each."""
    semi_synchronous: bool = False
    """Look the rows of the next batch up while the model works on this one, as they are before this one's update."""
    progressive: bool = False
    """Score each batch before it is learned from (one-pass training's own validation)."""
    eval_every_steps: int | None = None
    """Steps between evaluations on the validation split; None for the end of each epoch."""
    eval_batch_size: int = 8192
    """Examples per evaluation step."""
    monitor: str = "auc"
    """Validation score that chooses the best checkpoint, falls on plateaus and stops early: auc or logloss; for
    sequences ndcg@K, hr@K with one of `sequences.cutoffs`, mrr or loss."""
    plateau: PlateauConfig | None = None
    """Reduce-on-plateau and early stopping; None for neither."""
    checkpoint_every_steps: int = 1000
    """Steps between checkpoints, besides the one after each evaluation with a better score."""
    keep_last: int = 2
    """Latest checkpoints kept, besides the best; with 2, a run survives damage to its last one."""
    log_every_steps: int = 50
    """Steps between points of the training curve."""
    diagnostics_every_steps: int | None = None
    """Steps between records of gradient norms, update-to-parameter ratios and activations; None for none. Each costs
    about a step and a forward pass; the training steps themselves stay as they are."""
    tensorboard: bool = False
    """Write TensorBoard events into the run folder (needs the extra `logging`)."""

    def __post_init__(self) -> None:
        """Check ranges; raises `ConfigError`."""
        for name in (
            "batch_size",
            "epochs",
            "eval_batch_size",
            "checkpoint_every_steps",
            "keep_last",
            "log_every_steps",
        ):
            check_positive(f"train.{name}", getattr(self, name))
        if isinstance(self.micro_batch, int):
            check_positive("train.micro_batch", self.micro_batch)
        for name in ("max_steps", "eval_every_steps", "diagnostics_every_steps"):
            if getattr(self, name) is not None:
                check_positive(f"train.{name}", getattr(self, name))
        for weight in self.task_weights:
            check_not_negative("train.task_weights", weight)
        if self.task_weights and not any(self.task_weights):
            raise ConfigError("train.task_weights: received only zeros, expected at least one weight above 0")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"train.seed: received {self.seed}, expected 0 to {2**32 - 1}")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One training run: data, model, optimizers, loop."""

    name: str
    """Name of the experiment; its runs lie under runs/<name>."""
    schema: Annotated[DatasetSchema | SequenceSchema, tyro.conf.Fixed, tyro.conf.Suppress]
    """Features and vocabulary sizes, or the number of items of sequences; the store must have the same."""
    data: DataConfig
    """Where the examples come from."""
    model: ModelConfig
    """Model and its settings; the config file fixes which model."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Dense side."""
    tables: TablesConfig = TablesConfig()
    """Embedding tables."""
    train: TrainConfig = TrainConfig()
    """Training loop."""
    mesh: MeshConfig = MeshConfig()
    """Devices."""
    sequences: SequencesConfig | None = None
    """Protocol of next-item recommendation; None where examples have labels."""

    def __post_init__(self) -> None:
        """Check what concerns several parts; raises `ConfigError`."""
        if not self.schema.feature_names:
            raise ConfigError("schema: no feature; name at least one categorical, multi-hot, numeric or vector feature")
        for name in ("batch_size", "eval_batch_size"):
            size = getattr(self.train, name)
            if size % self.mesh.devices:
                raise ConfigError(
                    f"train.{name}: received {size}, expected a multiple of the {self.mesh.devices} devices of mesh "
                    f"{self.mesh.data} x {self.mesh.model}"
                )
        if self.tables.deduplicate == "slot" and self.mesh.devices > 1:
            raise ConfigError(
                f"tables.deduplicate: received 'slot', which works on one device only, and a mesh of "
                f"{self.mesh.devices}; use auto or sort"
            )
        self._check_task()
        weights = self.train.task_weights
        if weights and len(weights) != len(self.schema.labels):
            raise ConfigError(
                f"train.task_weights: received {len(weights)} weights, expected one for each label "
                f"{list(self.schema.labels)}"
            )

    def _check_task(self) -> None:
        sequential = isinstance(self.schema, SequenceSchema)
        if sequential != isinstance(self.model, BackboneConfig):
            data = "sequences" if sequential else "examples with labels"
            raise ConfigError(f"model: {type(self.model).__name__} does not fit data that holds {data}")
        if sequential != (self.sequences is not None):
            expected = "a SequencesConfig" if sequential else "None, as the examples have labels"
            raise ConfigError(f"sequences: received {self.sequences}, expected {expected}")
        monitors: tuple[str, ...] = LABEL_MONITORS
        if self.sequences is not None:
            cutoffs = self.sequences.cutoffs
            monitors = (*(f"{name}@{k}" for name in ("ndcg", "hr") for k in cutoffs), "mrr", "loss")
            self._check_sequences(self.sequences)
            if self.train.progressive:
                raise ConfigError("train.progressive: received True, but sequences have no such scores; leave it out")
        if self.train.monitor not in monitors:
            raise ConfigError(f"train.monitor: received {self.train.monitor!r}, expected one of {', '.join(monitors)}")

    def _check_sequences(self, sequences: SequencesConfig) -> None:
        assert isinstance(self.model, BackboneConfig)
        assert isinstance(self.schema, SequenceSchema)
        if sequences.lengths and sequences.lengths[-1] >= self.model.max_length:
            raise ConfigError(
                f"sequences.lengths: received {sequences.lengths}, expected lengths below model.max_length "
                f"{self.model.max_length}"
            )
        if max(sequences.cutoffs) >= self.schema.num_items:
            raise ConfigError(
                f"sequences.cutoffs: received {sequences.cutoffs} for {self.schema.num_items} items, of which every "
                f"one is among the first {max(sequences.cutoffs)}: hr@{max(sequences.cutoffs)} would be 1 of any "
                "model; expected cut-offs below the number of items"
            )
        if sequences.packing and not self.data.shuffle:
            raise ConfigError(
                "data.shuffle: received False and sequences.packing=True, but packed rows have no order of users, they "
                "lie from the longest history to the shortest; leave one of them out"
            )
        rule = self.tables.rule_of(ITEM_TABLE, self.schema.num_items)
        if isinstance(self.model.loss, FullSoftmaxConfig) and rule.update == "row_sparse":
            raise ConfigError(
                "model.loss: the full softmax reads all items, but tables.rules update the table 'item' row by row; "
                "put TableRule('^item$', update='dense', name='adam') first, or take a sampled loss"
            )

    @property
    def epochs(self) -> int:
        """Passes over the training split: those of the loop, or of a schedule that comes to its end before."""
        return min(self.train.epochs, self.optimizer.schedule.epochs or self.train.epochs)

    @property
    def batch_schema(self) -> DatasetSchema:
        """The columns of a batch: the schema itself, or what a batch of sequences holds."""
        if isinstance(self.schema, DatasetSchema):
            return self.schema
        model: Any = self.model
        assert self.sequences is not None
        return self.schema.of_batch(model.max_length, drawn_negatives(self), packed=self.sequences.packing)

    def hash(self) -> str:
        """Stable hash of the whole configuration."""
        return stable_hash(_as_before(to_plain(self)))

    def identity(self) -> dict[str, Any]:
        """What decides the result, as a plain tree: all but `NOT_IDENTITY`."""
        plain = _as_before(to_plain(self))
        plain["mesh"] = {name: value for name, value in plain["mesh"].items() if name not in PLACES} | ANY_MESH
        for part, names in NOT_IDENTITY.items():
            for name in names:
                del plain[part][name]
        return plain

    def identity_hash(self) -> str:
        """Stable hash of `identity()`; two configs with the same one give the same parameters."""
        return stable_hash(self.identity())


def drawn_negatives(config: RunConfig) -> int:
    """Negatives drawn for each sequence of a step: those of the loss where the item table is updated row by row.

    A densely updated table is passed whole, and the loss draws from it itself.
    """
    assert isinstance(config.schema, SequenceSchema)
    assert isinstance(config.model, BackboneConfig)
    rule = config.tables.rule_of(ITEM_TABLE, config.schema.num_items)
    return getattr(config.model.loss, "num_negatives", 0) if rule.update == "row_sparse" else 0


def _as_before(plain: dict[str, Any]) -> dict[str, Any]:
    for path, name, value in LATER:
        part: Any = plain
        for step in path:
            part = part.get(step, {})  # a part that came later itself may have been left out
        if name in part and part[name] == value:
            del part[name]
    return plain
