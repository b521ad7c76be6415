"""Settings that somebody typed and that decide nothing beside the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prunebench.config import Run
from prunebench.recipes import Phase


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
            why = _never_trained(run, name) or _unread(getattr(run.recipe, name), field)
            if why:
                yield f"{word} decides nothing: {why}"


def _never_trained(run: Run, phase: str) -> str:
    """Says why a phase never comes; "" where it may."""
    if phase == "baseline" and run.baseline.checkpoint is not None and not run.schedule.redraws:
        return "the baseline comes from baseline.checkpoint"
    if phase == "pruning" and not run.schedule.trains:
        return "nothing is trained while channels go; it is for schedule=during_training and soft"
    if phase == "between" and not any(
        vars(run.schedule).get(name) for name in ("epochs", "epochs_at")
    ):
        return "nothing is trained between two cuts; see schedule.epochs of layerwise and iterative"
    return ""


def _unread(phase: Phase, field: str) -> str:
    """Says why a field of a phase decides nothing; "" where it does."""
    if field in ("milestones", "gamma") and phase.schedule in ("constant", "cosine"):
        return f"it is for schedule=step and multistep, not {phase.schedule}"
    if field == "l1_on" and not phase.gamma_l1:
        return "gamma_l1 is 0"
    if field in ("hinge_share", "hinge_over") and not phase.gamma_hinge:
        return "gamma_hinge is 0"
    return ""
