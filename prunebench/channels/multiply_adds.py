"""Counts multiply-adds in torch's own operations, whatever functions the forward calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from prunebench.channels.tensors import tensors_in

#: returns the multiply-adds of an operation, given its arguments and its result
Formula = Callable[..., int]


class MultiplyAdds(TorchDispatchMode):
    """Adds up, within the block, the multiply-adds of convolutions and matrix products.

    Attributes:
        total: multiply-adds so far.
        by_layer: layer name -> its part of them. An operation belongs to the layer `running`, or
            else to the layer whose weight it is given.
        running: name of the layer whose forward runs now; the caller sets it.
    """

    supports_higher_order_operators = True

    def __init__(self, weights: dict[int, str] | None = None) -> None:
        """Starts at zero; `weights` maps the address of a weight's data to its layer's name."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self.by_layer: Counter[str] = Counter()
        self.running: str | None = None
        self._weights = weights or {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs `func` and adds its multiply-adds; counts composite operations by their parts."""
        kwargs = kwargs or {}
        if not isinstance(func, OpOverload):  # torch.cond and the like: torch's counter knows them
            with FlopCounterMode(display=False) as counter:
                result = func(*args, **kwargs)
            self.total += counter.get_total_flops() // 2
            return result
        formula = _FORMULAS.get(str(func.overloadpacket))
        if formula is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **kwargs)
        if formula is not None:
            count = formula(*args, out_val=result, **kwargs)
            self.total += count
            if name := self.running or self._named(args):
                self.by_layer[name] += count
        return result

    def _named(self, args: tuple[Any, ...]) -> str | None:
        """Returns the layer of the first known weight in `args`; None if there is none."""
        places = (t.data_ptr() for t in tensors_in(args) if self._weights)
        return next((self._weights[at] for at in places if at in self._weights), None)


def _costlier(mode: MultiplyAdds, _: Tensor, yes: Any, no: Any, operands: Any) -> Any:
    """Runs both branches of a ``torch.cond``; counts the costlier one and returns its result."""
    ran = []
    for branch in (yes, no):
        with MultiplyAdds() as counter:
            result = branch(*operands)
        ran.append((counter.total, result))
    total, result = max(ran, key=lambda one: one[0])
    mode.total += total
    return result


# torch 2.8 asks for a rule for each mode, and its own counter has none
if not hasattr(TorchDispatchMode, "supports_higher_order_operators"):
    torch.ops.higher_order.cond.py_impl(MultiplyAdds)(_costlier)


@contextmanager
def taken_apart() -> Iterator[None]:
    """Makes attention run as single matrix products, since fused kernels may pad their inputs."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _halved(operations: Callable[..., int]) -> Formula:
    """Returns a formula of multiply-adds, given torch's formula, which counts each as two."""
    return lambda *args, **kwargs: operations(*args, **kwargs) // 2


def _steps(x: Tensor, *weights: Any, **_: Any) -> int:
    """Counts a recurrent layer, one direction: its matrices once for each time step of `x`."""
    matrices = [w for w in tensors_in(weights[:2]) if w.dim() == 2]
    return x.shape[:-1].numel() * sum(w.numel() for w in matrices)


_FORMULAS: dict[str, Formula] = {
    **{str(packet): _halved(formula) for packet, formula in flop_registry.items()},
    **{"aten.mkldnn_rnn_layer": _steps, "aten._cudnn_rnn": _steps},
}
