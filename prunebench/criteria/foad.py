"""FOAD: each kept channel removes the channels whose feature maps are most like its own.

Shi et al., "Feature-Oriented and Decoupled Network Structure Based Filter Pruning", J. Computer
Research and Development 61(7), 2024. With d_n(i, j) the Euclidean distance of the maps of channels
i and j on image n, S(i, j) = mean_n 1 / (1 + d_n(i, j)); the channels are walked in index order.

Ours differs from the authors' code: images are drawn with a seed from the training set, never from
the test set; distances are one batched matrix product; `strict` and the ranking for budgets other
than ``own`` are our additions. Cost: N * C^2 * H * W / 2 multiply-adds per layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from prunebench.analysis.similarity import SimilarityTable
from prunebench.analysis.similarity import similarity as similarity
from prunebench.contracts import Degrees
from prunebench.criteria import Criterion, Evidence, GroupRank
from prunebench.errors import PruningError, require, require_choice
from prunebench.options.patterns import first_match, require_matches

if TYPE_CHECKING:
    from torch import Tensor

RULES = ("v2023", "v2022", "strict")
POINTS = ("block", "activation")


@dataclass(frozen=True, kw_only=True)
class Foad(Criterion):
    """Removes channels that resemble a kept one; how many go is the outcome, not a setting.

    Attributes:
        rule: ``v2023`` is the published code: of the t channels nearest among all that are not yet
            removed, those go that are not kept, so a kept one uses up a place. ``v2022`` is the
            older code, which first removes all exact duplicates. ``strict`` (ours) passes over
            kept channels, so that with s = 0 exactly ceil(C / (t + 1)) of C channels stay.
        t: channels that one kept channel may remove.
        s: least similarity in [0, 1] for a removal; 0 sets no limit, above 1 nothing is removed.
        t_at, s_at: name pattern (``*`` matches anything) -> t or s of the groups that match it;
            the first matching pattern counts. None = no exceptions.
        num_samples: training images whose maps are compared.
        point: where maps are read: ``block`` after the pooling that follows the activation,
            ``activation`` right after the activation.
        chunk: most images per forward pass; fewer are taken where they are large.
    """

    rule: str = "v2023"
    t: int = 1
    s: float = 0.0
    num_samples: int = 128
    point: str = "block"
    chunk: int = 32
    t_at: dict[str, int] | None = None
    s_at: dict[str, float] | None = None

    decides = True
    decides_by_degrees = True
    comparable = False  # scores are places in a layer's order, and S scales differently per layer

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require_choice("rule", self.rule, RULES)
        require_choice("point", self.point, POINTS)
        for t in (self.t, *(self.t_at or {}).values()):
            require(t >= 0, f"t must not be negative, got {t}")
        for s in (self.s, *(self.s_at or {}).values()):
            require(s >= 0, f"s must not be negative, got {s}")
            require(
                self.rule != "v2022" or s == 0,
                f"s has no effect under rule=v2022; set s=0 or choose another rule, got {s}",
            )
        require(self.num_samples >= 1, f"num_samples must be at least 1, got {self.num_samples}")
        require(self.chunk >= 1, f"chunk must be at least 1, got {self.chunk}")

    @property
    def images_needed(self) -> int:
        """Number of training images whose feature maps are compared."""
        return self.num_samples

    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Ranks by `ranking` and decides by `select`, after one pass over the images.

        Raises:
            PruningError: the feature maps of a group are not finite, or a pattern of `t_at` or
                `s_at` matches no group.
        """
        from prunebench.analysis.chunks import images_at_once
        from prunebench.channels import look

        for key, exceptions in (("t_at", self.t_at), ("s_at", self.s_at)):
            if exceptions:
                names = [group.name for group in evidence.cmap.groups]
                require_matches(f"criterion.{key}", exceptions, names)
        tables = {group.name: SimilarityTable(group.size) for group in evidence.groups}
        network, cmap, run = evidence.network, evidence.cmap, evidence.task.run
        takers = {name: table.add for name, table in tables.items()}
        for some, _ in evidence.batches(self.num_samples, images_at_once(evidence, self.chunk)):
            look(takers, network, cmap, some, self.point, run=run)
        ranks = {}
        for name, gathered in tables.items():
            table = gathered.result()
            if not bool(table.isfinite().all()):
                raise PruningError(
                    f"the feature maps of {name} are not finite; has training diverged?"
                )
            degrees = Degrees(("t", "s"), len(table) - 1, cache(partial(self._decide, name, table)))
            scores = ranking(table, t=first_match(name, self.t_at or {}, self.t))
            ranks[name] = GroupRank(scores, degrees.decide(self.t, self.s), degrees=degrees)
        return ranks

    def _decide(self, name: str, table: Tensor, t: int, s: float) -> tuple[int, ...]:
        """Returns the kept channels of a group for `t` and `s`, or for its exceptions to them."""
        t, s = first_match(name, self.t_at or {}, t), first_match(name, self.s_at or {}, s)
        return tuple(select(table, t=t, s=s, rule=self.rule))


def select(table: Tensor, *, t: int, s: float = 0.0, rule: str = "v2023") -> list[int]:
    """Returns the kept channels, ascending.

    Channels are walked in index order. Each that is not yet removed is kept, and removes up to `t`
    others that are most similar to it, by at least `s`. Of equal ones the lower index goes first. A
    channel with similarity nan is never removed.

    Args:
        table: S [C, C], as `similarity` returns it.
        t: channels that one kept channel may remove; more than C counts as C.
        s: least similarity for a removal; ignored by ``v2022``.
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

    FOAD itself has no order; this one is ours. The strict rule with s = 0 (and t at least 1) runs
    in rounds, each on the survivors of the last. Channels of earlier rounds go first; within a
    round, those more similar to their remover (of equal ones, the lower index).

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
