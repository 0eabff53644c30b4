"""How the rates fall, for the spaces of the small sets: on plateaus, as BARS has it, or to zero over a few epochs.

After a fall on a plateau models of Frappe gain little AUC while their validation LogLoss rises by a third or more;
rates that fall from the start can end before that.
"""

import dataclasses

import optuna

from wukong_jax.config.optimizer import OptimizerConfig

ON_PLATEAUS = "plateaus"
EPOCHS = (3, 4, 5, 6)


def scheduled(trial: optuna.Trial, optimizer: OptimizerConfig) -> OptimizerConfig:
    """The optimizer with constant rates between plateaus, or a cosine over 3 to 6 epochs."""
    chosen = trial.suggest_categorical("schedule", [ON_PLATEAUS, *map(str, EPOCHS)])
    if chosen == ON_PLATEAUS:
        return optimizer
    schedule = dataclasses.replace(optimizer.schedule, decay="cosine", epochs=int(chosen))
    return dataclasses.replace(optimizer, schedule=schedule)
