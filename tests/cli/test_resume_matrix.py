"""Every family of methods, killed at twenty random moments, ends with the same bits."""

import random
import shutil
import signal

import pytest
import torch

from tests.cli.test_faces import TINY as FACES
from tests.cli.test_processes import WHILE_TRAINING
from tests.cli.test_resume import SMALL, follow, outcome
from tests.cli.test_streamed import STREAMED
from tests.faces import write_bin, write_pack
from tests.photographs import write_tree

pytestmark = pytest.mark.slow

KILLS = 20
#: a perceptron that prunes while it is trained, in seconds
WATCHED = [
    "model=mlp_500_300", "model.widths=[24,16]", "dataset=digits", "dataset.size=8",
    "dataset.train_size=256", "recipe=quick", "recipe.baseline.epochs=2", "recipe.pruning.epochs=3",
    "recipe.finetune.epochs=1", "budget=macs", "budget.keep=0.6", "run.checkpoint_seconds=0",
    "run.latency_batch=1",
]  # fmt: skip
FAMILIES = {
    "one-shot": [*SMALL[:9], "schedule=oneshot", *SMALL[11:]],
    "layer-wise": [
        *SMALL[:6], "criterion=thinet", "criterion.num_samples=64", *SMALL[7:9],
        "schedule=layerwise", *SMALL[11:],
    ],
    "iterative": SMALL,
    "soft": [
        *SMALL[:6], "method=sfp", "recipe=quick", "recipe.pruning.epochs=2", *SMALL[12:],
    ],
    "aofp": [
        *WATCHED, "criterion=aofp", "schedule=during_training", "criterion.draws_per_half=4",
        "criterion.warmup_steps=2", "criterion.theta=0.5",
    ],
    "cac": [
        *WATCHED, "criterion=cac", "schedule=from_scratch", "criterion.n_min=5",
        "criterion.prune_every=4", "criterion.max_step=0.3", "recipe.pruning.epochs=6",
    ],
    "faces": [*FACES, "run.checkpoint_seconds=0"],
    "streamed": [*STREAMED, "dataset.workers=1"],
    "two-processes": [*WHILE_TRAINING, "run.checkpoint_seconds=0"],
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Family -> the setting that names its images, where they lie in files."""
    tree = write_tree(tmp_path_factory.mktemp("photographs"), {"train": 20, "val": 4, "test": 4})
    faces = write_pack(tmp_path_factory.mktemp("faces") / "pack", people=3, each=4)
    write_bin(faces / "lfw.bin", [True, False] * 10)
    return {"streamed": [f"dataset.path={tree}"], "faces": [f"dataset.path={faces}"]}


def equal(one, other):
    """Whether weights, record and log of two runs are the same."""
    weights, *rest = one
    others, *other_rest = other
    same = weights.keys() == others.keys()
    return (
        same and all(torch.equal(w, others[n]) for n, w in weights.items()) and rest == other_rest
    )


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("family", FAMILIES)
def test_twenty_kills_change_nothing(python, data, tmp_path, family):
    words = ["-m", "prunebench", *FAMILIES[family], *data.get(family, []), "run.resume=true"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    with python.start(*words, cwd=whole) as process:
        changes = follow(process, whole, None)
    undisturbed = outcome(whole)
    moments = random.Random(family)
    killed = ended = 0
    while killed < KILLS or not ended:
        stop_after = moments.randint(2, 3 + changes // 5) if killed < KILLS else None
        with python.start(*words, cwd=broken) as process:
            follow(process, broken, stop_after)
            killed += process.returncode == -signal.SIGKILL
            if process.returncode == 0:
                ended += 1
                assert equal(undisturbed, outcome(broken))
                shutil.rmtree(broken / "outputs")
                continue
        ended = 0  # it ends at last with all its kills behind it
