"""Captures or edits the activations of groups inside a running forward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunebench.channels.example import Example, run_on
from prunebench.channels.labels.tape import Place
from prunebench.channels.map import ChannelGroup, ChannelMap
from prunebench.channels.members import named_modules
from prunebench.errors import PruningError, require_choice

POINTS = ("activation", "block", "consumer")

#: takes the activations of one group [N, size, H, W]; returns as many, or None to change nothing
Edit = Callable[[Tensor], Tensor | None]


def capture(
    model: nn.Module,
    cmap: ChannelMap,
    images: Example,
    groups: Iterable[ChannelGroup],
    point: str,
    *,
    run: Callable[[nn.Module, Any], object] = run_on,
) -> dict[str, Tensor]:
    """Returns the activations of each group at `point` for `images`.

    Args:
        model: the network that `cmap` was traced from; runs once, without gradients, in the mode
            it is in.
        cmap: its channel map.
        images: [N, C, H, W], or several inputs as for `trace`.
        groups: which groups to look at.
        point: ``activation`` (after producer, norm and activation, before pooling), ``block``
            (the same after a max pool, should one follow) or ``consumer`` (the input of the first
            convolution or linear layer that reads the group).
        run: runs the model on the images.

    Returns:
        Group name -> copy of its activations [N, size, H, W], in class order. Behind a flatten they
        are [N, size, pixels, 1]; where a class holds several channels, these are stacked along H.

    Raises:
        PruningError: a group does not exist at this point.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str, x: Tensor) -> None:
        found[name] = x.clone()

    takers = {group.name: partial(keep, group.name) for group in groups}
    look(takers, model, cmap, images, point, run=run)
    return found


def look(
    takers: Mapping[str, Callable[[Tensor], None]],
    model: nn.Module,
    cmap: ChannelMap,
    images: Example,
    point: str,
    *,
    run: Callable[[nn.Module, Any], object] = run_on,
) -> None:
    """Calls a function with the activations of each group at `point`, without gradients.

    Args:
        takers: group name -> function of its activations, shaped as in `capture`. They are the
            network's own: valid until the function returns, and not to be changed.
        model: as in `capture`, like all further arguments.
        cmap: its channel map.
        images: [N, C, H, W], or several inputs as for `trace`.
        point: one of those of `capture`.
        run: runs the model on the images.

    Raises:
        PruningError: a group does not exist at this point.
    """
    with torch.no_grad(), edit(model, cmap, point, takers):
        run(model, images)


@contextmanager
def edit(
    model: nn.Module, cmap: ChannelMap, point: str, edits: Mapping[str, Edit]
) -> Iterator[None]:
    """Within the block, passes the activations of groups through functions in every forward.

    Gradients flow through the functions, so a criterion can multiply channels by a trained gate or
    look at their gradients. Where a module returns (or takes) the tensor, a hook does the work;
    elsewhere the calls of torch functions are counted to find it.

    Args:
        model: the network that `cmap` was traced from.
        cmap: its channel map.
        point: as in `capture`.
        edits: group name -> function of the group's activations [N, size, H, W].

    Raises:
        PruningError: a group does not exist at this point.
    """
    require_choice("point", point, POINTS)
    by_place: dict[tuple[Any, ...], _EditedPlace] = {}
    for name, change in edits.items():
        place: Place | None = getattr(cmap.group(name), point)
        if place is None:
            raise PruningError(f"group '{name}' has no {point} to look at")
        key = (place.function, place.nth, place.takes)
        at = by_place.setdefault(key, _EditedPlace(place, []))
        at.changes.append((_layout(cmap, name, place), change))
    modules = dict(named_modules(model))
    counter = _CallCounter([edited for edited in by_place.values() if edited.place.module is None])
    with ExitStack() as hooks:
        hooks.enter_context(model.register_forward_pre_hook(counter.start))
        hooks.enter_context(model.register_forward_hook(counter.stop, always_call=True))
        for name in {s.place.module for s in by_place.values() if s.place.module is not None}:
            places = [s for s in by_place.values() if s.place.module == name]
            for hook in counter.attach(modules[name], name, places):
                hooks.enter_context(hook)
        if counter.places:
            hooks.enter_context(counter)
        yield


