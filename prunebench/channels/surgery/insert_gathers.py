"""Inserts gathers where the code of a module moves channels by fixed numbers.

The forward of the module, and no more than that, is captured as a `torch.fx` graph. Its labels are
computed node by node, once for the dense and once for the slimmed network, which is rewritten.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

import numpy as np
from torch import fx, nn, overrides

from prunebench.channels.labels.forward import uncompile
from prunebench.channels.labels.labeller import Labeller
from prunebench.channels.labels.rules import RULES
from prunebench.channels.labels.steps import Entered, Seen
from prunebench.channels.labels.tape import Tape
from prunebench.channels.map import ChannelMap, Kept
from prunebench.channels.mode import in_mode
from prunebench.channels.surgery.graph import Captured, LabelledNodes, forward_graph
from prunebench.channels.surgery.recheck import Recheck, StuckError, replay
from prunebench.channels.surgery.rewriter import Rewriter
from prunebench.channels.tensors import map_nested, nested
from prunebench.channels.untouched import untouched
from prunebench.errors import first_line


class _Mender:
    """Mends each module of a slimmed network whose forward fails in the replay, in its call."""

    def __init__(self, model: nn.Module, slimmed: nn.Module, recheck: Recheck) -> None:
        """Works on `slimmed`, which was cut out of `model`."""
        self.model, self.network, self.recheck = model, slimmed, recheck

    def __call__(
        self, labeller: Labeller, module: nn.Module, call: Entered, error: Exception
    ) -> Any:
        """Returns the result of a failed call of `module` after mending it; keeps the mended one.

        Where the module is called again, the same gathers must mend that call.

        Raises:
            StuckError: no gathers mend the call.
        """
        original, known = self.model.get_submodule(call.name), self.recheck.mended.get(call.name)
        with _asleep(labeller):
            stuck = self.recheck.stuck(call.name, error, call.given)
            try:
                entered = self.recheck.cmap.tape.entered
                again = call.nth > 0 and (known is None or (call.name, call.nth) not in entered)
                if again or _is_altered(module):
                    raise stuck.because("it has hooks, another forward, or was called before")
                dense = self._captured(original, call)
            except StuckError:
                raise
            except Exception as failure:  # noqa: BLE001  (any code may fail on symbolic values)
                raise stuck.because(first_line(failure)) from failure
            rewriter = Rewriter(module, labeller, self.recheck, dense)
            given = _arguments(module, call)
        try:
            result = rewriter.run(*given)
        except StuckError as failure:  # that names no groups: then those given to the module
            raise StuckError(failure.where, failure.why, failure.groups or stuck.groups) from None
        with _asleep(labeller):
            if known is not None and rewriter.changes() != known.changes():
                calls = [entered[call.name, nth].given for nth in (0, call.nth)]
                groups = self.recheck.groups(one.labels for one in nested(calls, Seen))
                raise StuckError(call.name, "its calls need different channels", groups)
        self.recheck.mended.setdefault(call.name, rewriter)
        return result

    def _captured(self, original: nn.Module, call: Entered) -> Captured:
        """Returns the labelled forward of a dense module, which the tape keeps from then on."""
        tape = self.recheck.cmap.tape
        known = tape.captured.get((call.name, call.nth))
        if known is None:
            first = tape.captured.get((call.name, 0))
            graph = forward_graph(original) if first is None else first.graph
            nodes = self._labelled(original, graph, call)
            known = tape.captured[call.name, call.nth] = Captured(graph, nodes.starts, nodes.worn)
        return known

    def _labelled(self, original: nn.Module, graph: fx.Graph, call: Entered) -> LabelledNodes:
        """Runs the captured forward of a dense module and returns the labels of its nodes."""
        tape, (labeller, recheck) = self.recheck.cmap.tape, self._dense
        entered = tape.entered[call.name, call.nth]
        recheck.at, recheck.made = entered.at, entered.made
        labeller.stack, labeller.calls = [call.name], {}
        nodes = LabelledNodes(original, graph, labeller, recheck)
        given = _arguments(original, entered)
        with untouched(original), in_mode(original), labeller.watching(), labeller:
            uncompile(original)
            nodes.run(*given)
        return nodes

    @cached_property
    def _dense(self) -> tuple[Labeller, Recheck]:
        """A labeller of the dense network, and the recheck that hands it the tape's labels."""
        recheck = Recheck(self.recheck.cmap, np.ones_like(self.recheck.kept))
        tape = Tape(movers=set(self.recheck.cmap.tape.movers))
        return Labeller(self.model, tape, RULES, recheck), recheck

    def finish(self) -> nn.Module:
        """Returns the network with every mended module in place, in the modes it had."""
        instead: dict[int, nn.Module] = {
            id(one.module): one.finished() for one in self.recheck.mended.values()
        }
        network = instead.get(id(self.network), self.network)
        for parent in network.modules():  # which visits the replaced children next
            for name, child in parent._modules.items():
                parent._modules[name] = instead.get(id(child), child)
        return network


def _is_altered(module: nn.Module) -> bool:
    """Whether a call of `module` runs hooks, or another forward than that of its class."""
    hooks = module._forward_hooks or module._forward_pre_hooks
    return bool(hooks) or "forward" in vars(module)


@contextmanager
def _asleep(labeller: Labeller) -> Iterator[None]:
    """Makes `labeller` leave functions and modules alone within the block."""
    on_top = overrides._get_current_function_mode() is labeller
    labeller.asleep = True
    try:
        with overrides._pop_mode_temporarily() if on_top else nullcontext():
            yield
    finally:
        labeller.asleep = False


def _arguments(module: nn.Module, call: Entered) -> list[Any]:
    """Returns the arguments of a call in the order of the forward's parameters, with defaults."""
    args, kwargs = map_nested(call.given, Seen, Seen.again)
    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    bound.apply_defaults()
    return list(bound.arguments.values())


def gathers_for(model: nn.Module, slimmed: nn.Module, cmap: ChannelMap, kept: Kept) -> _Mender:
    """Finds the gathers that `slimmed` needs, in one forward without data.

    The `finish` of what it returns makes the network that has them.

    Args:
        model: the dense network.
        slimmed: its cut copy, whose modules may move channels wrongly; it stays as it is.
        cmap: the channel map of `model`.
        kept: which classes were kept.

    Raises:
        StuckError: gathers cannot mend it.
    """
    recheck = Recheck(cmap, kept)
    recheck.mender = mender = _Mender(model, slimmed, recheck)
    reason = replay(slimmed, recheck)
    if reason is not None:
        raise reason
    return mender
