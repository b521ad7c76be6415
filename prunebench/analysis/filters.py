"""The filters of a group's producers by class, and their norms."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from prunebench.channels import ChannelGroup

BLOCK = 1 << 18  # weights


def filters(network: nn.Module, group: ChannelGroup) -> Tensor:
    """Returns the filters of every producer of `group`, side by side.

    Biases, norms and depthwise layers are left out. Rows of classes with fewer filters than others
    are filled up with zeros.

    Returns:
        float64 [group.size, weights per class] on the CPU. It may share the weight's memory: do not
        write to it.
    """
    import torch

    columns = []
    for site in group.producers:
        weight = site.weight(network).detach()
        if weight.dim() > 1:
            rows = weight.movedim(site.dim, 0).flatten(1).cpu().double()
            columns.append(_by_class(rows, site.classes.cpu(), group.size))
    assert columns, f"{group.name} has no producer with a weight matrix"
    return torch.cat(columns, 1) if len(columns) > 1 else columns[0]


def norms(network: nn.Module, group: ChannelGroup, order: int) -> Tensor:
    """Returns the norm of each class's filters over all producers of `group`.

    As ``filters(network, group).norm(order, 1)``, but without that table: sums are made on the
    weights' device, some rows at a time, which stay in the cache as float64.

    Args:
        network: the network with the weights.
        group: the group.
        order: 1 or 2.

    Returns:
        float64 [group.size] on the CPU.
    """
    import torch

    total = torch.zeros(group.size, dtype=torch.float64)
    found = False
    for site in group.producers:
        weight = site.weight(network).detach()
        if weight.dim() > 1:
            site.add_to(total, _powers(weight.movedim(site.dim, 0), order).cpu())
            found = True
    assert found, f"{group.name} has no producer with a weight matrix"
    return total if order == 1 else total.pow(1 / order)


def _powers(weight: Tensor, order: int) -> Tensor:
    """Returns the sum of |w|^order over each row of `weight`, float64."""
    import torch

    count = weight.size(0)
    step = 1 + BLOCK * count // (1 + weight.numel())
    sums = []
    for start in range(0, count, step):  # twice as fast as `torch.split` where there is one part
        flat = weight[start : start + step].flatten(1)
        powers = flat.abs() if order == 1 else flat.double().square()
        sums.append(powers.sum(1, dtype=torch.float64))
    return torch.cat(sums) if len(sums) > 1 else sums[0]


def _by_class(rows: Tensor, classes: Tensor, size: int) -> Tensor:
    """Returns [size, rows of the class side by side]; rows of class -1 are left out."""
    import torch

    if torch.equal(classes, torch.arange(size)):
        return rows  # nearly always, and without a copy
    owners, order = torch.sort(classes, stable=True)
    inside = owners >= 0
    owners, order = owners[inside], order[inside]
    nth = torch.arange(len(owners)) - torch.searchsorted(owners, owners)
    table = rows.new_zeros(size, int(nth.max()) + 1, rows.shape[1])
    table[owners, nth] = rows[order]
    return table.flatten(1)


def scaled(scores: Tensor, normalize: str) -> Tensor:
    """Returns `scores`, divided by their mean if `normalize` is ``mean``, to compare layers.

    Raw norms grow with fan-in, so a global ranking of them empties whole layers (Li et al. 2017
    therefore set ratios per layer).
    """
    mean = float(scores.mean())
    return scores / mean if normalize == "mean" and mean > 0 else scores


NORMALIZE = ("none", "mean")
