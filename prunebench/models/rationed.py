"""Builds described networks, but refuses those that take too much memory before taking it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from math import prod
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from prunebench.errors import ConfigError
from prunebench.models import ModelSpec

#: bytes that any dense network may take, and how many times the tensors in its file it may take
MODEST, FOLD = 1_000_000_000, 1000
#: tensors that a network may have; ResNet-1202 has 7,000
MOST_TENSORS = 20_000
#: numbers that an image may have; larger ones would make absurd activations
MOST_VALUES = 50_000_000
#: functions with which layers allocate parameters and buffers
FACTORIES: tuple[Callable[..., Any], ...] = (
    *(torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn),
)
#: functions that fill some of them
NORMAL: tuple[Callable[..., Any], ...] = (torch.Tensor.normal_, nn.init.normal_)


class _Ration(TorchFunctionMode):
    """Within it, tensors may be allocated up to `most` bytes in all; more raises ConfigError."""

    def __init__(self, most: int, source: str) -> None:
        super().__init__()
        self.most, self.source, self.taken, self.count = most, source, 0, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in FACTORIES:
            given = kwargs["size"] if kwargs and "size" in kwargs else args
            sizes = given[0] if given and isinstance(given[0], Sequence) else given
            wide = torch.get_default_dtype().itemsize
            self.count += 1
            self.taken += wide * prod(size for size in sizes if isinstance(size, int))
            if self.taken > self.most:
                raise ConfigError(
                    f"{self.source} describes a network of more than {self.most / 1e9:,.1f} GB: "
                    "it is not built"
                )
            if self.count > MOST_TENSORS:
                raise ConfigError(
                    f"{self.source} describes a network of more than {MOST_TENSORS:,} tensors: it "
                    "is not built"
                )
        if func in NORMAL:
            tensor = args[0] if args else (kwargs or {})["tensor"]
            if tensor.is_meta:  # nothing to draw, and torch would import its compiler for it
                return tensor
        return func(*args, **(kwargs or {}))


def build(
    spec: ModelSpec, shape: Sequence[int], classes: int, *, source: str, held: int | None = None
) -> nn.Module:
    """Returns the network of `spec` unless it takes too much memory.

    Args:
        spec: describes the dense network.
        shape: (C, H, W) of an image.
        classes: number of classes.
        source: where the description comes from (a file, perhaps a stranger's), for messages.
        held: bytes of the slimmed network's tensors in that file, if it is one.

    Raises:
        ConfigError: it needs more memory than this machine has, or far more than the tensors in
            the file could explain.
    """
    if prod(shape) > MOST_VALUES:
        raise ConfigError(f"{source} describes images of {list(shape)}: its network is not built")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    most = memory if held is None else min(memory, max(MODEST, FOLD * held))
    channels, height, width = shape
    make = partial(spec.build, (channels, height, width), classes)
    if not (spec.class_of_others or spec.files or spec.pretrained(classes)):
        _rehearse(make, _Ration(most, source))
    with _Ration(most, source):
        return make()


def _rehearse(make: Callable[[], nn.Module], ration: _Ration) -> None:
    """Builds the network on the meta device first, so that no memory is filled in vain."""
    with (
        suppress(RuntimeError, TypeError),  # of networks that read numbers, which meta tensors lack
        torch.random.fork_rng(devices=[]),
        ration,
        torch.device("meta"),
    ):
        make()
