"""Runs of sequences that may stand in one table."""

import dataclasses
import pathlib

import pytest

from tests.sequential.tiny_sequences import config
from wukong_jax.comparison.records import check_protocol
from wukong_jax.config.sequences import TrainingPart
from wukong_jax.errors import ConfigError

BASE = config(pathlib.Path("store"))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"remove_history": False}, "sequences.remove_history: true -> false"),
        ({"holdout": "last"}, 'sequences.holdout: "last_two" -> "last"'),
        ({"training": TrainingPart(0.5)}, "sequences.training"),
    ],
)
def test_another_protocol_is_refused_naming_the_field(change, field):
    other = dataclasses.replace(BASE, sequences=dataclasses.replace(BASE.sequences, **change))
    with pytest.raises(ConfigError, match=field):
        check_protocol(BASE, other)


def test_how_batches_are_cut_is_a_models_own():
    check_protocol(BASE, dataclasses.replace(BASE, sequences=dataclasses.replace(BASE.sequences, lengths=(3,))))
