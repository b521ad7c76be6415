"""Builds the result of `prune`: the slim network with its plan and report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.optim import Optimizer

from prunebench.channels import ChannelMap, Example, Plan, in_mode
from prunebench.channels.example import one_image
from prunebench.channels.members import named_modules
from prunebench.channels.tensors import map_tensors
from prunebench.contracts import rows_in
from prunebench.errors import PruningError
from prunebench.measure import params
from prunebench.records import StepRecord
from prunebench.run.step import Cut, Method, Sample

#: attribute of a slim network that holds its `Lineage`
LINEAGE = "_prunebench_lineage"


@dataclass(frozen=True, kw_only=True)
class PruningReport:
    """Holds the outcome of pruning; ``print`` shows it in words.

    Attributes:
        params_before, params_after: numbers of parameters.
        macs_before, macs_after: multiply-adds of convolution, linear and matmul layers, one image.
        channels_before, channels_after: by group.
        whole: group or layer -> why it was left whole.
        surgery_error: largest relative difference between the masked and the slim network.
        steps: the rounds one by one.
        notes: warnings about what was accepted but may be unintended.
    """

    params_before: int
    params_after: int
    macs_before: int
    macs_after: int
    channels_before: dict[str, int]
    channels_after: dict[str, int]
    whole: dict[str, str]
    surgery_error: float
    steps: list[StepRecord]
    notes: list[str]

    def __str__(self) -> str:
        """Returns the report as lines of text."""
        lines = [
            _change("parameters", self.params_before, self.params_after),
            _change("MACs", self.macs_before, self.macs_after),
        ]
        for name, before in self.channels_before.items():
            if name not in self.whole:
                lines.append(f"{name}: {self.channels_after[name]} of {before} channels kept")
        lines += [f"{name}: left whole, {why}" for name, why in self.whole.items()]
        lines.append(f"slim and masked network differ by {self.surgery_error:.1e} (relative)")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def _change(what: str, before: int, after: int) -> str:
    """Returns a line with a count before and after."""
    share = 100 * (after / before - 1) if before else 0.0
    return f"{what}: {before:,} -> {after:,} ({share:+.1f} %)"


class Slim(nn.Module):
    """Types what `prune` returns; the actual network has the class of the one it was cut from.

    Attributes:
        plan: which channels of the network given to `prune` are kept.
        report: the outcome.
    """

    plan: Plan
    report: PruningReport


@dataclass(frozen=True)
class Lineage:
    """Says how to cut a slim network out of the dense one.

    Attributes:
        plans: one per cut since the network was whole, each in the numbering of the network it cut.
        sizes: group -> channels of the whole network.
        example: an input without data to trace the dense network with; None if it holds more than
            tensors and plain values.
    """

    plans: tuple[Plan, ...]
    sizes: dict[str, int]
    example: Any


def lineage_of(network: nn.Module) -> Lineage | None:
    """Returns the lineage of `network`; None if it has none of its own.

    A wrapper may forward attributes of the network inside, whose lineage is not the wrapper's.
    """
    found = vars(network).get(LINEAGE)
    return found if isinstance(found, Lineage) else None


def require_room(network: nn.Module) -> None:
    """Checks that the network has no attributes named ``plan`` or ``report`` of its own.

    Raises:
        PruningError: it has one.
    """
    # a Plan there is that of an earlier prune, of this network or of one that it wraps
    pruned = isinstance(getattr(network, "plan", None), Plan)
    for name in ("plan", "report"):
        if hasattr(network, name) and not pruned:
            raise PruningError(
                f"the network has an attribute '{name}' of its own, and prune() keeps the result's "
                f"{name} there; give the network's another name"
            )


def attach(
    network: nn.Module,
    cuts: list[Cut],
    cmap: ChannelMap,
    method: Method,
    sample: Sample,
    example: Example,
) -> Slim:
    """Returns the network of the last cut, with plan and report as attributes.

    Args:
        network: the network that was pruned.
        cuts: of all rounds.
        cmap: the channel map of `network`.
        method: criterion, budget and repair.
        sample: the images that criterion and repair could use.
        example: input that `network` was traced with.
    """
    slim, plan = cuts[-1].network, reduce(Plan.compose, (made.plan for made in cuts), Plan({}))
    before = lineage_of(network)
    report = reported(slim, plan, cuts, cmap, method, rows_in(sample.images))
    report.notes.extend(_left_behind(network))
    kept = [group for group in cmap.groups if group.name in report.whole]
    with in_mode(network):
        report.whole.update(method.criterion.unscored(network, cmap, kept))
    first = before or Lineage((), report.channels_before, _without_data(example))
    lineage = replace(first, plans=(*first.plans, *(made.plan for made in cuts)))
    hold(slim, {"plan": plan, "report": report, LINEAGE: lineage})
    return cast(Slim, slim)


def _left_behind(network: nn.Module) -> Iterator[str]:
    """Yields, in words, what a cut does not carry over or does not cut.

    That is hooks on gradients of parameters, and the state of optimizers that modules hold.
    """
    hooked = [
        name
        for name, weight in network.named_parameters()
        if weight._backward_hooks or getattr(weight, "_post_accumulate_grad_hooks", None)
    ]
    if hooked:
        yield (
            f"{hooked[0]}{' and others have' if len(hooked) > 1 else ' has'} hooks on the gradient "
            "that stay behind; register them again"
        )
    for name, module in named_modules(network):
        for key, value in vars(module).items():
            if isinstance(value, Optimizer) and value.state:
                yield (
                    f"{name + '.' if name else ''}{key} is an optimizer whose copy in the slim "
                    "network keeps momenta that were not cut; put one there that optimizer= took "
                    "along, or a new one"
                )


def hold(network: nn.Module, attributes: dict[str, Any]) -> None:
    """Sets attributes of `network` so that its deep copies have them, too."""
    for name, value in attributes.items():
        setattr(network, name, value)
    if isinstance(network, fx.GraphModule):  # its deep copy keeps only these of other attributes
        network.meta["_user_preserved_attributes"] = attributes


def reported(
    slim: nn.Module,
    plan: Plan,
    cuts: list[Cut],
    cmap: ChannelMap,
    method: Method,
    images: int,
) -> PruningReport:
    """Returns the report on the cuts; `images` is the number of images available."""
    dense = Plan({})
    sizes = {group.name: group.size for group in cmap.groups}
    left = {name: len(plan.kept.get(name, range(size))) for name, size in sizes.items()}
    notes = []
    if images < method.images_needed:
        notes.append(f"{method.images_needed:,} images were asked for; there are {images:,}")
    if left == sizes:
        notes.append("no channel was cut: criterion and budget keep them all")
    return PruningReport(
        params_before=cmap.params(dense),
        params_after=params(slim),
        macs_before=cmap.macs(dense),
        macs_after=cmap.macs(plan),
        channels_before=sizes,
        channels_after=left,
        whole=left_whole(cmap, method),
        surgery_error=max(made.record.surgery_error for made in cuts),
        steps=[made.record for made in cuts],
        notes=notes,
    )


def left_whole(cmap: ChannelMap, method: Method) -> dict[str, str]:
    """Returns group or layer -> why no channel of it was a candidate."""
    budget = method.budget
    chosen = {group.name for group in budget.select(cmap)}
    reasons = {name: f"{reason}" for name, reason in cmap.frozen.items()}
    for group in cmap.groups:
        if group.name not in chosen:
            stream = 'it lies on a residual stream, which scope="all" prunes, too'
            out = budget.excludes(group.name)
            reasons[group.name] = "it is left out by only= or exclude=" if out else stream
    return reasons


def _without_data(example: Example) -> Any:
    """Returns one image of `example`, with expanded zeros that take no memory as its values.

    None if `example` holds more than tensors and plain values.
    """
    if not _simple(example):
        return None
    return map_tensors(one_image(example), lambda t: torch.zeros((), dtype=t.dtype).expand(t.shape))


def _simple(value: Any) -> bool:
    """Returns whether `value` consists only of tensors and plain values."""
    if type(value) is dict:
        return all(type(key) is str and _simple(item) for key, item in value.items())
    if type(value) in (list, tuple):
        return all(_simple(item) for item in value)
    return type(value) in (Tensor, str, int, float, bool, type(None))
