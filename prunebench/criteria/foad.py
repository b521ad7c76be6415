"""FOAD: a kept channel removes the channels whose feature maps are most like its own.

Shi et al., "Feature-Oriented and Decoupled Network Structure Based Filter Pruning", J. Computer
Research and Development 61(7), 2024. With d_n(i, j) the Euclidean distance of the maps of channels
i and j on image n, S(i, j) = mean_n 1 / (1 + d_n(i, j)); the channels are walked in index order.

Ours differs from the authors' code: images come from the training set, seeded, never from the
test set; distances are one batched matrix product; `strict` and the ranking for budgets other than
``own`` are our additions. Cost: N * C^2 * H * W / 2 multiply-adds per layer.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunebench.criteria import Criterion, Evidence, GroupRank
from prunebench.errors import PruningError, require, require_choice
from prunebench.reproducibility import cuda_math

if TYPE_CHECKING:
    from torch import Tensor

RULES = ("v2023", "v2022", "strict")
POINTS = ("block", "activation")

#: samples and rows per block of the distance matrix: 2 MiB of float32 at 512 channels
SAMPLES, ROWS = 32, 32
#: squared distance over squared norms below which float32 loses too many digits to cancellation
CLOSE = 1 / 256


@dataclass(frozen=True, kw_only=True)
class Foad(Criterion):
    """Removes the channels that resemble a kept one; the counts are the outcome, not a setting.

    Attributes:
        rule: ``v2023`` is the published code: the t nearest of all channels not yet removed are
            looked at, and a kept one among them uses its place up. ``v2022`` is the older code,
            which first removes all exact duplicates. ``strict`` (ours): kept channels are not
            looked at, so that with s = 0 exactly ceil(C / (t + 1)) of C channels stay.
        t: channels that one kept channel may remove.
        s: least similarity in [0, 1] for a removal; 0 sets no limit, above 1 nothing is removed.
        num_samples: training images compared.
        point: where maps are read: ``block`` after the pooling that follows the activation,
            ``activation`` right after the activation.
        chunk: images per forward pass; memory, not the result, depends on it.
    """

    rule: str
    t: int
    s: float
    num_samples: int
    point: str
    chunk: int

    decides = True
    comparable = False  # the scale of S differs from layer to layer, and scores are places

    def __post_init__(self) -> None:
        """Checks ranges."""
        require_choice("rule", self.rule, RULES)
        require_choice("point", self.point, POINTS)
        require(self.t >= 0, f"t must not be negative, got {self.t}")
        require(self.s >= 0, f"s must not be negative, got {self.s}")
        require(
            self.rule != "v2022" or self.s == 0,
            f"s has no effect under rule=v2022; set s=0 or choose another rule, got {self.s}",
        )
        require(self.num_samples >= 1, f"num_samples must be at least 1, got {self.num_samples}")
        require(self.chunk >= 1, f"chunk must be at least 1, got {self.chunk}")

    @property
    def images_needed(self) -> int:
        """Number of training images whose feature maps are compared."""
        return self.num_samples

    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Ranks by `ranking` and decides by `select`, on one forward sweep of the network.

        Raises:
            PruningError: the feature maps of a group are not finite.
        """
        import torch

        from prunebench.channels import capture

        likeness = {group.name: Likeness(group.size) for group in evidence.groups}
        images = evidence.images[: self.num_samples]
        for some in torch.split(images, self.chunk):
            maps = capture(evidence.network, evidence.cmap, some, evidence.groups, self.point)
            for name, features in maps.items():
                likeness[name].add(features)
        ranks = {}
        for name, seen in likeness.items():
            table = seen.result()
            if not bool(table.isfinite().all()):
                raise PruningError(
                    f"the feature maps of {name} are not finite; has training diverged?"
                )
            kept = select(table, t=self.t, s=self.s, rule=self.rule)
            ranks[name] = GroupRank(ranking(table, t=self.t), tuple(kept))
        return ranks


class Likeness:
    """The similarity table of one layer, gathered over any number of batches."""

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
        """Takes in the maps of further images.

        Args:
            features: [N, C, H, W] (or [N, C]), floating point, on any device.
        """
        maps = features.detach().flatten(2) if features.dim() > 2 else features.detach()[:, :, None]
        total = _summed(maps)
        self._sum = total if self._sum is None else self._sum + total
        self._seen += len(maps)
        # Equal maps have equal peaks: only channels that share theirs need a closer look.
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
        # rounding must not turn a near duplicate into a duplicate
        table = (upper + upper.T).clamp_(max=1 - 2.0**-53)
        broken = self._sum.diagonal().isnan().cpu()
        table.fill_diagonal_(1.0)
        table[broken, broken] = torch.nan
        # A matrix product may round equal columns differently. Duplicates share their first one's
        # row, so that ties between them are exact.
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
    likeness = Likeness(features.shape[1])
    likeness.add(features)
    return likeness.result()


