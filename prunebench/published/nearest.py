"""The command that comes nearest to a published row: network, criterion, and how much goes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from prunebench.errors import DataError
from prunebench.options import conf_dir, option_names
from prunebench.published.record import Published

#: how the name of a method begins -> the choices that come nearest; the first that matches counts
METHODS = (
    (r"thinet.*tpami", ("method=thinet_tpami",)),
    (r"thinet", ("method=thinet",)),
    (r"foad", ("method=foad",)),
    (r"aofp", ("method=aofp",)),
    (r"probability", ("method=probability",)),
    (r"sfp.*pre-trained", ("method=sfp", "schedule.start=baseline")),
    (r"sfp", ("method=sfp",)),
    (
        r"fpgm-mix.*pre-trained",
        ("method=sfp", "criterion=fpgm", "criterion.norm_first=0.1", "schedule.start=baseline"),
    ),
    (r"fpgm-mix", ("method=sfp", "criterion=fpgm", "criterion.norm_first=0.1")),
    (r"fpgm.*pre-trained", ("method=sfp", "criterion=fpgm", "schedule.start=baseline")),
    (r"fpgm-only", ("method=sfp", "criterion=fpgm")),
    (r"fpgm", ("criterion=fpgm", "recipe=cifar")),
    (r"hrank", ("criterion=hrank", "recipe=cifar")),
    (r"(network )?slimming|bnscale", ("criterion=slimming", "recipe=sparse")),
    (r"l1|magnitudel1|weight magnitude|group-l1", ("criterion=l1", "recipe=cifar")),
    (r"magnitudel2", ("criterion=l2", "recipe=cifar")),
    (r"apoz", ("criterion=apoz", "recipe=cifar")),
    (r"taylor", ("criterion=taylor", "recipe=cifar")),
    (r"random", ("criterion=random", "recipe=cifar")),
)
#: in names of variants that none of our options is: regularisers on top, other people's schedules
ELSE = re.compile(r" \+ |from scratch|scratch-|agp")
#: rows whose source says which layers lose how much -> those widths
WIDTHS = {
    "l1-a-vgg16-c10": (
        "budget=per_layer",
        "budget.keep={*conv1_1: 0.5, *conv4_*: 0.5, *conv5_*: 0.5}",
        "budget.otherwise=1.0",
    ),
    "l1-a-r56-c10": (
        "budget=per_layer",
        "budget.keep={layer1.7.conv1: 1.0, layer2.0.conv1: 1.0, layer3.0.conv1: 1.0,"
        " layer3.8.conv1: 1.0}",
        "budget.otherwise=0.9",
        "budget.exclude=[conv1]",
    ),
    "l1-b-r56-c10": (
        "budget=per_layer",
        "budget.keep={layer1.7.conv1: 1.0, layer1.8.conv1: 1.0, layer2.0.conv1: 1.0,"
        " layer2.7.conv1: 1.0, layer3.0.conv1: 1.0, layer3.8.conv1: 1.0, layer1.*: 0.4,"
        " layer2.*: 0.7, layer3.*: 0.9}",
        "budget.exclude=[conv1]",
    ),
    "l1-a-r110-c10": (
        "budget=per_layer",
        "budget.keep={layer1.17.conv1: 1.0, layer1.*: 0.5}",
        "budget.otherwise=1.0",
        "budget.exclude=[conv1]",
    ),
    "l1-b-r110-c10": (
        "budget=per_layer",
        "budget.keep={layer1.17.conv1: 1.0, layer2.0.conv1: 1.0, layer3.0.conv1: 1.0,"
        " layer1.*: 0.5, layer2.*: 0.6, layer3.*: 0.7}",
        "budget.exclude=[conv1]",
    ),
    "thinet-conv-vgg16-in-1": ("experiment=thinet_conv",),
    "thinet-conv-vgg16-in-2": ("experiment=thinet_conv", "criterion=thinet_tpami"),
    "thinet-gap-vgg16-gap-in": ("experiment=thinet_gap",),
    "thinet-tiny-vgg16-gap-in": ("experiment=thinet_tiny",),
    "thinet-70-r50-in-1": ("experiment=thinet_resnet50", "budget.keep=0.7"),
    "thinet-70-r50-in-2": ("experiment=thinet_resnet50", "budget.keep=0.7", "criterion=thinet_tpami"),
    "thinet-50-r50-in": ("experiment=thinet_resnet50", "budget.keep=0.5", "criterion=thinet_tpami"),
    "thinet-30-r50-in": ("experiment=thinet_resnet50", "budget.keep=0.3", "criterion=thinet_tpami"),
}
