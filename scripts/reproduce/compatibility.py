"""Prints which criterion works with which budget and schedule, and why the rest are refused.

Nothing is listed by hand: every shipped criterion is built, and `prunebench.config` is asked.
"""

from collections.abc import Iterable
from functools import cache
from itertools import product
from typing import Any

from prunebench.budgets import Budget
from prunebench.config.combinations import check_combination
from prunebench.criteria import Criterion
from prunebench.errors import ConfigError
from prunebench.options import option
from prunebench.options.files import conf_dir
from prunebench.schedules import Schedule

TARGETS = ("macs", "params", "macs_params")
#: column -> budgets with the same answer, each with the settings that are changed in it
BUDGETS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "`own`": [("own", {})],
    "`uniform`": [("uniform", {})],
    "`per_layer`": [("per_layer", {"keep": {"*": 0.5}})],
    "`macs` `params` `macs_params`": [(name, {}) for name in TARGETS],
    "`global_ranking` or `allocation=global`": [
        ("global_ranking", {}),
        *((name, {"allocation": "global"}) for name in TARGETS),
    ],
}
SCHEDULES = ("oneshot", "layerwise", "iterative", "soft", "during_training")


def table() -> str:
    """Returns the table of criteria by budgets and schedules, and why some do not go together."""
    names = sorted(path.stem for path in (conf_dir() / "criterion").glob("*.yaml"))
    columns = [*BUDGETS, *(f"`{name}`" for name in SCHEDULES)]
    rows = [["criterion", "looks at", *columns], ["---", "---", *([":-:"] * len(columns))]]
    reasons: dict[str, list[str]] = {}
    for name in names:
        marks = []
        for column in columns:
            found = None if fits(name, column) else refusals(name, column)[0]
            marks.append("x" if found is None else " ")
            note(reasons, found, name, name)
        rows.append([f"`{name}`", looks_at(name), *marks])
    for name, column, schedule in product(names, BUDGETS, SCHEDULES):
        if fits(name, column) and fits(name, f"`{schedule}`"):
            note(reasons, refusal(name, column, schedule), name, schedule)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    refused = [
        f"- {reason}: {' '.join(f'`{name}`' for name in those)}"
        for reason, those in reasons.items()
    ]
    return "\n".join(
        [
            *lines,
            "",
            "x: works with at least one of the others. What does not is refused at once:",
            "",
            *refused,
            "",
        ]
    )


def note(reasons: dict[str, list[str]], said: str | None, criterion: str, about: str) -> None:
    """Adds the refusal `said`, without its advice, to `reasons`; does nothing if it is None."""
    if said is not None:
        reason = said.partition(";")[0].replace(f"criterion={criterion}", "the criterion")
        those = reasons.setdefault(reason.replace(f"schedule={about}", "the schedule"), [])
        if about not in those:
            those.append(about)


def looks_at(name: str) -> str:
    """Returns what the criterion needs to see."""
    criterion = built_criterion(name)
    if criterion.watches:
        return "training"
    return "images" if criterion.images_needed else "weights"


def fits(name: str, column: str) -> bool:
    """Returns whether some combination of the criterion with this budget or schedule works."""
    return None in refusals(name, column)


def refusals(name: str, column: str) -> list[str | None]:
    """Returns the refusal of each combination in a column; None for one that works.

    A budget is combined with every schedule that the criterion works with.
    """
    if column in BUDGETS:
        those: Iterable[str] = (s for s in SCHEDULES if fits(name, f"`{s}`"))
        return [refusal(name, column, schedule) for schedule in those]
    return [refusal(name, budget, column.strip("`")) for budget in BUDGETS]


@cache
def refusal(name: str, column: str, schedule: str) -> str | None:
    """Returns the program's refusal of this combination; None if it works."""
    said: list[str | None] = []
    for number, (budget, _) in enumerate(BUDGETS[column]):
        try:
            check_combination(
                {"criterion": name, "budget": budget, "schedule": schedule},
                criterion=built_criterion(name),
                budget=built_budget(column, number),
                schedule=option("schedule", schedule, Schedule),
            )
            said.append(None)
        except ConfigError as error:
            said.append(str(error))
    assert len({answer is None for answer in said}) == 1, f"{column} do not answer alike"
    return said[0]


@cache
def built_criterion(name: str) -> Criterion:
    """Returns a shipped criterion."""
    made = option("criterion", name, Criterion)
    assert isinstance(made, Criterion)
    return made


@cache
def built_budget(column: str, number: int) -> Budget:
    """Returns one of the budgets that share a column."""
    name, changes = BUDGETS[column][number]
    made = option("budget", name, Budget, **changes)
    assert isinstance(made, Budget)
    return made


if __name__ == "__main__":
    print(table())
