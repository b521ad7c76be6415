"""Networks as they are described: how much memory one takes is asked before any is taken for it."""

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

#: a dense network may take so many bytes whatever its file holds, and so many times of that
MODEST, FOLD = 1_000_000_000, 1000
#: tensors that a network may have; ResNet-1202 has 7,000
MOST_TENSORS = 20_000
#: of an image; larger ones make activations that no network file can mean
MOST_VALUES = 50_000_000
#: what layers make their parameters and buffers with
FACTORIES: tuple[Callable[..., Any], ...] = (
    *(torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn),
)
#: what some of them are filled with
NORMAL: tuple[Callable[..., Any], ...] = (torch.Tensor.normal_, nn.init.normal_)


class _Ration(TorchFunctionMode):
    """Refuses the tensor with which all that are made inside would take more than `most` bytes."""

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
            if tensor.is_meta:  # torch would import its compiler to draw nothing
                return tensor
        return func(*args, **(kwargs or {}))


def build(
    spec: ModelSpec, shape: Sequence[int], classes: int, *, source: str, held: int | None = None
) -> nn.Module:
    """Returns the network of `spec`, which `source` describes: a stranger's file, or what is typed.

    Args:
        spec: of the dense network.
        shape: (C, H, W) of an image.
        classes: number of classes.
        source: for messages.
        held: bytes of the tensors in the file, if it has any of the slimmed network.

    Raises:
        ConfigError: this machine has not the memory for it, or it is out of all proportion to what
            the file holds.
    """
    if prod(shape) > MOST_VALUES:
        raise ConfigError(f"{source} describes images of {list(shape)}: its network is not built")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    most = memory if held is None else min(memory, max(MODEST, FOLD * held))
    channels, height, width = shape
    build = partial(spec.build, (channels, height, width), classes)
    if not (spec.class_of_others or spec.files or spec.pretrained(classes)):
        _rehearse(build, _Ration(most, source))
    with _Ration(most, source):
        return build()


def _rehearse(build: Callable[[], nn.Module], ration: _Ration) -> None:
    """Builds a network of tensors that hold nothing: not even its first layer is filled in vain."""
    with (
        suppress(RuntimeError, TypeError),  # of one that looks at a number that is not there
        torch.random.fork_rng(devices=[]),
        ration,
        torch.device("meta"),
    ):
        build()
