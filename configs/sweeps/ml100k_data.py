"""One recommender on parts of MovieLens-100K: fewer users, shorter histories, copies, all judged on the same users.

    python -m wukong_jax sweep --sweep configs/sweeps/ml100k_data.py --records results/performance_law/ml100k_data
    python benchmarks/data_terms.py --records results/performance_law/ml100k_data

Every run makes as many steps and keeps its best by validation, so that parts differ by what they hold alone.
"""

import dataclasses

from configs.sweeps.ml100k_grid import base
from wukong_jax.config.run import RunConfig
from wukong_jax.config.sequences import SequencesConfig, TrainingPart
from wukong_jax.config.sequential import HSTUConfig
from wukong_jax.scaling.sweep import Point, Sweep, over_seeds

STEPS = 1680
PARTS = (
    *(TrainingPart(share) for share in (0.125, 0.25, 0.5, 1.0)),
    *(TrainingPart(last=last) for last in (6, 12, 25)),
    *(TrainingPart(share, last) for share, last in ((0.25, 25), (0.5, 12))),
    *(TrainingPart(share, last, 4) for share, last in ((0.25, None), (1.0, 12))),
    TrainingPart(0.5, None, 2),
)


def get_sweep() -> Sweep:
    """The list of runs, two seeds each."""
    return Sweep("ml100k_data", over_seeds(tuple(_point(part) for part in PARTS), (0, 1)))


def _point(part: TrainingPart) -> Point:
    return Point("HSTU", "data", {"users": part.users, "last": part.last, "copies": part.copies}, _config(part))


def _config(part: TrainingPart) -> RunConfig:
    config = base()
    return dataclasses.replace(
        config,
        name="ml100k_data",
        model=HSTUConfig(32, 2, max_length=50),
        train=dataclasses.replace(config.train, epochs=STEPS, max_steps=STEPS),
        sequences=SequencesConfig(cutoffs=(10, 50), training=part),
    )
