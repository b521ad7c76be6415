"""Prunes a network of timm to widths in multiples of eight."""

import timm
import torch
from torch import nn

import prunebench


def main() -> tuple[nn.Module, prunebench.Slim]:
    """Prunes half of the parameters, in residual streams, too."""
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=10)
    small = prunebench.prune(
        model, torch.randn(2, 3, 64, 64), criterion="fpgm", params=0.5, scope="all", divisor=8
    )
    print(small.report)
    return model, small


if __name__ == "__main__":
    main()
