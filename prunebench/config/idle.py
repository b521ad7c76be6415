"""Settings that somebody typed and that decide nothing beside the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prunebench.config import Run
from prunebench.recipes import Phase

#: phase -> why nothing is trained in it
NEVER = {
    "baseline": "the baseline comes from baseline.checkpoint",
    "pruning": "this schedule does not train while it prunes; see schedule=during_training, "
    "from_scratch, soft",
    "between": "this schedule does not train between cuts; see schedule=layerwise and iterative",
}


def idle(run: Run, typed: Sequence[str]) -> Iterator[str]:
    """Yields a sentence for each setting of a phase that nothing reads.

    Args:
        run: what came of all settings.
        typed: as on the command line, ``recipe.pruning.epochs=3``. What a preset sets is for the
            choices that may be typed beside it, and is not told.
    """
    for word in typed:
        group, _, key = word.partition("=")[0].partition(".")
        name, _, field = key.partition(".")
        if group == "recipe" and field:
            never = NEVER[name] if name not in run.phases() else ""
            why = never or _unread(getattr(run.recipe, name), field)
            if why:
                yield f"{word} has no effect: {why}"


def _unread(phase: Phase, field: str) -> str:
    """Says why a field of a phase decides nothing; "" where it does."""
    if field in ("milestones", "gamma") and phase.schedule in ("constant", "cosine"):
        return f"it applies to schedule=step and multistep, not {phase.schedule}"
    if field == "l1_on" and not phase.gamma_l1:
        return "gamma_l1 is 0"
    if field in ("hinge_share", "hinge_over") and not phase.gamma_hinge:
        return "gamma_hinge is 0"
    return ""
