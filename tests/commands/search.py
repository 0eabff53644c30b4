"""A search over a tiny model, which tests of `tune` run, interrupt and spoil."""

import dataclasses
import pathlib

import optuna

from tests.tiny import compiled_with_shared_evaluation, plain_config
from wukong_jax.cli import main
from wukong_jax.config.run import RunConfig
from wukong_jax.config.source import run_source
from wukong_jax.training import run

SPACE = """
import dataclasses
from wukong_jax.errors import ConfigError
from wukong_jax.config.optimizer import TablesConfig

def suggest(trial, config):
    rate = trial.suggest_float("table_rate", 1e-4, 1.0, log=True)
    batch = trial.suggest_categorical("batch", [8, 16])
    rules = tuple(dataclasses.replace(rule, learning_rate=rate) for rule in config.tables.rules)
    train = dataclasses.replace(config.train, batch_size=batch)
    {extra}
    return dataclasses.replace(config, tables=dataclasses.replace(config.tables, rules=rules), train=train)
{more}
"""


class Search:
    """A config, a space and the folders of a search."""

    def __init__(self, folder: pathlib.Path, store: pathlib.Path) -> None:
        self.folder, self.storage, self.config = folder, folder / "tune.db", folder / "tiny.py"
        self.base = plain_config(store, epochs=2)
        self.write_config(self.base)
        self.write_space()

    def write_config(self, config: RunConfig) -> None:
        self.config.write_text(run_source(config, "A test's."))

    def write_space(self, extra: str = "", more: str = "") -> None:
        (self.folder / "space.py").write_text(SPACE.format(extra=extra, more=more))

    def tune(self, *extra: object, trials: int = 3) -> int:
        files = ["--config", self.config, "--space", self.folder / "space.py", "--storage", self.storage]
        words = [*files, "--runs", self.folder / "runs", "--trials", trials, *extra]
        return main(["tune", *map(str, words)])

    @property
    def runs(self) -> pathlib.Path:
        return self.folder / "runs" / "tune" / "tiny-space"

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        storage = optuna.storages.RDBStorage(f"sqlite:///{self.storage}")
        try:
            return optuna.load_study(study_name="tiny-space", storage=storage).trials
        finally:
            storage.remove_session()
            storage.engine.dispose()

    def facts(self) -> list[tuple]:
        return [(t.number, t.state.name, t.params, t.value, t.intermediate_values) for t in self.trials()]

    def with_checkpoints(self) -> set[str]:
        return {path.parent.name for path in self.runs.glob(f"*/{run.CHECKPOINTS}")}


def interrupt(monkeypatch, act, at):
    """Act just before the given step of the search's training, counted over all of its runs."""
    taken = []

    def build(config, steps):
        program = compiled_with_shared_evaluation(config, steps)

        def train_step(state, batch):
            taken.append(1)
            if len(taken) == at:
                act()
            return program.train_step(state, batch)

        return dataclasses.replace(program, train_step=train_step)

    monkeypatch.setattr(run, "build_program", build)


def crash():
    raise RuntimeError("power cut")
