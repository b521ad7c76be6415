"""Finds out before the first epoch what would otherwise stop a run only after the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from prunebench.channels import in_mode
from prunebench.config import Run
from prunebench.datasets import Data
from prunebench.recipes.sparsity import Sparsity
from prunebench.run.in_training import try_observer
from prunebench.run.ready import ready
from prunebench.run.step import Method, cut, dense_counts, draw_sample, evidence
from prunebench.training.optim import build_optimizer

#: number of training images that criterion and repair are tried on
IMAGES = 4


def rehearse(
    run: Run, data: Data, network: nn.Module, example: Tensor, note: Callable[[str], None]
) -> None:
    """Prunes an untrained network, all groups at once, and discards the result.

    `network`, with initial weights, is left unchanged. Only training images of `data` are read.

    Raises:
        PrunebenchError: criterion, budget, schedule or repair cannot serve this network: a pattern
            matches no group, a budget is out of reach, a layer lacks the norm that is asked for. Or
            a phase of the recipe names parameters or norms that the network lacks.
    """
    with in_mode(network):
        run, network, cmap, _ = ready(run, network, example, note)
        names = [group.name for group in run.budget.select(cmap)]
        steps = run.schedule.steps(names)
        _try_phases(run, network, data)
        if run.schedule.trains:
            try_observer(run, cmap, data, network)
            return
        method = Method.of(run)
        images = min(IMAGES, method.images_needed)
        sample = draw_sample(run, data, example.device, images)
        step = replace(steps[0], groups=tuple(names), share=1.0)
        facts = evidence(network, cmap, step, sample)
        cut(facts, method, step, dense_counts(cmap), example=example)


def _try_phases(run: Run, network: nn.Module, data: Data) -> None:
    """Lets each phase that will train find its parameters and norms in `network`."""
    for name, phase in run.phases(pretrained=run.model.pretrained(data.classes)).items():
        # the schedule sets the epochs of `between`; a pattern may mean the head of an embedding
        if (phase.epochs or name == "between") and not run.model.embeds:
            optimizer = build_optimizer(network, phase)
            if phase.penalised:
                Sparsity(phase, data.shape).start(network, optimizer)
