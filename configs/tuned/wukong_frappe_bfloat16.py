"""The tuned Wukong on Frappe in bfloat16, to see what that costs in quality.

python -m wukong_jax compare --config configs/tuned/wukong_frappe_bfloat16.py --models configs/tuned/wukong_frappe.py \
    --seeds 5 --source FOLDER
"""

import dataclasses

from configs.tuned.wukong_frappe import get_config as tuned
from wukong_jax.config.models import WukongConfig
from wukong_jax.config.run import RunConfig


def get_config() -> RunConfig:
    """The settings of `wukong_frappe` in bfloat16."""
    config = tuned()
    assert isinstance(config.model, WukongConfig)
    model = dataclasses.replace(config.model, dtype="bfloat16")
    return dataclasses.replace(config, name="wukong_tuned_frappe_bfloat16", model=model)
