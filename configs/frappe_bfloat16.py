"""Wukong on Frappe with products in bfloat16, to see what that costs in quality.

python -m wukong_jax compare --config configs/frappe.py --models configs/frappe_bfloat16.py --source FOLDER
"""

import dataclasses

from configs.frappe import get_config as frappe
from wukong_jax.config.models import WukongConfig
from wukong_jax.config.run import RunConfig


def get_config() -> RunConfig:
    """The settings of `frappe`, all products in bfloat16."""
    config = frappe()
    assert isinstance(config.model, WukongConfig)
    model = dataclasses.replace(config.model, dtype="bfloat16")
    return dataclasses.replace(config, name="frappe_bfloat16", model=model)
