"""Checkpoints are read whole or refused."""

import os
from pathlib import Path

import pytest
import torch

from prunebench.checkpoints import Checkpoint, load, save
from prunebench.errors import CheckpointError

STATE = {"epoch": 3, "name": "a", "none": None, "list": [1, {"x": torch.arange(4.0)}]}


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "new" / "c.pt"
    turned = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    save(path, {**STATE, "turned": turned})
    got = load(path)
    assert (got["epoch"], got["name"], got["none"]) == (3, "a", None)
    assert torch.equal(got["list"][1]["x"], torch.arange(4.0))
    assert torch.equal(got["turned"], turned)
    assert got["turned"].stride() == turned.stride()
    assert [file.name for file in path.parent.iterdir()] == ["c.pt"]


def test_the_file_is_an_ordinary_torch_file(tmp_path: Path) -> None:
    save(tmp_path / "c.pt", STATE)
    assert torch.load(tmp_path / "c.pt", weights_only=True)["epoch"] == 3


def test_equal_states_give_equal_bytes_under_any_name(tmp_path: Path) -> None:
    save(tmp_path / "one.pt", STATE)
    save(tmp_path / "two.pt", STATE)
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()


def test_every_truncation_and_every_flipped_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    save(path, STATE)
    whole = path.read_bytes()
    for size in [0, 1, 50, 82, 84, len(whole) // 2, len(whole) - 84, len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"c\.pt is (cut short|damaged)"):
            load(path)
    length_field = {len(whole) - 84, len(whole) - 83}  # of the comment; load does not read it
    for place in range(0, len(whole), 7):
        if place not in length_field:
            broken = bytearray(whole)
            broken[place] ^= 1
            path.write_bytes(broken)
            with pytest.raises(CheckpointError, match=r"c\.pt is (cut short|damaged)"):
                load(path)
    path.write_bytes(whole)
    assert load(path)["epoch"] == 3


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"c\.pt does not exist"):
        load(tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"cannot be read: Is a directory"):
        load(tmp_path)


def test_a_failed_save_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.pt"
    save(path, STATE)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        save(path, {"epoch": 4})
    assert load(path)["epoch"] == 3
    assert [file.name for file in tmp_path.iterdir()] == ["c.pt"]


def test_a_checkpoint_is_due_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    checkpoint = Checkpoint(tmp_path / "c.pt", 60.0)
    assert checkpoint.load() is None
    now[0] = 159.0
    assert not checkpoint.due()
    now[0] = 160.0
    assert checkpoint.due()
    checkpoint.save(STATE)
    assert not checkpoint.due()
    assert checkpoint.load() is not None
