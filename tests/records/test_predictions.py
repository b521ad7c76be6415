"""Predictions are read as they were written, in about a byte per image."""

import numpy as np
import pytest

from prunebench.errors import DataError
from prunebench.records.predictions import PREDICTIONS, Predictions, read_predictions


def test_round_trip(tmp_path):
    draw = np.random.default_rng(0)
    top1, correct = draw.integers(0, 10, 9_999), draw.random(9_999) < 0.9
    path = tmp_path / PREDICTIONS / "pruned.npz"
    Predictions(top1=top1, correct=correct).write(path)
    found = read_predictions(tmp_path / "report.json", "pruned")
    assert np.array_equal(found.top1, top1)
    assert np.array_equal(found.correct, correct)
    assert path.stat().st_size < 15_000
    assert [file.name for file in path.parent.iterdir()] == ["pruned.npz"]


def test_a_thousand_classes_fit(tmp_path):
    path = tmp_path / PREDICTIONS / "pruned.npz"
    Predictions(top1=np.array([999, 0]), correct=np.array([True, False])).write(path)
    assert read_predictions(tmp_path / "report.json", "pruned").top1.tolist() == [999, 0]


def test_older_runs_kept_none_and_damage_is_named(tmp_path):
    assert read_predictions(tmp_path / "report.json", "pruned") is None
    path = tmp_path / PREDICTIONS / "pruned.npz"
    path.parent.mkdir()
    for content in (b"", b"PK", b"PK\x03\x04 and no more"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="pruned.npz is damaged"):
            read_predictions(tmp_path / "report.json", "pruned")
