"""Finds the channel map of a network by one forward without data."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor, nn

from prunebench.channels.labels.forward import following, freeze_outputs, labelled_input
from prunebench.channels.labels.labeller import Labeller
from prunebench.channels.labels.rules import RULES
from prunebench.channels.labels.tape import Tape
from prunebench.channels.map import ChannelMap
from prunebench.channels.surgery.trial_cut import map_after_trial
from prunebench.errors import PruningError


def trace(model: nn.Module, example: Tensor) -> ChannelMap:
    """Returns which channels of `model` live and die together.

    Runs the forward once on tensors without data, in eval mode; the model, its statistics and the
    random number generators are left as they are.

    Args:
        model: any network whose forward does not depend on tensor values.
        example: an input [N, C, ...]; its values do not matter, its shape does. One image of it
            is used.

    Raises:
        PruningError: the forward cannot be followed.
    """
    tape = Tape(example=torch.empty(example.shape, dtype=example.dtype, device="meta"))
    labeller = Labeller(model, tape, RULES)
    image = labelled_input(labeller, example)
    with following(labeller, model):
        result = model(image)
    freeze_outputs(labeller, result)
    if _unused(model, tape):
        _follow_training(labeller, model, image)
    for module in _unused(model, tape):
        tape.refused.setdefault(module, _why_unused(model, module, tape))
    return map_after_trial(model, tape)


def _unused(model: nn.Module, tape: Tape) -> list[str]:
    """Returns the convolutions and linear layers whose weights no forward has read yet."""
    used = {name for name, _ in tape.reads}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear))
        and names.get(id(module.weight)) not in used  # the name of the first that shares it
    ]


def _why_unused(model: nn.Module, module: str, tape: Tape) -> str:
    """Says why the weight of `module` was not read by a layer."""
    own = {id(parameter) for parameter in model.get_submodule(module).parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) in own and name in tape.data:
            return "its weight is used as data"
    return "it is not used in the forward"


def _follow_training(labeller: Labeller, model: nn.Module, image: Tensor) -> None:
    """Follows the forward in training mode as well, for heads that exist only there.

    Their inputs are cut along with the rest; what they make themselves stays whole, since no
    evaluation shows how important it is.
    """
    tape = labeller.tape
    counted, known = tape.fixed_macs, {call.weight for call in tape.calls}
    labeller.counting = False
    result = None
    with suppress(PruningError, RuntimeError), following(labeller, model, training=True):
        result = model(image)
    freeze_outputs(labeller, result)
    for call in tape.calls:
        if call.weight not in known:
            labeller.ids.freeze(call.outputs, "it is used in training only")
    tape.fixed_macs = counted
