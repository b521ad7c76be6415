"""The steps of a forward: the inputs of every function that computes, to compare forwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from prunebench.channels.labels.tensors import labels_of, put
from prunebench.channels.labels.values import PRIME, Values, mix, put_values, values_of

_NOTHING = torch.zeros((), dtype=torch.int64)


class Worn(NamedTuple):
    """What tells a tensor from others: a name, or labels and value numbers.

    Attributes:
        parameter: its name, if it is a parameter or buffer; then nothing else is set.
        labels, values, shape: those of the tensor.
        constant: a copy of the tensor, if the code of the network made it with data.
    """

    parameter: str
    labels: Tensor = _NOTHING
    values: Values = 0
    shape: tuple[int, ...] = ()
    constant: Tensor | None = None

    def holds_channels(self) -> bool:
        """Whether any element has a label of its own."""
        return self.labels.numel() != 1 or int(self.labels) > 1

    def number(self) -> int:
        """Returns a number that tells tensors without channels apart."""
        if self.constant is not None:
            return hash((self.shape, float(self.constant.double().sum()))) % PRIME
        return self.values if isinstance(self.values, int) else int(self.values.sum()) % PRIME


class Seen(NamedTuple):
    """A tensor as it was at some time, whatever was done to it in place since."""

    tensor: Tensor
    labels: Tensor
    values: Values

    def again(self) -> Tensor:
        """Returns a tensor that wears what this one wore then."""
        t = self.tensor
        if not t.is_meta:
            return t
        copied = torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta")
        return put_values(put(copied, self.labels), self.values)


class Entered(NamedTuple):
    """A call of a module, as it begins.

    Attributes:
        name, nth: name of the module, and the number of the call, from 0.
        at: how many steps came before it.
        made: how many label vectors had been made before it.
        given: its arguments by position and by name.
    """

    name: str
    nth: int
    at: int
    made: int
    given: Any


class Step(NamedTuple):
    """One call of a function that computes.

    Attributes:
        at: how many came before it.
        made: how many label vectors had been made before it.
        function, module: its name, and that of the module whose code calls it.
        given: the tensors among its arguments.
        numbers: the numbers among its arguments, except those that a cut rightly changes.
    """

    at: int
    made: int
    function: str
    module: str
    given: tuple[Worn, ...]
    numbers: tuple[float, ...]

    def meets_channels(self) -> bool:
        """Whether a given tensor holds channels."""
        return any(one.holds_channels() for one in self.given)

    def matters(self) -> bool:
        """Whether a given tensor holds channels, is a parameter, or is the network's output."""
        if self.meets_channels() or self.function == "return":
            return True
        return any(one.parameter for one in self.given)

    def salt(self) -> int:
        """Returns the number from which the value numbers of the result are made.

        Where no channels are given, numbers and constants are mixed into it, not compared: nothing
        says here what they are for. They are compared where the result meets channels.
        """
        salt = self.at
        if not self.meets_channels():
            for number in [hash(self.numbers) % PRIME, *(one.number() for one in self.given)]:
                salt = mix(salt, number)
        return salt


def worn(t: Tensor, names: dict[int, str]) -> Worn:
    """Returns what tells `t` from other tensors."""
    name = names.get(id(t))
    if name is not None:
        return Worn(name)
    constant = None if t.is_meta else t.clone()  # the network may change its own later
    return Worn("", labels_of(t), values_of(t), tuple(t.shape), constant)


def bind(names: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a function by name."""
    return {**dict(zip(names.split(), args, strict=False)), **kwargs}


def given_in(value: Any) -> list[Tensor]:
    """Returns every tensor in nested arguments of a function."""
    found: list[Tensor] = []
    for part in value:
        if isinstance(part, Tensor):
            found.append(part)
        elif isinstance(part, (tuple, list)):
            found += given_in(part)
    return found


def numbers_in(value: Any) -> Iterator[float]:
    """Yields every number in nested arguments, without booleans and nan."""
    if isinstance(value, (int, float)):
        if not isinstance(value, bool) and value == value:
            yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from numbers_in(item)
    elif isinstance(value, dict):
        yield from numbers_in(list(value.values()))


def in_place(name: str, args: Any, kwargs: Any) -> bool:
    """Whether a call of function `name` changes its first argument."""
    marked = name.endswith("_") and not name.endswith("__") or name.startswith("__i")
    return marked or bool(kwargs.get("inplace")) or any(a is True for a in args[1:])
