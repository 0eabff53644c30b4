"""The dispatcher of python -m wukong_jax."""

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
