"""A network of timm, cut to multiples of eight channels."""

import timm
import torch
from torch import nn

import prunebench


def main() -> tuple[nn.Module, prunebench.Slim]:
    """Prunes half of the parameters, residual streams too."""
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=10)
    small = prunebench.prune(
        model, torch.randn(2, 3, 64, 64), criterion="fpgm", params=0.5, scope="all", divisor=8
    )
    print(small.report)
    return model, small


if __name__ == "__main__":
    main()
