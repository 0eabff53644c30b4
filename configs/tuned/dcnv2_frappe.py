"""DCNv2 on Frappe: the best of 24 trials is the first, with the settings of BARS; validation AUC .98556.

    python train.py --config configs/tuned/dcnv2_frappe.py --data.source FOLDER

The search: `python -m wukong_jax tune --config configs/baselines/dcnv2_frappe.py
--space configs/spaces/rivals_small.py --trials 24 --prune-after 3`; all its trials are in
results/searches/dcnv2_frappe.jsonl.
"""

from wukong_jax.config.baselines import DCNv2Config
from wukong_jax.config.layers import EmbeddingConfig, MLPConfig
from wukong_jax.config.optimizer import OptimizerConfig, TableRule, TablesConfig
from wukong_jax.config.run import DataConfig, PlateauConfig, RunConfig, TrainConfig
from wukong_jax.data.schema import CategoricalFeature, DatasetSchema


def get_config() -> RunConfig:
    """The settings."""
    return RunConfig(
        name="dcnv2_tuned_frappe",
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
        model=DCNv2Config(
            width=10,
            structure="parallel",
            num_layers=4,
            mlp=MLPConfig(widths=(400, 400, 400), dropout=0.4, batch_norm=True),
            embedding=EmbeddingConfig(init_stddev=0.0001),
        ),
        optimizer=OptimizerConfig(clip_norm=10.0),
        tables=TablesConfig(rules=(TableRule(update="dense", name="adam", learning_rate=0.001, l2=0.05),)),
        train=TrainConfig(batch_size=4096, epochs=100, plateau=PlateauConfig(min_delta=1e-06)),
    )
