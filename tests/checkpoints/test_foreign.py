"""Weights are read from every usual kind of file, but from none that would run code."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from prunebench.channels.gather import GatherChannels
from prunebench.checkpoints import save
from prunebench.checkpoints.foreign import load_weights
from prunebench.errors import CheckpointError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.shortcut = GatherChannels(torch.tensor([0, -1, 1]))
        self.fc = nn.Linear(4, 2)


def weights() -> dict[str, Any]:
    torch.manual_seed(1)
    return dict(Net().state_dict())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w, "best_prec1": 91.7},
        lambda w: {"net_state_dict": w, "epoch": 3},
        lambda w: {"model": w, "optimizer": {}},
        lambda w: {"network": w},
        lambda w: {"state_dict": {f"module.{name}": value for name, value in w.items()}},
        lambda w: {f"_orig_mod.module.{name}": value for name, value in w.items()},
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".th", ".pt"])
def test_usual_wrappings_load(
    tmp_path: Path, wrap: Callable[[dict[str, Any]], object], suffix: str
) -> None:
    torch.save(wrap(weights()), tmp_path / f"w{suffix}")
    net = Net()
    load_weights(net, tmp_path / f"w{suffix}")
    assert all(torch.equal(value, weights()[name]) for name, value in net.state_dict().items())


def test_our_own_checkpoints_and_safetensors_load(tmp_path: Path) -> None:
    save(tmp_path / "own.pt", {"network": weights(), "epoch": 3})
    save_file(weights(), tmp_path / "w.safetensors")
    for name in ("own.pt", "w.safetensors"):
        net = Net()
        load_weights(net, tmp_path / name)
        assert torch.equal(net.conv.weight, weights()["conv.weight"])
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense" * 9)
    with pytest.raises(CheckpointError, match=r"bad\.safetensors is no valid safetensors"):
        load_weights(Net(), tmp_path / "bad.safetensors")


def test_wiring_and_counters_may_be_missing_and_keep_their_values(tmp_path: Path) -> None:
    some = {
        name: value
        for name, value in weights().items()
        if name not in ("shortcut.index", "bn.num_batches_tracked")
    }
    torch.save(some, tmp_path / "w.pt")
    net = Net()
    load_weights(net, tmp_path / "w.pt")
    assert net.shortcut.index.tolist() == [0, -1, 1]
    assert torch.equal(net.fc.bias, weights()["fc.bias"])


def test_what_does_not_fit_is_named_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    other = {**weights(), "conv.weight": torch.zeros(8, 3, 3, 3), "fc.bias": torch.zeros(3)}
    torch.save(other, path)
    with pytest.raises(CheckpointError) as caught:
        load_weights(Net(), path)
    assert str(caught.value) == (
        f"{path} does not fit: 2 of 10 tensors differ in shape, first 'conv.weight': "
        "[8, 3, 3, 3] in the file, [4, 3, 3, 3] here"
    )
    renamed = {name.replace("fc", "linear"): value for name, value in weights().items()}
    torch.save(renamed, path)
    before = Net()
    kept = {name: value.clone() for name, value in before.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(before, path)
    assert str(caught.value) == (
        f"{path} belongs to another network: missing tensors: 2, first 'fc.weight'; "
        "unknown tensors: 2, first 'linear.weight'"
    )
    torch.save({**weights(), "aux.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"network: unknown tensors: 1, first 'aux\.weight'$"):
        load_weights(before, path)
    assert all(torch.equal(kept[name], value) for name, value in before.state_dict().items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda w: w.to(torch.int32), "int32 in the file, float32 here"),
        (lambda w: w.bool(), "bool in the file, float32 here"),
        (lambda w: w.to(torch.complex64), "complex64 in the file, float32 here"),
        (lambda w: w.to_sparse(), "torch.sparse_coo"),
        (lambda w: w.to("meta"), "meta"),
    ],
)
def test_tensors_of_another_kind_are_named(
    tmp_path: Path, change: Callable[[Any], Any], told: str
) -> None:
    path = tmp_path / "w.pt"
    torch.save({**weights(), "fc.weight": change(weights()["fc.weight"])}, path)
    with pytest.raises(CheckpointError, match=f"does not fit: 'fc.weight' is {told}$"):
        load_weights(Net(), path)


def test_other_precisions_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({**weights(), "fc.weight": weights()["fc.weight"].half()}, path)
    load_weights(Net(), path)


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.mark),))


def test_files_that_would_run_code_are_refused(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"state_dict": Malicious(mark)}, tmp_path / "zip.pt")
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Malicious(mark)))
    torch.save(Net(), tmp_path / "module.pt")
    for name in ("zip.pt", "pickle.pth", "module.pt"):
        with pytest.raises(CheckpointError, match=r"would run code from the file; save"):
            load_weights(Net(), tmp_path / name)
    assert not mark.exists()


def test_files_without_weights_are_refused(tmp_path: Path) -> None:
    for content in (
        [1, 2],
        {},
        {"epoch": 3},
        {0: torch.zeros(1)},
        {"state_dict": {"a": 1}},
        torch.zeros(3),
    ):
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(CheckpointError, match="holds no state dict"):
            load_weights(Net(), tmp_path / "w.pt")
    whole = tmp_path / "w.pt"
    torch.save(weights(), whole)
    (tmp_path / "cut.pt").write_bytes(whole.read_bytes()[:900])
    (tmp_path / "text.pt").write_text("<html>404</html>")
    (tmp_path / "empty.pt").write_bytes(b"")
    for name in ("cut.pt", "text.pt", "empty.pt"):
        with pytest.raises(CheckpointError, match=rf"{name} is cut short"):
            load_weights(Net(), tmp_path / name)
    with pytest.raises(CheckpointError, match="does not exist"):
        load_weights(Net(), tmp_path / "none.pt")
