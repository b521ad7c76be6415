"""Taylor, first order: an estimate of the loss change when a channel goes; higher = keep.

Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, equation 8, has two
forms. ``gate``: (dL/dz)^2 for a gate z = 1 behind each batch norm. ``weight``: the sum of
(w dL/dw)^2 over the channel's filter. No gate is built, since with y = gamma x + beta, dL/dz =
gamma dL/dgamma + beta dL/dbeta. L is the mean loss of a batch, and scores are averaged over
batches, so the batch size matters; batch=1 is the per-example form.

Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference", ICLR
2017, equations 8 and 9, has the third form. ``activation``: |mean over pixels of a dL/da| with the
activations a of each example, averaged over examples and divided by the layer's Euclidean norm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from prunebench.contracts import rows, rows_in
from prunebench.criteria import Criterion, Evidence, GroupRank
from prunebench.errors import PruningError, require, require_choice

if TYPE_CHECKING:
    from torch import Tensor

    from prunebench.channels import ChannelGroup, Site

FORMS = ("gate", "weight", "activation")


@dataclass(frozen=True, kw_only=True)
class Taylor(Criterion):
    """Scores a channel by a first-order estimate of how much the loss changes without it.

    Attributes:
        form: ``gate`` behind the batch norms (the mean where a channel has several), ``weight``
            of the producers (both 2019), or ``activation`` (2017; the first of a residual stream).
        num_samples: number of training images.
        batch: images per mean loss; under ``activation`` the result does not depend on it.
        ema: weight, in [0, 1), of the score of the round before, if there was one; 0.9 in the
            authors' code of 2019.
    """

    form: str = "gate"
    num_samples: int = 1024
    batch: int = 32
    ema: float = 0.0

    reads_logits = True

    def __post_init__(self) -> None:
        """Raises ConfigError for a field out of range."""
        require_choice("form", self.form, FORMS)
        require(self.num_samples >= 1, f"num_samples must be at least 1, got {self.num_samples}")
        require(self.batch >= 1, f"batch must be at least 1, got {self.batch}")
        require(0 <= self.ema < 1, f"ema must lie in [0, 1), got {self.ema}")

    @property
    def images_needed(self) -> int:
        """Number of training images."""
        return self.num_samples

    def rank(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Ranks by averages over images, in eval mode; the network's own ``.grad`` is kept.

        Raises:
            PruningError: under form=gate a group has no norm with a scale, or under form=weight a
                producer computes its weight (weight norm).
        """
        found = (
            self._rank_activations(evidence)
            if self.form == "activation"
            else self._rank_parameters(evidence)
        )
        return {
            name: self._averaged(rank, evidence.earlier.get(name)) for name, rank in found.items()
        }

    def _averaged(self, rank: GroupRank, earlier: Tensor | None) -> GroupRank:
        """Returns `rank` with its scores averaged with those of the round before."""
        if not self.ema or earlier is None:
            return rank
        return GroupRank(self.ema * earlier + (1 - self.ema) * rank.scores)

    def _rank_parameters(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Ranks by products of parameters and their gradients, averaged over batches."""
        import torch

        from prunebench.analysis.chunks import images_at_once

        score = gate_scores if self.form == "gate" else weight_scores
        sites_of = gates if self.form == "gate" else makers
        sites = {group.name: sites_of(group) for group in evidence.groups}
        names = sorted({name for found in sites.values() for site in found for name in owned(site)})
        held = dict(evidence.network.named_parameters(remove_duplicate=False))
        weights = {name: held[name] for name in names if name in held}
        total: dict[str, Tensor | float] = {group.name: 0.0 for group in evidence.groups}
        size = images_at_once(evidence, self.batch, backward=True)
        batches = 0
        with torch.enable_grad(), ExitStack() as after:
            for weight in weights.values():
                after.callback(weight.requires_grad_, weight.requires_grad)
                weight.requires_grad_()
            for some, targets in evidence.batches(self.num_samples, self.batch):
                batches += 1
                slopes = mean_slopes(evidence, weights, some, targets, size)
                products = {name: weights[name].detach() * slopes[name] for name in slopes}
                for group in evidence.groups:
                    total[group.name] += score(products, sites[group.name], group.size)
        return {
            name: GroupRank(torch.as_tensor(scores).cpu() / batches)
            for name, scores in total.items()
        }

    def _rank_activations(self, evidence: Evidence) -> dict[str, GroupRank]:
        """Ranks by products of activations and their gradients, averaged over examples."""
        import torch

        from prunebench.analysis.chunks import images_at_once
        from prunebench.channels import edit
        from prunebench.channels.tensors import map_tensors

        network, cmap, task = evidence.network, evidence.cmap, evidence.task
        total = {g.name: torch.zeros(g.size, dtype=torch.float64) for g in evidence.groups}
        images = min(self.num_samples, evidence.size)

        def listen(name: str) -> Callable[[Tensor], Tensor]:
            def look(x: Tensor) -> Tensor:
                # the gradient is used when the backward pass reaches it, and not stored
                x.register_hook(partial(add, name, x.detach()))
                return x.clone()  # the next operation may change it in place

            return look

        def add(name: str, x: Tensor, slope: Tensor) -> None:
            total[name] += activation_scores(x, slope).cpu()

        looks = {name: listen(name) for name in total}
        size = images_at_once(evidence, self.batch, backward=True)
        trained = [weight for weight in network.parameters() if weight.requires_grad]
        with torch.enable_grad(), edit(network, cmap, "activation", looks):
            for some, targets in evidence.batches(images, size):
                # gradients reach the activations even if every weight is frozen
                starts: list[Tensor] = []
                outputs = task.run(network, map_tensors(some, partial(_with_slope, starts)))
                # in eval mode examples do not interact: the sum's gradient is each example's own
                loss = task.summed_loss(outputs, targets, rows_in(some))
                torch.autograd.grad(loss, starts or trained, allow_unused=True)
        return {name: GroupRank(normed(scores / images)) for name, scores in total.items()}


def _with_slope(starts: list[Tensor], x: Tensor) -> Tensor:
    """Returns a copy of `x` that requires a gradient, added to `starts`; integers as they are."""
    if not x.is_floating_point():
        return x
    starts.append(x.clone().requires_grad_())
    return starts[-1]


def mean_slopes(
    evidence: Evidence, weights: Mapping[str, Tensor], images: Any, labels: Any, size: int
) -> dict[str, Tensor]:
    """Returns the gradients of a batch's mean loss by name; weights without one are left out.

    At most `size` images run at once; in eval mode the gradients of parts add up.
    """
    import torch

    task, count = evidence.task, rows_in(images)
    total: dict[str, Tensor] = {}
    for start in range(0, count, size):
        stop = min(start + size, count)
        outputs = task.run(evidence.network, rows(images, start, stop))
        loss = task.mean_loss(outputs, rows(labels, start, stop)) * ((stop - start) / count)
        slopes = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for name, slope in zip(weights, slopes, strict=True):
            if slope is not None:
                total[name] = total[name] + slope if name in total else slope
    return total


def activation_scores(activations: Tensor, slopes: Tensor) -> Tensor:
    """Returns |mean over pixels of a dL/da|, summed over examples, float64 [C].

    Args:
        activations: a, [N, C, H, W].
        slopes: gradient of each example's own loss by a, [N, C, H, W].
    """
    import torch

    means = torch.einsum("nchw,nchw->nc", activations, slopes) / activations[0, 0].numel()
    return means.abs().sum(0, dtype=torch.float64)


def normed(scores: Tensor) -> Tensor:
    """Returns the scores of a layer divided by their Euclidean norm; zeros if all are zero."""
    length = scores.norm()
    return scores / length if length > 0 else scores


def owned(site: Site) -> tuple[str, str]:
    """Returns the names of the site's weight and of the bias that it may have."""
    return site.name, site.name.removesuffix("weight") + "bias"


def makers(group: ChannelGroup) -> tuple[Site, ...]:
    """Returns the producers of `group`.

    Raises:
        PruningError: a producer computes its weight by weight norm, so there is no gradient.
    """
    for site in group.producers:
        if site.normed is not None:
            raise PruningError(
                f"criterion=taylor with form=weight needs gradients of weights, and {site.module} "
                "computes its own by a weight norm; set criterion.form=activation"
            )
    return group.producers


def gates(group: ChannelGroup) -> tuple[Site, ...]:
    """Returns the norms with a scale that `group` goes through.

    Raises:
        PruningError: there is none.
    """
    found = tuple(site for site in group.norms if site.parameter == "weight")
    if not found:
        raise PruningError(
            f"criterion=taylor with form=gate needs a norm with a scale behind {group.name}, and "
            "there is none; set criterion.form=weight"
        )
    return found


def gate_scores(products: Mapping[str, Tensor], sites: tuple[Site, ...], size: int) -> Tensor:
    """Returns (gamma dL/dgamma + beta dL/dbeta)^2 of each class, averaged over its norms.

    `products` maps the name of each parameter to parameter times gradient.
    """
    import torch

    total = torch.zeros(size, dtype=torch.float64)
    count = torch.zeros(size, dtype=torch.float64)
    for site in sites:
        found = [products[name].double() for name in owned(site) if name in products]
        if found:
            total, count = total.to(found[0].device), count.to(found[0].device)
            squares = torch.stack(found).sum(0).square()
            site.add_to(total, squares)
            site.add_to(count, torch.ones_like(squares))
    return total / count.clamp_(min=1)


def weight_scores(products: Mapping[str, Tensor], sites: tuple[Site, ...], size: int) -> Tensor:
    """Returns the sum of (w dL/dw)^2 over all weights that produce each class; no biases.

    `products` is as for `gate_scores`.
    """
    import torch

    total = torch.zeros(size, dtype=torch.float64)
    for site in sites:
        if site.name in products:
            rows = products[site.name].movedim(site.dim, 0).flatten(1)
            squares = rows.square().sum(1, dtype=torch.float64)
            total = total.to(squares.device)
            site.add_to(total, squares)
    return total
