"""The Gram matrix of a consumer's inputs: what ThiNet's search and its repair look at.

Each sample x_c (see `consumer_gram`) sums over the channels to the output y, so y says nothing that
X does not, and G = X'X (channels by channels) is all that any search or least-squares fit needs.
Channels that live and die together count as one column.

Luo et al., "ThiNet", ICCV 2017, draw images, filters and positions at random (`sampled`). Summing
over every filter and every position (`all`, ours) needs no draws: with P the patches of the input,
G = sum over pairs of taps of (P'P) * (W'W), elementwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from prunebench.analysis.chunks import images_at_once
from prunebench.analysis.consumer_gram import Entries, Reader, Sampled, Sweep
from prunebench.contracts import rows_in
from prunebench.errors import require, require_choice

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.channels import ChannelGroup
    from prunebench.contracts import Evidence

Table: TypeAlias = Sampled | Entries
Matrix: TypeAlias = NDArray[np.float64]

COLLECT = ("sampled", "all")


@dataclass(frozen=True, kw_only=True)
class GramCollection:
    """Which samples go into the Gram matrices; part of the schema of ThiNet and of its repair.

    Attributes:
        collect: ``sampled`` draws filters and output positions at random, as the paper does;
            ``all`` sums over every filter and position and draws nothing.
        num_samples: training images looked at.
        per_image: draws per image and consumer, at least (sampled).
        rows_per_channel: draws per channel, at least; where `per_image` gives fewer, every image
            gives more. Few rows make least squares fit noise (sampled).
        class_balanced: whether these are as many of each class, as in the paper.
        chunk: most images per forward pass; fewer where they are large.
    """

    collect: str = "sampled"
    num_samples: int = 2048
    per_image: int = 10
    rows_per_channel: int = 20
    class_balanced: bool = False
    chunk: int = 128

    def __post_init__(self) -> None:
        """Checks ranges."""
        require_choice("collect", self.collect, COLLECT)
        require(self.num_samples >= 1, f"num_samples must be at least 1, got {self.num_samples}")
        require(self.per_image >= 1, f"per_image must be at least 1, got {self.per_image}")
        require(
            self.rows_per_channel >= 0,
            f"rows_per_channel must not be negative, got {self.rows_per_channel}",
        )
        require(self.chunk >= 1, f"chunk must be at least 1, got {self.chunk}")

    @property
    def images_needed(self) -> int:
        """Number of training images looked at."""
        return self.num_samples

    def grams(
        self, evidence: Evidence, groups: Sequence[ChannelGroup]
    ) -> dict[str, dict[str, Tensor]]:
        """Returns group name -> name of the consumer's weight -> its Gram matrix.

        Every matrix is float64 [group.size, group.size] on the CPU, symmetric, and not to be
        changed: those that the evidence knows from an equal collection are taken from there. One
        forward sweep serves all others; draws depend on the evidence's seed and the group's name
        alone.

        Raises:
            PruningError: a consumer is no `Conv2d` or `Linear` that is called, its inputs are not
                finite, or its table is too large for ``all``.
        """
        settings = (self.collect, self.num_samples, self.per_image, self.rows_per_channel)
        keys = {group.name: ("gram", settings, self.chunk, group.name) for group in groups}
        known = evidence.measured
        found = self._collect(evidence, [one for one in groups if keys[one.name] not in known])
        known.update({keys[name]: by_weight for name, by_weight in found.items()})
        return {name: known[key] for name, key in keys.items()}

    def _collect(
        self, evidence: Evidence, groups: Sequence[ChannelGroup]
    ) -> dict[str, dict[str, Tensor]]:
        """Returns what `grams` does, from one forward sweep."""
        import torch

        from prunebench.reproducibility import cuda_math

        images = min(self.num_samples, evidence.size)
        size = images_at_once(evidence, self.chunk)
        modules = dict(evidence.network.named_modules())
        sweep = Sweep(images)
        made: dict[str, dict[str, Table]] = {}
        for group in groups:
            made[group.name] = {}
            for site in group.consumers:
                reader = Reader(modules[site.module], site, group)
                made[group.name][site.name] = (
                    Entries(reader)
                    if self.collect == "all"
                    else Sampled(reader, self._draws(group, images), evidence.seed)
                )
        tables = [table for of_group in made.values() for table in of_group.values()]
        if not tables:
            return {name: {} for name in made}
        uses = Counter(call.weight for call in evidence.cmap.tape.calls)
        with torch.no_grad(), cuda_math(exact=True), _listening(tables, sweep, uses):
            for some, _ in evidence.batches(images, size):
                sweep.next_batch(rows_in(some))
                with suppress(_AllHeard):
                    evidence.task.run(evidence.network, some)
        return {
            name: {weight: table.result() for weight, table in of_group.items()}
            for name, of_group in made.items()
        }

    def _draws(self, group: ChannelGroup, images: int) -> int:
        """Returns how many samples every image gives."""
        return max(self.per_image, -(-self.rows_per_channel * group.size // max(images, 1)))


def rescale(gram: Tensor | Matrix, kept: Sequence[int], *, ridge: float = 1e-8) -> Tensor:
    """Returns the weights of the kept channels that fit y best, float64 [len(kept)] on the CPU.

    Least squares of sum_{c in kept} w_c x_c against y = sum_c x_c; no intercept. Where the fit is
    not unique, weights stay as near 1 as they can: a dead channel gets exactly 1, and of equal
    ones each takes its part. Keeping all channels gives exactly ones.

    Args:
        gram: X'X [C, C].
        kept: channels, in the order of the result.
        ridge: pull towards 1, relative to the mean energy of a kept channel; it is refined away
            where the fit is well determined.
    """
    import torch

    table = torch.as_tensor(gram).detach().to("cpu", torch.float64)
    index = torch.as_tensor(list(kept), dtype=torch.int64)
    others = torch.ones(len(table), dtype=torch.float64)
    others[index] = 0
    inner = table[index][:, index]
    weights = torch.ones(len(index), dtype=torch.float64)
    mean = float(inner.diagonal().mean())
    if mean <= 0:
        return weights
    pulled = inner + ridge * mean * torch.eye(len(index), dtype=torch.float64)
    factor = torch.linalg.cholesky(pulled)
    missing = (table[index] @ others)[:, None]
    change = torch.zeros_like(missing)
    for _ in range(3):  # the fit, and two refinements that undo the pull
        change += torch.cholesky_solve(missing - inner @ change, factor)
    return weights + change[:, 0]


class _AllHeard(BaseException):
    """Ends a forward that has nothing more to tell.

    Not an Exception: traced modules (torch.fx) print those that pass through them.
    """


@contextmanager
def _listening(tables: Sequence[Table], sweep: Sweep, uses: Mapping[str, int]) -> Iterator[None]:
    """Feeds the inputs of every consumer to its tables while a network runs.

    Args:
        tables: one per group and consumer.
        sweep: that the network runs for.
        uses: weight -> how often a forward uses it. The forward ends when all tables have heard
            that many calls, since the layers behind them do not matter.
    """
    heard: Counter[int] = Counter()
    batch = -1

    def hear(table: Table, module: nn.Module, inputs: Any, named: Mapping[str, Any]) -> None:
        nonlocal batch
        if batch != sweep.start:
            batch = sweep.start
            heard.clear()
        table.add(inputs[0] if inputs else named["input"], sweep, heard[id(table)])
        heard[id(table)] += 1
        if all(heard[id(one)] >= uses[one.reader.name] for one in tables):
            raise _AllHeard

    with ExitStack() as hooks:
        for table in tables:
            hook, module = partial(hear, table), table.reader.module
            hooks.enter_context(module.register_forward_pre_hook(hook, with_kwargs=True))
        yield
