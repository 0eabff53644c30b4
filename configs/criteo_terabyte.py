"""Wukong on Criteo Terabyte with the paper's recipe (appendix A): the first row of its table 5 at width 128.

    python train.py --config configs/criteo_terabyte.py --data.source /data/criteo_tb

One pass in time order, batch 131,072, Adam 1e-3 and row-wise Adagrad 1e-1, warm-up over a tenth of the steps.
Published: AUC .8106, LogLoss .1225. The paper's tables hold 204,184,585 rows; here a field has at most 10 million
buckets.
"""

from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.models import WukongConfig
from wukong_jax.config.optimizer import OptimizerConfig, ScheduleConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, RunConfig, TrainConfig
from wukong_jax.data.recipes.criteo_terabyte import SCHEMA


def get_config() -> RunConfig:
    """The settings."""
    return RunConfig(
        name="criteo_tb",
        schema=SCHEMA,
        data=DataConfig(recipe="criteo_terabyte", shuffle=False),
        model=WukongConfig(
            width=128,
            num_layers=2,
            num_fmb=8,
            num_lcb=8,
            rank=24,
            fmb_mlp=MLPConfig((2048, 2048, 2048)),
            head=MLPConfig((512, 512)),
            embedding=EmbeddingConfig(dense_mlp=MLPConfig((512, 256))),
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, schedule=ScheduleConfig(warmup_fraction=0.1)),
        tables=TablesConfig((TableRule(name="rowwise_adagrad", learning_rate=0.1),)),
        train=TrainConfig(batch_size=131_072, epochs=1, progressive=True, eval_every_steps=4000),
    )
