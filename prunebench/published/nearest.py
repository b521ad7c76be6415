"""Finds the command that comes nearest to a published row: network, method and budget."""

from __future__ import annotations

import re

from prunebench.errors import DataError
from prunebench.options.files import conf_dir, option_names
from prunebench.published.nets import nets_of
from prunebench.published.record import Published

#: pattern at the beginning of a method's name -> the nearest choices; the first match counts
METHODS = (
    (r"thinet \(pruningbench\)", ("criterion=thinet", "recipe=cifar")),
    (r"thinet.*tpami", ("method=thinet_tpami",)),
    (r"thinet", ("method=thinet",)),
    (r"foad", ("method=foad",)),
    (r"aofp", ("method=aofp",)),
    (r"probability", ("method=probability",)),
    (r"sfp.*pre-trained", ("method=sfp", "schedule.start=baseline")),
    (r"sfp", ("method=sfp",)),
    (
        r"fpgm-mix.*pre-trained",
        ("method=fpgm", "criterion.norm_first=0.1", "schedule.start=baseline"),
    ),
    (r"fpgm-mix", ("method=fpgm", "criterion.norm_first=0.1")),
    (r"fpgm.*pre-trained", ("method=fpgm", "schedule.start=baseline")),
    (r"fpgm-only", ("method=fpgm",)),
    (r"fpgm", ("criterion=fpgm", "recipe=cifar")),
    (r"hrank(-\d)?$", ("method=hrank",)),
    (r"hrank", ("criterion=hrank", "recipe=cifar")),
    (r"(network )?slimming one-shot|bnscale", ("criterion=slimming", "recipe=slimming")),
    (r"(network )?slimming", ("method=slimming", "budget.allocation=global")),
    (r"l1( \(pfec\))?, (pruned|fine-tuned 40)", ("method=l1",)),
    (r"l1|magnitudel1|weight magnitude|group-l1", ("criterion=l1", "recipe=cifar")),
    (r"magnitudel2", ("criterion=l2", "recipe=cifar")),
    (r"apoz", ("criterion=apoz", "recipe=cifar")),
    (r"taylor-fo-bn", ("method=taylor",)),
    (r"taylor", ("criterion=taylor", "recipe=cifar")),
    (r"random", ("criterion=random", "recipe=cifar")),
)
#: words for training on CIFAR -> their replacement on ImageNet
ON_IMAGENET = {
    "recipe=cifar": ("recipe=thinet_resnet50",),
    **{f"method={name}": (f"method={name}", "recipe=thinet_resnet50") for name in ("hrank", "l1")},
}
#: networks on which Network Slimming uses a tenth of its penalty on VGG
GENTLER = re.compile("resnet|densenet")
#: normalisation that torchvision's networks expect
NORMALISED = ("dataset.mean=[0.485,0.456,0.406]", "dataset.std=[0.229,0.224,0.225]")
#: in names of variants that no option implements: added regularisers, other schedules
ELSE = re.compile(r" \+ |from scratch|scratch-|agp")
#: methods whose scores cannot be compared between layers
LAYER_BY_LAYER = re.compile("ThiNet|HRank")
#: rows whose source gives widths of layers or a share of all channels -> words that cut the same
WIDTHS = {
    "hrank-vgg16-c10": ("experiment=hrank_vgg16",),
    "hrank-r56-c10": ("experiment=hrank_resnet56",),
    "l1-a-vgg16-c10": ("experiment=l1_vgg16_a",),
    "l1-a-r56-c10": ("experiment=l1_resnet56_a",),
    "l1-b-r56-c10": ("experiment=l1_resnet56_b",),
    "l1-a-r110-c10": ("experiment=l1_resnet110_a",),
    "l1-b-r110-c10": ("experiment=l1_resnet110_b",),
    "slimming-70-vgg19-c10": ("model=vgg19", "method=slimming"),
    "slimming-50-vgg19-c100": (
        "model=vgg19",
        "dataset=cifar100",
        "method=slimming",
        "budget.keep=0.5",
    ),
    "thinet-conv-vgg16-in-1": ("experiment=thinet_conv",),
    "thinet-conv-vgg16-in-2": ("experiment=thinet_conv", "criterion=thinet_tpami"),
    "thinet-conv-smaller-vgg16-in": (
        "experiment=thinet_conv",
        "criterion=thinet_tpami",
        "budget.keep=0.4",
    ),
    "thinet-gap-vgg16-gap-in": ("experiment=thinet_gap",),
    "thinet-tiny-vgg16-gap-in": ("experiment=thinet_tiny",),
    "thinet-70-r50-in-1": ("experiment=thinet_resnet50", "budget.keep=0.7"),
    "thinet-70-r50-in-2": (
        "experiment=thinet_resnet50",
        "budget.keep=0.7",
        "criterion=thinet_tpami",
    ),
    "thinet-50-r50-in": ("experiment=thinet_resnet50", "budget.keep=0.5", "criterion=thinet_tpami"),
    "thinet-30-r50-in": ("experiment=thinet_resnet50", "budget.keep=0.3", "criterion=thinet_tpami"),
}

#: rows with an experiment of their own that does not set widths
EXPERIMENTS = {"foad-mobilefacenet-lfw": "experiment=foad_mobilefacenet"}


def command(row: Published) -> list[str]:
    """Returns the words after ``prunebench`` that come nearest to a row.

    Raises:
        DataError: we have no such network or method, or the row has no cost to aim at.
    """
    if row.id in EXPERIMENTS:
        return [EXPERIMENTS[row.id]]
    if row.id in WIDTHS:
        return list(WIDTHS[row.id])
    nets = nets_of(row)
    if not nets:
        raise DataError(f"{row.id}: we have no network like {row.model} on {row.dataset}")
    data = [f"dataset={row.dataset}"]
    if row.dataset not in option_names("dataset", [conf_dir()]):
        data = ["dataset=npz", f"dataset.path={row.dataset}.npz", *NORMALISED]
    return [*nets[0].run.split(), *data, *method(row), *budget(row)]


def method(row: Published) -> tuple[str, ...]:
    """Returns the words for the method nearest to that of a row.

    Raises:
        DataError: no method comes near.
    """
    name = row.method.lower()
    found = [words for begin, words in METHODS if re.match(begin, name)]
    if not found or ELSE.search(name):
        near = ", ".join(sorted(option_names("criterion", [conf_dir()])))
        raise DataError(f"{row.id}: nothing of ours comes near {row.method}; criteria: {near}")
    other = ON_IMAGENET if row.dataset == "imagenet" else {}
    words = [word for chosen in found[0] for word in other.get(chosen, (chosen,))]
    if "method=slimming" in words and GENTLER.match(row.model):
        words.append("recipe.baseline.gamma_l1=1e-5")
    return tuple(words)


def budget(row: Published) -> list[str]:
    """Returns the words for a budget of as many MACs as the row has; parameters if it has no MACs.

    Raises:
        DataError: it has neither.
    """
    everywhere = "(PruningBench)" in row.method and not LAYER_BY_LAYER.match(row.method)
    spread = ["budget.allocation=global"] if everywhere else []
    for cost in ("macs", "params"):
        reduction = row.reduction(cost)
        if reduction is not None:
            return [f"budget={cost}", f"budget.keep={1 - reduction / 100:.4g}", *spread]
    raise DataError(f"{row.id}: {row.source} says neither how many MACs go nor how many parameters")
