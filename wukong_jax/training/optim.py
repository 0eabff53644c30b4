"""Optax for the dense parameters and the densely updated tables; one schedule for these and the row-sparse ones."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from wukong_jax.config.optimizer import OptimizerConfig, ParameterRule, ScheduleConfig, TableRule
from wukong_jax.embeddings.plan import EmbeddingPlan
from wukong_jax.errors import ConfigError

ADAGRAD_EPSILON = 1e-7


def schedule(config: ScheduleConfig, total_steps: int) -> optax.Schedule:
    """Factor on every learning rate at a step: linear from 0 to 1, then constant or cosine to 0 at `total_steps`."""
    warmup = config.warmup_steps or round(config.warmup_fraction * total_steps)
    after = max(total_steps - warmup, 1)
    tail = optax.cosine_decay_schedule(1.0, after) if config.decay == "cosine" else optax.constant_schedule(1.0)
    if not warmup:
        return tail
    # the first step already moves: rate 1/warmup, not 0
    ramp = optax.linear_schedule(1.0 / warmup, 1.0, max(warmup - 1, 1))
    return optax.join_schedules([ramp, tail], [warmup])


def dense_optimizer(config: OptimizerConfig, plan: EmbeddingPlan, total_steps: int) -> optax.GradientTransformation:
    """Gradient + L2, clipped by one global norm, then each part's own optimizer and rate.

    Works on the tree {"params": ..., "tables": {stack: ...}} of dense parameters and densely updated stacks.
    Raises `ConfigError` at init for a parameter that no rule covers.
    """
    factor = schedule(config.schedule, total_steps)
    stacks = {stack.name: stack.rule for stack in plan.dense}
    parts = {f"rule_{i}": _parameter_update(config, rule, factor) for i, rule in enumerate(config.rules)}
    parts |= {f"table_{name}": _table_update(rule, factor, config.adam_b2) for name, rule in stacks.items()}

    def penalty(tree: Any) -> Any:
        rules = {f"rule_{i}": rule.l2 for i, rule in enumerate(config.rules)}
        rules |= {f"table_{name}": rule.l2 for name, rule in stacks.items()}
        return jax.tree.map(lambda label: rules[label], _labels(tree, config))

    def add_l2(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda g, w, l2: g + l2 * w if l2 else g, updates, params, penalty(params))

    steps = [optax.stateless(add_l2)]
    if config.clip_norm is not None:
        steps.append(optax.clip_by_global_norm(config.clip_norm))
    return optax.chain(*steps, optax.partition(parts, lambda tree: _labels(tree, config)))


def parameter_path(path: tuple[Any, ...]) -> str:
    """Key path of a leaf as `a/b/c`."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def _labels(tree: Any, config: OptimizerConfig) -> Any:
    def label(path: tuple[Any, ...], _: Any) -> str:
        kind, _, name = parameter_path(path).partition("/")
        if kind == "tables":
            return f"table_{name}"
        for index, rule in enumerate(config.rules):
            if re.search(rule.pattern, name):
                return f"rule_{index}"
        raise ConfigError(
            f"optimizer.rules: no rule matches the parameter {name!r}; end the rules with ParameterRule('.*')"
        )

    return jax.tree_util.tree_map_with_path(label, tree)


def _parameter_update(
    config: OptimizerConfig, rule: ParameterRule, factor: optax.Schedule
) -> optax.GradientTransformation:
    rate = config.learning_rate * rule.learning_rate_scale
    steps = [_direction(config.name, 0.1, config.adam_b2)]
    if config.name == "adamw":
        steps.append(optax.add_decayed_weights(config.weight_decay))
    return optax.chain(*steps, optax.scale_by_schedule(lambda step: -rate * factor(step)))


def _table_update(rule: TableRule, factor: optax.Schedule, adam_b2: float) -> optax.GradientTransformation:
    direction = _direction(rule.name, rule.initial_accumulator, adam_b2)
    return optax.chain(direction, optax.scale_by_schedule(lambda step: -rule.learning_rate * factor(step)))


def _direction(name: str, initial_accumulator: float, adam_b2: float) -> optax.GradientTransformation:
    if name in ("adam", "adamw"):
        return optax.scale_by_adam(b2=adam_b2)
    if name == "adagrad":
        return optax.scale_by_rss(initial_accumulator, ADAGRAD_EPSILON)
    return optax.identity()


def apply_scaled(params: Any, updates: Any, scale: jax.Array) -> Any:
    """Params + scale * updates; `scale` is the plateau's factor on all learning rates."""
    return jax.tree.map(lambda p, u: (p + scale * u).astype(jnp.asarray(p).dtype), params, updates)
