"""Freezes the inputs of TorchScript inside a network, whose functions cannot be seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from prunebench.channels.labels.labeller import Labeller
from prunebench.channels.labels.tensors import labels_of
from prunebench.channels.tensors import tensors_in

REASON = "TorchScript cannot be followed"


@contextmanager
def scripts_freeze(labeller: Labeller) -> Iterator[None]:
    """Freezes, within the block, the channels that scripted modules and functions are given."""

    def freezing(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(script: Any, *args: Any, **kwargs: Any) -> Any:
            with torch._C.DisableTorchFunction():
                for t in tensors_in([args, kwargs]):
                    labeller.ids.freeze(labels_of(t) >> 1, REASON)
                return labeller.run_counted(original, (script, *args), kwargs)

        return call

    function = torch.jit.ScriptFunction
    original = function.__call__
    function.__call__ = freezing(original)  # type: ignore[method-assign]
    torch.jit.ScriptModule.__call__ = freezing(nn.Module.__call__)  # type: ignore[method-assign]
    try:
        yield
    finally:
        function.__call__ = original  # type: ignore[method-assign]
        del torch.jit.ScriptModule.__call__
