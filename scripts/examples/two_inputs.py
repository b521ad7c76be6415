"""Prunes a network with two inputs: the example is a tuple, or a dict by argument name."""

from typing import Any

import torch
from torch import Tensor, nn

import prunebench


class Pair(nn.Module):
    """Compares an image with a depth map."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU())
        self.depth = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.head = nn.Linear(24, 2)

    def forward(self, image: Tensor, depth: Tensor) -> Tensor:
        """Returns logits."""
        both = torch.cat([self.image(image), self.depth(depth)], 1)
        logits: Tensor = self.head(both.mean((2, 3)))
        return logits


def main() -> tuple[nn.Module, prunebench.Slim]:
    """Prunes by feature maps; a data loader provides both inputs."""
    torch.manual_seed(0)
    model = Pair()
    image, depth = torch.randn(8, 3, 12, 12), torch.randn(8, 1, 12, 12)
    pairs: Any = [((a, b), i % 2) for i, (a, b) in enumerate(zip(image, depth, strict=True))]
    loader = torch.utils.data.DataLoader(pairs, batch_size=4)
    small = prunebench.prune(
        model,
        {"image": image[:2], "depth": depth[:2]},
        criterion=prunebench.criteria.Hrank(num_samples=8),
        uniform=0.5,
        images=loader,
    )
    print(small.report)
    return model, small


if __name__ == "__main__":
    main()
