import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest

import train
from wukong_jax.config.codec import from_plain, to_plain
from wukong_jax.config.command_line import TrainArguments, load_config_file, parse_run_arguments
from wukong_jax.config.models import LogisticRegressionConfig
from wukong_jax.config.run import RunConfig
from wukong_jax.errors import ConfigError

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.py") if path.parent.name not in ("spaces", "sweeps"))
DEFAULT = ROOT / "configs" / "movielens_100k.py"

LOAD_ALL = """
import json, pathlib, sys
from wukong_jax.config.codec import to_plain
from wukong_jax.config.command_line import load_config_file
found = {}
for path in sys.argv[1:]:
    config = load_config_file(pathlib.Path(path))
    found[path] = [to_plain(config), config.hash()]
assert "jax" not in sys.modules, "a config imports jax"
print(json.dumps(found))
"""
HELP = """
import runpy, sys
sys.argv = ["train.py", "--help"]
try:
    runpy.run_path("train.py", run_name="__main__")
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {"jax", "flax", "optax", "orbax", "polars", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""


def python(program: str, *arguments: str) -> str:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def parsed(*arguments: str) -> RunConfig:
    return parse_run_arguments(TrainArguments, ["--config", str(DEFAULT), *arguments], "train.py").run


def test_every_config_loads_without_jax_and_survives_json_and_another_process():
    found = json.loads(python(LOAD_ALL, *map(str, CONFIGS)))
    assert len(found) == len(CONFIGS) >= 2
    for path in CONFIGS:
        config = load_config_file(path)
        plain, its_hash = found[str(path)]
        assert config.hash() == its_hash
        assert from_plain(RunConfig, plain) == config
        assert path.read_text().startswith('"""'), f"{path} says nothing about itself"


def test_help_prints_every_option_with_its_default_and_imports_nothing_heavy():
    text = " ".join(python(HELP).replace("│", " ").split())
    options = ["--config", "--run-dir", "--fresh", "--force"]

    def names(value: object, path: str) -> None:
        for field in dataclasses.fields(value):
            inner = getattr(value, field.name)
            name = f"{path}{field.name.replace('_', '-')}"
            if dataclasses.is_dataclass(inner):
                names(inner, f"{name}.")
            elif inner != ():
                options.append(f"--{name}")

    config = load_config_file(DEFAULT)
    for field in dataclasses.fields(config):
        part = getattr(config, field.name)
        if dataclasses.is_dataclass(part) and field.name != "schema":
            names(part, f"{field.name}.")
    assert len(options) > 40
    for option in options:
        # a tuple of dataclasses is listed entry by entry
        assert f"{option} " in text or f"{option}.0." in text or f"{option}," in text, option
    for default in ("--train.batch-size INT", "(default: 1024)", "--model.rank INT", "(default: low_rank)"):
        assert default in text
    assert text.count("(default:") >= len(options) - 4


def test_nested_overrides():
    config = parsed(
        "--model.num-layers", "4", "--model.head.widths", "8", "9", "--optimizer.clip-norm", "2", "--train.progressive"
    )
    default = load_config_file(DEFAULT)
    assert config.model.num_layers == 4
    assert config.model.head == dataclasses.replace(default.model.head, widths=(8, 9))
    assert config.optimizer.clip_norm == 2.0
    assert config.train.progressive
    assert parsed("--tables.rules.0.learning-rate", "0.5").tables.rules[0].learning_rate == 0.5
    assert parsed() == default


def test_the_schema_is_no_option(capsys):
    with pytest.raises(SystemExit) as stop:
        parsed("--schema.group", "x")
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--modl.num-layers", "4"], "--model.num-layers"),
        (["--train.batchsize", "4"], "--train.batch-size"),
        (["--model.fm", "lowrank"], "low_rank"),
        (["--train.epochs", "many"], "--train.epochs"),
    ],
)
def test_a_typo_exits_2_and_names_the_nearest(arguments, hint, capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["--config", str(DEFAULT), *arguments])
    assert stop.value.code == 2
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model.num-fmb", "0"], "model.num_fmb: received 0"),
        (["--model.head.dropout", "1"], "dropout: received 1.0"),
        (["--optimizer.weight-decay", "0.1"], "only adamw has it"),
    ],
)
def test_a_bad_value_exits_2(arguments, message, capsys):
    assert train.main(["--config", str(DEFAULT), *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "defines no get_config"),
        ("def get_config():\n    return 3\n", "returned int, expected RunConfig"),
        ("import nothing_like_it\n", "line 1: ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("a = 1\ndef get_config(:\n", "line 2: SyntaxError"),
        ("def get_config():\n    return Wukong()\n", "line 2: NameError: name 'Wukong' is not defined"),
    ],
)
def test_a_config_file_that_does_not_work_is_named(source, message, tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(source)
    assert train.main([f"--config={path}"]) == 2
    error = capsys.readouterr().err
    assert f"{path}" in error
    assert message in error


@pytest.mark.parametrize(
    "given", [("--config", "A", "--config", "B"), ("--config=A", "--config", "B"), ("--config", "A", "--config=B")]
)
def test_two_config_files_are_refused(given, capsys):
    other = DEFAULT.with_name("movielens_1m.py")
    words = [word.replace("A", str(DEFAULT)).replace("B", str(other)) for word in given]
    assert train.main([*words, "--train.epochs", "1"]) == 2
    assert f"--config: received {DEFAULT} and {other}, expected one" in capsys.readouterr().err


def test_a_missing_config_file_lists_those_there(tmp_path):
    (tmp_path / "one.py").touch()
    with pytest.raises(ConfigError, match=r"two.py does not exist; configs there: .*one.py"):
        load_config_file(tmp_path / "two.py")
    with pytest.raises(ConfigError, match=r"does not exist; configs there: none"):
        load_config_file(tmp_path / "nowhere" / "two.py")
    (tmp_path / "three.txt").touch()
    with pytest.raises(ConfigError, match="no Python file"):
        load_config_file(tmp_path / "three.txt")


def test_types_in_a_config_file_are_checked(tmp_path):
    """In a process of its own: here, annotations are checked anyway."""
    path = tmp_path / "mine.py"
    path.write_text(
        f"import runpy, dataclasses\n\n\ndef get_config():\n"
        f"    config = runpy.run_path({str(DEFAULT)!r})['get_config']()\n"
        "    return dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=VALUE))\n"
    )
    for value, message in [("1.5", "train.epochs: received 1.5, expected int"), ("'3'", "line 6: TypeError")]:
        path.write_text(path.read_text().replace("VALUE", value))
        done = subprocess.run([sys.executable, "train.py", "--config", path], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2
        assert message in done.stderr
        path.write_text(path.read_text().replace(value, "VALUE"))


def test_the_config_file_fixes_the_model(tmp_path):
    config = dataclasses.replace(load_config_file(DEFAULT), model=LogisticRegressionConfig())
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps(to_plain(config)))
    path = tmp_path / "mine.py"
    path.write_text(
        "import json\nimport pathlib\nfrom wukong_jax.config.codec import from_plain\n"
        "from wukong_jax.config.run import RunConfig\n"
        f"def get_config():\n    return from_plain(RunConfig, json.loads(pathlib.Path({str(plain)!r}).read_text()))\n"
    )
    run = parse_run_arguments(TrainArguments, ["--config", str(path), "--model.init-stddev", "0.5"], "train.py").run
    assert run.model == LogisticRegressionConfig(0.5)
