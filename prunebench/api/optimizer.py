"""Lets an optimizer continue after a cut: swaps in the slim parameters and cuts its state."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeAlias

import torch
from torch import Tensor, nn, optim

from prunebench.channels import ChannelMap
from prunebench.channels.tensors import is_plain
from prunebench.errors import ConfigError, PruningError
from prunebench.run.step import Cut

#: the `optimizer` argument of `prune`: one, several, or none
Optimizers: TypeAlias = optim.Optimizer | Sequence[optim.Optimizer] | None

#: dimension -> int64 indices that stay
Stays = dict[int, Tensor]

_NEW = "prune without optimizer=, and build a new one from the slim network"


class Follower:
    """Updates optimizers in place, from each network to the one cut out of it.

    Groups with their settings stay, and so does everything that refers to the optimizer, such as a
    scheduler of its learning rate. State in the shape of a parameter (momenta, second moments) is
    cut like the parameter; step counts are kept. If a later cut fails, the optimizers are restored.
    Optimizers that another one wraps (SAM, Lookahead, those of many trainers) are updated, too.
    """

    def __init__(self, optimizer: Optimizers, network: nn.Module) -> None:
        """Checks that the optimizers can be updated; for None nothing is updated.

        Raises:
            ConfigError: one is of a kind that cannot be updated, or trains another network.
        """
        several = optimizer if isinstance(optimizer, list | tuple) else [optimizer]
        own = set(network.parameters())
        self.optimizers: list[optim.Optimizer] = []
        for one in several if optimizer is not None else []:
            inside = list(_inside(one))
            if not inside:
                raise ConfigError(
                    "optimizer must be a torch.optim.Optimizer with a state for each parameter, "
                    f"such as SGD or AdamW, or a list of them; got {type(one).__name__}"
                )
            groups = [group["params"] for inner in inside for group in inner.param_groups]
            if not any(weight in own for weights in groups for weight in weights):
                raise ConfigError(
                    "the optimizer holds no parameter of this network; give the one that trains it"
                )
            self.optimizers += inside
        for inner in self.optimizers:
            _require_no_other_list(inner, own)

    def __enter__(self) -> Self:
        """Remembers the parameters and states of the optimizers."""
        lists = ("params", "param_names")
        self._groups = [
            (group, {key: group[key] for key in lists if key in group})
            for group in self._all_groups()
        ]
        self._states = [(state, dict(state)) for state in self._all_states()]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, at: TracebackType | None
    ) -> None:
        """Restores the optimizers after an exception."""
        if kind is not None:
            for group, before in self._groups:
                group.update(before)
            for state, known in self._states:
                state.clear()
                state.update(known)

    def _all_groups(self) -> list[dict[str, Any]]:
        """Returns the parameter groups of all optimizers, each once: wrappers share groups."""
        groups = [group for one in self.optimizers for group in one.param_groups]
        return list({id(group): group for group in groups}.values())

    def _all_states(self) -> list[Any]:
        """Returns the states of all optimizers, each once."""
        return list({id(one.state): one.state for one in self.optimizers}.values())

    def follow(self, before: nn.Module, made: Cut, cmap: ChannelMap) -> None:
        """Updates the optimizers from the network `before`, whose map is `cmap`, to `made`.

        Raises:
            PruningError: an optimizer keeps a state that cannot be cut.
        """
        if not self.optimizers:
            return
        kept = cmap.keeps(made.plan)
        slim: dict[str, Tensor] = dict(made.network.named_parameters(remove_duplicate=False))
        now: dict[Tensor, Tensor] = {}
        states = self._all_states()
        new: list[dict[Tensor, Any]] = [{} for _ in states]
        for name, old in before.named_parameters():
            stays = {
                dim: torch.from_numpy(kept[cmap.dims[name, dim]].nonzero()[0]).to(old.device)
                for dim in range(old.dim())
                if (name, dim) in cmap.dims
            }
            now[old] = slim[name]
            weight = _Weight(name, old, slim[name], stays)
            for state, cut in zip(states, new, strict=True):
                if old in state:
                    cut[old] = {key: weight.cut(key, value) for key, value in state[old].items()}
        for group in self._all_groups():
            group["params"] = [now.get(weight, weight) for weight in group["params"]]
        self._adopt(slim, before)
        for state, cut in zip(states, new, strict=True):
            for gone, values in cut.items():
                del state[gone]
                state[now[gone]] = values

    def _adopt(self, slim: dict[str, Tensor], before: nn.Module) -> None:
        """Adds parameters that a repair has created to the group of their layer's weight."""
        known = dict(before.named_parameters(remove_duplicate=False))
        for name, added in slim.items():
            if name in known:
                continue
            layer = f"{name.rpartition('.')[0]}."
            beside = [key for key in slim if key.startswith(layer) and key in known]
            # the weight first; under weight norm there is none, and any other parameter will do
            beside.sort(key=lambda key: key != f"{layer}weight")
            for group in self._all_groups():
                if any(weight is slim[key] for key in beside[:1] for weight in group["params"]):
                    group["params"] = [*group["params"], added]
                    if "param_names" in group:
                        group["param_names"] = [*group["param_names"], name]


