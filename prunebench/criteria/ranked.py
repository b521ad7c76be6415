"""Calls a criterion and checks its ranks; criteria of users pass through here, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prunebench.errors import PruningError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.contracts import Evidence, GroupRank
    from prunebench.criteria import Criterion


def ranked(criterion: Criterion, evidence: Evidence) -> dict[str, GroupRank]:
    """Returns the criterion's ranks of every group of the evidence.

    Raises:
        PruningError: the criterion cannot serve this network, or breaks the contract of
            `Criterion.rank`: a group is missing, scores are not one finite float for each class,
            `kept` holds no classes of the group, or the network was changed.
    """
    before = {name: _copy(value) for name, value in _state(evidence.network).items()}
    ranks = criterion.rank(evidence)
    name = type(criterion).__name__
    if not isinstance(ranks, Mapping):
        raise PruningError(f"{name}.rank must return group name -> GroupRank, got {_kind(ranks)}")
    for group in evidence.groups:
        if group.name not in ranks:
            raise PruningError(f"{name}.rank leaves out group '{group.name}'")
        problem = _problem(ranks[group.name], group.size)
        if problem:
            raise PruningError(f"{name}.rank, group '{group.name}': {problem}")
    changed = _changed(before, _state(evidence.network))
    if changed:
        raise PruningError(f"{name}.rank changed the network, which it must not: {changed}")
    return dict(ranks)


def _problem(rank: object, size: int) -> str:
    """Returns what is wrong with the rank of a group of `size` classes; "" if nothing."""
    import torch

    from prunebench.contracts import GroupRank

    if not isinstance(rank, GroupRank):
        return f"expected a GroupRank, got {_kind(rank)}"
    scores = rank.scores
    if not isinstance(scores, torch.Tensor) or not scores.is_floating_point():
        return f"scores must be a tensor of floats, got {_kind(scores)}"
    if scores.shape != (size,):
        return f"scores must be of shape [{size}], one for each class, got {list(scores.shape)}"
    bad = (~scores.isfinite()).nonzero().flatten().tolist()
    if bad:
        return f"the score of class {bad[0]} is {float(scores[bad[0]])}; scores must be finite"
    kept = rank.kept
    if kept is not None and not (list(kept) == sorted({*kept}) and {*kept} <= {*range(size)}):
        return f"kept must hold ascending class indices below {size}, got {list(kept)}"
    return ""


def _kind(value: object) -> str:
    """Returns a name for the type of `value`, with its dtype if it has one."""
    dtype = getattr(value, "dtype", None)
    return type(value).__name__ + ("" if dtype is None else f" of {dtype}")


def _state(network: nn.Module) -> dict[str, Tensor | bool]:
    """Returns all weights and buffers, and the mode of every module."""
    import torch

    state: dict[str, Tensor | bool] = {
        name: value
        for name, value in network.state_dict().items()
        if isinstance(value, torch.Tensor)
    }
    return state | {f"{name}.training": m.training for name, m in network.named_modules()}


def _copy(value: Tensor | bool) -> Tensor | bool:
    return value if isinstance(value, bool) else value.clone()


def _alike(was: Tensor, found: Tensor) -> bool:
    """Whether two tensors of one shape are equal, nan to nan."""
    import torch

    # first without copies, which would take most of a ranking's memory; nan is rare
    return torch.equal(was, found) or torch.equal(was.nan_to_num(), found.nan_to_num())


def _changed(before: Mapping[str, Tensor | bool], now: Mapping[str, Tensor | bool]) -> str:
    """Returns the name of one entry that has changed, come or gone; "" if none has."""
    import torch

    for name in before.keys() | now.keys():
        was, found = before.get(name), now.get(name)
        if isinstance(was, torch.Tensor) and isinstance(found, torch.Tensor):
            same = was.shape == found.shape and _alike(was, found)
        else:
            same = was is found
        if not same:
            return name
    return ""
