"""Calls a network in training, and does for all layers at once what each would do for itself.

A GPU takes as long for a tiny operation as for a small one, and a step of a small network consists
of hundreds. A fifth of them cast single kernels and gradients to and from half precision, or count
the batches of single norms.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from prunebench.training.aligned import Aligned
from prunebench.training.trial import corner


class _StandIn(NamedTuple):
    """Describes the tensor that replaces a parameter during the forward pass.

    Attributes:
        dtype: of the stand-in.
        wide: zeros in the padded shape, whose corner receives the parameter; None without padding.
    """

    dtype: torch.dtype
    wide: Tensor | None


class Forward:
    """Calls a network with the same result, bit for bit, as calling it under autocast.

    With padded shapes it is the same but for rounding; see `prunebench.training.aligned`. The first
    call goes to the network as it is, and finds which tensors not only layers read.
    """

    def __init__(
        self, network: nn.Module, half: torch.dtype | None, aligned: Aligned | None = None
    ) -> None:
        """Finds the tensors that can be replaced together.

        Args:
            network: with parameters in float32.
            half: the dtype that autocast computes in; None if it is off.
            aligned: padded shapes to compute in; ignored if one of their tensors cannot be
                replaced.
        """
        self.network, self.half, self.aligned = network, half, aligned or Aligned()
        modules = [*network.named_modules()]
        norms = [(n, m) for n, m in modules if isinstance(m, _BatchNorm) and _runs(m, _BatchNorm)]
        # a norm without momentum reads its count of batches when called; so may a forward that is
        # not torch's own: these count for themselves
        self.norms = [norm for _, norm in norms if norm.momentum is not None]
        # autocast casts the parameters of these classes; a layer that computes its weight, as with
        # spectral norm, has parameters of other names
        layers = [(n, m) for n, m in modules if type(m) in (nn.Conv2d, nn.Linear)]
        halved = {
            name: tensor
            for name, tensor in _tensors(layers if half else [])
            if tensor.requires_grad and name.rpartition(".")[2] in ("weight", "bias")
        }
        names = Counter(id(tensor) for tensor in halved.values())
        self.halved = {name: t for name, t in halved.items() if names[id(t)] == 1}
        self.known = dict(_tensors(norms)) | self.halved
        self.called = False
        self._allocate()

    def _allocate(self) -> None:
        """Allocates the stand-ins of the tensors that are replaced."""
        aligned, known, half = self.aligned, self.known, self.half
        if not aligned.shapes.keys() <= known.keys():
            aligned = Aligned()
        self.channels = aligned.images
        self.wide: dict[int, Tensor] = {}  # images in a batch -> zero-padded memory for them
        self.exchanged = {
            name: tensor
            for name, tensor in known.items()
            if name in self.halved or (name in aligned.shapes and isinstance(tensor, nn.Parameter))
        }
        self.stand_ins = [
            _StandIn(dtype, _zeros(tensor, dtype, aligned.shapes.get(name)))
            for name, tensor in self.exchanged.items()
            for dtype in [half if half and name in self.halved else tensor.dtype]
        ]
        # padded running statistics of norms: buffers, which have no gradient
        self.statistics = {
            name: (
                tensor,
                torch.zeros(aligned.shapes[name], dtype=tensor.dtype, device=tensor.device),
            )
            for name, tensor in known.items()
            if name in aligned.shapes and name not in self.exchanged
        }

    def __call__(self, images: Tensor) -> Tensor:
        """Returns the logits; must be called under autocast."""
        if not self.called:
            return self._first_call(images)
        counters = {
            norm: norm.num_batches_tracked
            for norm in self.norms
            if norm.training and norm.num_batches_tracked is not None
        }
        for norm in counters:
            norm.num_batches_tracked = None
        try:
            logits = self._logits(images)
        finally:
            for norm, counter in counters.items():
                norm.num_batches_tracked = counter
        if counters:
            torch._foreach_add_([*counters.values()], 1)
        return logits

    def _first_call(self, images: Tensor) -> Tensor:
        """Calls the network as it is; from then on leaves alone what not only layers read."""
        with _Watch(self.half or torch.float32, images.device.type) as watch:
            logits = self.network(images)
        read, counted = watch.read, watch.counted
        self.norms = [norm for norm in self.norms if counted[id(norm.num_batches_tracked)] == 1]
        self.norms = [norm for norm in self.norms if id(norm.num_batches_tracked) not in read]
        self.halved = {name: t for name, t in self.halved.items() if id(t) not in read}
        self.known = {name: t for name, t in self.known.items() if id(t) not in read}
        self._allocate()
        self.called = True
        return cast("Tensor", logits)

    def _logits(self, images: Tensor) -> Tensor:
        """Calls the network with stand-ins in place of its parameters and running statistics."""
        if not self.exchanged:  # functional_call cannot replace those of a scripted network
            return cast("Tensor", self.network(images))
        if self.channels is not None:
            images = self._padded(images, self.channels)
        made = _Exchange.apply(self.stand_ins, *self.exchanged.values())
        stand_ins = dict(zip(self.exchanged, made, strict=True))
        owns = [own for own, _ in self.statistics.values()]
        corners = [corner(wide, own.shape) for own, wide in self.statistics.values()]
        _copy_together(corners, owns)
        stand_ins |= {name: wide for name, (_, wide) in self.statistics.items()}
        logits = functional_call(self.network, stand_ins, (images,), tie_weights=False)
        _copy_together(owns, corners)
        return cast("Tensor", logits)

    def _padded(self, images: Tensor, channels: int) -> Tensor:
        """Returns the images padded to `channels` channels, cast as autocast would."""
        n, own, *size = images.shape
        if n not in self.wide:
            last = images.is_contiguous(memory_format=torch.channels_last)
            layout = torch.channels_last if last else torch.contiguous_format
            zeros = images.new_zeros((n, channels, *size), dtype=self.half)
            self.wide[n] = zeros.to(memory_format=layout)
        self.wide[n][:, :own] = images
        return self.wide[n]


class _Watch(TorchFunctionMode):
    """Records which tensors are read in other ways than layers read theirs under autocast."""

    def __init__(self, half: torch.dtype, device: str) -> None:
        super().__init__()
        self.half, self.device = half, device
        self.read: set[int] = set()
        self.counted: Counter[int] = Counter()  # id of a tensor -> how often 1 was added to it

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Calls `func` and records its tensors."""
        cast_to = torch.float32
        if torch.is_autocast_enabled(self.device):
            cast_to = torch.get_autocast_dtype(self.device)
        if func == Tensor.add_ and len(args) == 2 and type(args[1]) is int and args[1] == 1:
            self.counted[id(args[0])] += 1
        elif func is not functional.batch_norm and not (
            func in (functional.conv2d, functional.linear) and cast_to == self.half
        ):
            self.read |= {id(leaf) for leaf in tree_leaves((args, kwargs))}
        return func(*args, **kwargs or {})


