"""The host's side of a run: what the loop must remember between steps, and how it reacts to a validation score."""

import dataclasses
from typing import Any

from wukong_jax.config.run import PlateauConfig


@dataclasses.dataclass
class Progress:
    """Everything besides the state that decides what comes next; plain JSON in every checkpoint."""

    step: int = 0
    data_position: dict[str, Any] | None = None
    """State of the Grain iterator after `step` batches."""
    best_score: float | None = None
    """Best validation score so far, higher is better."""
    best_step: int | None = None
    evaluations_without_better: int = 0
    """In a row; early stopping counts them."""
    evaluations_on_plateau: int = 0
    """Since the learning rate last fell."""
    learning_rate_scale: float = 1.0
    finished: bool = False
    """The last step is done, or early stopping ended the training."""
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """Every metric with its split and step."""
    train_seconds: float = 0.0
    """Time in training steps, compilation left out."""
    timed_examples: int = 0
    """Examples trained in that time."""
    wall_seconds: float = 0.0
    """Time since the start, over all parts of an interrupted run."""

    def record(self, split: str, step: int, metrics: dict[str, float]) -> None:
        """Add a point to the history."""
        self.history.append({"split": split, "step": step, **metrics})

    def see_score(self, score: float, plateau: PlateauConfig | None) -> bool:
        """React to a validation score (higher is better); True if it is the best so far.

        The rate falls after `patience` evaluations without a better score; after `stop_after` of them training stops.
        """
        margin = plateau.min_delta if plateau is not None else 0.0
        if self.best_score is None or score > self.best_score + margin:
            self.best_score, self.best_step = score, self.step
            self.evaluations_without_better = self.evaluations_on_plateau = 0
            return True
        self.evaluations_without_better += 1
        self.evaluations_on_plateau += 1
        if plateau is not None:
            if self.evaluations_on_plateau >= plateau.patience:
                self.learning_rate_scale = max(self.learning_rate_scale * plateau.factor, plateau.min_scale)
                self.evaluations_on_plateau = 0
            self.finished |= self.evaluations_without_better >= plateau.stop_after
        return False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> "Progress":
        """Inverse of `to_json`."""
        return cls(**plain)
