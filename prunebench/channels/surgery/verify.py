"""Compares a slimmed network with the masked one, and says whether rounding explains it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunebench.channels.example import Example, changed, described, run_on
from prunebench.channels.followable import eagerly, plain
from prunebench.channels.map import ChannelMap
from prunebench.channels.members import named_modules
from prunebench.channels.mode import in_mode
from prunebench.channels.plan import Plan
from prunebench.channels.surgery.copying import full_copy
from prunebench.channels.surgery.mask import mask
from prunebench.channels.tensors import tensors_in
from prunebench.channels.untouched import untouched
from prunebench.errors import PruningError, first_line


@dataclass(frozen=True)
class Agreement:
    """How far a slimmed network is from the masked one, and how far it may be.

    Attributes:
        error: relative difference, as `verify` returns it.
        dtype: type in which it was computed, such as ``float32``.
        tolerance: largest error that rounding explains in that type and depth.
    """

    error: float
    dtype: str
    tolerance: float

    @property
    def exact(self) -> bool:
        """Whether rounding explains the difference; nan never is explained."""
        return self.error <= self.tolerance


def agreement(
    model: nn.Module, slimmed: nn.Module, cmap: ChannelMap, plan: Plan, example: Example
) -> Agreement:
    """Returns how well the slimmed network agrees with the masked one.

    Networks of half types, and those that differ in their own type by more than rounding explains,
    are compared in float64, where rounding vanishes and which autocast leaves alone. A forward that
    does not run in float64, or one with weight norms, whose new lengths were rounded, is judged by
    the rounding of its own type.

    Raises:
        PruningError: as `verify`.
    """
    floats = [t.dtype for t in model.parameters() if t.is_floating_point()] or [torch.float32]
    own = max(floats, key=lambda dtype: torch.finfo(dtype).eps)
    if torch.finfo(own).eps <= torch.finfo(torch.float32).eps:
        made = _agreement(verify(model, slimmed, cmap, plan, example), own, cmap)
        if made.exact or own == torch.float64:
            return made
    wide = changed(example, lambda t: t.double() if t.is_floating_point() else t)
    try:
        dense, small = full_copy(model).double(), full_copy(slimmed).double()
        error = verify(dense, small, cmap, plan, wide)
    except Exception:  # noqa: BLE001  (the code of a network may raise anything)
        return _agreement(verify(model, slimmed, cmap, plan, example), own, cmap)
    return _agreement(error, own if cmap.tape.normed else torch.float64, cmap)


def _agreement(error: float, dtype: torch.dtype, cmap: ChannelMap) -> Agreement:
    """Returns `error` with the tolerance that rounding explains: some eps times sqrt(depth).

    In float64 the tolerance is wide: mistakes are far above it, and networks may amplify rounding.
    """
    depth = sum(call.kind in ("conv", "linear", "depthwise") for call in cmap.tape.calls)
    steps = 2**20 if dtype == torch.float64 else 8
    tolerance = steps * torch.finfo(dtype).eps * max(1, depth) ** 0.5
    return Agreement(error, str(dtype)[6:], tolerance)


def verify(
    model: nn.Module, slimmed: nn.Module, cmap: ChannelMap, plan: Plan, example: Example
) -> float:
    """Returns how far the slimmed network is from the masked one: two forwards in eval mode.

    Args:
        model: the dense network, as it was cut.
        slimmed: the network to check.
        cmap: the channel map of `model`.
        plan: what was kept.
        example: input images [N, C, H, W], or several inputs as for `trace`; two or more and not
            all zero make a good check.

    Returns:
        The largest absolute difference of any output, divided by the largest absolute value of
        the masked output (nan if either is not finite, infinite if their shapes differ).

    Raises:
        PruningError: the example does not fit, or there was nothing to compare.
    """
    wanted = _outputs(mask(model, cmap, plan), example, "the network")
    had = _outputs(plain(slimmed), example, "the slim network")
    if not any(t.numel() for t in wanted):
        raise PruningError(
            f"on the example ({described(example)}) the network returns no number, so that there "
            "is nothing to compare; give an example with one image or more"
        )
    if [t.shape for t in wanted] != [t.shape for t in had]:
        return float("inf")
    worst = 0.0
    for want, have in zip(wanted, had, strict=True):
        if want.numel():
            scale, gap = float(want.abs().max()), float((want - have).abs().max())
            if not np.isfinite(scale) or not np.isfinite(gap):
                return float("nan")
            worst = max(worst, gap / scale if scale else gap)
    return worst


def _outputs(network: nn.Module, example: Example, whose: str) -> list[Tensor]:
    """Returns every output of `network` in eval mode, in float64.

    Raises:
        PruningError: the forward of `whose` network fails.
    """
    with in_mode(network), untouched(network), torch.no_grad(), eagerly():
        try:
            outs = list(tensors_in(run_on(network, example)))
        except Exception as error:
            raise PruningError(
                f"{whose} fails on the example ({described(example)} on {_devices(example)}); "
                f"{_last_started(network, example)}: {first_line(error)}"
            ) from error
    return [(torch.view_as_real(out) if out.is_complex() else out).double() for out in outs]


def _devices(values: Any) -> str:
    return ", ".join(sorted({str(t.device) for t in tensors_in(values)}))


def _last_started(network: nn.Module, example: Example) -> str:
    """Names the module in which the forward fails, with the shapes of its weights."""
    started = [network]
    watch = nn.modules.module.register_module_forward_pre_hook(lambda m, _: started.append(m))
    with watch, suppress(Exception):
        run_on(network, example)
    module = started[-1]
    name = next((name for name, one in named_modules(network) if one is module), "")
    own = list(module.parameters(recurse=False))
    has = f", which has {described(own)} on {_devices(own)}" if own else ""
    return f"{name or 'the network'} ({type(module).__name__}){has}"
