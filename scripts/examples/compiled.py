"""Prunes a compiled network: the module behind torch.compile is pruned, and compiled again."""

from typing import Any

import torch
from torch import nn

import prunebench


def main() -> tuple[nn.Module, prunebench.Slim]:
    """Prunes a compiled network. The backend is chosen to start fast; leave it out for speed."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip
    compiled: Any = torch.compile(model, backend="eager")
    image = torch.randn(2, 3, 12, 12)
    compiled(image)
    small = prunebench.prune(compiled, image, macs=0.5)
    torch.testing.assert_close(torch.compile(small, backend="eager")(image), small(image))
    print(small.report)
    return model, small


if __name__ == "__main__":
    main()
