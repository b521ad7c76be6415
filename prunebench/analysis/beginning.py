"""Forwards of networks that differ in some layers only, from the first call of one of these on.

What the modules before it return is the same in all of them and is computed once: in a network that
is to be run they return it at once. Nothing is interrupted or looked into, so that no forward, not
even one that fails, can leave anything behind.
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
Outputs = dict[str, Tensor]  # name of a module -> what it returns


def shared(run: Run, network: nn.Module, tensors: Collection[Tensor]) -> Outputs:
    """Returns what modules of `network` return whose only call is over before `tensors` are used.

    Of modules within each other the outermost. The outputs are held until all is done: they are
    the memory that this costs.

    Args:
        run: runs a network on inputs that stay the same; without gradients.
        network: in eval mode.
        tensors: parameters and buffers of it.
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
    """Runs a network whose modules return `outputs` at once, from now on.

    Args:
        run: as for `shared`.
        network: a copy of that one, which nobody else runs; changed.
        outputs: as `shared` returns them.
    """
    modules = dict(network.named_modules())
    for name in outputs.keys() & modules.keys():  # one that is wrapped is run as a whole
        modules[name].forward = partial(_at_once, outputs[name])
    return run(network)


def _at_once(output: Tensor, *_: Any, **__: Any) -> Tensor:
    """Returns `output`, whatever the inputs."""
    return output


def serves(run: Run, outputs: Outputs, copy: Callable[[], nn.Module]) -> bool:
    """Whether `resumed` gives what `run` gives, to the last bit, and leaves `outputs` as they are.

    It does not where the rest writes into them, or tensors are used outside of modules.

    Args:
        run: as for `shared`.
        outputs: as `shared` returns them.
        copy: makes a network whose tensors differ.
    """
    versions = [output._version for output in outputs.values()]
    ours, theirs = (list(tensors_in(made)) for made in (resumed(run, copy(), outputs), run(copy())))
    untouched = versions == [output._version for output in outputs.values()]
    return untouched and len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))
