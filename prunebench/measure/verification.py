"""Face verification: whether a network sees that two images show one person (LFW and others).

Both protocols test one fold after the other with the threshold that is best on all other folds, on
the embeddings of an image and of its mirror image:

- ``insightface`` adds both and scales the sum to length 1; squared distances; thresholds 0, 0.01
  ... 3.99, of equally good ones the first.
- ``sphereface`` concatenates both, subtracts the mean of the other folds and scales to length 1;
  cosines; thresholds -1, -0.9999 ... 1, of equally good ones the mean.
"""

from __future__ import annotations

from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunebench.datasets import Data
from prunebench.datasets.faces.aligned import ALIGNED
from prunebench.datasets.faces.lfw import pairs_at
from prunebench.datasets.pairs import Pairs
from prunebench.datasets.stream import Loading
from prunebench.measure.accuracy import BATCH_PIXELS, evaluating
from prunebench.records import Verification
from prunebench.training.batches import split_on
from prunebench.training.split import Split

#: false acceptance rate at which `Verification.accepted` is read
FAR = 1e-3
#: points of the ROC that a record keeps
ROC_POINTS = 100


def lfw_accuracy(
    network: nn.Module,
    path: str | Path,
    *,
    protocol: str = "insightface",
    image_size: tuple[int, int] = ALIGNED,
    mean: float = 0.5,
    std: float = 128 / 255,
) -> Verification:
    """Returns the verification result of a network on LFW, or on another set of pairs.

    Args:
        network: returns embeddings [n, d] of images [n, 3, H, W]; its mode is restored.
        path: a folder of aligned faces with ``pairs.txt``, or one of InsightFace's bins.
        protocol: ``insightface`` or ``sphereface``.
        image_size: (height, width) of its input; wider images are cropped to the middle columns.
        mean: the network expects (pixel / 255 - mean) / std.
        std: see `mean`.

    Raises:
        DataError: files are missing or damaged, or the images do not fit.
    """
    loading = Loading(workers=0, prefetch=1, allow_damaged=0.0)
    pairs = pairs_at(Path(path), image_size, loading, protocol)
    images = pairs.images
    data = Data(pairs.name, images, images, images, 2, mean=(mean,) * 3, std=(std,) * 3)
    device = next(network.parameters()).device
    return verify(network, split_on(device, data, images), pairs)


def verify(network: nn.Module, split: Split, pairs: Pairs) -> Verification:
    """Returns the verification result of a network on pairs, in eval mode.

    Args:
        network: returns embeddings [n, d]; on the split's device; its mode is restored.
        split: the images of `pairs` (``pairs.images``).
        pairs: the pairs to tell apart.

    Raises:
        DataError: images cannot be read.
    """
    plain, mirrored = embeddings(network, split)
    return verification(
        (plain[pairs.first], mirrored[pairs.first]),
        (plain[pairs.second], mirrored[pairs.second]),
        pairs.same,
        folds=pairs.folds,
        protocol=pairs.protocol,
    )


