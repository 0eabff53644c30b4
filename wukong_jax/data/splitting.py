"""The split of every row: seeded fractions by row number, borders in time, or time within each group."""

import numpy as np
from jaxtyping import Float, Int, UInt8

from wukong_jax.data.readers.blocks import SPLITS
from wukong_jax.data.spec import FileSplit, FractionSplit, GroupTimeSplit, SplitRule, TimeSplit
from wukong_jax.data.vocabulary import mix64
from wukong_jax.errors import ConfigError

TRAIN, VALID, TEST = range(len(SPLITS))
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def check_rule(rule: SplitRule, time: str | None, group: str | None) -> None:
    """Refuse shares that leave no training rows, borders out of order, and rules whose columns are not named."""
    if isinstance(rule, FractionSplit | GroupTimeSplit) and not (
        0 <= rule.valid < 1 and 0 <= rule.test < 1 and rule.valid + rule.test < 1
    ):
        raise ConfigError(
            f"split: valid={rule.valid} and test={rule.test}; expected shares of at least 0 that add up to less than 1"
        )
    if isinstance(rule, TimeSplit) and rule.valid_from > rule.test_from:
        raise ConfigError(f"split: valid_from={rule.valid_from} comes after test_from={rule.test_from}; exchange them")
    if isinstance(rule, TimeSplit | GroupTimeSplit) and time is None:
        raise ConfigError("split: a split by time needs the time column; name it as `time`")
    if isinstance(rule, GroupTimeSplit) and group is None:
        raise ConfigError("split: a split by time within groups needs the group column; name it as `group`")


def expected_splits(rule: SplitRule) -> tuple[str, ...]:
    """The splits that must not come out empty; with files per split that is for the files to say."""
    if isinstance(rule, FractionSplit | GroupTimeSplit):
        shares = {"train": 1.0, "valid": rule.valid, "test": rule.test}
        return tuple(name for name, share in shares.items() if share > 0)
    return SPLITS if isinstance(rule, TimeSplit) else ("train",)


def draw(seed: int, first_row: int, rows: int) -> Float[np.ndarray, "rows"]:
    """Uniform numbers in [0, 1) of rows `first_row`, ...: SplitMix64 of the row number, the same in any order."""
    numbers = np.arange(first_row, first_row + rows, dtype=np.uint64)
    start = mix64(np.array([seed % 2**64], np.uint64))
    return (mix64(start + (numbers + np.uint64(1)) * _GOLDEN) >> np.uint64(11)).astype(np.float64) / 2.0**53


def drawn_splits(rule: FractionSplit, first_row: int, rows: int) -> UInt8[np.ndarray, "rows"]:
    """Number in `SPLITS` of the split of the rows number `first_row`, ... of all input."""
    uniform = draw(rule.seed, first_row, rows)
    return np.where(uniform < rule.test, TEST, np.where(uniform < rule.test + rule.valid, VALID, TRAIN)).astype(
        np.uint8
    )


def splits_by_place(
    rule: SplitRule, rows: int, file_split: str | None, time: Int[np.ndarray, "rows"] | None
) -> UInt8[np.ndarray, "rows"] | None:
    """Number in `SPLITS` of each row's split, where its file or time tells it; None for the other rules."""
    if isinstance(rule, FileSplit) and file_split is not None:
        return np.full(rows, SPLITS.index(file_split), np.uint8)
    if isinstance(rule, TimeSplit) and time is not None:
        return np.where(time >= rule.test_from, TEST, np.where(time >= rule.valid_from, VALID, TRAIN)).astype(np.uint8)
    return None


def split_by_group_time(
    rule: GroupTimeSplit, group: Int[np.ndarray, "rows"], time: Int[np.ndarray, "rows"]
) -> UInt8[np.ndarray, "rows"]:
    """In each group of n rows the last floor(n test) are test, the floor(n valid) before them valid.

    Rows of one time are in file order. Takes about 40 bytes a row while it runs.
    """
    order = np.lexsort((time, group))
    ordered = group[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    sizes = np.diff(np.append(starts, len(ordered)))
    # The tiny addition keeps e.g. 0.29 of 100 rows at 29.
    test = np.floor(sizes * rule.test + 1e-9).astype(np.int64)
    valid = np.floor(sizes * rule.valid + 1e-9).astype(np.int64)
    left = np.repeat(starts + sizes, sizes) - np.arange(len(ordered))
    test, held = np.repeat(test, sizes), np.repeat(test + valid, sizes)
    splits = np.empty(len(order), np.uint8)
    splits[order] = np.where(left <= test, TEST, np.where(left <= held, VALID, TRAIN))
    return splits
