"""The picture of the learning curves."""

import struct

import pytest

from wukong_jax.training.curves import draw_curves

HISTORIES = {
    "one label": [
        {"split": "train", "step": 1, "logloss": 0.7},
        {"split": "valid", "step": 2, "logloss": 0.6, "auc": 0.7, "examples": 9},
        {"split": "progressive", "step": 2, "logloss": 0.6, "auc": 0.7},
    ],
    "several labels": [{"split": "valid", "step": 2, "auc/a": 0.6, "auc/b": 0.7, "logloss/a": 0.5, "logloss/b": 0.5}],
    "training curve only": [{"split": "train", "step": 1, "logloss": 0.7}],
    "undefined scores": [{"split": "valid", "step": 1, "logloss": float("nan"), "auc": float("nan")}],
    "nothing": [],
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES.keys())
def test_a_png_is_drawn(tmp_path, history):
    path = tmp_path / "curves.png"
    draw_curves(path, "name, seed 0", history)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", content[16:24])
    assert width > height > 300
    assert [child.name for child in tmp_path.iterdir()] == ["curves.png"]