def _runs(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Returns whether `module` runs the forward of torch's class `kind`."""
    return type(module).forward is kind.forward and "forward" not in vars(module)


def _tensors(modules: Sequence[tuple[str, nn.Module]]) -> Iterator[tuple[str, Tensor]]:
    """Yields name and tensor of each parameter and buffer of modules with their class's forward."""
    for name, module in modules:
        if _runs(module, _BatchNorm if isinstance(module, _BatchNorm) else type(module)):
            for kind, tensor in [*module._parameters.items(), *module._buffers.items()]:
                if tensor is not None:
                    yield f"{name}.{kind}" if name else kind, tensor


def _zeros(tensor: Tensor, dtype: torch.dtype, shape: torch.Size | None) -> Tensor | None:
    """Returns zeros of `shape` in the memory layout of `tensor`; None if no shape is given."""
    if shape is None:
        return None
    zeros = torch.zeros(shape, dtype=dtype, device=tensor.device)
    last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return zeros.to(memory_format=torch.channels_last) if last else zeros


@torch.no_grad()
def _copy_together(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copies each source to its target, with one call for all of the same dtypes without gaps."""
    kinds: dict[Any, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
    for target, source in zip(targets, sources, strict=True):
        pair = kinds[target.dtype, source.dtype, _is_dense(target) and _is_dense(source)]
        pair[0].append(target)
        pair[1].append(source)
    for same_targets, same_sources in kinds.values():
        torch._foreach_copy_(same_targets, same_sources)


def _is_dense(tensor: Tensor) -> bool:
    """Returns whether `tensor` has no gaps in memory, contiguous or channels_last."""
    last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return last or tensor.is_contiguous()


class _Exchange(torch.autograd.Function):
    """Replaces tensors by their stand-ins, and maps the gradients back, in few calls."""

    @staticmethod
    def forward(ctx: Any, stand_ins: Sequence[_StandIn], *tensors: Tensor) -> tuple[Tensor, ...]:
        """Returns the stand-ins, filled with the values of the tensors."""
        ctx.set_materialize_grads(False)  # an unused tensor gets None, not a gradient of zeros
        ctx.shapes = [tensor.shape for tensor in tensors]
        made = [
            torch.empty_like(tensor, dtype=own.dtype) if own.wide is None else own.wide.data
            for own, tensor in zip(stand_ins, tensors, strict=True)
        ]
        _copy_together([corner(*pair) for pair in zip(made, ctx.shapes, strict=True)], tensors)
        return tuple(made)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Returns the gradients of the tensors, in float32 and without the padding."""
        found = [
            None if grad is None else corner(grad, shape)
            for grad, shape in zip(grads, ctx.shapes, strict=True)
        ]
        halves = [grad for grad in found if grad is not None and grad.dtype != torch.float32]
        whole = [torch.empty_like(grad, dtype=torch.float32) for grad in halves]
        _copy_together(whole, halves)
        left = iter(whole)
        given = [
            grad if grad is None or grad.dtype == torch.float32 else next(left) for grad in found
        ]
        return (None, *given)