def _summed(maps: Tensor) -> Tensor:
    """Returns sum_n 1 / (1 + d_n), float64 [C, C], right in its upper triangle only.

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
    """Returns two factors whose product is |a|^2 - 2ab + |b|^2, and what is small beside it.

    Args:
        maps: [N, C, P].

    Returns:
        [N, C, P + 2]; [N, P + 2, C]; [N, C]: below it a squared distance has lost too many digits.
    """
    import torch

    square = maps.square().sum(2, keepdim=True)
    one = torch.ones_like(square)
    right = torch.cat([-2 * maps, one, square], 2).transpose(1, 2)
    small = CLOSE * (square + square.amax(1, keepdim=True))
    return torch.cat([maps, square, one], 2), right, small.squeeze(2)


def _squared_distances(factors: tuple[Tensor, Tensor, Tensor], maps: Tensor, start: int) -> Tensor:
    """Returns d^2 of channels start.. (at most `ROWS`) to channels start..C, float32.

    |a|^2 - 2ab + |b|^2 cancels where maps are close, so images in which a distance is small beside
    the norms are computed again in float64; on most layers that is none.
    """
    import torch

    rows = slice(start, start + ROWS)
    left, right, small = factors
    squared = torch.bmm(left[:, rows], right[:, :, start:])
    own = squared.diagonal(dim1=1, dim2=2)
    own.fill_(torch.inf)  # that a channel is near itself calls for no second look
    near = ~(squared.amin(2) > small[:, rows]).all(1)  # NaN is looked at again, too
    own.zero_()
    if bool(near.any()):
        left, right, _ = _factors(maps[near].double())
        exact = torch.bmm(left[:, rows], right[:, :, start:])
        squared[near] = exact.clamp_(min=0).float()  # rounding can go below; elsewhere it is > 0
    return squared


def select(table: Tensor, *, t: int, s: float = 0.0, rule: str = "v2023") -> list[int]:
    """Returns the kept channels, ascending.

    Channels are walked in index order; each that is not yet removed is kept and removes up to `t`
    others with the highest similarity to it, at least `s`. Ties go to the lower index. NaN is never
    removed.

    Args:
        table: S [C, C], as `similarity` returns it.
        t: channels that one kept channel may remove; more than C counts as C.
        s: least similarity for a removal; not used by ``v2022``.
        rule: ``v2023``, ``v2022`` or ``strict``; see `Foad`.
    """
    require_choice("rule", rule, RULES)
    kept, _ = _walk(table.numpy(force=True), t=t, s=s, rule=rule)
    return kept


def _walk(
    table: NDArray[np.float64], *, t: int, s: float, rule: str
) -> tuple[list[int], list[tuple[float, int]]]:
    """Returns the kept channels, and (similarity to its remover, channel) of the removed ones."""
    size = len(table)
    closeness = np.where(np.isnan(table), -1.0, table)
    np.fill_diagonal(closeness, -1.0)
    removed, taken = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
    gone: list[tuple[float, int]] = []
    for index in range(size):
        if removed[index]:
            continue
        taken[index] = True
        if rule == "strict":
            closeness[:, index] = -1.0
        row = closeness[index]
        near = _nearest(row, t)
        if rule == "v2022":
            duplicates = np.flatnonzero(row >= 1)
            # duplicates lead the ranking: they use up the first places
            near = np.concatenate([duplicates, near[len(duplicates) :]])
        least = 0.0 if rule == "v2022" else s
        for other in near:
            if not taken[other] and row[other] >= least:
                removed[other] = True
                gone.append((float(row[other]), int(other)))
                closeness[:, other] = -1.0
    return np.flatnonzero(taken).tolist(), gone


def _nearest(row: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Returns the indices of the `count` highest entries, highest first, ties by lower index."""
    if count <= 0:
        return np.empty(0, dtype=np.intp)
    if count == 1:
        return np.array([row.argmax()])
    if count < len(row):
        least = np.partition(row, -count)[-count]
        candidates = np.flatnonzero(row >= least)
    else:
        candidates = np.arange(len(row))
    return candidates[np.argsort(-row[candidates], kind="stable")][:count]


def ranking(table: Tensor, *, t: int) -> Tensor:
    """Returns each channel's place in the order of removal: 0 goes first, C - 1 last.

    FOAD itself orders nothing; this is ours. The strict rule with s = 0 (and t at least 1) is
    applied in rounds, each to the survivors of the one before. Whoever goes in an earlier round
    places lower; within a round, the more alike to its remover goes first (ties by lower index).

    Args:
        table: S [C, C], finite.
        t: channels that one kept channel removes in one round.

    Returns:
        float64 [C] on the CPU.
    """
    import torch

    whole = table.numpy(force=True)
    left = np.arange(len(whole))
    order: list[int] = []
    while len(left) > 1:
        kept, gone = _walk(whole[np.ix_(left, left)], t=max(t, 1), s=0.0, rule="strict")
        order += [int(left[index]) for _, index in sorted(gone, key=lambda one: (-one[0], one[1]))]
        left = left[kept]
    order += left.tolist()
    places = torch.empty(len(whole), dtype=torch.float64)
    places[order] = torch.arange(len(whole), dtype=torch.float64)
    return places
