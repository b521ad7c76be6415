"""Checks which options go together, before anything is loaded."""

from __future__ import annotations

from prunebench.budgets import Budget
from prunebench.criteria import Criterion
from prunebench.datasets import DatasetSpec
from prunebench.errors import require
from prunebench.models import ModelSpec
from prunebench.recipes import Recipe
from prunebench.repairs import Repair
from prunebench.schedules import Schedule

#: groups whose options `check_combination` checks
PRUNING = ("criterion", "budget", "schedule")
#: groups whose options `check_faces` checks
FACES = ("model", "dataset", "criterion", "recipe")


def check_combination(
    choices: dict[str, str], *, criterion: Criterion, budget: Budget, schedule: Schedule
) -> None:
    """Raises ConfigError if criterion, budget and schedule do not go together.

    `choices` has the options' names, for the message.
    """
    names = {group: f"{group}={choices.get(group, '?')}" for group in PRUNING}
    schedule.check_criterion(names, criterion)
    if criterion.watches:
        _check_end(names, criterion, budget)
    if budget.needs_decision:
        require(
            criterion.decides,
            f"{names['budget']} takes the criterion's own decision, and {names['criterion']} makes "
            "none; choose budget=uniform, per_layer, macs or params",
        )
        require(
            not schedule.repeats or criterion.decides_in_rounds,
            f"{names['budget']} has no target that rounds could approach; choose "
            "schedule=oneshot or layerwise, or a budget with a target",
        )
    if budget.needs_degrees:
        require(
            criterion.decides_by_degrees,
            f"{names['budget']} with allocation=decision searches the settings of a criterion that "
            f"decides by them, and {names['criterion']} is none; choose criterion=foad, or "
            "allocation=uniform",
        )
        require(
            not schedule.one_group_at_a_time,
            f"allocation=decision decides on all layers at once, and {names['schedule']} prunes "
            "one at a time; choose schedule=oneshot or iterative",
        )
    if budget.needs_comparable:
        require(
            criterion.comparable,
            f"{names['budget']} compares channels of different layers, and the scores of "
            f"{names['criterion']} are not comparable; choose budget=uniform or per_layer, or "
            "allocation=uniform",
        )
        require(
            not schedule.one_group_at_a_time,
            f"{names['budget']} ranks all layers at once, and {names['schedule']} prunes one at a "
            "time; choose schedule=oneshot or iterative",
        )


def _check_end(names: dict[str, str], criterion: Criterion, budget: Budget) -> None:
    """Raises ConfigError if `budget` cannot end the training that `criterion` watches."""
    require(
        budget.limits_training or (budget.needs_decision and criterion.decides),
        f"{names['budget']} does not say when {names['criterion']} has pruned enough; choose "
        "budget=macs, params, macs_params, uniform or global_ranking",
    )
    require(
        budget.divisor == 1,
        f"budget.divisor={budget.divisor} rounds counts, which pruning during training "
        "cannot; choose budget.divisor=1",
    )


def check_repair(choices: dict[str, str], *, repair: Repair, schedule: Schedule) -> None:
    """Raises ConfigError if the schedule discards the weights that `repair` adjusts."""
    require(
        repair.identity or not schedule.redraws,
        f"repair={choices.get('repair', '?')} repairs weights, but schedule="
        f"{choices.get('schedule', '?')} discards them; choose repair=none",
    )


def check_faces(
    choices: dict[str, str],
    *,
    model: ModelSpec,
    dataset: DatasetSpec,
    criterion: Criterion,
    recipe: Recipe,
) -> None:
    """Raises ConfigError if a network that ends in an embedding is combined with use of logits."""
    names = {group: f"{group}={choices.get(group, '?')}" for group in FACES}
    require(
        model.embeds or not dataset.verifies,
        f"{names['dataset']} asks whether two faces are of one person, and {names['model']} "
        "classifies; choose model=mobilefacenet",
    )
    require(
        dataset.verifies or not model.embeds,
        f"{names['model']} ends in an embedding, and {names['dataset']} has no pairs to test it "
        "with; choose dataset=casia_webface",
    )
    require(
        not (model.embeds and criterion.reads_logits),
        f"{names['criterion']} needs the network's output for a label, and {names['model']} ends "
        "in an embedding; choose another criterion",
    )
    for name, phase in vars(recipe).items():
        require(
            model.embeds or phase.head is None,
            f"{names['recipe']}: recipe.{name}.head={phase.head}, and {names['model']} has a last "
            "layer of its own; choose a recipe without heads",
        )


def check_processes(processes: int, recipe: Recipe) -> None:
    """Raises ConfigError if a process would get fewer than two images of a batch."""
    for name, phase in vars(recipe).items():
        require(
            processes == 1 or phase.batch_size >= 2 * processes,
            f"run.processes={processes} share out batches of recipe.{name}.batch_size="
            f"{phase.batch_size} images, and each needs at least two; use fewer processes",
        )
