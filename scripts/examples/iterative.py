"""Prunes iteratively: cut a little, train a little, and repeat."""

import torch
from torch import nn

import prunebench


def main() -> tuple[nn.Module, prunebench.Slim]:
    """Prunes to half the MACs in three rounds; the optimizer follows each cut."""
    torch.manual_seed(0)
    images, labels = torch.randn(16, 3, 12, 12), torch.arange(16) % 4
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def finetune(network: nn.Module) -> None:
        """Trains `network` in place; `optimizer` holds its parameters, also after a cut."""
        for _ in range(2):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()

    finetune(model)
    small = prunebench.prune(
        model,
        images[:2],
        criterion=prunebench.criteria.Taylor(num_samples=16),
        macs=0.5,
        steps=3,
        between=finetune,
        images=(images, labels),
        optimizer=optimizer,
    )
    finetune(small)  # `between` is not called after the last round
    print(small.report)
    return model, small


if __name__ == "__main__":
    main()
