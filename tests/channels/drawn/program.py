"""Builds a drawn network: chooses fragments, writes their source, and runs it to get a module."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from random import Random
from textwrap import indent
from types import ModuleType
from typing import Any

import torch
from drawn import blocks_moving, blocks_python, blocks_weights
from drawn.block import Fragment
from drawn.frames import HEADS, INPUTS, OUTPUTS
from torch import Tensor, nn

from prunebench.channels import ChannelMap, Plan, slim, trace
from prunebench.errors import PrunebenchError

BLOCKS: dict[str, Fragment] = {
    block.__name__: block
    for file in (blocks_moving, blocks_weights, blocks_python)
    for block in file.BLOCKS
}

FRAGMENTS = (*BLOCKS, *HEADS, *INPUTS, *OUTPUTS)

SPACE = "drawn_network"  # the module in which a network's classes live

HEADER = """\
import collections, dataclasses, functools, types, weakref
import torch, torch.utils.checkpoint
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

def conv(i, o, k=3, g=1):
    return nn.Conv2d(i, o, k, padding=k // 2, groups=g)

def block(i, o, k=3, g=1):
    return nn.Sequential(conv(i, o, k, g), nn.BatchNorm2d(o), nn.ReLU())
"""


@dataclass(frozen=True)
class Program:
    """A network by its fragments.

    Attributes:
        blocks: names in `BLOCKS`, in forward order.
        head, inputs, outputs: names in `HEADS`, `INPUTS` and `OUTPUTS`.
        seed: of every number inside: widths, variants, weights, images.
        warmed: whether the network has run before it is traced.
        cut: whether it is what an earlier cut left, with the gathers that this took.
    """

    blocks: tuple[str, ...]
    head: str = "pooled"
    inputs: str = "one_input"
    outputs: str = "tensor"
    seed: int = 0
    warmed: bool = False
    cut: bool = False

    def source(self) -> str:
        """Returns the program that defines `net`."""
        draw = Random(self.seed)
        given, (head, made) = INPUTS[self.inputs], HEADS[self.head]
        c = draw.choice([8, 12])
        init = ["super().__init__()", "self.found = {}", f"self.stem = block(3, {c})"]
        forward = ["x = self.stem(x)", given.join]
        init.append(given.init.format(c=c))
        c += 4 if self.inputs == "two_images" else 0
        define, after = [OUTPUTS[self.outputs][0]], []
        for place, name in enumerate(self.blocks):
            drawn = BLOCKS[name](f"{name}{place}", c, draw)
            init.append(drawn.init)
            forward += [f"# {name}", drawn.forward]
            define.append(drawn.define)
            after.append(drawn.after)
            c = drawn.channels
            if c > 16 or draw.random() < 0.5:
                init.append(f"self.then{place} = block({c}, 12)")
                forward.append(f"x = self.then{place}(x)")
                c = 12
        init.append(head.format(c=c))
        forward += [made, f"return {OUTPUTS[self.outputs][1]}"]
        return "\n".join([
            HEADER, *define, "class Net(nn.Module):", "    def __init__(self):",
            _lines(init), f"    def forward(self, {given.arguments}):", _lines(forward), "",
            "net = Net().double().eval()", *filter(None, after),
        ])  # fmt: skip

    def build(self) -> nn.Module:
        """Returns the network in float64 and eval mode, every weight a different number."""
        torch.manual_seed(self.seed)
        module = sys.modules[SPACE] = ModuleType(SPACE)  # dataclasses look it up by name
        exec(self.source(), vars(module))
        net: nn.Module = module.net
        numbers = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            for name, t in [*net.named_parameters(), *net.named_buffers()]:
                if name.endswith(("running_mean", "running_var")) or isinstance(t, nn.Parameter):
                    t.copy_(_numbers(name, t, numbers))
        if self.warmed:
            call(net, self.example(1))
        return self._cut(net) if self.cut else net

    def _cut(self, net: nn.Module) -> nn.Module:
        """Returns what is left of `net` after a cut; `net` itself if there can be none."""
        try:
            cmap = trace(net, self.example(2))
            return slim(net, cmap, Plan(uneven(cmap, Random(f"{self.seed} before"))))
        except PrunebenchError:
            return net

    def example(self, seed: int, count: int = 2) -> Any:
        """Returns `count` random inputs, as the network takes them."""
        numbers = torch.Generator().manual_seed(seed)
        shapes = {"x": (3, 8, 8), **dict(INPUTS[self.inputs].extra)}
        made = {
            name: torch.randn(count, *shape, generator=numbers, dtype=torch.float64)
            for name, shape in shapes.items()
        }
        kind = INPUTS[self.inputs].kind
        return made if kind == "dict" else tuple(made.values()) if kind == "tuple" else made["x"]


def uneven(cmap: ChannelMap, draw: Random) -> dict[str, list[int]]:
    """Draws which classes of every group stay: a share of its own for each."""
    return {
        group.name: sorted(
            draw.sample(range(group.size), max(1, round(group.size * draw.uniform(0.3, 0.9))))
        )
        for group in cmap.groups
    }


def alone(fragment: str, seed: int) -> Program:
    """Returns a network around one fragment.

    In every third one channels are moved behind it, and every fifth was cut before.
    """
    warmed, more = seed % 2 == 1, ("swapped",) if seed % 3 == 2 else ()
    if fragment in BLOCKS:
        return Program((fragment, *more), seed=seed, warmed=warmed, cut=seed % 5 == 4)
    place = next(
        name
        for name, names in (("head", HEADS), ("inputs", INPUTS), ("outputs", OUTPUTS))
        if fragment in names
    )
    return Program(("residual", *more), seed=seed, warmed=warmed, **{place: fragment})


def call(net: nn.Module, example: Any) -> Any:
    """Runs `net` as it wants to be run."""
    with torch.no_grad():
        if isinstance(example, dict):
            return net(**example)
        return net(*example) if isinstance(example, tuple) else net(example)


def _lines(parts: list[str]) -> str:
    return indent("\n".join(filter(None, parts)), " " * 8)


def _numbers(name: str, t: Tensor, generator: torch.Generator) -> Tensor:
    """Returns random numbers of the size that weights of that shape usually have."""
    drawn = torch.rand(t.shape, generator=generator, dtype=torch.float64)
    if name.endswith("running_var") or (t.dim() <= 1 and not name.endswith(("bias", "_mean"))):
        return drawn + 0.5
    if t.dim() <= 1:
        return drawn * 0.6 - 0.3
    return (drawn - 0.5) * 3.5 * max(1, t[0].numel()) ** -0.5
