"""Prunes within one's own training loop: optimizer, scheduler and moving average continue."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import prunebench
from prunebench.channels import slim, trace


def network() -> nn.Sequential:
    """Returns a small classifier."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


def train(model: nn.Module, optimizer: torch.optim.Optimizer, batch: tuple[Tensor, Tensor]) -> None:
    """Takes one step."""
    images, labels = batch
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()


def average(model: nn.Module) -> AveragedModel:
    """Returns the moving average of a model's weights."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))


def main() -> tuple[nn.Module, prunebench.Slim]:
    """Trains, prunes, and continues training."""
    torch.manual_seed(0)
    batch = torch.randn(8, 3, 12, 12), torch.arange(8) % 4
    model: nn.Module = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
    ema = average(model)
    for _ in range(3):
        train(model, optimizer, batch)
        ema.update_parameters(model)
        scheduler.step()

    small = prunebench.prune(model, batch[0][:2], macs=0.5, optimizer=optimizer)
    # cut the moving average by the same plan; then it averages the slim network
    averaged = slim(ema.module, trace(ema.module, batch[0][:2]), small.plan)
    ema = average(averaged)

    for _ in range(3):  # momentum and learning rate continue from their values
        train(small, optimizer, batch)
        ema.update_parameters(small)
        scheduler.step()
    print(small.report)
    return model, small


if __name__ == "__main__":
    main()
