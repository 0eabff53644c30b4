"""Settings of the dense optimizer and of the embedding tables' updates."""

import dataclasses
import re
from typing import Literal

from wukong_jax.config.checks import check_between, check_not_negative, check_pattern, check_positive
from wukong_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over steps: linear warm-up, then constant or cosine decay to zero at the run's last step."""

    decay: Literal["constant", "cosine"] = "constant"
    """How the rate falls after the warm-up."""
    warmup_steps: int = 0
    """Steps of linear warm-up from 0."""
    warmup_fraction: float = 0.0
    """Warm-up as a share of all steps (the paper: 0.1); used where warmup_steps is 0."""
    epochs: int | None = None
    """Epochs after which a cosine has come to zero and training ends, if before `train.epochs`; None for those."""

    def __post_init__(self) -> None:
        """Check ranges; raises `ConfigError`."""
        check_not_negative("schedule.warmup_steps", self.warmup_steps)
        check_between("schedule.warmup_fraction", self.warmup_fraction, 0.0, 1.0)
        if self.epochs is not None:
            check_positive("schedule.epochs", self.epochs)
            if self.decay != "cosine":
                raise ConfigError(
                    f"schedule.epochs: received {self.epochs} with decay={self.decay!r}, but only a cosine comes to an "
                    "end; use decay='cosine', or `train.epochs`"
                )
        if self.warmup_steps and self.warmup_fraction:
            raise ConfigError("schedule: both warmup_steps and warmup_fraction are given; keep one")


@dataclasses.dataclass(frozen=True)
class ParameterRule:
    """Settings for the dense parameters whose path matches; the first matching rule counts."""

    pattern: str
    """Regular expression, searched in paths such as `layer_0/fmb/mlp/hidden_0/kernel`."""
    learning_rate_scale: float = 1.0
    """Factor on the learning rate; 0 freezes the parameters."""
    l2: float = 0.0
    """lambda of the penalty lambda/2 ||w||^2, added to the gradient before clipping."""

    def __post_init__(self) -> None:
        """Check the pattern and ranges; raises `ConfigError`."""
        check_pattern("optimizer.rules", self.pattern)
        check_not_negative("optimizer.rules: learning_rate_scale", self.learning_rate_scale)
        check_not_negative("optimizer.rules: l2", self.l2)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Optax optimizer of the dense parameters and of the tables that are updated densely."""

    name: Literal["adam", "adamw", "adagrad", "sgd"] = "adam"
    """Optimizer of the dense parameters."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Warm-up and decay; the tables follow it too, from their own rates."""
    clip_norm: float | None = None
    """Bound on the global gradient norm over dense parameters and densely updated tables; None for none."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW."""
    rules: tuple[ParameterRule, ...] = (ParameterRule(".*"),)
    """Rules by parameter path; together they must cover every parameter."""
    adam_b2: float = 0.999
    """Decay of the mean of squares of Adam and AdamW, of densely updated tables too."""

    def __post_init__(self) -> None:
        """Check ranges; raises `ConfigError`."""
        check_positive("optimizer.learning_rate", self.learning_rate)
        check_not_negative("optimizer.weight_decay", self.weight_decay)
        check_between("optimizer.adam_b2", self.adam_b2, 0.0, 1.0)
        if self.weight_decay and self.name != "adamw":
            raise ConfigError(
                f"optimizer.weight_decay: only adamw has it, received name={self.name!r}; "
                "use `--optimizer.name adamw`, or the l2 of a rule"
            )
        if self.clip_norm is not None:
            check_positive("optimizer.clip_norm", self.clip_norm)


@dataclasses.dataclass(frozen=True)
class TableRule:
    """How the tables that match are updated; the first matching rule counts."""

    pattern: str = ".*"
    """Regular expression, searched in the table's name."""
    max_rows: int | None = None
    """The rule is for tables of at most this many rows; None for any."""
    update: Literal["dense", "row_sparse"] = "row_sparse"
    """Optax over the whole table each step, or only the rows that the batch touched."""
    name: Literal["sgd", "adagrad", "rowwise_adagrad", "adam"] = "rowwise_adagrad"
    """Optimizer; `adam` on touched rows is lazy Adam, `rowwise_adagrad` exists for touched rows only."""
    learning_rate: float = 1e-2
    """Peak learning rate."""
    l2: float = 0.0
    """lambda of lambda/2 ||w||^2: over the whole table if dense (as BARS), over the touched rows if row_sparse."""
    initial_accumulator: float = 0.1
    """Start of the sum of squares (adagrad, rowwise_adagrad)."""

    def __post_init__(self) -> None:
        """Check the pattern, ranges and the combination; raises `ConfigError`."""
        check_pattern("tables.rules", self.pattern)
        check_positive("tables.rules: learning_rate", self.learning_rate)
        check_not_negative("tables.rules: l2", self.l2)
        check_not_negative("tables.rules: initial_accumulator", self.initial_accumulator)
        if self.max_rows is not None:
            check_positive("tables.rules: max_rows", self.max_rows)
        if self.update == "dense" and self.name == "rowwise_adagrad":
            raise ConfigError(
                "tables.rules: rowwise_adagrad updates touched rows only; "
                "use update='row_sparse', or name='adagrad' for a dense update"
            )


@dataclasses.dataclass(frozen=True)
class TablesConfig:
    """Updates of the embedding tables."""

    rules: tuple[TableRule, ...] = (TableRule(),)
    """Ordered rules; together they must cover every table."""
    deduplicate: Literal["auto", "slot", "sort"] = "auto"
    """How equal ids of a batch are merged: slot (fast on CPU, one device only), sort (deterministic on GPU), or by
    platform."""

    def rule_of(self, table: str, rows: int) -> TableRule:
        """The first rule that matches a table; raises `ConfigError` if none does."""
        for rule in self.rules:
            if re.search(rule.pattern, table) and (rule.max_rows is None or rows <= rule.max_rows):
                return rule
        raise ConfigError(
            f"tables.rules: no rule matches table {table!r} ({rows} rows); end the rules with TableRule('.*')"
        )
