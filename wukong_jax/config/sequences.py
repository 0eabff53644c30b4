"""How users' sequences become training examples, and how the ranking of the next item is judged."""

import dataclasses
from typing import Literal

from wukong_jax.config.checks import check_positive
from wukong_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class TrainingPart:
    """The part of the training sequences that is trained on, to study what more or other data brings.

    Validation and test keep all users and their whole histories.
    """

    users: float = 1.0
    """Share of the users, in a fixed random order: a smaller share lies within a larger one."""
    last: int | None = None
    """Of each user, this many items that come last; None for all."""
    copies: int = 1
    """How often each sequence is there."""

    def __post_init__(self) -> None:
        """Check share and counts; raises `ConfigError`."""
        if not 0 < self.users <= 1:
            raise ConfigError(f"sequences.training.users: received {self.users}, expected a share above 0, at most 1")
        if self.last is not None and self.last < 2:
            raise ConfigError(
                f"sequences.training.last: received {self.last}, expected 2 or more, an item and its next"
            )
        check_positive("sequences.training.copies", self.copies)


@dataclasses.dataclass(frozen=True)
class SequencesConfig:
    """Leave-one-out protocol of next-item recommendation, all items ranked."""

    holdout: Literal["last_two", "last"] = "last_two"
    """last_two: each user's last item is for the test, the one before for validation. last: the last item is for the
    test, there is no validation, and the last checkpoint counts (generative-recommenders' protocol)."""
    remove_history: bool = True
    """Leave the items of the history that the model was given out of the ranking, unless one is the target."""
    cutoffs: tuple[int, ...] = (10, 50)
    """k of HR@k and NDCG@k."""
    lengths: tuple[int, ...] = ()
    """Lengths below the model's to which batches of shorter histories are cut, one compiled step each; users of like
    length then share batches. Empty: all batches have the model's length."""
    packing: bool = False
    """Fill each row of training with the histories of several users, each read as if it were alone in a row. The batch
    size counts rows. Validation and test keep one user a row."""
    training: TrainingPart = TrainingPart()
    """What is trained on."""

    def __post_init__(self) -> None:
        """Check cutoffs and lengths; raises `ConfigError`."""
        for name in ("cutoffs", "lengths"):
            for value in getattr(self, name):
                check_positive(f"sequences.{name}", value)
            values = getattr(self, name)
            if list(values) != sorted(set(values)):
                raise ConfigError(f"sequences.{name}: received {values}, expected increasing numbers")
        if self.packing and self.lengths:
            raise ConfigError(
                f"sequences.packing: received True and sequences.lengths={self.lengths}; rows that are packed have no "
                "padding to cut, leave one of the two out"
            )
        if not self.cutoffs:
            raise ConfigError("sequences.cutoffs: received none, expected at least one, for example 10")
