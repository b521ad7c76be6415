"""Runs networks that differ in a few layers, computing the part before these only once.

Modules that run before the first differing layer return the same in all of these networks. Their
outputs are kept, and in the next network such modules return them at once. No forward is
interrupted, so that none leaves anything behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.channels.tensors import tensors_in

Run = Callable[[nn.Module], Any]
Outputs = dict[str, Tensor]  # name of a module -> its output


def shared(run: Run, network: nn.Module, tensors: Collection[Tensor]) -> Outputs:
    """Returns the outputs of modules whose only call ends before `tensors` are used.

    Of nested modules only the outermost counts. The outputs take memory for as long as they are
    held.

    Args:
        run: runs a network on inputs that stay the same, without gradients.
        network: a network in eval mode.
        tensors: parameters and buffers of the differing layers.
    """
    awaited, calls = {id(tensor) for tensor in tensors}, Counter[str]()
    found: Outputs = {}
    over = False

    def before(name: str, module: nn.Module, inputs: Any) -> None:
        nonlocal over
        calls[name] += 1
        own = [*module._parameters.values(), *module._buffers.values()]
        over = over or any(id(tensor) in awaited for tensor in own)

    def after(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if not over and isinstance(output, Tensor):
            found[name] = output

    with ExitStack() as hooks:
        for name, module in network.named_modules():
            if not (module._forward_hooks or module._forward_pre_hooks):
                hooks.enter_context(module.register_forward_pre_hook(partial(before, name)))
                hooks.enter_context(module.register_forward_hook(partial(after, name)))
        run(network)
    single = {name: output for name, output in found.items() if calls[name] == 1}
    return {
        name: output
        for name, output in single.items()
        if not any(name[:end] in single for end, sign in enumerate(name) if sign == ".")
    }


def resumed(run: Run, network: nn.Module, outputs: Outputs) -> Any:
    """Runs `network` after making its modules return `outputs` at once, and returns the result.

    Args:
        run: as for `shared`.
        network: a copy of the network of `shared`, for this use alone; changed.
        outputs: as `shared` returns them.
    """
    modules = dict(network.named_modules())
    for name in outputs.keys() & modules.keys():  # a wrapped copy lacks the names: it runs whole
        modules[name].forward = partial(_at_once, outputs[name])
    return run(network)


def _at_once(output: Tensor, *_: Any, **__: Any) -> Tensor:
    """Returns `output`, whatever the inputs."""
    return output


def serves(run: Run, outputs: Outputs, copy: Callable[[], nn.Module]) -> bool:
    """Whether `resumed` returns what `run` returns, bit for bit, and leaves `outputs` alone.

    It fails if the rest of the network writes into them, or uses tensors outside of modules.

    Args:
        run: as for `shared`.
        outputs: as `shared` returns them.
        copy: makes a copy of the network whose tensors differ.
    """
    versions = [output._version for output in outputs.values()]
    ours, theirs = (list(tensors_in(made)) for made in (resumed(run, copy(), outputs), run(copy())))
    untouched = versions == [output._version for output in outputs.values()]
    return untouched and len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))
