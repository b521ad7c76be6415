"""A stranger's file runs no code, neither by unpickling nor by naming a module to import."""

import hashlib
import io
import zipfile

import pytest
import torch
from torch import nn

from prunebench import checkpoints
from prunebench.checkpoints import slimmed
from prunebench.checkpoints.foreign import load_weights
from prunebench.errors import CheckpointError, ConfigError
from prunebench.options.code import trusted


def test_a_slim_file_imports_no_module(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    content = {
        "format": slimmed.FORMAT, "model": {"_target_": "evil.Spec"}, "shape": [1, 8, 8],
        "classes": 2, "plans": [], "mean": [0.0], "std": [1.0], "network": {"w": torch.zeros(1)},
    }  # fmt: skip
    checkpoints.save(tmp_path / "slim.pt", content)
    with pytest.raises(ConfigError, match=r"slim.pt names the class evil.Spec; if you trust it"):
        slimmed.load(tmp_path / "slim.pt")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SystemExit, match="it ran"):  # now it is the user who put it there
        slimmed.load(tmp_path / "slim.pt")


def test_what_pickle_would_build_is_refused_in_one_line(tmp_path):
    checkpoints.save(tmp_path / "slim.pt", {"answers": b""})
    with pytest.raises(CheckpointError, match=r"slim.pt holds more than tensors, numbers and str"):
        checkpoints.load(tmp_path / "slim.pt")


def test_an_archive_of_too_many_members_is_not_unfolded(tmp_path, monkeypatch):
    monkeypatch.setattr("prunebench.archives.MANY", 20)
    checkpoints.save(tmp_path / "many.pt", {f"k{i}": torch.zeros(1) for i in range(20)})
    with pytest.raises(CheckpointError, match=r"many.pt unpacks to \d\d members, too much for"):
        checkpoints.load(tmp_path / "many.pt")


@pytest.mark.parametrize(
    ("model", "shape", "classes", "told"),
    [
        ({"widths": [10**15, 10**15]}, (3, 8, 8), 2, "a network of more than 1.0 GB"),
        ({"widths": [10]}, (3, 8, 8), 10**12, "a network of more than 1.0 GB"),
        ({"widths": [1] * 60}, (3, 8, 8), 2, "a network of more than 50 tensors"),
        ({"widths": [10]}, (3, 10**6, 10**6), 2, r"images of \[3, 1000000, 1000000\]"),
        (
            {"widths": ["${oc.env:HOME}"]},
            (3, 8, 8),
            2,
            "holds references instead of values of its network",
        ),
        ({"widths": [10]}, (3, 8), 2, "does not say to which network"),
        ({"widths": [10]}, (3, 8, 8), -2, "does not say to which network"),
    ],
)
def test_sizes_are_checked_before_memory_is_taken(
    tmp_path, monkeypatch, model, shape, classes, told
):
    monkeypatch.setattr("prunebench.models.rationed.MOST_TENSORS", 50)
    content = {
        "format": slimmed.FORMAT, "model": {"_target_": "prunebench.models.mlp.Mlp", **model},
        "shape": list(shape), "classes": classes, "plans": [], "mean": [0.0], "std": [1.0],
        "network": {"w": torch.zeros(1)},
    }  # fmt: skip
    checkpoints.save(tmp_path / "slim.pt", content)
    with pytest.raises((ConfigError, CheckpointError), match=rf"slim.pt .*{told}"):
        slimmed.load(tmp_path / "slim.pt")


@pytest.mark.parametrize("wiring", [{"no.such": [0]}, {"": [0, 0, 1]}, {"": 3}, 7])
def test_an_order_of_channels_that_cannot_be_is_told(tmp_path, wiring):
    content = {
        "format": slimmed.FORMAT, "model": {"_target_": "prunebench.models.mlp.Mlp", "widths": [4]},
        "shape": [1, 4, 4], "classes": 2, "plans": [], "mean": [0.0], "std": [1.0],
        "network": {"w": torch.zeros(1)}, "wiring": wiring,
    }  # fmt: skip
    checkpoints.save(tmp_path / "slim.pt", content)
    with pytest.raises(CheckpointError, match="slim.pt gives an invalid order of channels"):
        slimmed.load(tmp_path / "slim.pt")


def test_who_is_trusted(monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert trusted("prunebench.models.vgg")
    assert trusted("json")
    assert not trusted("this")
    assert not trusted("prunebenchx")


@pytest.mark.parametrize(
    "read", [checkpoints.load, lambda path: load_weights(nn.Linear(1, 1), path)]
)
def test_a_bomb_is_not_unfolded(tmp_path, read):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data/0", bytes(101_000_000))
    path = tmp_path / "bomb.pt"
    raw = packed.getvalue()
    label = b"prunebench sha256 " + hashlib.sha256(raw).hexdigest().encode()
    path.write_bytes(raw[:-2] + len(label).to_bytes(2, "little") + label)
    with pytest.raises(CheckpointError, match=r"bomb.pt unpacks from 0.. MB to 101 MB"):
        read(path)
