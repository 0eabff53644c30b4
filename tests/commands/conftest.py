"""A run trained on a store that was prepared from CSV files, for all tests of the commands."""

import dataclasses
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
import pytest

from tests.tiny import compiled, compiled_with_shared_evaluation, memory_console, plain_config, tiny_config
from wukong_jax.cli import main
from wukong_jax.config.run import RunConfig
from wukong_jax.data.store import Store, open_store
from wukong_jax.training import run
from wukong_jax.training.run import train


@dataclasses.dataclass(frozen=True)
class Trained:
    """Raw files by split, the store made of them, and a finished run."""

    raw: dict[str, pathlib.Path]
    store: Store
    config: RunConfig
    folder: pathlib.Path
    record: dict


def write_raw(folder: pathlib.Path, labels: tuple[str, ...]) -> dict[str, pathlib.Path]:
    """CSV files of 70, 25 and 45 rows; the test file holds users and items that the training file does not."""
    rng = np.random.default_rng(5)
    files = {}
    for split, rows, users in (("train", 70, 8), ("valid", 25, 8), ("test", 45, 12)):
        files[split] = folder / f"{split}.csv"
        lines = [",".join(["user", "item", "tags", "price", *labels])]
        for _ in range(rows):
            user, item = rng.integers(users), rng.integers(20)
            tags = "|".join(f"t{tag}" for tag in rng.integers(0, 5, rng.integers(0, 4)))
            marks = [str(int(rng.random() < (0.8 if user % 2 else 0.2))) for _ in labels]
            lines.append(",".join([f"u{user}", f"i{item}", tags, f"{rng.normal():.4f}", *marks]))
        files[split].write_text("\n".join(lines) + "\n")
    return files


def prepare_and_train(folder: pathlib.Path, labels: tuple[str, ...], wukong: bool) -> Trained:
    """All of it through the commands, as a user would."""
    raw = write_raw(folder, labels)
    splits = [word for split, path in raw.items() for word in (f"--{split}", str(path))]
    columns = ["--categorical", "user", "item", "--multi-hot", "tags:3:mean", "--numeric", "price", "--label", *labels]
    assert main(["prepare", "--out", str(folder / "store"), *splits, *columns]) == 0
    store = open_store(folder / "store")
    config = (tiny_config if wukong else plain_config)(store.path, store.schema)
    return Trained(raw, store, config, folder / "run", train(config, folder / "run", memory_console()))


@pytest.fixture(scope="package", autouse=True)
def _share_programs():
    """Every command builds the run's program anew; compile it once, and without much optimisation."""
    patch = pytest.MonkeyPatch()
    patch.setattr(run, "build_program", compiled)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    patch.undo()


@pytest.fixture(scope="module")
def quick_runs(_share_programs: None) -> Iterator[None]:
    """Evaluations are compiled once, and no learning curves are drawn: the tiny runs would spend their time there."""
    patch = pytest.MonkeyPatch()
    patch.setattr(run, "build_program", compiled_with_shared_evaluation)
    patch.setattr(run, "draw_curves", lambda *arguments: None)
    yield
    patch.undo()


@pytest.fixture(scope="package")
def trained(tmp_path_factory: pytest.TempPathFactory, _share_programs: None) -> Trained:
    """Wukong on one label."""
    return prepare_and_train(tmp_path_factory.mktemp("commands"), ("label",), wukong=True)


@pytest.fixture(scope="package")
def two_labels(tmp_path_factory: pytest.TempPathFactory, _share_programs: None) -> Trained:
    """Logistic regression on two labels."""
    return prepare_and_train(tmp_path_factory.mktemp("commands"), ("click", "buy"), wukong=False)
