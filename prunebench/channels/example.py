"""What a network is called with: one tensor, or several in a tuple, a list or a dict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from prunebench.channels.tensors import map_tensors, tensors_in
from prunebench.errors import PruningError

#: a tensor; a tuple or list of arguments; or a dict of arguments by name. The first dimension of
#: the first tensor counts images, and so does every other first dimension of the same size.
Example: TypeAlias = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]


def run_on(network: nn.Module, example: Example) -> Any:
    """Calls `network` on `example` and returns its output."""
    if isinstance(example, Mapping):
        return network(**example)
    if isinstance(example, (tuple, list)):
        return network(*example)
    return network(example)


def changed(example: Example, change: Callable[[Tensor], Any]) -> Any:
    """Returns `example` with `change` applied to every tensor."""
    return map_tensors(dict(example) if isinstance(example, Mapping) else example, change)


def one_image(example: Example) -> Any:
    """Returns `example` without data and with one image, even if it has none.

    Raises:
        PruningError: there is no tensor in it.
    """
    images = batch_size(example)

    def one(t: Tensor) -> Tensor:
        shape = (1, *t.shape[1:]) if t.dim() and t.size(0) == images else t.shape
        return torch.empty(shape, dtype=t.dtype, device="meta")

    return changed(example, one)


def batch_size(example: Example) -> int:
    """Returns how many images `example` holds.

    Raises:
        PruningError: there is no tensor in it.
    """
    given = isinstance(example, (Tensor, tuple, list, Mapping))
    first = next(iter(tensors_in(example)), None) if given else None
    if first is None:
        raise PruningError(
            "the example must be a tensor, or a tuple, list or dict of tensors; "
            f"got {str(example)[:60]}; torch.randn(1, 3, 224, 224) is one"
        )
    return first.size(0) if first.dim() else 1


def described(values: Any) -> str:
    """Returns the shapes and types of all tensors in `values` in words."""
    found = [f"{list(t.shape)} {str(t.dtype)[6:]}" for t in tensors_in(values)]
    return ", ".join(found) or "no tensor"
