"""SASRec on Amazon Beauty, the 5-core file of S3-Rec: 22,363 users, 12,101 items, histories of 9 items on average.

    python train.py --config configs/sequential/sasrec_beauty.py --data.source Beauty.txt.gz

Rows of training are packed with several users each, as most of a row would be padding.
"""

from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, PlateauConfig, RunConfig, TrainConfig
from wukong_jax.config.sequences import SequencesConfig
from wukong_jax.config.sequential import SASRecConfig
from wukong_jax.sequential.schema import SequenceSchema


def get_config() -> RunConfig:
    """The settings."""
    return RunConfig(
        name="sasrec_beauty",
        schema=SequenceSchema(num_items=12_101),
        data=DataConfig(recipe="amazon_beauty"),
        model=SASRecConfig(width=64, max_length=50, dropout=0.5),
        optimizer=OptimizerConfig(name="adamw", adam_b2=0.98),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=1e-3),)),
        train=TrainConfig(
            batch_size=32,
            epochs=60,
            eval_batch_size=512,
            monitor="ndcg@10",
            plateau=PlateauConfig(patience=2, stop_after=5),
        ),
        sequences=SequencesConfig(packing=True),
    )
