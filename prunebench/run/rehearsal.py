"""What only the network can tell, told before the first epoch rather than after the last."""

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

#: training images that criterion and repair are tried with
IMAGES = 4


def rehearse(
    run: Run, data: Data, network: nn.Module, example: Tensor, note: Callable[[str], None]
) -> None:
    """Prunes a network that is yet to be trained, all groups at once, and forgets what came of it.

    `network`, with initial weights, is left unchanged; of `data` training images alone are looked
    at.

    Raises:
        PrunebenchError: criterion, budget, schedule or repair cannot serve this network: a pattern
            matches no group, a budget is out of reach, a layer lacks the norm that is asked for.
            Or a phase of the recipe asks for parameters or norms that it has not.
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
    """Lets each phase that will train look for its parameters and norms."""
    for name, phase in run.phases(pretrained=run.model.pretrained(data.classes)).items():
        # `between` lasts as long as the schedule says; heads have parameters, too
        if (phase.epochs or name == "between") and not run.model.embeds:
            optimizer = build_optimizer(network, phase)
            if phase.penalised:
                Sparsity(phase, data.shape).start(network, optimizer)