@dataclass(frozen=True)
class _Weight:
    """A parameter before and after the cut, which may leave it whole.

    Attributes:
        name: name of the parameter.
        old, new: the tensor before and after.
        stays: dimension -> indices of `old` that stay.
    """

    name: str
    old: Tensor
    new: Tensor
    stays: Stays

    def cut(self, key: str, value: Any) -> Any:
        """Returns the state `value` that an optimizer keeps of `old` as `key`, cut to fit `new`.

        Raises:
            PruningError: its type or shape does not tell how to cut it.
        """
        if not isinstance(value, Tensor):
            if self.new.shape != self.old.shape and not is_plain(value):
                raise self._uncut(key, f"as {type(value).__name__}")
            return copy.deepcopy(value)
        if value.dim() == 0 or self.new.shape == self.old.shape:
            return value.detach().clone()
        if hasattr(type(value), "__tensor_flatten__"):
            raise self._uncut(key, f"as {type(value).__name__}")
        found = value
        for dim, index in self.stays.items():
            if len(index) == self.old.size(dim):
                continue
            if value.dim() != self.old.dim() or value.size(dim) not in (1, self.old.size(dim)):
                raise self._uncut(key, f"in the shape {list(value.shape)}")
            if value.size(dim) > 1:
                found = found.index_select(dim, index.to(value.device))
        if found.shape != self.new.shape:
            return found.clone()
        return torch.empty_like(self.new, dtype=found.dtype, requires_grad=False).copy_(found)

    def _uncut(self, key: str, how: str) -> PruningError:
        """Returns the error for a state that cannot be cut."""
        return PruningError(
            f"the optimizer keeps '{key}' of {self.name} {how}, which cannot be cut along with "
            f"{list(self.old.shape)}; {_NEW}"
        )


def _inside(optimizer: Any) -> Iterator[optim.Optimizer]:
    """Yields `optimizer`, if it is a `torch.optim.Optimizer`, and those in its attributes."""
    todo, seen = [optimizer] if hasattr(optimizer, "param_groups") else [], set[int]()
    while todo:
        one = todo.pop()
        if id(one) not in seen:
            seen.add(id(one))
            if isinstance(one, optim.Optimizer):
                yield one
            todo += [held for held in vars(one).values() if isinstance(held, optim.Optimizer)]


def _require_no_other_list(optimizer: optim.Optimizer, own: set[nn.Parameter]) -> None:
    """Raises if an optimizer would still use the old parameters after a cut.

    Raises:
        ConfigError: it keeps some of `own` outside of its groups and its state.
    """
    for key, value in vars(optimizer).items():
        if key not in ("param_groups", "state") and any(one in own for one in _tensors(value)):
            raise ConfigError(
                f"{type(optimizer).__name__} keeps parameters in '{key}', besides its groups, and "
                f"cannot go on after a cut; {_NEW}"
            )


def _tensors(value: Any) -> Iterator[Any]:
    """Yields the tensors in nested containers, those that are keys of a dict included."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from _tensors(pair)
    elif isinstance(value, list | tuple | set):
        for one in value:
            yield from _tensors(one)
