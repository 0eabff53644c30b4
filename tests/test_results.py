"""What is kept under results/ can be read anywhere."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest


def texts(value: Any) -> Iterator[str]:
    """All strings of a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts(part)


def test_no_record_names_a_folder_of_one_machine(pytestconfig: pytest.Config):
    paths = [*(pytestconfig.rootpath / "results").rglob("*.json*")]
    assert paths
    for path in paths:
        for line in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            local = [text for text in texts(json.loads(line)) if pathlib.PurePath(text).is_absolute()]
            assert not local, path
