"""Mistakes that only the network reveals are reported before any training."""

import pytest
from hydra import compose, initialize_config_dir

from prunebench.checkpoints.slimmed import tracing_image
from prunebench.config import load
from prunebench.errors import PrunebenchError
from prunebench.options.files import conf_dir
from prunebench.run import baseline
from prunebench.run.rehearsal import rehearse

SMALL = ["dataset=digits", "dataset.size=16", "recipe=quick", "name=test"]
LENET = [*SMALL, "dataset.size=28", "model=lenet5"]
ONE = [*LENET, "criterion=l1", "budget=macs"]
RESNET = [*SMALL, "model=resnet20", "model.width=0.25", "model.depth=14"]


def rehearsed(*overrides):
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        run = load(compose("config", overrides=list(overrides)), {})
    data = run.dataset.load()
    network = baseline.build(run, data)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    rehearse(run, data, network, tracing_image(data.shape), print)
    assert network.training
    assert all(bool((before[name] == value).all()) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ([*RESNET, "criterion=l1", "budget=macs", "budget.keep=0.001"], "the least that can be"),
        ([*RESNET, "criterion=l1", "budget=macs", "budget.exclude=[typo.*]"], r"'typo\.\*' mat"),
        ([*RESNET, "criterion=l1", "budget=per_layer", "budget.keep={typo: 0.3}"], "'typo' mat"),
        (
            [*RESNET, "criterion=l1", "budget=uniform", "schedule=layerwise",
             "schedule.epochs_at={typo: 3}"],
            "'typo' matches",
        ),
        ([*LENET, "criterion=slimming", "budget=macs"], "needs a norm with a scale behind conv1"),
        ([*LENET, "criterion=bn_probability"], "needs a batch norm and a ReLU behind"),
        ([*RESNET, "method=aofp", "budget.keep=0.001"], "cannot go below"),
        ([*RESNET, "method=cac", "recipe=quick"], "lower n_min"),
        ([*LENET, "criterion=l2", "budget=uniform", "schedule=soft", "budget.exclude=[a]"], "'a'"),
        ([*ONE, "+recipe.finetune.decay_of={typo: 0.1}"], "no parameter is called 'typo'"),
        (
            [*ONE, "schedule=iterative", "+recipe.between.decay_of={typo: 0.1}"],
            "no parameter is called 'typo'",
        ),
        ([*ONE, "recipe.baseline.gamma_l1=1e-4"], "gamma_l1 acts on scales of batch norms, and"),
        (
            [*ONE, "recipe.finetune.gamma_hinge=0.1", "recipe.finetune.hinge_share=0.5"],
            "gamma_hinge acts on scales of batch norms",
        ),
        ([*ONE, "baseline.norm_scale=0.5"], "norm_scale=0.5 is for scales of batch norms, and"),
    ],
)  # fmt: skip
def test_it_is_told_at_once(overrides, says):
    with pytest.raises(PrunebenchError, match=says):
        rehearsed(*overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        [*RESNET, "method=foad", "recipe=quick"],
        [*RESNET, "method=thinet", "recipe=quick"],
        [*RESNET, "method=sfp", "recipe=quick"],
        [*RESNET, "method=aofp_quick", "recipe=quick"],
        [*ONE, "+recipe.pruning.decay_of={typo: 0.1}"],  # which trains nothing
        [*ONE, "baseline.checkpoint=FILE", "recipe.baseline.gamma_l1=1e-4"],
        [*RESNET, "method=slimming", "recipe.baseline.epochs=1"],
        [*LENET, "criterion=oracle", "budget=macs", "schedule=iterative"],
        [*SMALL, "model=mobilenet_v1", "model.width=0.25", "method=probability", "recipe=quick"],
    ],
)
def test_what_works_is_let_through_and_leaves_no_trace(overrides):
    rehearsed(*overrides)


def test_the_command_trains_nothing_first(prunebench, tmp_path):
    done = prunebench(*RESNET, "criterion=l1", "budget=macs", "budget.keep=0.001")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("prunebench: budget.keep=0.001 asks for at most")
    assert not list(tmp_path.iterdir())  # nor is anything left of it
