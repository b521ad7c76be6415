"""Finds typed settings that have no effect beside the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prunebench.config import Run
from prunebench.recipes import Phase

#: phase -> why a run does not train it
NEVER = {
    "baseline": "the baseline comes from baseline.checkpoint",
    "pruning": "this schedule does not train while it prunes; see schedule=during_training, "
    "from_scratch, soft",
    "between": "this schedule does not train between cuts; see schedule=layerwise and iterative",
}


def idle(run: Run, typed: Sequence[str]) -> Iterator[str]:
    """Yields a sentence for each typed setting of a phase that has no effect.

    Args:
        run: the run that all settings together describe.
        typed: as on the command line, ``recipe.pruning.epochs=3``. Settings of presets are not
            reported: they are meant for options that may be typed beside them.
    """
    for word in typed:
        group, _, key = word.partition("=")[0].partition(".")
        name, _, field = key.partition(".")
        if group == "recipe" and field:
            never = NEVER[name] if name not in run.phases() else ""
            why = never or _no_effect(getattr(run.recipe, name), field)
            if why:
                yield f"{word} has no effect: {why}"


def _no_effect(phase: Phase, field: str) -> str:
    """Returns why a field of a phase has no effect; "" if it has one."""
    if field in ("milestones", "gamma") and phase.schedule in ("constant", "cosine"):
        return f"it applies to schedule=step and multistep, not {phase.schedule}"
    if field == "l1_on" and not phase.gamma_l1:
        return "gamma_l1 is 0"
    if field in ("hinge_share", "hinge_over") and not phase.gamma_hinge:
        return "gamma_hinge is 0"
    return ""
