"""Prunes a U-Net for segmentation, with a loss other than cross-entropy."""

import torch
from torch import Tensor, nn

import prunebench
from prunebench.criteria.taylor import Taylor


class UNet(nn.Module):
    """A U-Net of two levels, with a skip connection past the lower one."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, width, 3, padding=1)
        self.deep = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.join = nn.Conv2d(2 * width, width, 3, padding=1)
        self.mask = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits of a mask."""
        skip = self.down(x).relu()
        up = self.up(self.deep(skip).relu())
        mask: Tensor = self.mask(self.join(torch.cat([skip, up], 1)).relu())
        return mask


def dice(outputs: Tensor, masks: Tensor) -> Tensor:
    """Returns one minus the Dice overlap, averaged over a batch."""
    found = outputs.sigmoid()
    both = 2 * (found * masks).sum((1, 2, 3))
    return (1 - both / (found.sum((1, 2, 3)) + masks.sum((1, 2, 3)) + 1)).mean()


def main() -> tuple[nn.Module, prunebench.Slim]:
    """Prunes by the increase of the Dice loss, as the criterion Taylor estimates it."""
    torch.manual_seed(0)
    model = UNet()
    images, masks = torch.randn(8, 3, 16, 16), (torch.rand(8, 1, 16, 16) > 0.5).float()
    criterion = Taylor(form="weight", num_samples=8, batch=4)
    small = prunebench.prune(
        model, images[:2], criterion=criterion, macs=0.5, images=(images, masks), loss=dice
    )
    print(small.report)
    return model, small


if __name__ == "__main__":
    main()
