"""Experiments cut networks to the sizes in their papers, without data."""

import pytest
import torch
from hydra import compose, initialize_config_dir

from prunebench.channels import Plan, trace
from prunebench.config import load
from prunebench.contracts import GroupRank
from prunebench.options.files import conf_dir
from prunebench.run.step import dense_counts

#: experiment -> percent of the MACs and of the parameters that go (Li et al., ICLR 2017, table 1)
PRINTED = {
    "l1_vgg16_a": (34.2, 64.0),
    "l1_resnet56_a": (10.4, 9.4),
    "l1_resnet56_b": (27.6, 13.7),
    "l1_resnet110_a": (15.9, 2.3),
    "l1_resnet110_b": (38.6, 32.4),
}


@pytest.mark.parametrize("name", PRINTED)
def test_it_cuts_what_the_paper_prints(name):
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        run = load(compose("config", overrides=[f"experiment={name}"]), {})
    with torch.device("meta"):
        network = run.model.build((3, 32, 32), 10).eval()
    cmap = trace(network, torch.empty(1, 3, 32, 32, device="meta"))
    dense = dense_counts(cmap)
    ranks = {
        group.name: GroupRank(torch.arange(group.size, dtype=torch.float64))
        for group in run.budget.select(cmap)
    }
    plan = run.budget.choose(cmap, ranks, dense, share=1.0)
    macs = 100 * (1 - cmap.macs(plan) / dense.macs)
    params = 100 * (1 - cmap.params(plan) / dense.params)
    assert macs == pytest.approx(PRINTED[name][0], abs=0.07)
    # VGG-16's own are printed as rounded millions: 5.4 of 15
    assert params == pytest.approx(PRINTED[name][1], abs=0.3 if "vgg" in name else 0.07)
    assert (run.recipe.finetune.epochs, run.recipe.finetune.lr) == (40, 1e-3)
    assert run.dataset.val_size == 0


def test_foad_cuts_mobilefacenet_as_its_experiment_says(tmp_path):
    typed = ["experiment=foad_mobilefacenet", f"dataset.path={tmp_path}"]
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        run = load(compose("config", overrides=typed), {})
    with torch.device("meta"):
        network = run.model.build((3, 112, 112), 10_572).eval()
    cmap = trace(network, torch.empty(1, 3, 112, 112, device="meta"))
    assert (run.criterion.rule, run.criterion.t, run.criterion.s) == ("strict", 2, 0)
    groups = run.budget.select(cmap)
    plan = Plan({group.name: tuple(range(-(-group.size // 3))) for group in groups})
    cuts = [100 * (1 - count(plan) / count(Plan({}))) for count in (cmap.params, cmap.macs)]
    text = (conf_dir() / "experiment" / "foad_mobilefacenet.yaml").read_text()
    assert "gives -{:.1f} % params and -{:.1f} % MACs".format(*cuts) in text


DCPH = {  # experiment -> the same network before its widths were doubled
    "dcph_lenet_300_100": "model.widths=[300,100]",
    "dcph_resnet20": "model.width=1",
    "dcph_vgg16": "model.width=1",
}


@pytest.mark.parametrize("name", DCPH)
def test_dcph_returns_to_the_counts_before_doubling(name):
    counts, runs = [], []
    for plain in ([], [DCPH[name]]):
        with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
            run = load(compose("config", overrides=[f"experiment={name}", *plain]), {})
        shape = (1, 28, 28) if "lenet" in name else (3, 32, 32)
        with torch.device("meta"):
            network = run.model.build(shape, 10).eval()
        counts.append(dense_counts(trace(network, torch.empty(1, *shape, device="meta"))))
        runs.append(run)
    twice, once = counts
    assert twice.sizes == {group: 2 * size for group, size in once.sizes.items()}
    budget = runs[0].budget
    assert (budget.macs, budget.params, budget.scope) == (once.macs, once.params, "all")
    assert runs[0].criterion.per_cost == (name == "dcph_resnet20")  # which has streams


HRANK = {  # int(rate C) of C channels go
    "hrank_vgg16": [4, 32, 64, 64, 128, 128, 128, 52, 52, 52, 52, 103, 103],
    "hrank_resnet56": [7] * 9 + [13] * 9 + [64] + [26] * 3 + [39] + [58] * 4,
}


@pytest.mark.parametrize("name", HRANK)
def test_hrank_leaves_the_widths_of_its_authors_rates(name):
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        run = load(compose("config", overrides=[f"experiment={name}"]), {})
    with torch.device("meta"):
        network = run.model.build((3, 32, 32), 10).eval()
    cmap = trace(network, torch.empty(1, 3, 32, 32, device="meta"))
    groups = {group.name: group.size for group in run.budget.select(cmap) if group.name != "conv1"}
    ranks = {
        name: GroupRank(torch.arange(size, dtype=torch.float64)) for name, size in groups.items()
    }
    plan = run.budget.choose(cmap, ranks, dense_counts(cmap), share=1.0)
    assert [len(plan.kept[name]) for name in groups] == HRANK[name]
    epochs = [step.epochs for step in run.schedule.steps(list(groups))]
    assert epochs == [30] * (len(groups) - 1) + [0]
    assert run.recipe.finetune.epochs == 30
