"""Collects the Gram matrices of consumers' inputs, which ThiNet's search and repair use.

A sample's x_c (see `consumer_gram`) add up over channels to the output y, so y says nothing that X
does not, and G = X'X [channels, channels] is all that any search or least-squares fit needs. The
channels of one class count as one column.

Luo et al., "ThiNet", ICCV 2017, draw images, filters and positions at random (`sampled`). The sum
over all filters and positions (`all`, ours) needs no draws: with P the patches of the input, G is
the sum over pairs of taps of (P'P) * (W'W), elementwise.
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
    """Settings of the samples behind Gram matrices; part of the schema of ThiNet and its repair.

    Attributes:
        collect: ``sampled`` draws filters and output positions at random, as the paper does;
            ``all`` sums over all filters and positions and draws nothing.
        num_samples: number of training images.
        per_image: least number of draws per image and consumer (``sampled``).
        rows_per_channel: least number of draws per channel (``sampled``); where `per_image` gives
            fewer, every image gives more. With few draws least squares fits noise.
        class_balanced: whether the images hold equally many of each class, as in the paper.
        chunk: most images per forward pass; fewer are taken where they are large.
    """

    collect: str = "sampled"
    num_samples: int = 2048
    per_image: int = 10
    rows_per_channel: int = 20
    class_balanced: bool = False
    chunk: int = 128

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
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
        """Number of training images."""
        return self.num_samples

    def grams(
        self, evidence: Evidence, groups: Sequence[ChannelGroup]
    ) -> dict[str, dict[str, Tensor]]:
        """Returns group name -> name of the consumer's weight -> its Gram matrix.

        Every matrix is float64 [group.size, group.size] on the CPU, symmetric, and not to be
        changed, since the evidence keeps it for the repair of the same step. One pass over the
        images collects all that it does not have yet. Draws depend on the evidence's seed and the
        names of group and consumer alone.

        Raises:
            PruningError: a consumer is no `Conv2d` or `Linear`, or is never called, its inputs are
                not finite, or its table is too large for ``all``.
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
        """Returns the same, collected in one pass over the images."""
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
        """Returns the number of draws per image."""
        return max(self.per_image, -(-self.rows_per_channel * group.size // max(images, 1)))


def rescale(gram: Tensor | Matrix, kept: Sequence[int], *, ridge: float = 1e-8) -> Tensor:
    """Returns the factors of the kept channels that fit y best, float64 [len(kept)] on the CPU.

    Least squares of sum_{c in kept} w_c x_c against y = sum_c x_c, without intercept. Where the fit
    is not unique, factors stay as near to 1 as they can: a dead channel gets exactly 1, and equal
    channels share alike. Keeping all channels gives exactly ones.

    Args:
        gram: X'X [C, C].
        kept: the kept channels, in the order of the result.
        ridge: pull towards 1, relative to the mean energy of a kept channel; refinement removes it
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
    """Ends a forward once every table has all inputs of its consumer.

    It is no Exception, since traced modules (torch.fx) print those that pass through them.
    """


@contextmanager
def _listening(tables: Sequence[Table], sweep: Sweep, uses: Mapping[str, int]) -> Iterator[None]:
    """Adds the inputs of every consumer to its tables while a network runs within the block.

    Args:
        tables: one per group and consumer.
        sweep: position of the pass over the images.
        uses: weight -> how often a forward uses it. The forward ends when all tables have that many
            calls, since the layers behind them do not matter.
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
