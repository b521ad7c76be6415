"""Forwards of networks that differ in some tensors only, from the first use of one of these on.

What goes before is the same in all of them and is run once. Of it, what somebody still holds when
the first of the tensors is used is all that the rest can ask for: torch functions are counted as
they are called, and those of the beginning answer what they answered then. So it serves any
network, however it calls its layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from prunebench.channels.tensors import SIMPLE, tensors_in

Run = Callable[[nn.Module], Any]
Answer = tuple[Any, Any]  # a function, and what it returned


def shared(run: Run, network: nn.Module, tensors: Iterable[Tensor]) -> Run:
    """Returns `run` for copies of `network` that differ from it in `tensors` alone, but quicker.

    It gives what `run` gives to the last bit, as a trial on `network` itself has shown. Where that
    fails, `run` is returned: where the rest writes into what the beginning made, or something
    computes that torch functions do not tell of.

    Args:
        run: runs a network on inputs that stay the same; without gradients.
        network: in eval mode.
        tensors: parameters and buffers of it.
    """
    noted = _Noting(tensors)
    with torch.no_grad():
        try:
            with noted:
                first = run(network)
            again = _resumed(run, noted.answers, network)
        except Exception:  # noqa: BLE001 - `run` meets it itself, or does without
            return run
    same = noted.repeatable and _equal(first, again)
    return partial(_resumed, run, noted.answers) if same else run


def _resumed(run: Run, answers: list[Answer], network: nn.Module) -> Any:
    """Runs `network` from the beginning on whose `answers` are known."""
    try:
        with _Answering(answers):
            return run(network)
    except _OtherBeginningError:
        return run(network)


def _equal(first: Any, again: Any) -> bool:
    """Whether two outputs hold the same numbers."""
    ours, theirs = list(tensors_in(first)), list(tensors_in(again))
    return len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))


class _Noting(TorchFunctionMode):
    """Notes what functions return until one of them uses one of some tensors.

    Attributes:
        answers: of the beginning, in order; empty until it is over. Tensors that nobody held any
            more by then are without numbers.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        """Starts before the first function."""
        super().__init__()
        self.answers: list[Answer] = []
        self._awaited = {_memory(tensor) for tensor in tensors}
        self._fleeting: list[Answer] = []
        self._versions: list[int] = []
        self._over = self._strange = False

    @property
    def repeatable(self) -> bool:
        """Whether the beginning's results are plain, and no later function wrote into them."""
        return not self._strange and self._versions == _versions(self.answers)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs `func`, and notes what it returns."""
        kwargs = kwargs or {}
        if not self._over and any(
            _memory(tensor) in self._awaited for tensor in tensors_in([args, kwargs])
        ):
            self._over = True
            self.answers = [(name, tree_map(_held, result)) for name, result in self._fleeting]
            self._versions = _versions(self.answers)
        result = func(*args, **kwargs)
        if not self._over:
            self._fleeting.append((func, tree_map(self._let_go, result)))
        return result

    def _let_go(self, value: Any) -> Any:
        """Returns part of a result in a form that keeps no tensor alive."""
        if isinstance(value, Tensor):
            return ref(value)
        self._strange |= not isinstance(value, SIMPLE)
        return value


class _OtherBeginningError(Exception):
    """A network begins otherwise than the one whose answers are known."""


class _Answering(TorchFunctionMode):
    """Answers the first functions of a forward by what they are known to return."""

    def __init__(self, answers: list[Answer]) -> None:
        """Starts before the first function."""
        super().__init__()
        self._answers, self._at = answers, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Returns what is known, or else runs `func`."""
        kwargs = kwargs or {}
        if self._at == len(self._answers):
            return func(*args, **kwargs)
        known, result = self._answers[self._at]
        if func != known:
            raise _OtherBeginningError
        self._at += 1
        if result is None and not any(True for _ in tensors_in([args, kwargs])):
            func(*args, **kwargs)  # for its effect, such as that of no_grad
        return tree_map(_held, result)  # lists are the network's own to change


def _memory(tensor: Tensor) -> int:
    """Returns where the numbers of `tensor` lie; those of its parts and views lie there, too."""
    return tensor.untyped_storage().data_ptr()


def _versions(answers: list[Answer]) -> list[int]:
    """Returns how often each tensor among `answers` has been written to."""
    results = [result for _, result in answers]
    return [tensor._version for tensor in tensors_in(results)]


def _held(value: Any) -> Any:
    """Returns the tensor that `value` refers to, if it is there; anything else as it is."""
    if not isinstance(value, ref):
        return value
    tensor = value()
    return torch.empty(0) if tensor is None else tensor
