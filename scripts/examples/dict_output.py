"""Prunes a network that returns a dict: `forward` says which entry the loss receives."""

import torch
from torch import Tensor, nn

import prunebench
from prunebench.criteria.taylor import Taylor


class Tagger(nn.Module):
    """Returns logits and the features below them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
        self.top = nn.Sequential(nn.Conv2d(16, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Returns logits and features by name."""
        features = self.top(self.body(x)).mean((2, 3))
        return {"logits": self.head(features), "features": features}


def main() -> tuple[nn.Module, prunebench.Slim]:
    """Prunes with the cross-entropy of one of the outputs.

    Both outputs keep their size: channels that the network returns are left whole.
    """
    torch.manual_seed(0)
    model = Tagger()
    images, labels = torch.randn(8, 3, 12, 12), torch.arange(8) % 4
    small = prunebench.prune(
        model,
        images[:2],
        criterion=Taylor(num_samples=8),
        uniform=0.5,
        images=(images, labels),
        forward=lambda network, batch: network(batch)["logits"],
    )
    print(small.report)
    return model, small


if __name__ == "__main__":
    main()
