"""`GatherChannels`: a module that picks channels by an index, which surgery can rewrite.

No ``from __future__ import annotations`` here: TorchScript reads the annotations as they are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from prunebench.errors import PruningError


def gather_channels(x: Tensor, index: Tensor, dim: int) -> Tensor:
    """Returns `x` picked along `dim` by `index`; index -1 gives zeros.

    The tracer sees this as one operation, which is why it is a function of its own.
    """
    if has_torch_function_unary(x):
        return handle_torch_function(gather_channels, (x,), x, index, dim)
    picked = x.index_select(dim, index.clamp(min=0))
    shape = [1] * x.dim()
    shape[dim] = -1
    # where, not a product: a missing channel stays zero even if channel 0 holds inf or nan
    return torch.where((index >= 0).view(shape), picked, picked.new_zeros(()))


def wiring_of(network: nn.Module) -> dict[str, list[int]]:
    """Returns the index of every `GatherChannels` of `network`."""
    return {
        name: list(module.positions)
        for name, module in network.named_modules()
        if isinstance(module, GatherChannels)
    }


def rewire(network: nn.Module, wiring: Mapping[str, Sequence[int]]) -> None:
    """Sets the index of every `GatherChannels` that `wiring` names, in place.

    Raises:
        PruningError: a name is that of no `GatherChannels`, or its index is no reordering of the
            present one.
    """
    modules = dict(network.named_modules())
    for name, positions in wiring.items():
        gather = modules.get(name)
        if not isinstance(gather, GatherChannels) or sorted(positions) != sorted(gather.positions):
            raise PruningError(f"the given order of channels is not valid for '{name}'")
        gather.set_positions(positions)


class GatherChannels(nn.Module):
    """Picks channels by index; index -1 gives a channel of zeros.

    Our networks that move channels by a fixed rule (zero-padded shortcuts, shuffles) write the
    rule as one of these, so that surgery has only a buffer to rewrite. Surgery also inserts them
    where the code of a network assumes channel positions that no longer hold.

    A network that holds one can be scripted and exported. To unpickle it as a whole
    (``torch.save(network)``) prunebench must be importable, since the class is found there;
    TorchScript, an exported program or ONNX need nothing but their runtime.

    Attributes:
        index: int64 buffer [out]; the input channel of each output channel, or -1.
        positions: the same as a tuple, known even while the buffer lies on the meta device.
        dim: the dimension that is picked from.
    """

    index: Tensor

    def __init__(self, index: Sequence[int] | Tensor, *, dim: int = 1) -> None:
        """Keeps a copy of `index`; a plain list also serves when building on the meta device."""
        super().__init__()
        self.dim = dim
        self.positions = tuple(int(i) for i in index)
        self.register_buffer("index", torch.tensor(self.positions, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """Returns `x` with size ``len(index)`` on `dim`."""
        return gather_channels(x, self.index, self.dim)

    def set_positions(self, positions: Sequence[int]) -> None:
        """Replaces the index; the device stays the same."""
        self.positions = tuple(positions)
        self.index = torch.tensor(self.positions, dtype=torch.int64).to(self.index.device)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        """Loads the index, and keeps `positions` in step with it."""
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if f"{prefix}index" in state_dict and self.index.device.type != "meta":
            self.positions = tuple(self.index.tolist())

    def extra_repr(self) -> str:
        """Returns how many channels come out, and along which dimension."""
        return f"out={len(self.positions)}, dim={self.dim}"
