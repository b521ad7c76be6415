"""Prunes a network from a Lightning ``.ckpt``, whose names are those of the LightningModule."""

import tempfile
from pathlib import Path

import torch
from torch import nn

import prunebench


def network() -> nn.Sequential:
    """Returns a small classifier, which the LightningModule holds as ``self.net``."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


def write(path: Path) -> None:
    """Writes a checkpoint as Lightning would."""
    weights = {f"net.{name}": value for name, value in network().state_dict().items()}
    weights["loss.weight"] = torch.ones(4)  # the module holds a loss with a weight, too
    content = {"epoch": 3, "global_step": 120, "pytorch-lightning_version": "2.5.0"}
    torch.save({**content, "state_dict": weights, "hyper_parameters": {"lr": 0.1}}, path)


def main() -> tuple[nn.Module, prunebench.Slim]:
    """Loads the checkpoint without running code from it, and prunes only the network."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "epoch=3-step=120.ckpt")
        write(path)
        weights = torch.load(path, weights_only=True)["state_dict"]
    own = "net."
    model = network()
    model.load_state_dict(
        {name.removeprefix(own): value for name, value in weights.items() if name.startswith(own)}
    )
    small = prunebench.prune(model, torch.randn(2, 3, 12, 12), macs=0.5)
    print(small.report)
    return model, small  # in the LightningModule: self.net = small


if __name__ == "__main__":
    main()
