"""A comparison of three tiny models, which tests of `compare` run and spoil."""

import dataclasses
import json
import pathlib

from tests.tiny import plain_config, write_store
from wukong_jax.cli import main
from wukong_jax.config.models import FactorizationMachineConfig
from wukong_jax.config.optimizer import TablesConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.config.source import run_source

SEEDS = 3


class Comparison:
    """A folder with a store, a base config, two other models beside it, and the folders that compare writes."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.records = folder, folder / "results"
        self.store = write_store(folder / "store").path
        self.base = plain_config(self.store, epochs=2)
        self.write("base", self.base, folder)
        self.write("fm_tiny", dataclasses.replace(self.base, model=FactorizationMachineConfig(width=2)))
        (rule,) = self.base.tables.rules
        slow = TablesConfig((dataclasses.replace(rule, learning_rate=1e-3),))
        self.write("slow_tiny", dataclasses.replace(self.base, tables=slow))

    def write(self, name: str, config: RunConfig, folder: pathlib.Path | None = None) -> pathlib.Path:
        path = (folder or self.folder / "baselines") / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(run_source(dataclasses.replace(config, name="tiny" if folder else name), "A test's."))
        return path

    def compare(self, *extra: object, models: tuple[str, ...] = ("fm", "slow"), seeds: int = SEEDS) -> int:
        folders = ["--runs", self.folder / "runs", "--records", self.records]
        words = ["--config", self.folder / "base.py", "--models", *models, "--seeds", seeds, *folders, *extra]
        return main(["compare", *map(str, words)])

    def files(self) -> list[dict]:
        return [json.loads(path.read_text()) for path in sorted(self.records.glob("*.jsonl"))]