@dataclass(frozen=True)
class _Layout:
    """Where the channels of a group lie in a tensor.

    Attributes:
        dim: the dimension that holds channels.
        index: positions along `dim`, class by class; None if they are all, in order.
        size: number of classes.
    """

    dim: int
    index: Tensor | None
    size: int

    def pick(self, x: Tensor) -> Tensor:
        """Returns the channels as [N, size, H, W]."""
        picked = x.movedim(self.dim, 1) if self.dim != 1 else x
        if self.index is not None:
            picked = picked.index_select(1, self.index.to(x.device))
        tail = picked.shape[2:]
        if len(tail) == 2:
            return picked.reshape(len(x), self.size, -1, tail[1])
        return picked.reshape(len(x), self.size, -1, 1)

    def put_back(self, x: Tensor, channels: Tensor) -> Tensor:
        """Returns `x` with `channels` in place."""
        moved = x.movedim(self.dim, 1)
        if self.index is None:
            changed = channels.reshape(moved.shape)
        else:
            rows = channels.reshape(len(x), len(self.index), *moved.shape[2:])
            changed = moved.index_copy(1, self.index.to(x.device), rows)
        return changed.movedim(1, self.dim)


def _layout(cmap: ChannelMap, name: str, place: Place) -> _Layout:
    """Returns where group `name` lies in the tensor at `place`."""
    group = cmap.group(name)
    number = cmap.groups.index(group)
    dims = [d for d, size in enumerate(place.labels.shape) if size > 1]
    dim = dims[0] if dims else 1
    found, local = cmap.locate[:, cmap.classes(place.labels >> 1)]
    mine = np.nonzero(found == number)[0]
    order = mine[np.argsort(local[mine], kind="stable")]
    if len(dims) > 1 or len(order) == 0 or len(order) % group.size:
        raise PruningError(f"the channels of group '{name}' do not lie side by side at this point")
    if len(order) == place.shape[dim] and np.array_equal(order, np.arange(len(order))):
        return _Layout(dim, None, group.size)
    return _Layout(dim, torch.from_numpy(order), group.size)


@dataclass
class _EditedPlace:
    """A place in the forward, and the edits to apply there."""

    place: Place
    changes: list[tuple[_Layout, Edit]]

    def apply(self, x: Tensor) -> Tensor:
        """Returns `x` after all edits."""
        for layout, change in self.changes:
            changed = change(layout.pick(x))
            if changed is not None:
                x = layout.put_back(x, changed)
        return x

    def apply_to(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Returns the arguments with the first one edited, which may be given by name."""
        if args:
            return (self.apply(args[0]), *args[1:]), kwargs
        first = "input" if "input" in kwargs else next(iter(kwargs))
        return args, {**kwargs, first: self.apply(kwargs[first])}


class _CallCounter(TorchFunctionMode):
    """Counts the calls of each function and module in the running forward, to find places."""

    def __init__(self, places: list[_EditedPlace]) -> None:
        """Takes the places that are no module's input or output."""
        super().__init__()
        self.places = {(s.place.function, s.place.nth, s.place.takes): s for s in places}
        self.running = False
        self.functions: dict[str, int] = {}
        self.modules: dict[str, int] = {}

    def start(self, module: nn.Module, args: Any) -> None:
        """Resets the counts when a forward begins."""
        self.running = True
        self.functions, self.modules = {}, {}

    def stop(self, module: nn.Module, args: Any, result: Any) -> None:
        """Stops counting when a forward ends or fails."""
        self.running = False

    def attach(self, module: nn.Module, name: str, places: list[_EditedPlace]) -> list[Any]:
        """Hooks `places` to calls of `module`; returns the handles."""
        given = {s.place.call: s for s in places if s.place.takes}
        made = {s.place.call: s for s in places if not s.place.takes}

        def before(_: nn.Module, args: Any, kwargs: Any) -> Any:
            call = self.modules[name] = self.modules.get(name, -1) + 1
            edited = given.get(call)
            return None if edited is None else edited.apply_to(args, kwargs)

        def after(_: nn.Module, args: Any, result: Any) -> Any:
            edited = made.get(self.modules[name])
            return edited.apply(result) if edited is not None else None

        return [
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after),
        ]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs `func`, and edits its input or result where an edit is due."""
        kwargs = kwargs or {}
        if not self.running:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        nth = self.functions[name] = self.functions.get(name, -1) + 1
        taken = self.places.get((name, nth, True))
        if taken is not None:
            args, kwargs = taken.apply_to(args, kwargs)
        result = func(*args, **kwargs)
        made = self.places.get((name, nth, False))
        return result if made is None else made.apply(result)
