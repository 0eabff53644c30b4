"""SASRec on MovieLens-1M with generative-recommenders' settings: no validation, the last epoch counts.

    python train.py --config configs/sequential/sasrec_ml1m.py

Published there: HR@10 .2853, NDCG@10 .1603.
"""

from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, RunConfig, TrainConfig
from wukong_jax.config.sequences import SequencesConfig
from wukong_jax.config.sequential import SASRecConfig
from wukong_jax.sequential.schema import SequenceSchema


def get_config() -> RunConfig:
    """The settings."""
    return RunConfig(
        name="sasrec_ml1m",
        schema=SequenceSchema(num_items=3706),
        data=DataConfig(recipe="movielens_1m"),
        model=SASRecConfig(),
        optimizer=OptimizerConfig(name="adamw", adam_b2=0.98),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=1e-3),)),
        train=TrainConfig(batch_size=128, epochs=101, eval_batch_size=512, monitor="ndcg@10"),
        sequences=SequencesConfig(holdout="last", cutoffs=(10, 50, 200)),
    )