def embeddings(network: nn.Module, split: Split) -> tuple[Tensor, Tensor]:
    """Returns the embeddings of all images and their mirror images, float64 [n, d] on the CPU.

    Args:
        network: as in `verify`.
        split: the images; its labels are their positions.
    """
    size = max(1, BATCH_PIXELS.get(split.device.type, 2**17) // prod(split.shape[1:]))
    plain, mirrored, places = list[Tensor](), list[Tensor](), list[Tensor]()
    with evaluating(network):
        for images, labels in split.batches(size):
            plain.append(network(images).double().cpu())
            mirrored.append(network(images.flip(3)).double().cpu())
            places.append(labels.cpu())
    order = torch.cat(places).argsort()
    return torch.cat(plain)[order], torch.cat(mirrored)[order]


def verification(
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    same: Tensor,
    *,
    folds: int,
    protocol: str,
) -> Verification:
    """Returns the verification result for pairs of embeddings.

    Args:
        first: embeddings of each pair's first image and of its mirror image, [n, d] each.
        second: the same for the second image.
        same: bool [n]; whether both images show one person.
        folds: number of consecutive parts.
        protocol: ``insightface`` or ``sphereface``.
    """
    parts = torch.arange(len(same)).tensor_split(folds)
    distances = _distances if protocol == "insightface" else _negative_cosines
    correct, thresholds, accepted = list[int](), list[float](), list[float]()
    held_out = torch.empty(len(same), dtype=torch.float64)
    for part in parts:
        rest = torch.ones(len(same), dtype=torch.bool)
        rest[part] = False
        if folds == 1:
            rest[part] = True
        apart = distances(first, second, rest)
        held_out[part] = apart[part]
        threshold = _best_threshold(apart[rest], same[rest], protocol)
        thresholds.append(threshold if protocol == "insightface" else -threshold)
        correct.append(int(_right(apart[part], same[part], torch.tensor([threshold]))))
        limit = _accepting(apart[rest][~same[rest]])
        accepted.append(_share(apart[part][same[part]] < limit))
    return Verification(
        protocol=protocol,
        correct=correct,
        pairs=[len(part) for part in parts],
        thresholds=thresholds,
        far=FAR,
        accepted=accepted,
        roc=_roc(held_out, same),
    )


def _distances(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], rest: Tensor) -> Tensor:
    """Returns the squared distances [n] of the summed embeddings."""
    one, other = (functional.normalize(plain + mirrored) for plain, mirrored in (first, second))
    return (one - other).square().sum(1)


def _negative_cosines(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], rest: Tensor
) -> Tensor:
    """Returns the negated cosines [n] of centred embeddings, which grow as people differ."""
    one, other = torch.cat(first, 1), torch.cat(second, 1)
    mean = torch.cat([one[rest], other[rest]]).mean(0)
    return -(functional.normalize(one - mean) * functional.normalize(other - mean)).sum(1)


def _best_threshold(apart: Tensor, same: Tensor, protocol: str) -> float:
    """Returns the threshold of the protocol's grid that gets most pairs right."""
    if protocol == "insightface":
        grid = torch.arange(400, dtype=torch.float64) / 100
        return float(grid[_right(apart, same, grid).argmax()])
    grid = torch.arange(-10_000, 10_001, dtype=torch.float64) / 10_000
    right = _right(apart, same, grid)
    return float(grid[right == right.max()].mean())


def _right(apart: Tensor, same: Tensor, grid: Tensor) -> Tensor:
    """Returns how many pairs each threshold gets right, int64 [k]; pairs below it count as same."""
    alike, strange = apart[same].sort().values, apart[~same].sort().values
    grid = grid.to(torch.float64)
    closer = torch.searchsorted(alike, grid)
    return closer + len(strange) - torch.searchsorted(strange, grid)


def _accepting(strange: Tensor) -> float:
    """Returns the largest threshold below which at most `FAR` of the pairs of strangers lie."""
    allowed = int(FAR * len(strange))
    return float(strange.sort().values[allowed]) if len(strange) else float("inf")


def _share(chosen: Tensor) -> float:
    """Returns the fraction that is true; 0 for an empty tensor."""
    return float(chosen.double().mean()) if len(chosen) else 0.0


def _roc(apart: Tensor, same: Tensor) -> list[list[float]]:
    """Returns [false, true] acceptance rates, ascending, thinned out for a logarithmic axis."""
    alike, strange = apart[same].sort().values, apart[~same].sort().values
    if not len(strange):
        return []
    counts = torch.logspace(0, torch.tensor(float(len(strange))).log10().item(), ROC_POINTS)
    points = []
    for wrong in sorted({0, *(min(len(strange) - 1, int(count)) for count in counts)}):
        right = _share(alike < strange[wrong]) if len(alike) else 0.0
        points.append([wrong / len(strange), right])
    return [*points, [1.0, 1.0]]
