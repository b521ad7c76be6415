"""ThiNet's experiments cut networks to the sizes in its papers, without data."""

from functools import cache

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from prunebench.channels import Plan, trace
from prunebench.config import load
from prunebench.contracts import Dense, GroupRank
from prunebench.models.imagenet import Torchvision
from prunebench.models.resnet50_caffe import Resnet50Caffe
from prunebench.models.vgg import Vgg16Gap
from prunebench.options.files import conf_dir
from prunebench.training.optim import learning_rate, parameter_groups

SHAPE, CLASSES = (3, 224, 224), 1000


def without_data(spec):
    with torch.device("meta"):
        return spec.build(SHAPE, CLASSES).eval()


@pytest.fixture(scope="module")
def networks():
    """Each network once, with its channel map."""
    specs = {
        "vgg16": Torchvision(name="vgg16", weights=None),
        "gap": Vgg16Gap(width=1.0),
        "resnet50": Torchvision(name="resnet50", weights=None),
        "caffe": Resnet50Caffe(),
    }
    built = {name: without_data(spec) for name, spec in specs.items()}
    example = torch.empty(1, *SHAPE, device="meta")
    return {name: (network, trace(network, example)) for name, network in built.items()}


@cache
def experiment(name, *overrides):
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        return load(compose("config", overrides=[f"experiment={name}", *overrides]), {})


def plan_of(run, cmap):
    """The plan of a whole layer-by-layer run; which channels go does not change the counts."""
    sizes = {group.name: group.size for group in cmap.groups}
    dense = Dense(sizes=sizes, macs=cmap.macs(Plan({})), params=cmap.params(Plan({})))
    kept = {}
    for step in run.schedule.steps([group.name for group in run.budget.select(cmap)]):
        scores = {name: torch.arange(sizes[name], dtype=torch.float64) for name in step.groups}
        ranks = {name: GroupRank(found) for name, found in scores.items()}
        kept.update(run.budget.choose(cmap, ranks, dense, share=step.share).kept)
    return Plan(kept)


def weights_only(network, cmap, plan):
    """Parameters as the tables count them: without the biases of conv and linear layers."""
    biases = sum(
        len(plan.kept.get(name, range(module.bias.numel())))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None
    )
    return cmap.params(plan) - biases


def billions(macs):
    """FLOPs as the paper counts them, 2 per multiply-add, in its two decimals."""
    return round(2 * macs / 1e9, 2)


@pytest.mark.parametrize(
    ("network", "name", "overrides", "millions", "flops"),
    [
        ("vgg16", None, [], 138.34, 30.94),
        ("vgg16", "thinet_conv", [], 131.44, 9.58),
        ("vgg16", "thinet_conv", ["budget.keep=0.4"], 130.50, 6.91),
        ("gap", "thinet_gap", [], 8.32, 9.34),
        ("gap", "thinet_tiny", [], 1.32, 2.01),
    ],
)
def test_vgg16(networks, network, name, overrides, millions, flops):
    model, cmap = networks[network]
    plan = plan_of(experiment(name, *overrides), cmap) if name else Plan({})
    assert round(weights_only(model, cmap, plan) / 1e6, 2) == millions
    assert billions(cmap.macs(plan)) == flops


@pytest.mark.parametrize(
    ("keep", "millions", "caffe_flops", "torchvision_macs"),
    [(None, 25.56, 7.72, 4.089), (0.7, 16.94, 4.88, 2.601), (0.5, 12.38, 3.41, 1.822),
     (0.3, 8.66, 2.20, 1.166)],
)  # fmt: skip
def test_resnet50(networks, keep, millions, caffe_flops, torchvision_macs):
    for network in ("caffe", "resnet50"):
        model, cmap = networks[network]
        run = experiment("thinet_resnet50", f"budget.keep={keep or 1.0}")
        plan = plan_of(run, cmap)
        assert round(weights_only(model, cmap, plan) / 1e6, 2) == millions
        if network == "caffe":
            # 2.19499 is printed as 2.20
            assert 2 * cmap.macs(plan) / 1e9 == pytest.approx(caffe_flops, abs=0.0051)
        else:
            assert round(cmap.macs(plan) / 1e9, 3) == torchvision_macs


def test_the_widths_are_the_papers(networks):
    def widths(name, network):
        plan = plan_of(experiment(name), networks[network][1])
        return [len(kept) for kept in plan.kept.values()]

    first_ten = [32, 32, 64, 64, 128, 128, 128, 256, 256, 256]
    assert widths("thinet_conv", "vgg16") == first_ten
    assert widths("thinet_gap", "gap") == first_ten
    tiny = [16, 16, 32, 32, 64, 64, 64, 128, 128, 128, 128, 128, 256]
    assert widths("thinet_tiny", "gap") == tiny


@pytest.mark.parametrize(
    ("name", "network", "epochs"),
    [("thinet_conv", "vgg16", 24), ("thinet_gap", "gap", 24), ("thinet_resnet50", "resnet50", 24)],
)
def test_fine_tuning_is_as_long_as_the_papers(networks, name, network, epochs):
    run = experiment(name)
    groups = [group.name for group in run.budget.select(networks[network][1])]
    between = sum(step.epochs for step in run.schedule.steps(groups))
    assert between + run.recipe.finetune.epochs == epochs


@pytest.mark.parametrize(
    ("name", "fit"),
    [("thinet_conv", "shorter"), ("thinet_gap", "squeeze"), ("thinet_resnet50", "squeeze")],
)
def test_images_are_shown_as_in_the_authors_training_scripts(name, fit):
    # their VGG-16 reads images that keep their shape; Caffe, which scales them, is bilinear
    data = experiment(name).dataset
    assert (data.fit, data.augment, data.interpolation) == (fit, "square", "bilinear")


def test_all_of_resnet50_decays_but_its_last_bias():
    recipe = experiment("thinet_resnet50").recipe
    network = without_data(Torchvision(name="resnet50", weights=None))
    for phase, lr in ((recipe.between, 1e-4), (recipe.finetune, 1e-3)):
        assert (phase.batch_size, phase.lr, phase.momentum, phase.nesterov) == (128, lr, 0.9, False)
        decays = {
            id(parameter): group["weight_decay"]
            for group in parameter_groups(network, phase)
            for parameter in group["params"]
        }
        without = [name for name, value in network.named_parameters() if not decays[id(value)]]
        assert without == ["fc.bias"]
        assert {*decays.values()} == {0.0, 5e-4}
    rates = [learning_rate(recipe.finetune, epoch, 1) for epoch in range(9)]
    assert rates == pytest.approx([1e-3] * 3 + [1e-4] * 3 + [1e-5] * 3)


def test_the_cifar_versions_fit_their_networks():
    for name in ("thinet_vgg16_cifar10", "thinet_tiny_cifar10", "thinet_resnet56_cifar10"):
        run = experiment(name)
        with torch.device("meta"):
            network = run.model.build((3, 32, 32), 10).eval()
        cmap = trace(network, torch.empty(1, 3, 32, 32, device="meta"))
        plan = plan_of(run, cmap)
        assert cmap.macs(plan) < 0.6 * cmap.macs(Plan({}))


def test_samples_outnumber_the_channels_of_a_small_data_set_twenty_times():
    run = experiment("thinet_vgg16_cifar10")
    for part in (run.criterion, run.repair):
        assert part.num_samples * part.per_image >= 20 * 512
        assert part.rows_per_channel >= 20
