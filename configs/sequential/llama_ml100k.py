"""A LLaMA-style decoder on MovieLens-100K: leave-one-out, chosen by validation.

python train.py --config configs/sequential/llama_ml100k.py
"""

from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, PlateauConfig, RunConfig, TrainConfig
from wukong_jax.config.sequences import SequencesConfig
from wukong_jax.config.sequential import LlamaConfig
from wukong_jax.sequential.schema import SequenceSchema


def get_config() -> RunConfig:
    """The settings."""
    return RunConfig(
        name="llama_ml100k",
        schema=SequenceSchema(num_items=1682, times=True),
        data=DataConfig(recipe="movielens_100k"),
        model=LlamaConfig(width=64, num_heads=2, max_length=100),
        optimizer=OptimizerConfig(name="adamw", adam_b2=0.98),
        tables=TablesConfig((TableRule(update="dense", name="adam", learning_rate=1e-3),)),
        train=TrainConfig(
            batch_size=64,
            epochs=100,
            eval_batch_size=512,
            monitor="ndcg@10",
            plateau=PlateauConfig(patience=5, stop_after=10),
        ),
        sequences=SequencesConfig(),
    )
