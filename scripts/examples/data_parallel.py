"""Prunes a network from a DataParallel checkpoint, whose names begin with ``module.``.

The result is saved without pickle.
"""

import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

import prunebench


def network() -> nn.Sequential:
    """Returns a small classifier."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


def main() -> tuple[nn.Module, prunebench.Slim]:
    """Loads the checkpoint, prunes, saves, and loads the slim network."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, slim = Path(folder, "checkpoint.pt"), Path(folder, "slim.pt")
        torch.save(nn.DataParallel(network()).state_dict(), checkpoint)

        weights = torch.load(checkpoint, weights_only=True)
        consume_prefix_in_state_dict_if_present(weights, "module.")
        model, image = network(), torch.randn(2, 3, 12, 12)
        model.load_state_dict(weights)
        small = prunebench.prune(model, image, macs=0.5)
        prunebench.save(small, slim)

        again = prunebench.load(slim, model=network())  # its weights are replaced by the file's
        torch.testing.assert_close(again(image), small.eval()(image))
    print(small.report)
    return model, small


if __name__ == "__main__":
    main()
