"""The similarity of a layer's channels: S(i, j) = mean over images n of 1 / (1 + d_n(i, j)).

d_n is the Euclidean distance of their feature maps on image n; Shi et al., J. Computer Research and
Development 61(7), 2024. It takes one batched matrix product per block of images, N * C^2 * H * W /
2 multiply-adds per layer.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from prunebench.reproducibility import cuda_math

if TYPE_CHECKING:
    from torch import Tensor

#: images and rows per block of the distance matrix: 2 MiB of float32 at 512 channels
SAMPLES, ROWS = 32, 32
#: numbers per block of pairs that are computed again: 16 MiB of float64
PAIRS = 1 << 21
#: ratio of squared distance to squared norms below which float32 cancels too many digits
CLOSE = 1 / 256


class SimilarityTable:
    """The similarity table of one layer, accumulated over any number of batches."""

    def __init__(self, size: int) -> None:
        """Starts with no image seen.

        Args:
            size: number of channels C.
        """
        self._seen = 0
        self._sum: Tensor | None = None
        self._digests = [hashlib.sha256() for _ in range(size)]
        self._twins = np.ones(size, dtype=bool)  # may still be equal to another channel

    def add(self, features: Tensor) -> None:
        """Adds the maps of further images.

        Args:
            features: [N, C, H, W] (or [N, C]), floating point, on any device.
        """
        maps = features.detach().flatten(2) if features.dim() > 2 else features.detach()[:, :, None]
        if maps.element_size() < 4:
            maps = maps.float()  # exact; NumPy has no bfloat16
        total = _summed(maps)
        self._sum = total if self._sum is None else self._sum + total
        self._seen += len(maps)
        # equal maps have equal peaks, so only channels that share a peak need their bytes compared
        _, peak, sharing = np.unique(
            maps.amax(0).amax(1).cpu().numpy(), return_inverse=True, return_counts=True
        )
        self._twins &= sharing[peak] > 1
        for index in np.flatnonzero(self._twins):
            row = maps[:, index] + 0.0  # -0.0 becomes 0.0, which is equal but has other bytes
            self._digests[index].update(row.cpu().numpy().tobytes())

    def result(self) -> Tensor:
        """Returns S, float64 [C, C] on the CPU, symmetric; 1 exactly where all maps are equal."""
        import torch

        assert self._sum is not None, "no image was added"
        upper = torch.triu((self._sum / self._seen).cpu(), diagonal=1)
        # below 1, so that rounding turns no near duplicate into a duplicate
        table = (upper + upper.T).clamp_(max=1 - 2.0**-53)
        broken = self._sum.diagonal().isnan().cpu()
        table.fill_diagonal_(1.0)
        table[broken, broken] = torch.nan
        # A matrix product may round equal columns differently. So duplicates take the row of the
        # first of them, which makes ties between them exact.
        if not self._twins.any():
            return table
        first: dict[bytes, int] = {}
        same = list(range(len(table)))
        for index in np.flatnonzero(self._twins):
            same[index] = first.setdefault(self._digests[index].digest(), int(index))
        return table[same][:, same]


def similarity(features: Tensor) -> Tensor:
    """Returns S, float64 [C, C] on the CPU: the mean over images of 1 / (1 + distance of maps).

    Args:
        features: [N, C, H, W], floating point, on any device. NaN makes the channel's row NaN.

    Returns:
        In (0, 1], symmetric, and 1 exactly where two channels' maps are equal on every image.
    """
    table = SimilarityTable(features.shape[1])
    table.add(features)
    return table.result()


def _summed(maps: Tensor) -> Tensor:
    """Returns sum_n 1 / (1 + d_n), float64 [C, C], valid in its upper triangle only.

    Args:
        maps: [N, C, P].
    """
    import torch

    size = maps.shape[1]
    total = torch.zeros(size, size, dtype=torch.float64, device=maps.device)
    with cuda_math(exact=True):
        for part in torch.split(maps, SAMPLES):
            factors = _factors(part.float())
            for start in range(0, size, ROWS):
                closeness = _squared_distances(factors, part, start)
                closeness.sqrt_().add_(1).reciprocal_()
                total[start : start + ROWS, start:] += closeness.sum(0)
    return total


def _factors(maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns two factors whose product is |a|^2 - 2ab + |b|^2, and the squared norms.

    Args:
        maps: [N, C, P].

    Returns:
        [N, C, P + 2]; [N, P + 2, C]; [N, C].
    """
    import torch

    square = maps.square().sum(2, keepdim=True)
    one = torch.ones_like(square)
    right = torch.cat([-2 * maps, one, square], 2).transpose(1, 2)
    return torch.cat([maps, square, one], 2), right, square.squeeze(2)


def _squared_distances(factors: tuple[Tensor, Tensor, Tensor], maps: Tensor, start: int) -> Tensor:
    """Returns d^2 of channels start.. (at most `ROWS`) to channels start..C, float32.

    |a|^2 - 2ab + |b|^2 cancels where maps are close, so distances that are small beside the norms
    (few, on most layers) are computed again in float64.
    """
    import torch

    rows = slice(start, start + ROWS)
    left, right, norms = factors
    squared = torch.bmm(left[:, rows], right[:, :, start:])
    small = CLOSE * (norms[:, rows, None] + norms[:, None, start:])
    near = (squared < small) | squared.isnan()
    near = near.triu(1)  # without the diagonal, and without the half that is not used
    squared.diagonal(dim1=1, dim2=2).copy_(0 * norms[:, rows])  # NaN stays NaN
    places = near.nonzero()
    for some in torch.split(places, max(1, PAIRS // maps.shape[2])):
        image, first, second = some.unbind(1)
        apart = maps[image, start + first].double().sub_(maps[image, start + second])
        squared[image, first, second] = apart.square_().sum(1).float()
    return squared
