"""Typed settings without effect are reported; those of presets are not."""

from pathlib import Path

IDLE = {
    "recipe.pruning.epochs=3": "this schedule does not train while it prunes",
    "recipe.between.lr=0.1": "this schedule does not train between cuts",
    "recipe.baseline.milestones=[0.5]": "schedule=step and multistep, not cosine",
    "recipe.finetune.gamma=0.5": "schedule=step and multistep, not constant",
    "recipe.finetune.hinge_share=0.3": "gamma_hinge is 0",
    "recipe.baseline.l1_on=read": "gamma_l1 is 0",
}


def told(stderr: str) -> dict[str, str]:
    """What has no effect -> why."""
    lines = [line.removeprefix("prunebench: ") for line in stderr.splitlines()]
    parts = [line.partition(" has no effect: ") for line in lines]
    return {word: why for word, found, why in parts if found}


def test_it_is_told(prunebench) -> None:
    schedules = ["recipe.baseline.schedule=cosine", "recipe.finetune.schedule=constant"]
    done = prunebench("experiment=quickstart", *schedules, *IDLE, "run.dry_run=true")
    assert done.returncode == 0, done.stderr
    found = told(done.stderr)
    assert found.keys() == IDLE.keys()
    assert all(IDLE[word] in why for word, why in found.items())


def test_a_baseline_that_is_given_is_not_trained(prunebench, tmp_path: Path) -> None:
    (tmp_path / "CHECKPOINT").touch()
    word = "recipe.baseline.lr=0.1"
    done = prunebench("experiment=quickstart", "baseline.checkpoint=CHECKPOINT", word)
    assert told(done.stderr) == {word: "the baseline comes from baseline.checkpoint"}


def test_what_decides_something_is_not(prunebench) -> None:
    done = prunebench(
        "experiment=quickstart", "schedule=layerwise", "schedule.epochs=1", "recipe.between.lr=0.1",
        "recipe.finetune.schedule=step", "recipe.finetune.milestones=[0.5]",
        "recipe.finetune.gamma=0.2", "recipe.baseline.gamma_l1=0.001", "recipe.baseline.l1_on=read",
        "run.dry_run=true",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert told(done.stderr) == {}
