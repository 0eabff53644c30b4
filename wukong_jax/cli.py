"""`python -m wukong_jax COMMAND`: one dispatcher; each command is a module with `main(argv)`."""

import difflib
import importlib
import os
import signal
import sys
from collections.abc import Sequence

import wukong_jax
from wukong_jax.errors import UserError
from wukong_jax.process import prepare_process

COMMANDS = {
    "prepare": "turn raw files into a store",
    "evaluate": "metrics of a trained run on a split",
    "predict": "scores for a store's split or a raw file",
    "describe": "parameters, training FLOPs and memory of a config, without running it",
    "compare": "several models on one data set, over seeds, in one table",
    "tune": "search a config's settings, chosen by validation",
    "sweep": "train a list of runs, some at a time, one record each",
    "fit": "scaling laws of a sweep or a table, with intervals",
    "report": "figures, tables and laws of a sweep's records",
    "data-report": "size, repetition and entropy of users' sequences",
    "performance-law": "predict HR and NDCG of sequential recommenders from depth, width and data",
}


def main(arguments: Sequence[str]) -> int:
    """Run one command; bad input is printed as an error and gives exit code 2."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(wukong_jax.__version__)
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        print(f"error: unknown command {command!r}.{hint}\n{_usage()}", file=sys.stderr)
        return 2
    prepare_process()
    try:
        code = importlib.import_module(f"wukong_jax.commands.{command.replace('-', '_')}").main(rest)
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _usage() -> str:
    lines = "\n".join(f"  {name:16} {text}" for name, text in COMMANDS.items())
    usage = "usage: python -m wukong_jax COMMAND [options]; COMMAND --help lists its options"
    return f"{usage}\n\n{lines}\n\ntrain: python train.py"
