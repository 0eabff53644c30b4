"""Wukong on Frappe: the best of a first 24 trials, with rates that fall to zero as a cosine over 5 epochs.

    python train.py --config configs/tuned/wukong_frappe_first.py --data.source FOLDER

Superseded by wukong_frappe.py; the sweep by depth and width (configs/sweeps/wukong_frappe_grid.py) was made with it.
The search (`python -m wukong_jax tune --config configs/frappe.py --space configs/spaces/wukong_small.py --trials 24
--prune-after 3`, validation AUC .98779) had rates that fall on plateaus; all its trials are in
results/searches/wukong_frappe_plateaus.jsonl. The schedule was chosen afterwards among 3, 4 and 5 epochs, seed 0:
validation AUC / LogLoss .98730 / .1363, .98867 / .1480, .98832 / .1125.
"""

from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.models import WukongConfig
from wukong_jax.config.optimizer import OptimizerConfig, ScheduleConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, PlateauConfig, RunConfig, TrainConfig
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema


def get_config() -> RunConfig:
    """The settings."""
    return RunConfig(
        name="wukong_first_frappe",
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
        model=WukongConfig(
            width=128,
            num_fmb=16,
            num_lcb=16,
            fmb_mlp=MLPConfig(widths=(256,), dropout=0.3),
            head=MLPConfig(widths=(256,), dropout=0.4),
            embedding=EmbeddingConfig(init_stddev=0.0001),
        ),
        optimizer=OptimizerConfig(
            learning_rate=0.0023906266307291975,
            schedule=ScheduleConfig(decay="cosine", epochs=5),
            clip_norm=10.0,
        ),
        tables=TablesConfig(
            rules=(
                TableRule(update="dense", name="adam", learning_rate=0.00036896512825680455, l2=0.050735188419144595),
            ),
        ),
        train=TrainConfig(batch_size=4096, epochs=100, plateau=PlateauConfig(min_delta=1e-06)),
    )
