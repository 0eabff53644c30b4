"""FinalMLP on Frappe: the best of 24 trials, validation AUC .98732; the first trial has the settings of BARS (.98577).

    python train.py --config configs/tuned/finalmlp_frappe.py --data.source FOLDER

The search: `python -m wukong_jax tune --config configs/baselines/finalmlp_frappe.py
--space configs/spaces/rivals_small.py --trials 24 --prune-after 3`; all its trials are in
results/searches/finalmlp_frappe.jsonl.
"""

from wukong_jax.config.baselines import FinalMLPConfig
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.optimizer import OptimizerConfig, ScheduleConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, PlateauConfig, RunConfig, TrainConfig
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema


def get_config() -> RunConfig:
    """The settings."""
    return RunConfig(
        name="finalmlp_tuned_frappe",
        schema=DatasetSchema(
            categorical=(
                CategoricalFeature(name="user", vocabulary_size=955),
                CategoricalFeature(name="item", vocabulary_size=4083),
                CategoricalFeature(name="daytime", vocabulary_size=8),
                CategoricalFeature(name="weekday", vocabulary_size=8),
                CategoricalFeature(name="isweekend", vocabulary_size=3),
                CategoricalFeature(name="homework", vocabulary_size=4),
                CategoricalFeature(name="cost", vocabulary_size=3),
                CategoricalFeature(name="weather", vocabulary_size=10),
                CategoricalFeature(name="country", vocabulary_size=81),
                CategoricalFeature(name="city", vocabulary_size=234),
            ),
        ),
        data=DataConfig(recipe="frappe"),
        model=FinalMLPConfig(
            width=64,
            mlp1=MLPConfig(widths=(400, 400), dropout=0.1, batch_norm=True),
            mlp2=MLPConfig(widths=(200,), dropout=0.1, batch_norm=True),
            num_heads=10,
            gates=MLPConfig(widths=(400,)),
            context1=("user",),
            context2=("item",),
            embedding=EmbeddingConfig(init_stddev=0.0001),
        ),
        optimizer=OptimizerConfig(
            learning_rate=0.0013290819743481677,
            schedule=ScheduleConfig(decay="cosine", epochs=6),
            clip_norm=10.0,
        ),
        tables=TablesConfig(
            rules=(
                TableRule(update="dense", name="adam", learning_rate=0.0013290819743481677, l2=0.01646003229441422),
            ),
        ),
        train=TrainConfig(batch_size=4096, epochs=100, plateau=PlateauConfig(min_delta=1e-06)),
    )
