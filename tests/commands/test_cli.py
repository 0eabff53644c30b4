"""The dispatcher of python -m wukong_jax."""

import os
import signal
import subprocess
import sys

import pytest

import wukong_jax
from wukong_jax.cli import COMMANDS, main


def test_usage_lists_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


def test_no_command_is_an_error(capsys):
    assert main([]) == 2
    assert "COMMAND" in capsys.readouterr().out


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == wukong_jax.__version__


def test_an_unknown_command_names_the_nearest(capsys):
    assert main(["evalute"]) == 2
    assert "unknown command 'evalute'. Did you mean 'evaluate'?" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys, monkeypatch, pytestconfig):
    monkeypatch.chdir(pytestconfig.rootpath)
    with pytest.raises(SystemExit) as left:
        main([command, "--help"])
    assert left.value.code == 0
    assert f"python -m wukong_jax {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_exits_with_2(command, capsys, monkeypatch, pytestconfig):
    monkeypatch.chdir(pytestconfig.rootpath)
    with pytest.raises(SystemExit) as left:
        main([command, "--no-such-option", "3"])
    assert left.value.code == 2


def test_a_reader_that_goes_away_costs_neither_store_nor_config(tmp_path, pytestconfig):
    (tmp_path / "a.csv").write_text("label,user\n" + "".join(f"{i % 2},u{i % 7}\n" for i in range(100)))
    given = "prepare --files a.csv --categorical user --out store --write-config mine.py"
    command = [sys.executable, "-m", "wukong_jax", *given.split()]
    environment = os.environ | {"PYTHONPATH": str(pytestconfig.rootpath)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **pipes) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 128 + signal.SIGPIPE
    assert "Traceback" not in errors
    assert (tmp_path / "store" / "store.json").is_file()
    assert "get_config" in (tmp_path / "mine.py").read_text()
