"""Finds the channel map of a network by one forward without data."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from prunebench.channels.example import Example, changed, described, run_on
from prunebench.channels.followable import plain, require_followable, scripted_parts
from prunebench.channels.labels.forward import following, freeze_outputs, labelled_input
from prunebench.channels.labels.labeller import Labeller
from prunebench.channels.labels.rules import RULES
from prunebench.channels.labels.scripted import REASON
from prunebench.channels.labels.tape import Tape
from prunebench.channels.map import ChannelMap
from prunebench.channels.members import named_parameters
from prunebench.channels.surgery.trial_cut import map_after_trial
from prunebench.channels.tensors import tensors_in
from prunebench.errors import PruningError, first_line


def trace(model: nn.Module, example: Example) -> ChannelMap:
    """Returns the channel map of `model`: which of its channels must be cut together.

    Runs the forward once on tensors without data, in eval mode; the model, its statistics and
    attributes and the random number generators are left as they are. Of a compiled model
    (``torch.compile``) the network inside is traced.

    Args:
        model: any network whose forward does not depend on tensor values.
        example: an input [N, C, ...]; its values do not matter, its shape does. Where the model
            takes several, a tuple or list of them, or a dict by name of the argument. One image
            is used.

    Raises:
        PruningError: the forward cannot be followed, the example does not fit it, or its result
            holds no tensor.
    """
    model = plain(model)
    require_followable(model)
    tape = Tape(example=changed(example, lambda t: torch.empty_like(t, device="meta")))
    labeller = Labeller(model, tape, RULES)
    image = labelled_input(labeller, example)
    with following(labeller, model):
        result = _result(labeller, model, image, example)
    freeze_outputs(labeller, result)
    unused = _unused(labeller)
    if unused:
        _follow_training(labeller, model, image)
        unused = _unused(labeller)
    for name in scripted_parts(model):
        tape.refused[name] = REASON
    for module in unused:
        tape.refused.setdefault(module, _why_unused(model, module, tape))
    for weight in tape.written:
        _freeze(tape, weight, f"{weight} is written to in the forward")
    for weight, norm in tape.normed.items():
        if norm.lengths in tape.data | tape.written:
            for name in (weight, norm.lengths):
                _freeze(tape, name, f"{norm.lengths} is used as data, too")
    return map_after_trial(model, tape)


def _result(labeller: Labeller, model: nn.Module, image: Example, example: Example) -> Any:
    """Returns the output of `model` for `image`.

    Raises:
        PruningError: its forward fails, or its output holds no tensor.
    """
    try:
        result = run_on(model, image)
    except (PruningError, NotImplementedError):
        raise
    except Exception as error:
        raise PruningError(_misfit(labeller, model, example, error)) from error
    if not any(True for _ in tensors_in(result)):
        raise PruningError(
            f"the forward of the network returns no tensor but a {type(result).__name__}, so "
            "nothing says which channels must stay; return a tensor, or an object that holds them"
        )
    return result


def _misfit(labeller: Labeller, model: nn.Module, example: Example, error: Exception) -> str:
    """Says which module failed on `example`, what it was given and what it has."""
    name, args = labeller.stuck, labeller.stuck_args
    module = model.get_submodule(name)
    weight = getattr(module, "weight", None)
    has = f", has a weight {described(weight)}" if isinstance(weight, Tensor) else ""
    why = first_line(error)
    return (
        f"the forward fails on the example ({described(example)}): "
        f"{name or 'the network'} ({type(module).__name__}) is given {described(args)}{has}: {why}"
    )


def _freeze(tape: Tape, weight: str, reason: str) -> None:
    """Freezes every label along the dimensions of `weight`, and those of its elements."""
    for (name, _), ids in tape.reads.items():
        if name == weight:
            tape.freeze(ids, reason)
    if weight in tape.free:
        tape.freeze(tape.free[weight], reason)


def _unused(labeller: Labeller) -> list[str]:
    """Returns the convolutions and linear layers whose weights no forward has read yet."""
    used = {name for name, _ in labeller.tape.reads}
    return [
        name
        for name, module in labeller.layers.items()
        if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear))
        and used.isdisjoint(labeller.names.get(id(own)) for own in _weights(module))
    ]


def _weights(layer: nn.Module) -> list[nn.Parameter]:
    """Returns the weight of `layer`, or the parameters it is computed from; not its bias."""
    weight = layer._parameters.get("weight")
    if weight is not None:
        return [weight]
    return [own for name, own in layer.named_parameters() if name != "bias"]


def _why_unused(model: nn.Module, module: str, tape: Tape) -> str:
    """Says why no layer read the weight of `module`."""
    own = {id(parameter) for parameter in model.get_submodule(module).parameters()}
    for name, parameter in named_parameters(model):
        if id(parameter) in own and name in tape.data:
            return "its weight is used as data"
    return "it is not used in the forward"


def _follow_training(labeller: Labeller, model: nn.Module, image: Example) -> None:
    """Follows the forward in training mode as well, for heads that run only there.

    Their inputs are cut along with the rest; the channels that they make stay whole, since no
    evaluation shows how important those are.
    """
    tape = labeller.tape
    known, used, macs = {call.weight for call in tape.calls}, set(tape.used), tape.fixed_macs
    calls, spread = len(tape.calls), len(tape.spread_macs)
    result = None
    with suppress(PruningError, RuntimeError), following(labeller, model, training=True):
        result = run_on(model, image)
    freeze_outputs(labeller, result)
    for call in tape.calls[calls:]:
        call.macs = 0  # an evaluation does not run it
        if call.weight not in known:
            tape.freeze(call.outputs, "it is used in training only")
    del tape.spread_macs[spread:]
    tape.fixed_macs, tape.used = macs, used
