"""Lets an optimizer continue after a cut: swaps in the slim parameters and cuts its state."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn, optim

from prunebench.channels import Example, trace
from prunebench.errors import ConfigError, PruningError
from prunebench.run.step import Cut

#: dimension -> int64 indices that stay
Stays = dict[int, Tensor]


class Follower:
    """Updates an optimizer in place, from each network to the one cut out of it.

    Groups and their settings stay, and so do references to the optimizer, such as that of a
    scheduler. State in the shape of a parameter (momenta, second moments) is cut like the
    parameter; step counts are kept. If a later cut fails, the optimizer is restored.
    """

    def __init__(self, optimizer: optim.Optimizer | None, network: nn.Module) -> None:
        """Checks that the optimizer can be updated; None does nothing.

        Raises:
            ConfigError: it is of a kind that cannot, or of another network.
        """
        self.optimizer = optimizer
        if optimizer is None:
            return
        if not isinstance(optimizer, optim.Optimizer) or isinstance(optimizer, optim.LBFGS):
            raise ConfigError(
                "optimizer must be a torch.optim.Optimizer with a state for each parameter, such "
                f"as SGD or AdamW; got {type(optimizer).__name__}"
            )
        own = set(network.parameters())
        if not any(weight in own for group in optimizer.param_groups for weight in group["params"]):
            raise ConfigError(
                "the optimizer holds no parameter of this network; give the one that trains it"
            )

    def __enter__(self) -> Self:
        """Remembers the optimizer's parameters and state."""
        if self.optimizer is not None:
            self._groups = [list(group["params"]) for group in self.optimizer.param_groups]
            self._state = dict(self.optimizer.state)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, at: TracebackType | None
    ) -> None:
        """Restores the optimizer after an exception."""
        if self.optimizer is not None and kind is not None:
            for group, weights in zip(self.optimizer.param_groups, self._groups, strict=True):
                group["params"] = weights
            self.optimizer.state.clear()
            self.optimizer.state.update(self._state)

    def follow(self, before: nn.Module, made: Cut, example: Example) -> None:
        """Updates the optimizer from the network `before` to the one that `made` holds.

        Raises:
            PruningError: it keeps a state that cannot be cut.
        """
        if self.optimizer is None:
            return
        cmap = trace(before, example)
        kept = cmap.keeps(made.plan)
        slim: dict[str, Tensor] = dict(made.network.named_parameters(remove_duplicate=False))
        now: dict[Tensor, Tensor] = {}
        state: dict[Tensor, Any] = {}
        for name, old in before.named_parameters():
            stays = {
                dim: torch.from_numpy(kept[cmap.dims[name, dim]].nonzero()[0]).to(old.device)
                for dim in range(old.dim())
                if (name, dim) in cmap.dims
            }
            now[old] = slim[name]
            if old in self.optimizer.state:
                values = self.optimizer.state[old].items()
                state[old] = {
                    key: self._cut_value(key, value, name, old, now[old], stays)
                    for key, value in values
                }
        for group in self.optimizer.param_groups:
            group["params"] = [now.get(weight, weight) for weight in group["params"]]
        self._adopt(slim, before)
        for gone, kept_values in state.items():
            del self.optimizer.state[gone]
            self.optimizer.state[now[gone]] = kept_values

    def _adopt(self, slim: dict[str, Tensor], before: nn.Module) -> None:
        """Adds parameters that a repair has created to the group of their layer's weight."""
        assert self.optimizer is not None
        known = dict(before.named_parameters(remove_duplicate=False))
        for name, added in slim.items():
            weight = slim.get(f"{name.rpartition('.')[0]}.weight")
            for group in self.optimizer.param_groups:
                if name not in known and any(weight is held for held in group["params"]):
                    group["params"].append(added)

    def _cut_value(  # noqa: PLR0913 - two parameters, and one value of the state
        self, key: str, value: Any, name: str, old: Tensor, new: Tensor, stays: Stays
    ) -> Any:
        """Returns one value of the state of the parameter `old`, for `new`.

        Raises:
            PruningError: its shape does not allow it to be cut.
        """
        if not isinstance(value, Tensor) or value.dim() == 0:
            return value.clone() if isinstance(value, Tensor) else value
        found = value
        for dim, index in stays.items():
            if len(index) == old.size(dim):
                continue
            if value.dim() != old.dim() or value.size(dim) not in (1, old.size(dim)):
                raise PruningError(
                    f"optimizer: {type(self.optimizer).__name__} keeps '{key}' of {name} in the "
                    f"shape {list(value.shape)}, which cannot be cut along with "
                    f"{list(old.shape)}; build a new optimizer from the slim network"
                )
            if value.size(dim) > 1:
                found = found.index_select(dim, index.to(value.device))
        if found.shape != new.shape:
            return found.clone()
        return torch.empty_like(new, dtype=found.dtype, requires_grad=False).copy_(found)
